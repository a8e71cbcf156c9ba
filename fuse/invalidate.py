"""Telling the kernel what it must forget. A plain thread: a notification can block (spec 2 §Threads).

What is to be done waits in sets, so that it is never more than there are nodes, whatever the number of
changes. INVARIANT: no lock is held while the kernel is told.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterable

import pyfuse3

from core.changes import Changes
from fuse.content import KernelCache

_log = logging.getLogger("realize.fuse.invalidate")

_UNKNOWN = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL})
"""What the kernel says of an inode or name that it has not cached."""
_NO_MOUNT = frozenset({errno.ENODEV, errno.EBADF, errno.ENOTCONN, errno.ECONNABORTED})


class Invalidator:
    """The queue and its thread."""

    def __init__(self, cache: KernelCache) -> None:
        """Make it; nothing runs before `start`."""
        self._cache = cache
        self._changed = threading.Condition()
        self._gone: dict[tuple[int, bytes], None] = {}
        self._listings: set[int] = set()
        self._nodes: set[int] = set()
        self._stopped = False
        self._idle = True
        self._thread = threading.Thread(target=self._run, name="invalidate", daemon=True)

    def start(self) -> None:
        """Start the thread; the mount is there."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Drop what waits and end; says whether the thread has ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def add(self, changes: Changes) -> None:
        """Take in what a committed transaction changed; any thread, quick."""
        with self._changed:
            if self._stopped:
                return
            self._gone.update(dict.fromkeys(changes.gone))
            self._listings |= changes.listings
            self._nodes |= changes.nodes
            self._changed.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until the kernel knows of everything added so far; not in a thread that the mount needs."""
        with self._changed:
            return self._changed.wait_for(lambda: self._idle and not self._waiting(), timeout_s)

    def _waiting(self) -> bool:
        return bool(self._gone or self._listings or self._nodes)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stopped or self._waiting())
                if self._stopped:
                    return
                gone, listings, nodes = self._gone, self._listings, self._nodes
                self._gone, self._listings, self._nodes = {}, set(), set()
                self._idle = False
            self._tell(gone, listings, nodes)

    def _tell(self, gone: Iterable[tuple[int, bytes]], listings: set[int], nodes: set[int]) -> None:
        # RACE: names first: that waits for lookups and listings under way in the directory, whose answers may
        # be older than the change; what they put into the cache then goes with the directory's pages.
        for parent, name in gone:
            if self._stopped:
                return
            self._quietly("entry", parent, name)
        for inode in listings:
            self._quietly("inode", inode, None)
        for inode in nodes - listings:
            if self._stopped:
                return
            # Pages of a file that nobody has open are of no harm: the next open drops what is outdated.
            if self._cache.has_open(inode):
                self._cache.forget(inode)
                self._quietly("inode", inode, None)
            else:
                self._quietly("attributes", inode, None)

    def _quietly(self, what: str, inode: int, name: bytes | None) -> None:
        try:
            if name is not None:
                pyfuse3.invalidate_entry(inode, name)
            else:
                pyfuse3.invalidate_inode(inode, attr_only=what == "attributes")
        except OSError as error:
            # RACE: ENOSYS before the kernel has said its first word; until then it has nothing cached.
            if error.errno in _NO_MOUNT or error.errno == errno.ENOSYS:
                _log.debug("the mount is gone: %s", error)
            elif error.errno not in _UNKNOWN:
                _log.warning("the kernel keeps an outdated %s of inode %d: %s", what, inode, error)
