"""Which files of a datadir are hashed next, and how far that is.

Two sources: files that changed and are quiet now (`add`), and all that the store knows without hash
(`sweep`, after a scan or a restart), which are read page by page so that a million of them take no
memory. Engine thread; the hashing itself runs in workers (`core.hashing`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import trio
from trio import to_thread

from core.api import HashingRow
from core.hashing import BATCH_BYTES, BATCH_FILES, Outcome, hash_batch
from core.paths import display
from core.ports import LocalStore, Marked, Unhashed
from core.types import RelPath

_log = logging.getLogger("realize.core.hashqueue")

PROGRESS_S = 0.2
"""LIMIT: progress is reported this often while hashing goes on."""

_FILE_WEIGHT = 16 * 1024
"""LIMIT: bytes that hash in the time one file costs beside its bytes; for the estimate only."""


class _Meter:
    """Counts the bytes of one batch; each is written by one worker and read by the engine."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, count: int) -> None:
        self.bytes += count
        if count > 131072:  # a piece of a large file, which must not delay a stop
            trio.from_thread.check_cancelled()


class HashQueue:
    """Hashes what it is given and tells the store."""

    def __init__(
        self,
        arena: str,
        store: LocalStore,
        root_fd: int,
        parallel: int,
        *,
        postponed: Callable[[RelPath], bool],
        again: Callable[[RelPath], None],
        progress: Callable[[HashingRow], None],
        marked: Callable[[Sequence[Marked]], None],
        unreadable: Callable[[Sequence[RelPath]], None],
    ) -> None:
        """Make an idle queue.

        ``postponed(path)``: leave it, it will be added later. ``again(path)``: it is not as the store
        knows it; look at it and add it again. ``marked`` gets the attributes of hashed files,
        ``unreadable`` the files that cannot be read.
        """
        self._arena = arena
        self._store = store
        self._root_fd = root_fd
        self._parallel = parallel
        self._limiter = trio.CapacityLimiter(parallel)
        self._postponed = postponed
        self._again = again
        self._report = progress
        self._marked = marked
        self._unreadable = unreadable
        self._direct: deque[Unhashed] = deque()
        self._page: deque[Unhashed] = deque()
        self._sweeping = False
        self._cursor: bytes | None = None
        self._in_flight: set[RelPath] = set()
        self._asked_again: set[RelPath] = set()
        self._meters: set[_Meter] = set()
        self._wake = trio.Event()
        self._active = trio.Event()
        self._reported = float("-inf")
        self._reset_figures()

    def _reset_figures(self) -> None:
        self._files_done = self._files_total = self._bytes_done = self._bytes_total = 0
        self._started: float | None = None

    # -- what to hash

    def add(self, file: Unhashed) -> None:
        """Hash a file soon; ``file`` is as the store knows it."""
        if file.path in self._in_flight:
            # RACE: it changed while its former content is read; that result the store will refuse.
            self._asked_again.add(file.path)
            return
        self._in_flight.add(file.path)
        self._direct.append(file)
        self.expect(1, file.size)
        self._rouse()

    def expect(self, files: int, size_bytes: int) -> None:
        """Count files towards the total of the progress: those that a sweep will find."""
        self._files_total += files
        self._bytes_total += size_bytes

    def report(self) -> None:
        """Report the progress if it is time to: called during a scan, before hashing begins."""
        now = trio.current_time()
        if self._files_total and now - self._reported >= PROGRESS_S:
            self._reported = now
            self._report(self._row())

    def sweep(self) -> None:
        """Hash all that the store has without hash; a sweep under way starts again."""
        self._sweeping = True
        self._cursor = None
        self._page.clear()
        self._rouse()

    def _rouse(self) -> None:
        self._wake.set()
        self._active.set()

    @property
    def idle(self) -> bool:
        """Say whether nothing is queued or being hashed."""
        return not (self._direct or self._page or self._sweeping or self._in_flight)

    def figures(self) -> HashingRow | None:
        """Return the progress; None when idle."""
        return None if self.idle else self._row()

    def _row(self) -> HashingRow:
        done_bytes = self._bytes_done + sum(meter.bytes for meter in self._meters)
        files_total = max(self._files_total, self._files_done)
        bytes_total = max(self._bytes_total, done_bytes)
        done = done_bytes + self._files_done * _FILE_WEIGHT
        left = bytes_total + files_total * _FILE_WEIGHT - done
        elapsed = trio.current_time() - self._started if self._started is not None else 0.0
        eta_s = elapsed * left / done if done and elapsed else None
        return HashingRow(self._arena, self._files_done, files_total, done_bytes, bytes_total, eta_s)

    # -- hashing

    async def run(self) -> None:
        """Hash for ever; cancelling waits for at most one piece of each file being read."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            for _ in range(self._parallel):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if not batch:
                self._finish_if_idle()
                await self._wake.wait()
                self._wake = trio.Event() if self._wake.is_set() else self._wake
                continue
            await self._hash(batch)

    def _next_batch(self) -> list[Unhashed]:
        batch: list[Unhashed] = []
        total = 0
        while len(batch) < BATCH_FILES:
            source = self._direct or self._fill_page()
            if not source:
                break
            if batch and total + source[0].size > BATCH_BYTES:
                break
            file = source.popleft()
            if source is self._page:
                if file.path in self._in_flight or self._postponed(file.path):
                    continue
                self._in_flight.add(file.path)
            batch.append(file)
            total += file.size
        return batch

    def _fill_page(self) -> deque[Unhashed]:
        if not self._page and self._sweeping:
            rows = self._store.unhashed(self._cursor, 2 * BATCH_FILES)
            if rows:
                self._cursor = rows[-1].cursor
                self._page.extend(rows)
            else:
                self._sweeping = False
        return self._page

    async def _hash(self, batch: list[Unhashed]) -> None:
        if self._started is None:
            self._started = trio.current_time()
        meter = _Meter()
        self._meters.add(meter)
        try:
            outcome = await to_thread.run_sync(
                partial(hash_batch, self._root_fd, batch, meter.add), limiter=self._limiter
            )
        finally:
            self._meters.discard(meter)
        self._in_flight.difference_update(file.path for file in batch)
        self._files_done += len(batch)
        self._bytes_done += sum(file.size for file in batch)
        self._settle(outcome)
        for file in batch:
            if file.path in self._asked_again:
                self._asked_again.discard(file.path)
                self._again(file.path)

    def _settle(self, outcome: Outcome) -> None:
        if outcome.hashed:
            self._store.hashed(outcome.hashed)
        if outcome.marks:
            self._marked(outcome.marks)
        if outcome.unreadable:
            for path, error in outcome.unreadable:
                _log.debug("%s: %r: %s", self._arena, display(path), error.strerror)
            paths = [path for path, _ in outcome.unreadable]
            self._unreadable(paths)
            self._store.unreadable(paths)
        for path in outcome.again:
            self._again(path)

    def _finish_if_idle(self) -> None:
        if self.idle and self._files_done:
            self._files_total, self._bytes_total = self._files_done, self._bytes_done
            self._report(self._row())
            self._reset_figures()
            self._active = trio.Event()

    async def _tick(self) -> None:
        while True:
            await self._active.wait()
            await trio.sleep(PROGRESS_S)
            if self._started is not None:
                self._report(self._row())
            elif self.idle:
                self._active = trio.Event()
