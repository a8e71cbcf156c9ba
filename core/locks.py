"""Keeping a second daemon off the same directories.

A lock is an ``flock`` on a file that holds the pid of its owner; the kernel releases it however the
process ends, so a leftover file locks nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from core.errors import NoSpaceError, StoreError, StoreLockedError


class DirectoryLock:
    """An exclusive lock on a directory of ours, held until `release`."""

    def __init__(self, path: Path) -> None:
        """Take the lock file ``path``, made when missing.

        Raises:
            StoreLockedError: another process holds it; the message names its pid.
            StoreError: the file cannot be made or written.
        """
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be made: {error.strerror}",
                hint="check that the directory exists and may be written to",
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = self._owner()
            os.close(self._fd)
            raise StoreLockedError(
                f"{path.parent} is in use by another daemon, pid {pid or 'unknown'}",
                pid=pid,
                hint="stop it first, or attach to it with `realize tui`",
            ) from None
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(self._fd)
            text = f"{path} cannot be written: {error.strerror}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(text, hint="free space on that disk") from error
            raise StoreError(text, hint="check that disk; the system's log says more") from error

    def _owner(self) -> int:
        text = os.pread(self._fd, 32, 0).strip()
        return int(text) if text.isdigit() else 0

    def release(self) -> None:
        """Give the lock up; the file stays."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)
