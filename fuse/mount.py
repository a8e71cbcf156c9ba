"""The mount of a daemon: its thread, its start and its stop.

One at a time in a process (pyfuse3 keeps one session). The thread owns the handles and a read-only
connection per arena; it never waits for the engine for metadata.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyfuse3

from core.changes import Changes
from core.config import ArenaConfig
from core.connected import ConnectedPeers
from core.errors import RealizeError, StoreError
from core.loops import TrioThread
from core.ports import MountBackend
from core.reader import TreeReader
from fuse import mountpoint as points
from fuse.content import ContentOpener, KernelCache
from fuse.invalidate import Invalidator
from fuse.libfuse import Session
from fuse.ops import MountOps
from fuse.view import View

_log = logging.getLogger("realize.fuse.mount")

FETCH_TIMEOUT_S = 5.0
"""LIMIT: how long a read waits without progress (spec 6)."""

_IDLE_TASKS, _MAX_TASKS = 4, 4096
"""LIMIT: requests that are being answered at once; each that waits is one task of a few KiB."""
_READY_S = 15.0
_INVALIDATOR_S = 2.0
_POLL_S = 0.05
_BUSY_SHARE = 0.4
"""Share of the time for stopping that is given to programs to let go of the mount."""


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Say whether a line of pyfuse3 means anything: an answer to a request that the kernel ended does not.

    An unmount ends what is being answered, such as the release of a file closed a moment ago.
    """
    return "fuse_reply_* failed" not in str(record.msg) or record.args != (os.strerror(errno.ENOENT),)


logging.getLogger("pyfuse3").addFilter(_is_worth_telling)

_session = Session()
_hooked = _session.install()
_mounted = threading.Lock()


class Mount:
    """A mount. The methods may be called by any thread but the mount's; `start` and `stop` block."""

    def __init__(
        self,
        mountpoint: Path,
        global_db: Path,
        arenas: Sequence[ArenaConfig],
        backend: MountBackend,
        engine: TrioThread,
        connected: ConnectedPeers,
        *,
        allow_other: bool = False,
        fetch_timeout_s: float = FETCH_TIMEOUT_S,
    ) -> None:
        """Make the mount of ``arenas`` at ``mountpoint``; nothing happens before `start`."""
        self.mountpoint = mountpoint
        self._global_db, self._arenas = global_db, tuple(arenas)
        self._backend, self._engine, self._connected = backend, engine, connected
        self._allow_other, self._fetch_timeout_s = allow_other, fetch_timeout_s
        self._thread = TrioThread("mount")
        self._cache = KernelCache()
        self._invalidator = Invalidator(self._cache)
        self._ready = threading.Event()
        self._error: RealizeError | None = None
        self._ops: MountOps | None = None
        self._running = False

    @property
    def health(self) -> str:
        """What is wrong with the mount, "" when nothing is."""
        if self._running and self._thread.ended.is_set():
            return f"the mount has ended: {self._thread.failure or 'it was unmounted by somebody else'}"
        return ""

    def start(self) -> None:
        """Mount, detaching first what a crashed daemon left there; returns when it answers.

        Raises:
            StoreError: it cannot be mounted there, or this process has a mount already.
        """
        points.prepare(self.mountpoint)
        if not _mounted.acquire(blocking=False):
            raise StoreError("this process has a mount already")
        self._thread.start(self._main)
        while not self._ready.wait(_POLL_S) and not self._thread.ended.is_set():
            pass
        if self._error is not None or self._thread.ended.is_set():
            self._thread.join(_READY_S)
            raise self._error or StoreError(f"cannot mount {self.mountpoint}: {self._thread.failure}")
        self._running = True
        self._invalidator.start()
        points.raise_read_ahead(self.mountpoint)
        _log.info("mounted %s", self.mountpoint)

    async def _main(self) -> None:
        try:
            await self._serve()
        except RealizeError as error:
            self._error = error
        finally:
            _mounted.release()

    async def _serve(self) -> None:
        tree = TreeReader(self._global_db, self._arenas, self._connected)
        opener = ContentOpener(tree, self._backend, self._engine, self._fetch_timeout_s)
        view = View(tree, time.time_ns())
        self._ops = ops = MountOps(tree, view, opener, self._cache, self._backend, self._engine, _session)
        try:
            self._init(ops)
            try:
                self._ready.set()
                await pyfuse3.main(min_tasks=_IDLE_TASKS, max_tasks=_MAX_TASKS)
            finally:
                self._close_session()
        finally:
            ops.handles.close_all()
            opener.close()
            tree.close()

    def _init(self, ops: MountOps) -> None:
        options = {*pyfuse3.default_options, "fsname=realize", f"subtype={points.SUBTYPE}"}
        if self._allow_other:
            options.add("allow_other")
        try:
            pyfuse3.init(ops, str(self.mountpoint), options)
        except RuntimeError as error:
            raise StoreError(
                f"cannot mount {self.mountpoint}: {error}", hint="run `realize doctor`; it looks at /dev/fuse"
            ) from error
        _session.mounted()

    def _close_session(self) -> None:
        # The session must not go while the other thread talks to it; a leaked one is closed with the process.
        if self._invalidator.stop(_INVALIDATOR_S):
            pyfuse3.close(unmount=bool(points.mounts_at(self.mountpoint)))
        else:
            _log.error("a notification to the kernel hangs; the mount is left to the end of the process")

    def invalidate(self, changes: Changes) -> None:
        """Make the kernel forget what a committed transaction changed; any thread, quick."""
        self._invalidator.add(changes)

    def wait_invalidated(self, timeout_s: float) -> bool:
        """Wait until the kernel knows of all changes added so far; says whether it does."""
        return self._invalidator.wait_idle(timeout_s)

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the mount is no more, whoever unmounted it; says whether it is."""
        return self._thread.join(timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Unmount: at once if nobody uses it, else lazily, saying who does. Bounded by ``timeout_s``."""
        if not self._running:
            return
        self._running = False
        deadline = time.monotonic() + timeout_s
        if self._ops is not None:
            self._thread.post(self._ops.handles.interrupt_all)
        if not self._thread.ended.is_set() and not self._unmount(deadline - timeout_s * (1 - _BUSY_SHARE)):
            self._detach()
        # What is left is the session's own end: the kernel closes it, or else we do.
        if not self._thread.join(min(1.0, max(0.0, deadline - time.monotonic()))):
            self._thread.stop()
        if not self._thread.join(max(0.1, deadline - time.monotonic())):
            _log.error("the mount thread does not end")

    def _unmount(self, deadline: float) -> bool:
        while not points.unmount(self.mountpoint):
            if not points.mounts_at(self.mountpoint):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        _log.info("unmounted %s", self.mountpoint)
        return True

    def _detach(self) -> None:
        users = ", ".join(f"{user.name} ({user.pid})" for user in points.holders(self.mountpoint))
        _log.warning("%s is in use by %s; detaching it", self.mountpoint, users or "somebody")
        if not points.detach(self.mountpoint):
            _log.error("%s cannot be unmounted", self.mountpoint)
