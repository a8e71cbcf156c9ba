"""Asking the kernel whether other programs have a file open, with a lease (``F_SETLEASE``, man 2 fcntl).

A lease is refused while somebody has the file open or mapped in the way that it is about. Whoever opens it
so later waits, and breaks the lease, until the descriptor is closed; that can be seen with `kept`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from contextlib import ExitStack

from core.disk import READ_FLAGS

_F_SETLEASE, _F_GETLEASE, _F_SETSIG = 1024, 1025, 10
"""linux/fcntl.h; Python's module has the first two only where its C library does."""

ALONE = fcntl.F_WRLCK
"""Nobody else has the file open."""
UNWRITTEN = fcntl.F_RDLCK
"""Nobody has the file open for writing; the descriptor itself must be open for reading only."""

OPEN = "a program has it open; it is given up once it is closed"
WRITTEN = "a program has it open for writing; it is replaced once that is closed"
"""Why a job leaves a file alone for now."""


def lease(fd: int, kind: int) -> bool:
    """Take a lease, which the descriptor has until it is closed; False: somebody has the file open.

    Raises:
        OSError: the filesystem cannot tell, or not to us.
    """
    try:
        # The default signal would end the process if somebody opens the file now; this one is ignored.
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, _F_SETLEASE, kind)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EBUSY):
            return False
        raise
    return True


def kept(fd: int, kind: int) -> bool:
    """Say whether nobody has opened the file so since the lease was taken."""
    return fcntl.fcntl(fd, _F_GETLEASE) == kind


def give_back(fd: int) -> None:
    """End a lease before the descriptor is closed."""
    fcntl.fcntl(fd, _F_SETLEASE, fcntl.F_UNLCK)


class Writers:
    """Whether a program has a file open for writing, or opens it so while this is asked (a lease)."""

    def __init__(self, at: int, name: bytes, stack: ExitStack) -> None:
        """Look at ``name`` of the open directory ``at``; ``stack`` ends the lease."""
        self._fd = -1
        self.there = False
        try:
            self._fd = os.open(name, READ_FLAGS, dir_fd=at)
        except BlockingIOError:
            self.there = True  # somebody else has a lease on it
            return
        except OSError:
            return  # not there, a link, or not ours to read: what it is, is looked at by the caller
        stack.callback(os.close, self._fd)
        try:
            self.there = not lease(self._fd, UNWRITTEN)
        except OSError:
            # LIMIT: no regular file, or a filesystem that cannot tell.
            self._fd = -1

    def came(self) -> bool:
        """Say whether a program has opened it for writing since; it waits until the lease ends."""
        return self._fd >= 0 and not kept(self._fd, UNWRITTEN)
