"""What the dashboard knows of the engine: events are gathered, state is read again when it is old.

asyncio side; only `Feed.on_batch` is called in the engine's thread. Updates of the screen are at most
`UPDATES_PER_S` a second whatever the number of events, and there are none while nothing changes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Generic, TypeVar

from app.bridge import Bridge
from app.tui.journal import Changes, changes_of
from app.tui.present import Snapshot
from core.api import Api, Jobs, MarkRow, Status
from core.events import AnyEvent

T = TypeVar("T")

UPDATES_PER_S = 10
STATUS_EVERY_S = 1.0
"""LIMIT: the status is read once a second while something happens …"""
STATUS_IDLE_EVERY_S = 5.0
"""… and this often while nothing does, for what has no event (round-trips, clocks)."""
JOBS_EVERY_S = 0.25
MARKS_EVERY_S = 1.0
CLOCK_EVERY_NS = 15_000_000_000
"""LIMIT: how old "seen 3 m ago" may be while nothing else changes."""
HISTORY = 60
"""Seconds of rates kept for sparklines."""

Read = Callable[[Api], Awaitable[T]]


class Source(Generic[T]):
    """A part of the state, read again after `touch` but not more often than every ``every_s``."""

    def __init__(
        self, read: Callable[[], Awaitable[T]], every_s: float, start: Callable[..., object]
    ) -> None:
        """Make the source; ``start`` runs a coroutine guarded."""
        self._read, self._every_s, self._start = read, every_s, start
        self._old = False
        self.running = False
        self._last = 0.0

    def touch(self) -> None:
        """The state is old."""
        self._old = True
        if not self.running:
            self.running = True
            self._start(self._run())

    async def _run(self) -> None:
        try:
            while self._old:
                await asyncio.sleep(max(0.0, self._last + self._every_s - time.monotonic()))
                self._old = False
                self._last = time.monotonic()
                await self._read()
        finally:
            self.running = False


class Feed:
    """Gathers events and keeps a `Snapshot`; tells ``on_changes`` and ``on_snapshot``."""

    def __init__(
        self,
        bridge: Bridge,
        *,
        start: Callable[..., object],
        wake: Callable[[], object],
        on_events: Callable[[list[AnyEvent], Changes], None],
        on_snapshot: Callable[[Snapshot], None],
        now_ns: Callable[[], int],
    ) -> None:
        """Make the feed. ``wake`` is thread-safe and leads to `flush_soon` in the asyncio thread."""
        self._bridge = bridge
        self._wake, self._on_events, self._on_snapshot, self._now_ns = wake, on_events, on_snapshot, now_ns
        self.snapshot = Snapshot()
        self._lock = threading.Lock()
        self._pending: list[AnyEvent] = []
        self._flushing = False
        self._last_flush = 0.0
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._peer_rates: dict[str, deque[float]] = {}
        self._drawing: asyncio.TimerHandle | None = None
        self._last_draw = 0.0
        self.status = Source(self._read_status, STATUS_EVERY_S / 4, start)
        self.jobs = Source(self._read_jobs, JOBS_EVERY_S, start)
        self.marks = Source(self._read_marks, MARKS_EVERY_S, start)

    # Events

    def on_batch(self, batch: list[AnyEvent]) -> None:
        """Take events; engine thread."""
        with self._lock:
            first = not self._pending
            self._pending += batch
        if first:
            self._wake()

    def flush_soon(self) -> None:
        """Handle what waits, at most ten times a second."""
        if self._flushing:
            return
        self._flushing = True
        delay = max(0.0, self._last_flush + 1 / UPDATES_PER_S - time.monotonic())
        asyncio.get_running_loop().call_later(delay, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._last_flush = time.monotonic()
        with self._lock:
            batch, self._pending = self._pending, []
        changes = changes_of(batch)
        for old, source in (
            (changes.status, self.status), (changes.jobs, self.jobs), (changes.marks, self.marks)
        ):  # fmt: skip
            if old:
                source.touch()
        self._on_events(batch, changes)

    # State

    def read_all(self) -> None:
        """Read the whole state again."""
        self.status.touch()
        self.jobs.touch()
        self.marks.touch()

    async def poll(self) -> None:
        """Read the status now and then, for ever."""
        while True:
            await asyncio.sleep(STATUS_EVERY_S if self._busy() else STATUS_IDLE_EVERY_S)
            self._sample()
            self.status.touch()

    def _busy(self) -> bool:
        status = self.snapshot.status
        return status is None or not status.idle or any(self._rates) or bool(status.churten.active)

    def _sample(self) -> None:
        """Take the rates into the histories; nothing moves while all of them are zero."""
        status = self.snapshot.status
        if status is None:
            return
        peers = {peer.name: peer.rx_rate + peer.tx_rate for peer in status.peers}
        for gone in self._peer_rates.keys() - peers.keys():
            del self._peer_rates[gone]
        for peer, rate in peers.items():
            self._peer_rates.setdefault(peer, deque(maxlen=HISTORY)).append(rate)
        self._rates.append(sum(peers.values()))
        self._set(
            replace(
                self.snapshot,
                rates=_trend(self._rates),
                peer_rates=tuple((peer, _trend(history)) for peer, history in self._peer_rates.items()),
            )
        )

    async def _read_status(self) -> None:
        status: Status = await self._bridge.call(lambda api: api.status())
        now_ns, before = self._now_ns(), self.snapshot
        if status != before.status or now_ns - before.now_ns > CLOCK_EVERY_NS:
            self._set(replace(before, status=status, now_ns=now_ns))
        if before.status is None:
            self._sample()

    async def _read_jobs(self) -> None:
        jobs: Jobs = await self._bridge.call(lambda api: api.jobs())
        self._set(replace(self.snapshot, jobs=jobs))

    async def _read_marks(self) -> None:
        marks: tuple[MarkRow, ...] = await self._bridge.call(lambda api: api.mark_list())
        self._set(replace(self.snapshot, marks=marks))

    def _set(self, snapshot: Snapshot) -> None:
        """Keep a newer snapshot; draw it soon, together with what else arrives."""
        if snapshot == self.snapshot:
            return
        self.snapshot = snapshot
        if self._drawing is None:
            delay = max(0.0, self._last_draw + 1 / UPDATES_PER_S - time.monotonic())
            self._drawing = asyncio.get_running_loop().call_later(delay, self._draw)

    def _draw(self) -> None:
        self._drawing = None
        self._last_draw = time.monotonic()
        self._on_snapshot(self.snapshot)

    @property
    def settled(self) -> bool:
        """Whether no event waits and all that is old is being read or drawn."""
        busy = any(source.running for source in (self.status, self.jobs, self.marks))
        return not (busy or self._flushing or self._pending or self._drawing)

    def stop(self) -> None:
        """Draw nothing any more."""
        if self._drawing is not None:
            self._drawing.cancel()


def _trend(history: deque[float]) -> tuple[float, ...]:
    """Return a history, nothing when all of it is zero: then nothing moves on the screen."""
    return tuple(history) if any(history) else ()
