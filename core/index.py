"""The index of one arena's datadir: keeps the store's local entries what is really there.

Watches and scans the datadir while it is in its place (`core.datadir`), and takes the arena *offline*
while it is not: missing, another directory, on another device, or empty where it was not. Offline,
nothing is reported deleted; when the right datadir is back it is scanned as at start.

Changes that the engine makes in the datadir itself (realizing, unrealizing, deletions of peers) are no
local changes: an event is only a hint to look, and what equals the store's entry (kind, size, mtime,
ino; for a deletion: no entry) changes nothing. So the engine records its entry together with the
rename, *holding* `exclusive`: then no look falls between the two.

Engine thread. Logged and told to `IndexCalls`; errors of a single path never end it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from trio import to_thread

from core.api import HashingRow
from core.config import ArenaConfig
from core.datadir import Datadir
from core.disk import open_root
from core.errors import StoreError
from core.ignore import Ignore
from core.ports import LocalStore
from core.presence import Presence, look_at
from core.types import RelPath

_log = logging.getLogger("realize.core.index")

CHECK_S = 10.0
"""LIMIT: how often an online datadir is looked for; a mount over it gives no event."""

RETRY_S = 2.0
"""LIMIT: how often an offline datadir is looked for."""


def _nothing(*_: object) -> None:
    """Be told and do nothing."""


async def _at_once(_: BaseException) -> None:
    await trio.lowlevel.checkpoint()


async def _nothing_first() -> None:
    """Do nothing before a datadir is looked at."""


@dataclass(frozen=True, slots=True)
class IndexCalls:
    """What an index tells; called in the engine thread, quick, never raising.

    ``progress``: of scan and hashing. ``offline(reason)``, ``online()``. ``held(files)``: deletions
    wait for confirmation, 0 when they no longer do. ``warned(text, hint)``.

    ``prepare`` is waited for before the datadir, which is in its place, is scanned.
    ``unwritable(error)``: the store cannot be written; returns when it is worth trying again.
    """

    progress: Callable[[HashingRow], None] = _nothing
    offline: Callable[[str], None] = _nothing
    online: Callable[[], None] = _nothing
    held: Callable[[int], None] = _nothing
    warned: Callable[[str, str], None] = _nothing
    prepare: Callable[[], Awaitable[None]] = _nothing_first
    unwritable: Callable[[BaseException], Awaitable[None]] = _at_once


class _WentOfflineError(Exception):
    """The datadir is not what was indexed; ends the `Datadir` that followed it."""


class Index:
    """The index of an arena that has a datadir."""

    def __init__(
        self,
        config: ArenaConfig,
        store: LocalStore,
        calls: IndexCalls | None = None,
        *,
        check_s: float = CHECK_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """Make the index of ``config.datadir``; nothing happens before `run`."""
        if config.datadir is None:
            raise ValueError(f"arena {config.name} has no datadir")
        self._config = config
        self._path: Path = config.datadir
        self._store = store
        self._calls = calls or IndexCalls()
        self._ignore = Ignore(config.ignore)
        self._lock = trio.Lock()
        self._parallel = max(1, min(config.max_parallel_hashers, os.cpu_count() or 1))
        self._check_s = check_s
        self._retry_s = retry_s
        self._datadir: Datadir | None = None
        self._offline = "not started"
        self._emptied = False
        self._confirmed = False
        self._look_again = trio.Event()

    # -- what others ask

    @property
    def offline(self) -> str:
        """Return why the arena is offline, "" when it is online."""
        return self._offline

    @property
    def held_files(self) -> int:
        """Return how many deleted files wait for `confirm_deletes`."""
        return self._datadir.deletions.held_files if self._datadir else 0

    @property
    def unwatched(self) -> str:
        """Return what is to be said of directories that cannot be watched now, "" when all are."""
        return self._datadir.scanner.unwatched() if self._datadir else ""

    @property
    def unreadable_directories(self) -> int:
        """How many directories are left out because they cannot be read."""
        return self._datadir.scanner.unreadable if self._datadir else 0

    def holds_deletion(self, path: RelPath) -> bool:
        """Say whether the deletion of a path waits for `confirm_deletes`."""
        return bool(self.held_files) and self._datadir is not None and self._datadir.deletions.waits(path)

    def waiting_for(self) -> str:
        """Return what the index still has to do, for people; "" when idle.

        Offline, or with deletions held, there is nothing that it could do: that counts as idle.
        """
        if self._datadir is None:
            return "" if self._offline != "not started" else "start of the index"
        return self._datadir.waiting_for()

    def idle(self) -> bool:
        """Say whether everything that happened so far in the datadir is recorded and hashed."""
        return not self.waiting_for()

    def progress(self) -> HashingRow | None:
        """Return how far scan and hashing are; None when there is nothing to do."""
        return self._datadir.hashes.figures() if self._datadir else None

    async def rescan(self, directory: RelPath = RelPath(b"")) -> None:  # noqa: B008 - an immutable value
        """Compare a directory with the store and wait for that; offline there is nothing to do."""
        if self._datadir is not None:
            await self._datadir.scanner.rescan(directory).wait()

    async def confirm_deletes(self) -> int:
        """Let held deletions go on; returns the number of files.

        If the arena is offline because its datadir is empty, that is accepted as it is.
        """
        if self._datadir is not None:
            async with self._lock:
                return await self._datadir.deletions.confirm()
        if self._emptied:
            self._confirmed = True
            self._look_again.set()
            return self._store.local_file_count()
        return 0

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Keep the index from looking at the datadir while the engine changes it and its entries.

        Holders must be quick: changes by users are recorded only afterwards.
        """
        async with self._lock:
            yield

    # -- running

    async def run(self) -> None:
        """Follow the datadir for ever, on- and offline."""
        while True:
            presence = await self._look(list_it=True)
            if not presence.reason:
                await self._calls.prepare()
                presence = await self._look(list_it=True)
            reason = presence.reason or self._reason_if_empty(presence)
            if reason:
                self._go_offline(reason, emptied=not presence.reason)
                with trio.move_on_after(self._retry_s):
                    await self._look_again.wait()
                self._look_again = trio.Event()
                continue
            try:
                self._store.set_datadir_id(presence.device, presence.ino)
                await self._follow()
            except* _WentOfflineError as errors:
                _log.debug("%s: %s", self._config.name, errors.exceptions)
            except* StoreError as errors:
                # Nothing that is seen can be recorded: all is looked at again when it can be.
                self._go_offline("its database cannot be written", emptied=False)
                await self._calls.unwritable(errors)
                await trio.sleep(self._retry_s)

    async def _look(self, *, list_it: bool) -> Presence:
        known = self._store.datadir_id()
        workdir = self._config.workdir
        return await to_thread.run_sync(
            lambda: look_at(self._path, workdir, known, self._ignore, list_it=list_it)
        )

    def _reason_if_empty(self, presence: Presence) -> str:
        if not presence.empty or self._confirmed or not self._store.local_children(RelPath(b"")):
            return ""
        return f"datadir {self._path} is empty, and was not"

    def _go_offline(self, reason: str, *, emptied: bool) -> None:
        self._emptied = emptied
        if reason != self._offline:
            self._offline = reason
            _log.warning("%s is offline: %s", self._config.name, reason)
            self._calls.offline(reason)

    async def _check(self, emptied: bool) -> None:
        """Make sure that the datadir is in its place.

        Raises:
            _WentOfflineError: it is not; or ``emptied`` was to be looked at, and it is empty.
        """
        presence = await self._look(list_it=emptied)
        reason = presence.reason or self._reason_if_empty(presence)
        if reason:
            self._go_offline(reason, emptied=not presence.reason)
            raise _WentOfflineError(reason)

    async def _check_now_and_then(self) -> None:
        while True:
            await trio.sleep(self._check_s)
            await self._check(False)

    async def _follow(self) -> None:
        try:
            root_fd = await to_thread.run_sync(open_root, self._path)
        except OSError as error:
            # RACE: it vanished after the look; the next one says so.
            _log.debug("%s: %s", self._config.name, error)
            await trio.sleep(self._retry_s)
            return
        try:
            datadir = await self._try_make_datadir(root_fd)
            if datadir is None:
                return
            self._datadir = datadir
            was_offline, self._offline = self._offline, ""
            _log.info("%s: datadir %s is followed", self._config.name, self._path)
            if was_offline:
                self._calls.online()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._check_now_and_then)
                nursery.start_soon(datadir.run)
        finally:
            self._datadir = None
            os.close(root_fd)

    async def _try_make_datadir(self, root_fd: int) -> Datadir | None:
        try:
            return self._make_datadir(root_fd)
        except OSError as error:
            hint = "run: sysctl fs.inotify.max_user_instances=1024"
            reason = f"datadir {self._path} cannot be watched: {error.strerror}; {hint}"
            self._go_offline(reason, emptied=False)
            await trio.sleep(self._retry_s)
            return None

    def _make_datadir(self, root_fd: int) -> Datadir:
        datadir = Datadir(
            self._config,
            self._store,
            self._ignore,
            root_fd,
            self._lock,
            parallel=self._parallel,
            check=self._check,
            held=self._calls.held,
            warned=self._calls.warned,
            progress=self._calls.progress,
        )
        if self._confirmed:
            datadir.deletions.confirm_next()
            self._confirmed = False
        return datadir
