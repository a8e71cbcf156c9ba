"""Opening and examining files beneath a root without ever following a symlink.

All opens go through ``openat2(2)`` with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
RESOLVE_NO_MAGICLINKS, or, where the kernel or a sandbox refuses it, component by component with
O_NOFOLLOW. So a component that is swapped for a symlink at any moment ends in ``OSError`` (ELOOP,
ENOTDIR), never outside the root. Everything here is blocking I/O: call it in a worker, except a
single open or stat of what is known to be cached.

Raises ``OSError`` as the system gives it; the callers turn it into errors of ours.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from core import markattr
from core.types import Kind, RelPath

_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS

_SYS_OPENAT2 = 437
"""Number of openat2(2): the same on every architecture Linux has had since 5.6."""

_HOW = struct.Struct("QQQ")

_REFUSED = frozenset({errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})
"""What openat2 gives where it is missing or a seccomp filter blocks it."""

DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: a fifo that took the place of a file must not hang the worker that opens it."""

MODE_BITS = 0o777
"""Bits of a mode that travel. Set-user-id and the like stay local: a peer must not hand them out."""

_PATH_DIR_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]


def open_root(path: str | bytes | os.PathLike[str]) -> int:
    """Open a directory, by a path that may have symlinks, as a root for the functions below."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _openat2(root_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    how = _HOW.pack(flags, mode, resolve)
    while True:
        fd: int = _syscall(_SYS_OPENAT2, root_fd, path or b".", how, len(how))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        # RACE: EAGAIN means that a rename or mount elsewhere made the kernel unsure; it is retried.
        if code not in (errno.EINTR, errno.EAGAIN):
            raise OSError(code, os.strerror(code), path)


def open_by_component(root_fd: int, path: bytes, flags: int, mode: int, *, one_device: bool) -> int:
    """Open as `open_beneath`, one O_NOFOLLOW step at a time (kernels before 5.6, sandboxes)."""
    *parents, last = path.split(b"/") if path else [b"."]
    if b".." in parents or last == b".." or path.startswith(b"/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    device = os.fstat(root_fd).st_dev
    at = root_fd
    try:
        for name in parents:
            below = os.open(name, _PATH_DIR_FLAGS, dir_fd=at)
            if at != root_fd:
                os.close(at)
            at = below
        fd = os.open(last, flags | os.O_NOFOLLOW, mode, dir_fd=at)
    finally:
        if at != root_fd:
            os.close(at)
    if one_device and os.fstat(fd).st_dev != device:
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    return fd


def _openat2_works() -> bool:
    try:
        fd = os.open("/", _PATH_DIR_FLAGS)
    except OSError:
        return False
    try:
        os.close(_openat2(fd, b".", _PATH_DIR_FLAGS, 0, _RESOLVE))
    except OSError as error:
        return error.errno not in _REFUSED
    finally:
        os.close(fd)
    return True


_HAVE_OPENAT2 = _openat2_works()


def open_beneath(
    root_fd: int, path: bytes, flags: int = READ_FLAGS, mode: int = 0, *, one_device: bool = False
) -> int:
    """Open ``path`` beneath ``root_fd`` (``b""``: the root itself); the caller closes the descriptor.

    ``one_device``: a mount point on the way is refused with EXDEV, so that another filesystem, or
    our own mount, is never entered. Costs 3 µs, about 1 µs more than a plain open.

    Raises:
        OSError: ELOOP for a symlink on the way or (with O_NOFOLLOW) at the end, EXDEV for a path
            that leaves the root, else as open(2).
    """
    if not _HAVE_OPENAT2:
        return open_by_component(root_fd, path, flags, mode, one_device=one_device)
    resolve = _RESOLVE | _RESOLVE_NO_XDEV if one_device else _RESOLVE
    return _openat2(root_fd, path, flags, mode, resolve)


@contextmanager
def opened(root_fd: int, path: bytes, flags: int = READ_FLAGS, *, one_device: bool = False) -> Iterator[int]:
    """Give a descriptor from `open_beneath` for the time of the context."""
    fd = open_beneath(root_fd, path, flags, one_device=one_device)
    try:
        yield fd
    finally:
        os.close(fd)


class Seen(NamedTuple):
    """What a path was on disk; fields as in `core.ports.Found`. ``kind`` NONE: a socket, fifo or device.

    ``readable`` is False only where an open was tried and refused. ``mark`` as in `core.markattr.read`.
    """

    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    ino: int
    target: bytes = b""
    readable: bool = True
    mark: bytes | None = None


def seen_of(found: os.stat_result, dir_fd: int, name: bytes) -> Seen:
    """Make the `Seen` of a name in an open directory from its ``lstat``.

    Raises:
        OSError: the name was a symlink and is not one any more.
    """
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return Seen(Kind.FILE, found.st_size, found.st_mtime_ns, mode & MODE_BITS, found.st_ino)
    if stat.S_ISDIR(mode):
        return Seen(Kind.DIR, 0, found.st_mtime_ns, mode & MODE_BITS, found.st_ino)
    if stat.S_ISLNK(mode):
        target = os.readlink(name, dir_fd=dir_fd)
        return Seen(Kind.SYMLINK, 0, found.st_mtime_ns, mode & MODE_BITS, found.st_ino, target)
    return Seen(Kind.NONE, 0, found.st_mtime_ns, mode & MODE_BITS, found.st_ino)


_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What a path gives that is not there: also where a parent is now a file or a symlink."""


def is_gone(error: OSError) -> bool:
    """Say whether the error means that the path does not exist (any more) in the tree."""
    return error.errno in _GONE


def examine(root_fd: int, paths: list[RelPath], *, try_open: bool = True) -> list[Seen | OSError | None]:
    """Look at paths, parallel to the result: None is gone, an ``OSError`` could not be looked at.

    Paths of one directory that follow each other share one open of it. With ``try_open`` regular
    files and directories are opened once to learn whether they are readable. In a worker.
    """
    out: list[Seen | OSError | None] = []
    directory: bytes | None = None
    dir_fd: int | OSError = -1
    try:
        for path in paths:
            parent, _, name = path.rpartition(b"/")
            if parent != directory:
                if isinstance(dir_fd, int) and dir_fd >= 0:
                    os.close(dir_fd)
                directory, dir_fd = parent, _open_dir(root_fd, parent)
            out.append(dir_fd if isinstance(dir_fd, OSError) else _examine_one(dir_fd, name, try_open))
    finally:
        if isinstance(dir_fd, int) and dir_fd >= 0:
            os.close(dir_fd)
    return [None if isinstance(seen, OSError) and is_gone(seen) else seen for seen in out]


def _open_dir(root_fd: int, directory: bytes) -> int | OSError:
    try:
        return open_beneath(root_fd, directory, _PATH_DIR_FLAGS, one_device=True)
    except OSError as error:
        return error


def _examine_one(dir_fd: int, name: bytes, try_open: bool) -> Seen | OSError:
    try:
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        seen = seen_of(found, dir_fd, name)
    except OSError as error:
        # RACE: a link replaced between stat and readlink gives EINVAL; the change has its own event.
        return error
    if not try_open or seen.kind not in (Kind.FILE, Kind.DIR):
        return seen
    return _opened(seen, dir_fd, name)


def _opened(seen: Seen, dir_fd: int, name: bytes) -> Seen:
    """Return what an open tells besides: whether it is readable, and the mark."""
    flags = READ_FLAGS if seen.kind is Kind.FILE else DIR_FLAGS
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except OSError as error:
        return seen._replace(readable=error.errno not in (errno.EACCES, errno.EPERM, errno.EIO))
    try:
        return seen._replace(mark=markattr.read(fd)) if os.fstat(fd).st_ino == seen.ino else seen
    finally:
        os.close(fd)
