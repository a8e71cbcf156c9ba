"""Running the work of one arena: due nodes are decided on, and their jobs carried out a few at once.

Small files go in groups, a large one alone. Owned by `core.churten`, which starts and stops it.
Engine thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from core.api import ArenaPath, JobRow
from core.blobrows import Area
from core.errors import NetError, NoHolderError, NoRoomError, RealizeError, StoreError
from core.events import JobPhase
from core.history import Op
from core.jobs import EndIfCancelled, Job, JobBoard
from core.paths import join
from core.planning import GROUP_FILES, action_for, groups_of, word_for
from core.ports import PeerLink
from core.realizer import Outcome, Realizer
from core.rules import Action
from core.types import Hash, Holding, Mark
from core.unrealizer import Unrealizer
from core.work import NO_HOLDER, UNCONFIRMED, UNQUIET, Work, WorkQueue, is_waiting

if TYPE_CHECKING:
    from core.arena import Arena

SMALL_BYTES = 1024 * 1024
"""LIMIT: files up to one chunk's worth travel in groups (spec 5 §Transfer)."""
_LOOK_AHEAD = 1024
_IDLE_LOOK_S = 60.0
_QUIET_DEBOUNCES = 5
"""LIMIT: a real file is given up that was not changed for so many times the debounce."""

Holders = Callable[["Arena", int, Hash], list[PeerLink]]
Sources = Callable[["Arena", int, Hash, int], list[PeerLink]]
"""Where to fetch a content of a node from, given its size."""


class ArenaRunner:
    """Takes the work of one arena out of its queue and runs it."""

    def __init__(
        self,
        arena: Arena,
        board: JobBoard,
        limiter: trio.Semaphore,
        sources: Sources,
        durable: Holders,
        now_ns: Callable[[], int],
    ) -> None:
        """Run on ``arena``; see `core.churten.Churten`. ``limiter`` bounds the jobs of all arenas."""
        self.arena = arena
        self.queue: WorkQueue = arena.work
        self.active: set[int] = set()
        self._board = board
        self._limiter = limiter
        self._sources = sources
        self._now_ns = now_ns
        self._realizer = Realizer(arena)
        self._unrealizer = Unrealizer(arena, durable)
        self._wake = trio.Event()
        self._downloads: dict[int, tuple[Work, trio.CancelScope]] = {}
        arena.room.on_room = self._room_made

    def wake(self) -> None:
        """Look at the queue; large downloads of what has changed or is not wanted any more end at once."""
        for node, (work, scope) in self._downloads.items():
            now = self.queue.one(node)
            if now is None or now.counter == work.counter:
                continue
            if now.hash != work.hash or action_for(self.arena, now) is not Action.DOWNLOAD:
                scope.cancel()
        self._wake.set()

    def _room_made(self) -> None:
        self.queue.retry_for_room()
        self.wake()

    async def run(self) -> None:
        """Take work out of the queue, for ever; while nothing can be recorded, nothing is done either."""
        await self.arena.looked_at.wait()
        while True:
            await self.arena.trouble.wait()
            try:
                await self._run()
            except* StoreError as group:
                self.arena.trouble.found(group)

    async def _run(self) -> None:
        self.active.clear()
        self.queue.retry_for_room()  # the quota may be another one now
        async with trio.open_nursery() as nursery:
            while True:
                # What comes up while the queue is gone through from here on ends the wait after it.
                self._wake = trio.Event()
                looked_ns = self._now_ns()
                cursor = 0
                while works := self.queue.due(cursor, looked_ns, _LOOK_AHEAD):
                    cursor = works[-1].counter
                    await self._plan(nursery, [work for work in works if work.node not in self.active])
                    await trio.lowlevel.checkpoint()
                await self._wait(looked_ns)

    async def _wait(self, looked_ns: int) -> None:
        due_ns = self.queue.next_due_ns(looked_ns)
        timeout_s = _IDLE_LOOK_S if due_ns is None else max(0.0, (due_ns - self._now_ns()) / 1e9)
        with trio.move_on_after(min(timeout_s, _IDLE_LOOK_S)):
            await self._wake.wait()

    async def _plan(self, nursery: trio.Nursery, works: Sequence[Work]) -> None:
        small: list[Work] = []
        placed: list[tuple[Work, Action]] = []
        large: list[Work] = []
        given_up: list[Work] = []
        released: list[Work] = []
        unquiet: list[tuple[Work, int]] = []
        now_ns = self._now_ns()
        idle: list[Work] = []
        cached: list[Work] = []
        with self.arena.cache.write():
            for work in works:
                if work.subtree:
                    self.queue.expand(work)
                action = action_for(self.arena, work)
                match action:
                    case Action.NOTHING:
                        idle.append(work)
                    case Action.CACHE:
                        cached.append(work)
                    case Action.DOWNLOAD:
                        (small if work.size <= SMALL_BYTES else large).append(work)
                    case Action.REALIZE | Action.DELETE | Action.RENAME | Action.ADJUST:
                        placed.append((work, action))
                    case Action.UNREALIZE if (due_ns := self._quiet_at_ns(work)) > now_ns:
                        unquiet.append((work, due_ns))
                    case Action.UNREALIZE:
                        given_up.append(work)
                    case Action.RELEASE:
                        released.append(work)
            self._finish(idle)
            self.queue.postpone(unquiet, UNQUIET)
            self._settle_areas(idle)
            self._record_cached(cached)
            self._protect(placed)
        for start in range(0, len(placed), GROUP_FILES):
            chunk = placed[start : start + GROUP_FILES]
            await self._start(nursery, [work for work, _ in chunk], partial(self._realize_job, chunk))
        for group in groups_of(small):
            await self._start(nursery, group, partial(self._small_job, group))
        for work in large:
            await self._start(nursery, [work], partial(self._large_job, work))
        for action, works in ((Action.UNREALIZE, given_up), (Action.RELEASE, released)):
            for group in groups_of(works):
                await self._start(nursery, group, partial(self._give_up_job, group, action))

    def _quiet_at_ns(self, work: Work) -> int:
        """Return when nobody will have changed a real file for a while (wall clock); 0: long ago.

        A program that opens a file again and again to add to it must find it where it is.
        """
        quiet_ns = int(self.arena.config.debounce_s * _QUIET_DEBOUNCES * 1e9)
        changed_ns = work.entry.mtime_ns if work.entry is not None else 0
        return changed_ns + quiet_ns if changed_ns <= self._now_ns() else 0

    def _settle_areas(self, works: Sequence[Work]) -> None:
        """Keep what is marked out of reach of eviction, and let go of what nothing here needs any more.

        What was kept and is cached is let go only once others confirm that they hold it (`Action.RELEASE`).
        """
        cache = self.arena.cache
        kept: list[Hash] = []
        watched: list[Hash] = []
        for work in works:
            if work.hash is None:
                continue
            if cache.marks.effective(work.node, work.parent) is Mark.WATCH:
                if work.area == Area.PROTECTED and not cache.cached.has(work.hash, 0):
                    watched.append(work.hash)
                    self.arena.room.made()
            elif work.blob_verified:
                kept.append(work.hash)
                if work.area != Area.PROTECTED and work.local == Holding.CACHED:
                    cache.history.append(work.node, Op.META)  # peers may rely on it from now on
        self.arena.blobs.set_area(kept, Area.PROTECTED)
        self.arena.blobs.unprotect(watched)

    def _protect(self, works: Iterable[tuple[Work, Action]]) -> None:
        """Keep what is about to become real from being evicted before it does."""
        contents = [work.hash for work, action in works if action is Action.REALIZE and work.hash is not None]
        self.arena.blobs.set_area(contents, Area.PROTECTED)

    async def _start(
        self, nursery: trio.Nursery, works: Sequence[Work], job: Callable[[], Awaitable[None]]
    ) -> None:
        nodes = [work.node for work in works]
        await self._limiter.acquire()
        self.active.update(nodes)
        nursery.start_soon(self._run_job, nodes, job)

    async def _run_job(self, nodes: Sequence[int], job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        finally:
            self.active.difference_update(nodes)
            self._limiter.release()
            self._wake.set()

    # -- jobs

    async def _realize_job(self, works: Sequence[tuple[Work, Action]]) -> None:
        first = works[0]
        total = sum(work.size for work, _ in works)
        job = self._board.begin(self._at(first[0]), word_for(first[1]), len(works), total)
        with self._ended_if_cancelled(job):
            outcomes = await self._realizer.carry_out(works)
            failed = [outcome for outcome in outcomes if outcome.error]
            for outcome in failed:
                self.queue.fail(outcome.work, outcome.error, self._now_ns())
            self._board.advance(job, job.bytes_total)
            self._end(job, [outcome.error for outcome in failed])

    async def _give_up_job(self, works: Sequence[Work], action: Action) -> None:
        total = sum(work.size for work in works)
        job = self._board.begin(self._at(works[0]), word_for(action), len(works), total)
        with self._ended_if_cancelled(job):
            carry_out = self._unrealizer.unrealize if action is Action.UNREALIZE else self._unrealizer.release
            try:
                outcomes = await carry_out(works)
            except RealizeError as error:
                outcomes = [Outcome(work, str(error)) for work in works]
            failed = [outcome for outcome in outcomes if outcome.error]
            for outcome in failed:
                # RACE: a holder may have connected since it was missed, and not come once more.
                waits = outcome.error == UNCONFIRMED and self._unrealizer.lacks_holders(outcome.work)
                self.queue.fail(outcome.work, outcome.error, self._now_ns(), wait_for_peer=waits)
            self._board.advance(job, job.bytes_total)
            self._end(job, [outcome.error for outcome in failed])

    async def _small_job(self, works: Sequence[Work]) -> None:
        job = self._board.begin(self._at(works[0]), "download", len(works), sum(w.size for w in works))
        with self._ended_if_cancelled(job):
            problems = []
            for links, group in self._by_holders(works):
                job.peers = tuple(link.name for link in links)
                if links:
                    problems.append(await self._fetch_small(job, links, group))
                    continue
                for work in group:
                    # RACE: a holder may have connected while others' files were fetched.
                    waits = not self._links(work)
                    self.queue.fail(work, NO_HOLDER, self._now_ns(), wait_for_peer=waits)
                problems.append(NO_HOLDER)
            self._end(job, problems)

    def _end(self, job: Job, problems: Iterable[str]) -> None:
        """End a job; what only waits for something has not failed."""
        found = sorted(filter(None, problems), key=is_waiting)
        phase: JobPhase = "finished" if not found else "queued" if is_waiting(found[0]) else "failed"
        self._board.end(job, phase, found[0] if found else "")

    def _by_holders(self, works: Sequence[Work]) -> list[tuple[list[PeerLink], list[Work]]]:
        """Return the works that the same peers hold together."""
        groups: dict[tuple[str, ...], tuple[list[PeerLink], list[Work]]] = {}
        for work in works:
            links = self._links(work)
            groups.setdefault(tuple(link.name for link in links), (links, []))[1].append(work)
        return list(groups.values())

    async def _fetch_small(self, job: Job, links: list[PeerLink], works: Sequence[Work]) -> str:
        """Fetch and record small files that these peers hold; returns the first problem, "" for none."""
        by_hash: dict[Hash, list[Work]] = {}
        for work in works:
            if work.hash is not None:
                by_hash.setdefault(work.hash, []).append(work)
        try:
            results = await self.arena.fetcher.download_small(
                [(content, group[0].size) for content, group in by_hash.items()],
                links,
                lambda more: self._board.advance(job, job.bytes_done + more),
                Area.PROTECTED,
            )
        except RealizeError as error:
            for work in works:
                self._fail(work, error)
            return str(error)
        fetched: list[Work] = []
        problem = ""
        for content, failure in results.items():
            if failure is None:
                fetched += by_hash[content]
                continue
            problem = str(failure)
            for work in by_hash[content]:
                self._fail(work, failure)
        await self._settle(fetched)
        return problem

    async def _large_job(self, work: Work) -> None:
        job = self._board.begin(self._at(work), "download", 1, work.size)
        with self._ended_if_cancelled(job):
            links = self._links(work)
            job.peers = tuple(link.name for link in links)
            if not links or work.hash is None:
                self.queue.fail(work, NO_HOLDER, self._now_ns(), wait_for_peer=True)
                self._end(job, [NO_HOLDER])
                return
            held = self.arena.blobs.info(work.hash)
            job.bytes_done = held.ranges.total() if held is not None else 0
            with trio.CancelScope() as scope:
                self._downloads[work.node] = (work, scope)
                try:
                    await self.arena.fetcher.download(
                        work.hash,
                        work.size,
                        links,
                        progress=lambda more: self._board.advance(job, job.bytes_done + more),
                        area=Area.PROTECTED,
                    )
                except RealizeError as error:
                    retry_s = self._fail(work, error)
                    phase: JobPhase = "queued" if self._waits(work, error) else "failed"
                    self._board.end(job, phase, str(error), retry_s)
                    return
                finally:
                    del self._downloads[work.node]
            if scope.cancelled_caught:
                self._board.end(job, "cancelled", "it changed, or is not wanted any more")
                return
            await self._settle([work])
            self._end(job, [])

    async def _settle(self, works: Sequence[Work]) -> None:
        """Record fetched content, and go on with what is to become real."""
        placed: list[tuple[Work, Action]] = []
        cached: list[Work] = []
        with self.arena.cache.write():
            idle = []
            for work in self.queue.unchanged(works):
                match action_for(self.arena, work):
                    case Action.REALIZE as action:
                        placed.append((work, action))
                    case Action.CACHE:
                        cached.append(work)
                    case Action.NOTHING:
                        idle.append(work)
                    case _:  # it stays in the queue: the blob was given to another path of that content
                        continue
            self._finish(idle)
            self._record_cached(cached)
            self._protect(placed)
        if placed:
            for outcome in await self._realizer.carry_out(placed):
                if outcome.error:
                    self.queue.fail(outcome.work, outcome.error, self._now_ns())

    def _record_cached(self, works: Sequence[Work]) -> None:
        if works:
            self.arena.record_cached([work.node for work in works])
            self._finish(works)

    def _finish(self, works: Sequence[Work]) -> None:
        """Take nodes out of the queue about which nothing more can be done now."""
        self.queue.finish(works)
        if works and (self.arena.datadir is None or self.arena.offline):
            self.queue.leave_undone()

    def _fail(self, work: Work, error: RealizeError) -> float | None:
        wait = self._lacks_holder(work, error)
        reason = NO_HOLDER if wait else str(error)
        if isinstance(error, NoRoomError):
            self.arena.room.lacking(work.size, reason)
        return self.queue.fail(work, reason, self._now_ns(), wait_for_peer=wait)

    def _lacks_holder(self, work: Work, error: RealizeError) -> bool:
        # RACE: a holder that went away meanwhile may be connected again by now, and not come once more.
        return isinstance(error, NoHolderError | NetError) and not self._links(work)

    def _waits(self, work: Work, error: RealizeError) -> bool:
        return isinstance(error, NoRoomError) or self._lacks_holder(work, error)

    # -- what jobs are about

    def _links(self, work: Work) -> list[PeerLink]:
        return self._sources(self.arena, work.node, work.hash, work.size) if work.hash is not None else []

    def _at(self, work: Work) -> ArenaPath:
        parent = self.arena.cache.tree.directory_path(work.parent)
        return ArenaPath(self.arena.name, join(parent, work.name) if work.name else b"")

    def _ended_if_cancelled(self, job: Job) -> EndIfCancelled:
        return EndIfCancelled(self._board, job)

    def waiting_rows(self, limit: int, running: bool) -> list[JobRow]:
        """Return up to ``limit`` rows of what is queued, waits or failed."""
        now_ns = self._now_ns()
        rows: list[JobRow] = []
        for node, due_ns, reason, attempts in self.queue.waiting(limit + len(self.active)):
            if node in self.active or len(rows) >= limit:
                continue
            work = self.queue.one(node)
            if work is None:
                continue
            waits = due_ns > now_ns
            retry_s = (due_ns - now_ns) / 1e9 if waits and due_ns < (1 << 62) else None
            rows.append(
                JobRow(
                    job=0,
                    at=self._at(work),
                    action=word_for(action_for(self.arena, work)),
                    state="queued"
                    if not waits
                    else "failed"
                    if attempts and not is_waiting(reason)
                    else "waiting",
                    files=1,
                    bytes_done=0,
                    bytes_total=work.size,
                    rate=0.0,
                    eta_s=None,
                    peers=(),
                    reason=self.arena.trouble.reason or reason,
                    retry_s=retry_s,
                )
            )
        return rows
