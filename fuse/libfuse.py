"""What pyfuse3 does not expose of libfuse, reached without changing either (docs/decisions/0002).

pyfuse3 calls ``fuse_session_new`` through its import table. `install` puts a function of ours in that
place; before it goes on to libfuse it wraps some of pyfuse3's handlers, so that

- directories need no open: ``opendir`` answers ENOSYS, the kernel then caches listings and asks with no
  handle; the handle is filled in with the inode, for pyfuse3 passes on nothing else;
- ``statfs`` and ``read`` know their inode and request: pyfuse3 drops both;
- many reads may wait in the background at once, and requests are read with one system call;
- the device is never read when nothing is there: pyfuse3 waits for it to be readable and then reads it
  holding the GIL. RACE: a request whose caller is killed in between is gone, and that read would stop
  the whole process; so the device is made non-blocking, and EAGAIN is turned into the EINTR it skips.

All of it is optional: where the layout is not exactly as expected nothing is changed, and the mount
works, slower. INVARIANT: pyfuse3 expects the GIL in its handlers, so they are called with ``PYFUNCTYPE``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import platform
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pyfuse3

from fuse.elf import import_slot

_log = logging.getLogger("realize.fuse.libfuse")

_OPS = (  # noqa: SIM905 - as in the header, four lines instead of forty
    "init destroy lookup forget getattr setattr readlink mknod mkdir unlink rmdir symlink rename link open"
    " read write flush release fsync opendir readdir releasedir fsyncdir statfs setxattr getxattr listxattr"
    " removexattr access create getlk setlk bmap ioctl poll write_buf retrieve_reply forget_multi flock"
    " fallocate readdirplus copy_file_range lseek"
).split()
"""Members of ``struct fuse_lowlevel_ops`` in order; libfuse 3 only ever adds at the end."""

_SET = ("init", "lookup", "read", "opendir", "readdirplus", "releasedir", "statfs", "write_buf")
_UNSET = ("destroy", "readdir", "getlk", "setlk", "ioctl", "flock", "fallocate", "lseek")
"""What pyfuse3 sets and leaves out; if this does not fit, the layout is not what we think it is."""

_Pointer = ctypes.c_void_p
_Word = ctypes.c_uint64
_Size = ctypes.c_size_t
_Offset = ctypes.c_int64

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "init": (_Pointer, _Pointer),
    "read": (_Pointer, _Word, _Size, _Offset, _Pointer),
    "readdirplus": (_Pointer, _Word, _Size, _Offset, _Pointer),
    "statfs": (_Pointer, _Word),
}

_HOOKED = ("fuse_session_new", "fuse_session_receive_buf")

_FI_FH = 16
"""Offset of ``fh`` in ``struct fuse_file_info``."""

_CAP_SPLICE_READ = 1 << 9
_MAX_BACKGROUND = 256
"""LIMIT: reads in the background that may wait at once; with the kernel's 12 a few hung ones stop all."""


class _ConnInfo(ctypes.Structure):
    """The head of ``struct fuse_conn_info``."""

    _fields_: ClassVar = [
        (name, ctypes.c_uint)
        for name in (
            "proto_major", "proto_minor", "max_write", "max_read", "max_readahead",
            "capable", "want", "max_background", "congestion_threshold", "time_gran",
        )
    ]  # fmt: skip


class Session:
    """What the wrapped handlers note of the request that pyfuse3 is about to handle. Mount thread.

    pyfuse3 starts a handler in the same step in which libfuse gives it the request, so what is noted
    here is right until the handler first waits.
    """

    def __init__(self) -> None:
        """Know nothing: nothing is hooked yet."""
        self.active = False
        """Whether the hooks are in force for the mount."""
        self.inode = 0
        """Inode of the current ``statfs``."""
        self.request = 0
        """Address of the current ``read`` request, for `on_interrupt`."""
        self._keep: list[object] = []
        self._interrupts: dict[int, Callable[[], None]] = {}
        self._libfuse: Any = None
        self._session: int | None = None
        self._on_interrupt = ctypes.CFUNCTYPE(None, _Pointer, _Pointer)(self._interrupted)

    def install(self) -> bool:
        """Hook the next ``pyfuse3.init``; says whether it could. Once for a process."""
        if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
            return False
        path = Path(pyfuse3.__file__).resolve()
        try:
            slots = {name: import_slot(path, name.encode()) for name in _HOOKED}
            self._libfuse = ctypes.PyDLL("libfuse3.so.3")
            for name, kind, make in self._hooks():
                hook = kind(make(kind((name, self._libfuse))))
                self._keep.append(hook)
                slots[name].write(ctypes.cast(hook, _Pointer).value or 0)
        except (OSError, ValueError, KeyError, AttributeError, struct.error) as error:
            _log.info("libfuse cannot be hooked, listings are not cached: %s", error)
            return False
        return True

    def _hooks(self) -> list[tuple[str, Any, Callable[..., Callable[..., int | None]]]]:
        return [
            # This one first: without it the device must not be made non-blocking, alone it does no harm.
            ("fuse_session_receive_buf", ctypes.PYFUNCTYPE(ctypes.c_int, _Pointer, _Pointer), self._receive),
            (
                "fuse_session_new",
                ctypes.PYFUNCTYPE(_Pointer, _Pointer, _Pointer, _Size, _Pointer),
                self._session_new,
            ),
        ]

    def _session_new(self, original: Callable[..., int | None]) -> Callable[..., int | None]:
        def session_new(args: int, ops: int, size: int, data: int | None) -> int | None:
            self.active = self._wrap(ops, size)
            self._session = original(args, ops, size, data)
            return self._session

        self._keep.append(original)
        return session_new

    def _receive(self, original: Callable[..., int | None]) -> Callable[..., int | None]:
        def receive(session: int, buffer: int) -> int | None:
            result = original(session, buffer)
            return -errno.EINTR if result == -errno.EAGAIN else result

        self._keep.append(original)
        return receive

    def mounted(self) -> None:
        """Make the device of the mounted session non-blocking; call after ``pyfuse3.init``."""
        if self.active and self._session:
            fd = self._libfuse.fuse_session_fd(_Pointer(self._session))
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)

    def _wrap(self, ops: int, size: int) -> bool:
        count = size // ctypes.sizeof(_Pointer)
        table = (_Pointer * count).from_address(ops)
        if count < len(_OPS) or not _is_expected(table):
            _log.info("libfuse has another layout of operations, listings are not cached")
            return False
        wrappers: dict[str, Callable[..., Callable[..., None]]] = {
            "init": self._init,
            "read": self._read,
            "readdirplus": self._readdirplus,
            "statfs": self._statfs,
        }
        for name, make in wrappers.items():
            index = _OPS.index(name)
            kind = ctypes.PYFUNCTYPE(None, *_SIGNATURES[name])
            wrapper = kind(make(kind(table[index] or 0)))
            self._keep.append(wrapper)
            table[index] = ctypes.cast(wrapper, _Pointer).value
        return True

    @staticmethod
    def _init(original: Callable[..., None]) -> Callable[..., None]:
        def init(data: int | None, conn: int) -> None:
            original(data, conn)
            info = _ConnInfo.from_address(conn)
            info.want &= ~_CAP_SPLICE_READ
            info.max_background = _MAX_BACKGROUND
            info.congestion_threshold = _MAX_BACKGROUND * 3 // 4

        return init

    @staticmethod
    def _readdirplus(original: Callable[..., None]) -> Callable[..., None]:
        def readdirplus(request: int, inode: int, size: int, offset: int, info: int) -> None:
            _Word.from_address(info + _FI_FH).value = inode
            original(request, inode, size, offset, info)

        return readdirplus

    def _statfs(self, original: Callable[..., None]) -> Callable[..., None]:
        def statfs(request: int, inode: int) -> None:
            self.inode = inode
            original(request, inode)

        return statfs

    def _read(self, original: Callable[..., None]) -> Callable[..., None]:
        def read(request: int, inode: int, size: int, offset: int, info: int) -> None:
            self.request = request
            original(request, inode, size, offset, info)

        return read

    def on_interrupt(self, request: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` in the mount thread when the kernel interrupts a request; `done` ends it."""
        self._interrupts[request] = callback
        self._libfuse.fuse_req_interrupt_func(_Pointer(request), self._on_interrupt, None)

    def done(self, request: int) -> None:
        """Forget a request that is about to be answered."""
        self._interrupts.pop(request, None)

    def _interrupted(self, request: int, _: int | None) -> None:
        callback = self._interrupts.get(request)
        if callback is not None:
            callback()


def _is_expected(table: Any) -> bool:  # noqa: ANN401 - a ctypes array
    return all(table[_OPS.index(name)] for name in _SET) and not any(
        table[_OPS.index(name)] for name in _UNSET
    )
