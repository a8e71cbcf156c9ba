"""Churten: the job runner that makes the disk agree with the marks.

It takes dirty nodes in order, decides one action from marks, entries and blobs (`core.rules`), and runs
a few jobs at once; small files go in groups, a large one alone. Everything it knows is in the
databases, so it survives a restart at any point; a stop is remembered. Engine thread.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from core.api import ArenaPath, HashingRow, JobRow, Jobs
from core.blobrows import Area
from core.choice import LOCAL_PEER
from core.errors import NetError, NoHolderError, RealizeError, StoreError
from core.events import ChurtenChanged, EventBus, JobAction
from core.jobs import Job, JobBoard
from core.paths import join
from core.ports import PeerLink
from core.realizer import Realizer
from core.rules import Action, Case, decide
from core.types import Hash, Holding, Kind, Mark
from core.work import NO_HOLDER, Work, WorkQueue

if TYPE_CHECKING:
    from core.arena import Arena

_log = logging.getLogger("realize.core.churten")

PARALLEL_JOBS = 4
"""LIMIT: jobs at once (spec 4 §Jobs)."""
SMALL_BYTES = 1024 * 1024
"""LIMIT: files up to one chunk's worth travel in groups (spec 5 §Transfer)."""
_GROUP_BYTES = 16 * 1024 * 1024
_GROUP_FILES = 512
_LOOK_AHEAD = 1024
_IDLE_LOOK_S = 60.0


class Churten:
    """The runner over all arenas."""

    def __init__(
        self,
        arenas: Mapping[str, Arena],
        events: EventBus,
        holders: Callable[[Arena, int, Hash], list[PeerLink]],
        now_ns: Callable[[], int],
        *,
        running: bool,
        remember: Callable[[bool], None],
    ) -> None:
        """Make the runner; ``remember`` writes whether it runs, ``holders`` gives connected holders."""
        self._events = events
        self._now_ns = now_ns
        self._remember = remember
        self.running = running
        self.board = JobBoard(events.emit, trio.current_time)
        limiter = trio.Semaphore(PARALLEL_JOBS)
        self._runners = {
            name: _ArenaRunner(arena, self.board, limiter, holders, now_ns) for name, arena in arenas.items()
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
                runner.queue.retry(reason=NO_HOLDER)
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
        """Return the numbers of active jobs, due nodes, and waiting or failed nodes."""
        due = failed = 0
        for runner in self._runners.values():
            arena_due, arena_failed = runner.queue.counts(self._now_ns())
            due += arena_due
            failed += arena_failed
        active_nodes = sum(len(runner.active) for runner in self._runners.values())
        return len(self.board), max(0, due - active_nodes), failed

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
        active, due, _ = self.counts()
        if active:
            return f"{active} job{'s' if active > 1 else ''} to finish"
        if due and self.running:
            return f"{due} path{'s' if due > 1 else ''} to be looked at"
        return ""


class _ArenaRunner:
    """Takes the work of one arena out of its queue and runs it."""

    def __init__(
        self,
        arena: Arena,
        board: JobBoard,
        limiter: trio.Semaphore,
        holders: Callable[[Arena, int, Hash], list[PeerLink]],
        now_ns: Callable[[], int],
    ) -> None:
        self.arena = arena
        self.queue: WorkQueue = arena.work
        self.active: set[int] = set()
        self._board = board
        self._limiter = limiter
        self._holders = holders
        self._now_ns = now_ns
        self._realizer = Realizer(arena)
        self._wake = trio.Event()

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Run for ever; while nothing can be recorded, nothing is done either."""
        await self.arena.looked_at.wait()
        while True:
            await self.arena.trouble.wait()
            try:
                await self._run()
            except* StoreError as group:
                self.arena.trouble.found(group)

    async def _run(self) -> None:
        self.active.clear()
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
        idle: list[Work] = []
        cached: list[Work] = []
        with self.arena.cache.write():
            for work in works:
                if work.subtree:
                    self.queue.expand(work)
                action = self._decide(work)
                match action:
                    case Action.NOTHING:
                        idle.append(work)
                    case Action.CACHE:
                        cached.append(work)
                    case Action.DOWNLOAD:
                        (small if work.size <= SMALL_BYTES else large).append(work)
                    case Action.REALIZE | Action.DELETE | Action.RENAME | Action.ADJUST:
                        placed.append((work, action))
            self.queue.finish(idle)
            self._settle_areas(idle)
            self._record_cached(cached)
            self._protect(placed)
        for start in range(0, len(placed), _GROUP_FILES):
            chunk = placed[start : start + _GROUP_FILES]
            await self._start(nursery, [work for work, _ in chunk], partial(self._realize_job, chunk))
        for group in _groups(small):
            await self._start(nursery, group, partial(self._small_job, group))
        for work in large:
            await self._start(nursery, [work], partial(self._large_job, work))

    def _settle_areas(self, works: Sequence[Work]) -> None:
        """Keep what is marked out of reach of eviction, and let go of what is not any more."""
        marks = self.arena.cache.marks
        kept: list[Hash] = []
        watched: list[Hash] = []
        for work in works:
            if work.hash is None:
                continue
            if marks.effective(work.node, work.parent) is Mark.WATCH:
                watched.append(work.hash)
            elif work.blob_verified:
                kept.append(work.hash)
        self.arena.blobs.set_area(kept, Area.PROTECTED)
        self.arena.blobs.unprotect(watched)

    def _protect(self, works: Iterable[tuple[Work, Action]]) -> None:
        """Keep what is about to become real from being evicted before it does."""
        contents = [work.hash for work, action in works if action is Action.REALIZE and work.hash is not None]
        self.arena.blobs.set_area(contents, Area.PROTECTED)

    def _decide(self, work: Work) -> Action:
        entry = work.entry
        arena = self.arena
        if work.node == arena.cache.root:
            return Action.NOTHING  # it is the datadir
        action = decide(
            Case(
                mark=arena.cache.marks.effective(work.node, work.parent),
                kind=work.kind,
                hashed=work.hash is not None,
                shown_local=work.local,
                local_holding=entry.holding if entry is not None else None,
                blob_verified=work.blob_verified,
                flags=work.flags,
                has_datadir=arena.datadir is not None and not arena.offline,
                same_meta=entry is None or _same_meta(work, entry.mode, entry.mtime_ns),
                implicit=_is_implicit(work),
            )
        )
        return self._unless_renamed(work, action)

    def _unless_renamed(self, work: Work, action: Action) -> Action:
        """Rename a real file that a peer renamed, instead of deleting it and fetching it again."""
        cache = self.arena.cache
        if action is Action.DELETE:
            return Action.RENAME if cache.moving.target(work.node) is not None else action
        source = cache.moving.source(work.node)
        if source is None or cache.shown(source).kind != Kind.NONE:
            return action
        local = cache.local_entry(source)
        return Action.NOTHING if local is not None and local.holding == Holding.REAL else action

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
        job = self._board.begin(self._at(first[0]), _word(first[1]), len(works), total)
        with self._ended_if_cancelled(job):
            outcomes = await self._realizer.carry_out(works)
            failed = [outcome for outcome in outcomes if outcome.error]
            for outcome in failed:
                self.queue.fail(outcome.work, outcome.error, self._now_ns())
            self._board.advance(job, job.bytes_total)
            self._board.end(job, "failed" if failed else "finished", failed[0].error if failed else "")

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
                    self.queue.fail(work, NO_HOLDER, self._now_ns(), wait_for_peer=True)
                problems.append(NO_HOLDER)
            problem = next(filter(None, problems), "")
            self._board.end(job, "failed" if problem else "finished", problem)

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
                self._board.end(job, "failed", NO_HOLDER)
                return
            try:
                held = self.arena.blobs.info(work.hash)
                job.bytes_done = held.ranges.total() if held is not None else 0
                await self.arena.fetcher.download(
                    work.hash,
                    work.size,
                    links,
                    progress=lambda more: self._board.advance(job, job.bytes_done + more),
                    area=Area.PROTECTED,
                )
            except RealizeError as error:
                self._board.end(job, "failed", str(error), self._fail(work, error))
                return
            await self._settle([work])
            self._board.end(job, "finished")

    async def _settle(self, works: Sequence[Work]) -> None:
        """Record fetched content, and go on with what is to become real."""
        placed: list[tuple[Work, Action]] = []
        cached: list[Work] = []
        with self.arena.cache.write():
            idle = []
            for work in self.queue.unchanged(works):
                match self._decide(work):
                    case Action.REALIZE as action:
                        placed.append((work, action))
                    case Action.CACHE:
                        cached.append(work)
                    case Action.NOTHING:
                        idle.append(work)
                    case _:  # it stays in the queue: the blob was given to another path of that content
                        continue
            self.queue.finish(idle)
            self._record_cached(cached)
            self._protect(placed)
        if placed:
            for outcome in await self._realizer.carry_out(placed):
                if outcome.error:
                    self.queue.fail(outcome.work, outcome.error, self._now_ns())

    def _record_cached(self, works: Sequence[Work]) -> None:
        if works:
            self.arena.record_cached([work.node for work in works])
            self.queue.finish(works)

    def _fail(self, work: Work, error: RealizeError) -> float | None:
        wait = isinstance(error, NoHolderError) or (isinstance(error, NetError) and not self._links(work))
        reason = NO_HOLDER if wait else str(error)
        return self.queue.fail(work, reason, self._now_ns(), wait_for_peer=wait)

    # -- what jobs are about

    def _links(self, work: Work) -> list[PeerLink]:
        return self._holders(self.arena, work.node, work.hash) if work.hash is not None else []

    def _at(self, work: Work) -> ArenaPath:
        parent = self.arena.cache.tree.directory_path(work.parent)
        return ArenaPath(self.arena.name, join(parent, work.name) if work.name else b"")

    def _ended_if_cancelled(self, job: Job) -> _EndJob:
        return _EndJob(self._board, job)

    def waiting_rows(self, limit: int, running: bool) -> list[JobRow]:
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
                    action=_word(self._decide(work)),
                    state="queued"
                    if not waits
                    else "failed"
                    if attempts and reason != NO_HOLDER
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


class _EndJob:
    """Ends a job as cancelled if its task is, so that the board never shows a ghost."""

    def __init__(self, board: JobBoard, job: Job) -> None:
        self._board, self._job = board, job

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._board.end(self._job, "cancelled", "stopped")


def _word(action: Action) -> JobAction:
    match action:
        case Action.DELETE:
            return "delete"
        case Action.RENAME:
            return "rename"
        case Action.REALIZE | Action.ADJUST:
            return "realize"
        case _:
            return "download"


def _same_meta(work: Work, mode: int, mtime_ns: int) -> bool:
    if work.kind is Kind.SYMLINK or work.entry is None or work.entry.holding != Holding.REAL:
        return True
    if work.entry.peer != LOCAL_PEER:
        return True
    same_mode = (work.mode ^ mode) & 0o777 == 0
    return same_mode and (work.kind is Kind.DIR or work.mtime_ns == mtime_ns)


def _is_implicit(work: Work) -> bool:
    entry = work.entry
    return (
        entry is not None
        and work.kind is Kind.DIR
        and entry.kind == Kind.DIR
        and entry.holding == Holding.REAL
        and work.local != Holding.REAL
    )


def _groups(works: Sequence[Work]) -> list[list[Work]]:
    """Cut small files into groups of bounded number and bytes, in the order given."""
    groups: list[list[Work]] = []
    count = size = 0
    for work in works:
        if not groups or count >= _GROUP_FILES or size + work.size > _GROUP_BYTES:
            groups.append([])
            count = size = 0
        groups[-1].append(work)
        count += 1
        size += work.size
    return groups
