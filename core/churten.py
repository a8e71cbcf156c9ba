"""Churten: the job runner that makes the disk agree with the marks.

It takes dirty nodes in order, decides one action from marks, entries and blobs (`core.rules`), and runs
a few jobs at once; small files go in groups, a large one alone. Everything it knows is in the
databases, so it survives a restart at any point; a stop is remembered. Engine thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import trio

from core.api import HashingRow, Jobs
from core.errors import StoreError
from core.events import ChurtenChanged, EventBus
from core.jobs import JobBoard
from core.runner import ArenaRunner, Holders, Sources
from core.work import PEER_REASONS

if TYPE_CHECKING:
    from core.arena import Arena

PARALLEL_JOBS = 4
"""LIMIT: jobs at once (spec 4 §Jobs)."""


class Churten:
    """The runner over all arenas."""

    def __init__(
        self,
        arenas: Mapping[str, Arena],
        events: EventBus,
        sources: Sources,
        durable: Holders,
        now_ns: Callable[[], int],
        *,
        running: bool,
        remember: Callable[[bool], None],
    ) -> None:
        """Make the runner; ``remember`` writes whether it runs.

        ``sources`` gives where a content of a node can be fetched from, ``durable`` the connected peers that
        said that they hold it durably.
        """
        self._events = events
        self._now_ns = now_ns
        self._remember = remember
        self.running = running
        self.board = JobBoard(events.emit, trio.current_time)
        limiter = trio.Semaphore(PARALLEL_JOBS)
        self._runners = {
            name: ArenaRunner(arena, self.board, limiter, sources, durable, now_ns)
            for name, arena in arenas.items()
        }
        self._gate = trio.Event()
        if running:
            self._gate.set()
        self._scope: trio.CancelScope | None = None

    async def run(self) -> None:
        """Run jobs while started, for ever."""
        while True:
            await self._gate.wait()
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    for runner in self._runners.values():
                        nursery.start_soon(runner.run)
            self._scope = None

    def start(self) -> None:
        """Let jobs run; remembered."""
        if not self.running:
            self.running = True
            self._remember(True)
            self._gate.set()
            self._events.emit(ChurtenChanged(running=True))

    def stop(self) -> None:
        """Stop all jobs at what they have recorded; remembered."""
        if self.running:
            self.running = False
            self._remember(False)
            self._gate = trio.Event()
            if self._scope is not None:
                self._scope.cancel()
            self._events.emit(ChurtenChanged(running=False))

    def links_changed(self) -> None:
        """Try again what waited for a peer."""
        for runner in self._runners.values():
            try:
                for reason in PEER_REASONS:
                    runner.queue.retry(reason=reason)
            except StoreError as error:
                runner.arena.trouble.found(error)  # tried again when that is over
            runner.wake()

    def retry(self, arena: str, node: int | None) -> None:
        """Try failed work again now."""
        runner = self._runners[arena]
        runner.queue.retry(node)
        runner.wake()

    def wake(self, arena: str) -> None:
        """Look at the queue of an arena."""
        self._runners[arena].wake()

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of active jobs, of nodes that are due or wait, and of those that failed."""
        due, waiting, failed = self._counts()
        return len(self.board), due + waiting, failed

    def _counts(self) -> tuple[int, int, int]:
        """Return the numbers of nodes that are due and not in a job, that wait, and that failed."""
        each = [runner.queue.counts(self._now_ns()) for runner in self._runners.values()]
        due, waiting, failed = (sum(column) for column in zip((0, 0, 0), *each, strict=True))
        active_nodes = sum(len(runner.active) for runner in self._runners.values())
        return max(0, due - active_nodes), waiting, failed

    def jobs(self, limit: int, hashing: Sequence[HashingRow]) -> Jobs:
        """Return what runs and what waits."""
        active, queued, failed = self.counts()
        rows = self.board.rows()
        for runner in self._runners.values():
            if len(rows) < limit:
                rows += runner.waiting_rows(limit - len(rows), self.running)
        return Jobs(
            running=self.running,
            active=active,
            queued=queued,
            failed=failed,
            rate=self.board.rate(),
            rows=tuple(rows[:limit]),
            hashing=tuple(hashing),
        )

    def waiting_for(self) -> str:
        """Say what keeps churten from being idle; "" when nothing does or it is stopped."""
        active, (due, _, _) = len(self.board), self._counts()
        if active:
            return f"{active} job{'s' if active > 1 else ''} to finish"
        if due and self.running:
            return f"{due} path{'s' if due > 1 else ''} to be looked at"
        unquiet = sum(runner.queue.unquiet(self._now_ns()) for runner in self._runners.values())
        if unquiet and self.running:
            return f"{unquiet} file{'s' if unquiet > 1 else ''} changed a moment ago"
        return ""
