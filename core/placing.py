"""Putting versions into the datadir and taking replaced files out of it, without ever losing one.

Blocking I/O: run it in a worker. Everything happens beneath an open datadir without following a
symlink, by ``renameat2`` (man 2 rename): a new file never overwrites anything, a replacement is an
exchange, and what came out is put back unless it is the very file that was to be replaced.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from core import markattr
from core.disk import DIR_FLAGS, open_beneath
from core.filelease import Writers
from core.paths import split
from core.types import Kind, RelPath

_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_MODE_MASK = 0o777
"""Set-id and sticky bits of a peer's file are not taken over."""
_BLOB_MODE = 0o600

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = _libc.renameat2
_renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_renameat2.restype = ctypes.c_int


@dataclass(frozen=True, slots=True)
class Identity:
    """How an indexed file is recognised on disk."""

    size: int
    mtime_ns: int
    ino: int
    is_dir: bool = False

    def matches(self, found: os.stat_result) -> bool:
        """Say whether ``found`` is that file, unchanged; any directory is as good as another."""
        if self.is_dir:
            return stat.S_ISDIR(found.st_mode)
        if found.st_ino != self.ino or found.st_mtime_ns != self.mtime_ns:
            return False
        return found.st_size == self.size or not stat.S_ISREG(found.st_mode)


@dataclass(frozen=True, slots=True)
class Placement:
    """One version to put at ``path``.

    ``source`` is the verified content of a file (renamed away); ``replaces`` the indexed file that may
    be there now; ``displaced`` where that goes.
    """

    path: RelPath
    kind: Kind
    mtime_ns: int
    mode: int
    source: Path | None = None
    target: bytes = b""
    replaces: Identity | None = None
    displaced: Path | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """Outcome: ``ino`` of what is at the path now, or ``error``. ``displaced``: the old file was moved."""

    ino: int = 0
    displaced: bool = False
    changed: bool = False
    """Something else than expected was there; nothing was done."""
    written: bool = False
    """A program has the file to be replaced open for writing; nothing was done."""
    occupied: bool = False
    """It is the directory to be removed, and something is in it; nothing was done."""
    error: OSError | None = None


def rename_exchange(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Exchange two names atomically.

    Raises:
        OSError: as renameat2(2).
    """
    _rename(old_dir, old, new_dir, new, _RENAME_EXCHANGE)


def rename_noreplace(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Rename unless the new name is taken.

    Raises:
        OSError: EEXIST if it is taken, else as renameat2(2).
    """
    _rename(old_dir, old, new_dir, new, _RENAME_NOREPLACE)


def _rename(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    if _renameat2(old_dir, old, new_dir, new, flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), new)


class Directories:
    """Open descriptors of the directories of a batch; missing ones are made."""

    def __init__(self, root_fd: int, stack: ExitStack) -> None:
        """Open beneath ``root_fd``; ``stack`` closes what was opened."""
        self._root_fd = root_fd
        self._stack = stack
        self._fds: dict[bytes, int] = {b"": root_fd}
        self.made: set[bytes] = set()

    def open(self, path: bytes, *, make: bool = True) -> int:
        """Return the descriptor of a directory.

        Raises:
            OSError: it cannot be opened, or is not there and not to be made.
        """
        known = self._fds.get(path)
        if known is not None:
            return known
        try:
            fd = open_beneath(self._root_fd, path, DIR_FLAGS)
        except FileNotFoundError:
            if not make:
                raise
            parent, name = split(path)
            at = self.open(parent)
            # RACE: someone else may make it at the same moment; that one is as good.
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=at)
                self.made.add(path)
            fd = open_beneath(self._root_fd, path, DIR_FLAGS)
        self._stack.callback(os.close, fd)
        self._fds[path] = fd
        return fd


def place(datadir: Path, placements: Sequence[Placement], *, ino: int | None = None) -> list[Placed]:
    """Carry out placements; parallel to the result. One that fails does not stop the others.

    ``ino`` is the inode number of the datadir that was indexed, None when it is not known.

    Raises:
        OSError: the datadir itself cannot be opened, or another directory is in its place.
    """
    with ExitStack() as stack:
        root_fd = os.open(datadir, DIR_FLAGS)
        stack.callback(os.close, root_fd)
        # RACE: it may have been replaced since the index looked. What is put into another directory is missed
        # when the right one is back, and would be taken for deleted by the user.
        if ino is not None and os.fstat(root_fd).st_ino != ino:
            raise OSError(errno.ESTALE, "another directory is in its place", os.fspath(datadir))
        directories = Directories(root_fd, stack)
        return [_guarded(directories, placement) for placement in placements]


def _guarded(directories: Directories, placement: Placement) -> Placed:
    parent, name = split(placement.path)
    try:
        at = directories.open(parent, make=placement.kind is not Kind.NONE)
        match placement.kind:
            case Kind.FILE:
                return _place_file(at, name, placement)
            case Kind.DIR:
                return _place_dir(at, name, placement, made=placement.path in directories.made)
            case Kind.SYMLINK:
                return _place_link(at, name, placement)
            case _:
                return _take_out(at, name, placement)
    except FileNotFoundError as error:
        # What is to be deleted went with its directory.
        return Placed() if placement.kind is Kind.NONE else Placed(error=error)
    except OSError as error:
        return Placed(error=error)


def _place_file(at: int, name: bytes, placement: Placement) -> Placed:
    if placement.source is None:
        raise OSError(errno.EINVAL, "a file needs its content", name)
    source = os.fsencode(placement.source)
    os.chmod(source, placement.mode & _MODE_MASK)
    markattr.clear(source)
    os.utime(source, ns=(placement.mtime_ns, placement.mtime_ns))
    placed = Placed()
    try:
        placed = _swap_in(at, name, placement, source)
    finally:
        if not placed.ino:
            with suppress(FileNotFoundError):
                os.chmod(source, _BLOB_MODE)
    return placed


def _swap_in(at: int, name: bytes, placement: Placement, source: bytes) -> Placed:
    """Give ``source`` the name; it is where it was if that is not possible."""
    ino = os.lstat(source).st_ino
    nothing_there = placement.replaces is None or _empty_directory_gone(at, name, placement.replaces)
    if nothing_there or placement.displaced is None or placement.replaces is None:
        try:
            rename_noreplace(at, source, at, name)
        except FileExistsError:
            return Placed(changed=True)
        return Placed(ino=ino)
    with ExitStack() as stack:
        writers = Writers(at, name, stack)
        if writers.there:
            return Placed(written=True)
        return _exchange(at, name, placement, source, ino, writers)


def _exchange(
    at: int, name: bytes, placement: Placement, source: bytes, ino: int, writers: Writers
) -> Placed:
    if placement.displaced is None or placement.replaces is None:
        raise OSError(errno.EINVAL, "a replaced file needs a place in the trash", name)
    # INVARIANT: whenever the process dies, what waits under the displaced name goes to the trash by its
    # content, and no file of the blob store holds anything else than its name says.
    displaced = os.fsencode(placement.displaced)
    rename_noreplace(at, source, at, displaced)
    try:
        rename_exchange(at, displaced, at, name)
    except OSError as error:
        os.rename(displaced, source)
        if error.errno == errno.ENOENT:
            # The file to be replaced is gone; its deletion is a change of the user's that comes first.
            return Placed(changed=True)
        raise
    written = writers.came()
    if not written and placement.replaces.matches(os.lstat(displaced)):
        return Placed(ino=ino, displaced=True)
    try:
        # RACE: the user changed the file since it was indexed, or is about to: his goes back where it was.
        rename_exchange(at, displaced, at, name)
    except FileNotFoundError:
        # RACE: and he deleted what had got the name meanwhile: that stands, and his file is in the trash.
        return Placed(changed=True, displaced=True)
    os.rename(displaced, source)
    return Placed(changed=not written, written=written)


def _empty_directory_gone(at: int, name: bytes, replaces: Identity) -> bool:
    """Remove the indexed directory that something else replaces; says whether there was one.

    Raises:
        OSError: ENOTEMPTY, it has something in it: that is dealt with first.
    """
    with suppress(FileNotFoundError):
        found = os.lstat(name, dir_fd=at)
        if stat.S_ISDIR(found.st_mode) and replaces.matches(found):
            os.rmdir(name, dir_fd=at)
            return True
    return False


def _place_dir(at: int, name: bytes, placement: Placement, *, made: bool) -> Placed:
    displaced = False
    try:
        os.mkdir(name, dir_fd=at)
    except FileExistsError:
        found = os.lstat(name, dir_fd=at)
        if not stat.S_ISDIR(found.st_mode):
            taken = _take_out(at, name, placement)
            if not taken.displaced:
                return taken
            displaced = True
            os.mkdir(name, dir_fd=at)
        elif not made:
            return Placed(ino=found.st_ino)
    os.chmod(name, placement.mode & _MODE_MASK, dir_fd=at)
    return Placed(ino=os.lstat(name, dir_fd=at).st_ino, displaced=displaced)


def _place_link(at: int, name: bytes, placement: Placement) -> Placed:
    if placement.displaced is None:
        os.symlink(placement.target, name, dir_fd=at)
        os.utime(name, ns=(placement.mtime_ns, placement.mtime_ns), dir_fd=at, follow_symlinks=False)
        return Placed(ino=os.lstat(name, dir_fd=at).st_ino)
    source = os.fsencode(placement.displaced) + b".new"
    with suppress(FileNotFoundError):
        os.unlink(source)
    os.symlink(placement.target, source)
    os.utime(source, ns=(placement.mtime_ns, placement.mtime_ns), follow_symlinks=False)
    try:
        return _swap_in(at, name, placement, source)
    finally:
        with suppress(FileNotFoundError):  # it is not there any more if it got its place
            os.unlink(source)


def _take_out(at: int, name: bytes, placement: Placement) -> Placed:
    """Move the indexed file out of the datadir; a directory goes only when it is empty."""
    try:
        found = os.lstat(name, dir_fd=at)
    except FileNotFoundError:
        return Placed()
    if placement.replaces is None or not placement.replaces.matches(found):
        return Placed(changed=True)
    if stat.S_ISDIR(found.st_mode):
        try:
            os.rmdir(name, dir_fd=at)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return Placed(occupied=True)
        return Placed()
    if placement.displaced is None:
        raise OSError(errno.EINVAL, "a deleted file needs a place in the trash", name)
    displaced = os.fsencode(placement.displaced)
    with ExitStack() as stack:
        writers = Writers(at, name, stack)
        if writers.there:
            return Placed(written=True)
        rename_noreplace(at, name, at, displaced)
        written = writers.came()
        if written or not placement.replaces.matches(os.lstat(displaced)):
            try:
                # RACE: changed between the look and the move, or about to be: it goes back.
                rename_noreplace(at, displaced, at, name)
            except FileExistsError:
                # RACE: and the user put something else there: that stands, as if it had replaced the file.
                return Placed(changed=True, displaced=True)
            return Placed(changed=not written, written=written)
    return Placed(displaced=True)


@dataclass(frozen=True, slots=True)
class Move:
    """A real file to be renamed inside the datadir, with the mode and time that it then has."""

    old: RelPath
    new: RelPath
    expected: Identity
    mode: int
    mtime_ns: int


def move(datadir: Path, moves: Sequence[Move]) -> tuple[list[Placed], dict[bytes, int]]:
    """Rename files; parallel to the result. Nothing is replaced.

    Directories above the new paths are made; returned as well, with their inode numbers.

    Raises:
        OSError: the datadir itself cannot be opened.
    """
    with ExitStack() as stack:
        root_fd = os.open(datadir, DIR_FLAGS)
        stack.callback(os.close, root_fd)
        directories = Directories(root_fd, stack)
        results = [_move_guarded(directories, item) for item in moves]
        return results, {path: os.fstat(directories.open(path)).st_ino for path in directories.made}


def _move_guarded(directories: Directories, item: Move) -> Placed:
    (old_parent, old), (new_parent, new) = split(item.old), split(item.new)
    try:
        at, to = directories.open(old_parent, make=False), directories.open(new_parent)
        if not item.expected.matches(os.lstat(old, dir_fd=at)):
            return Placed(changed=True)
        rename_noreplace(at, old, to, new)
        found = os.lstat(new, dir_fd=to)
        if not item.expected.matches(found):
            # RACE: the user changed the file since the look at it: it goes back where it was.
            rename_noreplace(to, new, at, old)
            return Placed(changed=True)
        if stat.S_ISREG(found.st_mode):
            os.chmod(new, item.mode & _MODE_MASK, dir_fd=to)
            os.utime(new, ns=(item.mtime_ns, item.mtime_ns), dir_fd=to)
        return Placed(ino=found.st_ino)
    except (FileExistsError, FileNotFoundError):
        return Placed(changed=True)
    except OSError as error:
        return Placed(error=error)


def adjust(datadir: Path, path: RelPath, expected: Identity, mode: int, mtime_ns: int) -> Placed:
    """Set mode and time of an indexed file or directory.

    Raises:
        OSError: it cannot be opened or changed.
    """
    root_fd = os.open(datadir, DIR_FLAGS)
    try:
        fd = open_beneath(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    finally:
        os.close(root_fd)
    try:
        found = os.fstat(fd)
        if not expected.matches(found):
            return Placed(changed=True)
        os.fchmod(fd, mode & _MODE_MASK)
        if stat.S_ISREG(found.st_mode):
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        return Placed(ino=found.st_ino)
    finally:
        os.close(fd)
