"""A `core.blobdisk.Disk` that fails on demand, over the real one."""

from __future__ import annotations

import errno
import os
from collections import Counter

from core.blobdisk import Buffer, DiskSpace, FileFacts, LocalDisk
from core.errors import NoSpaceError, StoreError


class CrashError(BaseException):
    """The process is dead from here on; nothing handles it."""


def full() -> NoSpaceError:
    return NoSpaceError(os.strerror(errno.ENOSPC))


def broken() -> StoreError:
    return StoreError(os.strerror(errno.EIO))


class FaultyDisk(LocalDisk):
    """Counts calls, fails the n-th of a kind, and can die before or after any call that changes something.

    Attributes:
        calls: Number of calls by name.
        free_bytes: What the filesystem says is free; None: the truth.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.free_bytes: int | None = None
        self._failures: dict[tuple[str, int], Exception] = {}
        self._crash_in: int | None = None

    def fail(self, call: str, nth: int, error: Exception) -> None:
        """Let the ``nth`` next call of a name fail with ``error``."""
        self._failures[(call, self.calls[call] + nth)] = error

    def crash(self, steps: int) -> None:
        """Die after ``steps`` more calls that change something; then every call dies."""
        self._crash_in = steps

    def _step(self, call: str) -> None:
        self.calls[call] += 1
        if self._crash_in is not None:
            if self._crash_in == 0:
                raise CrashError(call)
            self._crash_in -= 1
        error = self._failures.pop((call, self.calls[call]), None)
        if error is not None:
            raise error

    def step(self, call: str) -> bool:
        """Count a step of something else, as a commit hook of a database does; it may be the last."""
        self._step(call)
        return False

    def create(self, dir_fd: int, name: str, size: int) -> int:
        self._step("create")
        return super().create(dir_fd, name, size)

    def put(self, dir_fd: int, name: str, data: Buffer, *, cut: bool) -> int:
        if self._crash_in == 0 and len(data) > 1:  # the last thing a dying process does: half a write
            super().put(dir_fd, name, bytes(data)[: len(data) // 2], cut=cut)
        self._step("put")
        return super().put(dir_fd, name, data, cut=cut)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        if self._crash_in == 0:
            super().pwrite(fd, bytes(data)[: len(data) // 2], offset)
        self._step("pwrite")
        super().pwrite(fd, data, offset)

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> None:
        self.calls["pread_into"] += 1
        error = self._failures.pop(("pread_into", self.calls["pread_into"]), None)
        if error is not None:
            raise error
        super().pread_into(fd, buffer, offset)

    def sync(self, fd: int) -> None:
        self._step("sync")
        super().sync(fd)

    def sync_all(self, fd: int) -> None:
        # Not the real one: it would wait for everything else that this machine writes.
        self._step("sync_all")

    def truncate(self, fd: int, size: int) -> None:
        self._step("truncate")
        super().truncate(fd, size)

    def punch(self, fd: int, start: int, end: int) -> None:
        self._step("punch")
        super().punch(fd, start, end)

    def unlink(self, dir_fd: int, name: str) -> None:
        self._step("unlink")
        super().unlink(dir_fd, name)

    def rename(self, from_fd: int, source: str | bytes, to_fd: int, target: str | bytes) -> None:
        self._step("rename")
        super().rename(from_fd, source, to_fd, target)

    def copy(self, fd: int, size: int, to_fd: int, target: str | bytes) -> None:
        self._step("copy")
        super().copy(fd, size, to_fd, target)

    def space(self, fd: int) -> DiskSpace:
        real = super().space(fd)
        if self.free_bytes is None:
            return real
        return DiskSpace(real.total_bytes, self.free_bytes, real.block_bytes)

    def facts(self, fd: int) -> FileFacts:
        self.calls["facts"] += 1
        return super().facts(fd)
