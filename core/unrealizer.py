"""The jobs that give up durable copies: *unrealize* and *release*.

To unrealize makes a blob of a real file, to release lets a blob that was kept be evicted again. Both ask
the holders first (`core.leases`). Engine thread; files are taken out in a worker (`core.taking`).

The order of an unrealize is rename out of the datadir → commit, to the disk → rename into the blob store.
Killed before the commit, the file goes back to its place at the next start, before the datadir is looked at
(`restore`); killed after it, it is carried on (`carry_on`). So a scan never takes it for deleted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from core import db
from core.blobexchange import Entering
from core.blobrows import Area
from core.displaced import Why
from core.errors import NoSpaceError, StoreError
from core.events import FilesChanged
from core.history import Op
from core.leases import Wanted, ask
from core.paths import join
from core.placing import Identity
from core.ports import PeerLink
from core.realizer import CHANGED_HERE, Outcome
from core.taking import Taken, Taking, put_back, take
from core.trashrows import Reason
from core.types import DURABLE, Hash, Holding, Mark, RelPath
from core.work import UNCONFIRMED, Work

if TYPE_CHECKING:
    from core.arena import Arena

REFUSED = "other peers do not confirm that their copies stay"
GAVE_WAY = "another peer gives up its copy at the same time; it goes first"
SHARED = "the same content is kept at another path"
_TAKE_FILES = 128
"""LIMIT: files taken out at a time: so many are open, and for so long the index waits."""

Holders = Callable[["Arena", int, Hash], list[PeerLink]]


def taken_name(content: Hash, node: int, counter: int) -> str:
    """Return the name under which a file on its way into the blob store waits in the work directory."""
    return f"un-{content.hex()}-{node}-{counter}"


@dataclass(frozen=True, slots=True)
class _Job:
    """A file to be taken, and the name it gets on the way."""

    work: Work
    path: RelPath
    content: Hash
    to: Path


def _why(work: Work) -> Why:
    return Why(Reason.REPLACED, mtime_ns=work.entry.mtime_ns if work.entry is not None else None)


class Unrealizer:
    """Carries out batches on one arena; ``holders`` gives the connected peers with durable copies."""

    def __init__(self, arena: Arena, holders: Holders) -> None:
        """Work on ``arena``."""
        self._arena = arena
        self._holders = holders
        self._limiter = trio.CapacityLimiter(1)

    # -- unrealize

    async def unrealize(self, works: Sequence[Work]) -> list[Outcome]:
        """Turn real files into blobs; those that cannot be do not stop the others."""
        arena = self._arena
        if arena.datadir is None or arena.offline:
            return [Outcome(work, arena.offline or "the arena has no datadir") for work in works]
        by_node = {work.node: work for work in works}
        with arena.giving_up.asking(list(by_node)) as mine:
            outcomes = [Outcome(work, GAVE_WAY) for node, work in by_node.items() if node not in mine]
            refused = await self._unconfirmed([self._wanted(by_node[node]) for node in mine])
            outcomes += [Outcome(by_node[node], why) for node, why in refused.items()]
            decided = arena.giving_up.decide([node for node in mine if node not in refused])
            outcomes += [
                Outcome(by_node[node], GAVE_WAY)
                for node in mine
                if node not in refused and node not in decided
            ]
            going = [by_node[node] for node in mine if node in decided]
            for start in range(0, len(going), _TAKE_FILES):
                outcomes += await self._give_up(arena.datadir, going[start : start + _TAKE_FILES])
        return outcomes

    def _path(self, work: Work) -> RelPath:
        return join(self._arena.cache.tree.directory_path(work.parent), work.name)

    def _wanted(self, work: Work) -> Wanted:
        return Wanted(work.node, self._path(work), Hash(work.hash or b""))

    def lacks_holders(self, work: Work) -> bool:
        """Say whether fewer peers than have to confirm a copy are connected."""
        links = self._holders(self._arena, work.node, Hash(work.hash or b""))
        return len(links) < self._arena.copies_elsewhere

    async def _unconfirmed(self, wanted: Sequence[Wanted]) -> dict[int, str]:
        """Return the nodes whose copies must stay, with the reason."""
        arena = self._arena
        copies = arena.copies_elsewhere

        def links(node: int, content: Hash) -> list[PeerLink]:
            return self._holders(arena, node, content)

        confirmed = await ask(arena.name, wanted, links, copies)
        return {
            one.node: UNCONFIRMED if len(links(one.node, one.content)) < copies else REFUSED
            for one in wanted
            if confirmed[one.node] < copies
        }

    async def _give_up(self, datadir: Path, works: Sequence[Work]) -> list[Outcome]:
        arena = self._arena
        quota = arena.blobs.quota
        needed = sum(quota.blocks(work.size) for work in works)
        try:
            await arena.blobs.reserve(needed)
        except NoSpaceError as error:
            return [Outcome(work, str(error)) for work in works]
        outcomes: list[Outcome] = []
        try:
            # Nothing may see a file that is neither in the datadir nor in the store; a cancelled churten
            # must not leave the database behind the disk.
            async with arena.exclusive():
                with trio.CancelScope(shield=True):
                    outcomes = await self._move(datadir, works)
        finally:
            quota.release(needed)
        return outcomes

    async def _move(self, datadir: Path, works: Sequence[Work]) -> list[Outcome]:
        arena = self._arena
        outcomes = [Outcome(work, CHANGED_HERE) for work in works if self._is_stale(work)]
        jobs = [self._job(work) for work in works if not self._is_stale(work)]
        arena.in_transit.update((job.content, job.to) for job in jobs)
        try:
            takings = [Taking(job.path, self._identity(job.work), os.fsencode(job.to)) for job in jobs]
            try:
                results = await trio.to_thread.run_sync(take, datadir, takings, limiter=self._limiter)
            except OSError as error:
                results = [Taken(problem=error.strerror or str(error))] * len(jobs)
            taken: list[tuple[_Job, int]] = []
            for job, result in zip(jobs, results, strict=True):
                if result.done:
                    taken.append((job, result.disk_bytes))
                if result.displaced:
                    await arena.displaced.settle(job.to, job.path, _why(job.work))
                outcomes.append(Outcome(job.work, CHANGED_HERE if result.changed else result.problem))
            if taken:
                await arena.blobs.settled([job.content for job, _ in taken])
                try:
                    self._record(taken)
                except StoreError:
                    await self._put_back(datadir, [job for job, _ in taken])
                    raise
        finally:
            for job in jobs:
                arena.in_transit.pop(job.content, None)
        return outcomes

    async def _put_back(self, datadir: Path, jobs: Sequence[_Job]) -> None:
        """Undo what could not be recorded."""
        for job in jobs:
            back = Taking(job.path, self._identity(job.work), os.fsencode(job.to))
            if not await trio.to_thread.run_sync(put_back, datadir, back, limiter=self._limiter):
                await self._arena.displaced.settle(job.to, job.path, _why(job.work))

    def _job(self, work: Work) -> _Job:
        content = Hash(work.hash or b"")
        to = self._arena.work_path / taken_name(content, work.node, work.counter)
        return _Job(work, self._path(work), content, to)

    def _identity(self, work: Work) -> Identity:
        entry = work.entry
        if entry is None:
            raise RuntimeError("only what is real is unrealized")
        return Identity(entry.size, entry.mtime_ns, work.ino)

    def _is_stale(self, work: Work) -> bool:
        cache = self._arena.cache
        place_now = cache.tree.parent_and_name(work.node)
        return place_now != (work.parent, work.name) or cache.local_entry(work.node) != work.entry

    def _record(self, taken: Sequence[tuple[_Job, int]]) -> None:
        """Record that files are blobs now, then rename them in. No ``await``."""
        arena, cache = self._arena, self._arena.cache
        marks = cache.marks
        files = [
            Entering(
                job.content,
                job.work.size,
                disk_bytes,
                job.to,
                Area.WORKING
                if marks.effective(job.work.node, job.work.parent) is Mark.WATCH
                else Area.PROTECTED,
            )
            for job, disk_bytes in taken
        ]
        with db.durably(cache.conn), cache.write():
            change = arena.blobs.enter(files)
            for job, _ in taken:
                self._record_cached(job.work)
            arena.work.finish(job.work for job, _ in taken)
            cache.emit(
                FilesChanged(
                    arena=arena.name,
                    what="unrealized",
                    paths=tuple(job.path for job, _ in taken),
                    contents=tuple(job.content for job, _ in taken),
                    befores=tuple(job.content for job, _ in taken),
                    cause="mark",
                )
            )
        for content in arena.blobs.carry_in(files, change):
            cache.cached.drop(content)

    def _record_cached(self, work: Work) -> None:
        cache = self._arena.cache
        entry = work.entry
        if entry is None:
            raise RuntimeError("only what is real is unrealized")
        cache.put_entry(work.node, entry._replace(holding=int(Holding.CACHED)), ino=work.ino)
        cache.history.append(work.node, Op.AVAILABLE)
        cache.refresh(work.node)
        cache.changes.nodes.add(work.node)
        cache.changes.touched.add(work.parent)

    # -- release

    async def release(self, works: Sequence[Work]) -> list[Outcome]:
        """Let blobs that were kept be evicted again; blobs whose content is kept at another path stay."""
        arena, cache = self._arena, self._arena.cache
        outcomes: list[Outcome] = []
        for work in works:
            content = Hash(work.hash or b"")
            nodes = cache.cached.nodes(content)
            if any(self._stays(node, work.node, content) for node in nodes):
                outcomes.append(Outcome(work))
                continue
            with arena.giving_up.asking(nodes) as mine:
                wanted = [Wanted(node, cache.tree.path(node), content) for node in mine]
                refused = await self._unconfirmed(wanted)
                if len(mine) < len(nodes) or refused or len(arena.giving_up.decide(mine)) < len(nodes):
                    outcomes.append(Outcome(work, next(iter(refused.values()), GAVE_WAY)))
                    continue
                self._unprotect(content, nodes)
                outcomes.append(Outcome(work))
        with cache.write():
            arena.work.finish(outcome.work for outcome in outcomes if not outcome.error)
        return outcomes

    def _stays(self, node: int, released: int, content: Hash) -> bool:
        """Say whether a path wants the blob that is to be released where it is.

        So does another of which too few peers are known to hold it: once they say so, it has its turn.
        """
        if self._mark(node) is not Mark.WATCH:
            return True
        known = self._arena.copies.holder_keys(node, content, DURABLE)
        return node != released and len(known) < self._arena.copies_elsewhere

    def _mark(self, node: int) -> Mark:
        cache = self._arena.cache
        return cache.marks.effective(node, cache.tree.parent_and_name(node)[0])

    def _unprotect(self, content: Hash, nodes: Sequence[int]) -> None:
        """Let a blob be evicted again, unless a path of it was marked, or came, meanwhile."""
        cache = self._arena.cache
        now = cache.cached.nodes(content)
        if set(now) != set(nodes) or any(self._mark(node) is not Mark.WATCH for node in now):
            return
        with db.durably(cache.conn), cache.write():
            self._arena.blobs.unprotect([content])
            for node in nodes:
                cache.history.append(node, Op.META)


# -- after a crash


def carry_on(arena: Arena) -> None:
    """Rename into the blob store, before it starts, what was recorded to be there when the process died."""
    for path, node, content in _leftovers(arena):
        entry = arena.cache.local_entry(node)
        if entry is not None and entry.holding == Holding.CACHED and entry.hash == content:
            os.rename(path, arena.blobs.file_path(content))


async def restore(arena: Arena) -> None:
    """Put back into the datadir what was taken out and not recorded when the process died.

    Before the datadir is scanned. What cannot be put back goes to the trash.
    """
    for path, node, content in _leftovers(arena):
        entry = arena.cache.local_entry(node)
        where = arena.cache.tree.path(node) if entry is not None else RelPath(os.fsencode(path.name))
        real = entry is not None and entry.holding == Holding.REAL and entry.hash == content
        if real and entry is not None and arena.datadir is not None:
            identity = Identity(entry.size, entry.mtime_ns, arena.cache.local_ino(node))
            back = Taking(where, identity, os.fsencode(path))
            if await trio.to_thread.run_sync(put_back, arena.datadir, back):
                continue
        await arena.displaced.settle(path, where, Why(Reason.REPLACED))


def _leftovers(arena: Arena) -> list[tuple[Path, int, Hash]]:
    """Return files that wait under a `taken_name`; of one with other names that file before its copy."""
    found = []
    for path in sorted(arena.work_path.glob("un-*"), reverse=True):
        parts = path.stem.split("-")
        if len(parts) == 4 and parts[2].isdigit():
            found.append((path, int(parts[2]), Hash(bytes.fromhex(parts[1]))))
    return found
