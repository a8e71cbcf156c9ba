"""The jobs that change the datadir: realize, delete and adjust, for a batch of nodes of one arena.

The placing itself is in `core.placing` and runs in a worker; here the database is made to agree. A
replaced or deleted file goes to the trash. Engine thread.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from core.choice import LOCAL_PEER, EntryRow
from core.displaced import Why
from core.errors import RealizeError
from core.events import FileChange, FilesChanged
from core.filelease import WRITTEN
from core.following import can_move, moved
from core.history import Op
from core.paths import join, split
from core.placing import Identity, Move, Placed, Placement, adjust, move, place
from core.rules import Action
from core.trash import displaced_name
from core.trashrows import Reason
from core.types import Hash, Holding, Kind, PeerKey, RelPath, Vector
from core.versions import EMPTY, advanced
from core.work import NOT_EMPTY, Work

if TYPE_CHECKING:
    from core.arena import Arena

CHANGED_HERE = "the file was changed here meanwhile; the change is looked at first"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one node; ``error`` "" if it is done."""

    work: Work
    error: str = ""


class Realizer:
    """Carries out batches on one arena."""

    def __init__(self, arena: Arena) -> None:
        """Work on ``arena``, which has a datadir."""
        self._arena = arena
        self._limiter = trio.CapacityLimiter(2)
        self._turn = trio.Lock()

    async def carry_out(self, works: Sequence[tuple[Work, Action]]) -> list[Outcome]:
        """Do what was decided for each node; nodes that cannot be done do not stop the others."""
        datadir = self._arena.datadir
        if datadir is None or self._arena.offline:
            return [Outcome(work, self._arena.offline or "the arena has no datadir") for work, _ in works]
        plain = [item for item in works if item[1] not in (Action.ADJUST, Action.RENAME)]
        renamed = [work for work, action in works if action is Action.RENAME]
        # One batch at a time: two may want the same blob's file.
        async with self._turn:
            outcomes = await self._rename_all(datadir, renamed) if renamed else []
            outcomes += await self._place_all(datadir, plain) if plain else []
            for work, action in works:
                if action is Action.ADJUST:
                    outcomes.append(await self._adjust(datadir, work))
        return outcomes

    def _path(self, work: Work) -> RelPath:
        return join(self._arena.cache.tree.directory_path(work.parent), work.name)

    async def _rename_all(self, datadir: Path, works: Sequence[Work]) -> list[Outcome]:
        """Rename files as a peer did; what is not as it was is dealt with as a deletion and an addition."""
        cache = self._arena.cache
        async with self._arena.exclusive():
            ready: list[tuple[Work, int]] = []
            moves: list[Move] = []
            with cache.write():
                for work in works:
                    target = cache.moving.target(work.node)
                    if (
                        target is None
                        or work.entry is None
                        or self._is_stale(work)
                        or not can_move(cache, work.node, target)
                    ):
                        cache.end_move(work.node)
                        continue
                    shown = cache.shown(target)
                    expected = _identity(work, work.entry)
                    path = cache.tree.path(target)
                    moves.append(Move(self._path(work), path, expected, shown.mode, shown.mtime_ns))
                    ready.append((work, target))
            with trio.CancelScope(shield=True):
                try:
                    results, made = await trio.to_thread.run_sync(move, datadir, moves, limiter=self._limiter)
                except OSError as error:
                    results, made = [Placed(error=error)] * len(moves), {}
                self._record_renamed(ready, moves, results, made)
        return [Outcome(work) for work in works]

    def _record_renamed(
        self,
        ready: Sequence[tuple[Work, int]],
        moves: Sequence[Move],
        results: Sequence[Placed],
        made: Mapping[bytes, int],
    ) -> None:
        cache = self._arena.cache
        done: dict[str, list[tuple[Move, Work]]] = {}
        with cache.write():
            for path, ino in made.items():
                self._record_made(path, ino)
            for (work, target), item, result in zip(ready, moves, results, strict=True):
                if result.ino:
                    moved(cache, work.node, target, result.ino)
                    done.setdefault(self._peer_of(work), []).append((item, work))
                else:
                    cache.end_move(work.node)
            self._arena.work.finish(work for work, _ in ready)
            for peer, moved_files in done.items():
                contents = tuple(_known(work) for _, work in moved_files)
                cache.emit(
                    FilesChanged(
                        arena=cache.name,
                        what="renamed",
                        paths=tuple(item.new for item, _ in moved_files),
                        contents=contents,
                        befores=contents,
                        origins=tuple(item.old for item, _ in moved_files),
                        cause="peer",
                        peer=peer,
                    )
                )

    def _record_made(self, path: bytes, ino: int) -> None:
        """Take over a directory, as its peer has it, that was made for what was renamed into it."""
        cache = self._arena.cache
        node = cache.tree.find(path)
        if node is None or cache.shown(node).kind != Kind.DIR or cache.shown(node).local:
            return
        shown = cache.shown(node)
        entry = EntryRow(
            LOCAL_PEER, int(Holding.REAL), shown.kind, 0, shown.mtime_ns, 0o755, None, shown.vector, None
        )
        cache.set_real(node, entry, ino)
        cache.mark_dirty([node])

    async def _place_all(self, datadir: Path, works: Sequence[tuple[Work, Action]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        placements: list[Placement] = []
        ready: list[tuple[Work, Action]] = []
        shared = _repeated(work.hash for work, action in works if action is Action.REALIZE)
        for work, action in self._in_order(works):
            try:
                placements.append(await self._placement(work, action, shared))
            except RealizeError as error:
                outcomes.append(Outcome(work, str(error)))
            else:
                ready.append((work, action))
        # The index must not take what is placed for a change by the user, and a cancelled churten must
        # not leave the database behind the disk.
        async with self._arena.exclusive():
            with trio.CancelScope(shield=True):
                placed = await self._placed(datadir, ready, placements)
                outcomes += self._record(ready, placements, placed)
                displaced = self._note_displaced(ready, placements, placed)
        for placement, result in zip(placements, placed, strict=True):
            if not result.ino and placement.source is not None and placement.source.name.startswith("new-"):
                placement.source.unlink(missing_ok=True)
        for file, path, why in displaced:
            await self._arena.displaced.settle(file, path, why)
        return outcomes

    def _note_displaced(
        self, works: Sequence[tuple[Work, Action]], placements: Sequence[Placement], placed: Sequence[Placed]
    ) -> list[tuple[Path, RelPath, Why]]:
        """Return what came out of the datadir, noted so that it is settled also if this is cancelled."""
        displaced = []
        for (work, _), placement, result in zip(works, placements, placed, strict=True):
            if result.displaced and placement.displaced is not None:
                indexed_ns = placement.replaces.mtime_ns if placement.replaces is not None else None
                why = Why(_reason(placement), _author(work), given_up=result.changed, mtime_ns=indexed_ns)
                displaced.append((placement.displaced, placement.path, why))
                self._arena.displaced.note(*displaced[-1])
        return displaced

    async def _placed(
        self, datadir: Path, works: Sequence[tuple[Work, Action]], placements: Sequence[Placement]
    ) -> list[Placed]:
        """Place what still is as it was when it was decided on; the caller keeps the index from looking."""
        stale = [self._is_stale(work) for work, _ in works]
        todo = [placement for placement, old in zip(placements, stale, strict=True) if not old]
        try:
            known = self._arena.local.datadir_id()
            put = partial(place, datadir, todo, ino=known[1] if known is not None else None)
            done = await trio.to_thread.run_sync(put, limiter=self._limiter)
        except OSError as error:
            done = [Placed(error=error)] * len(todo)
        results = iter(done)
        return [Placed(changed=True) if old else next(results) for old in stale]

    def _is_stale(self, work: Work) -> bool:
        """Say whether the index has moved or changed a node since the job was decided on."""
        cache = self._arena.cache
        place_now = cache.tree.parent_and_name(work.node)
        return place_now != (work.parent, work.name) or cache.local_entry(work.node) != work.entry

    def _in_order(self, works: Sequence[tuple[Work, Action]]) -> list[tuple[Work, Action]]:
        """Return deletions first, what is in a directory before the directory itself."""
        gone = [item for item in works if item[1] is Action.DELETE]
        gone.sort(key=lambda item: self._path(item[0]).count(b"/"), reverse=True)
        return gone + [item for item in works if item[1] is not Action.DELETE]

    async def _placement(self, work: Work, action: Action, shared: dict[Hash, int]) -> Placement:
        path = self._path(work)
        replaces = displaced = None
        if work.entry is not None and work.entry.holding == Holding.REAL:
            replaces = _identity(work, work.entry)
            displaced = self._arena.work_path / displaced_name(work.entry.hash, work.node, work.counter)
        if action is Action.DELETE:
            return Placement(path, Kind.NONE, 0, 0, replaces=replaces, displaced=displaced)
        source = None
        if work.kind is Kind.FILE and work.hash is not None:
            source = await self._source(work, work.hash, shared)
        return Placement(
            path, work.kind, work.mtime_ns, work.mode, source, work.target or b"", replaces, displaced
        )

    async def _source(self, work: Work, content: Hash, shared: dict[Hash, int]) -> Path:
        """Return the file to rename into the datadir: the blob's own, or a copy while others need that.

        ``shared`` counts those of the batch that still have to get the content.

        Raises:
            ChangedError: the blob is gone.
            StoreError: it cannot be copied.
        """
        blobs = self._arena.blobs
        left = shared[content] = shared.get(content, 1) - 1
        cache = self._arena.cache
        shared_here = cache.cached.has(content, work.node) or cache.trash.holds(
            content, besides=self._path(work)
        )
        if not left and not blobs.is_open(content) and not shared_here:
            return blobs.file_path(content)
        copy = self._arena.work_path / f"new-{work.node}-{work.counter}"
        at = os.open(copy.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                os.unlink(copy)
            await blobs.copy_file(content, at, os.fsencode(copy.name))
        finally:
            os.close(at)
        return copy

    def _record(
        self, works: Sequence[tuple[Work, Action]], placements: Sequence[Placement], placed: Sequence[Placed]
    ) -> list[Outcome]:
        arena = self._arena
        outcomes = []
        taken: list[Hash] = []
        changed: dict[tuple[FileChange, str], list[tuple[RelPath, Work]]] = {}
        with arena.cache.write():
            for (work, action), placement, result in zip(works, placements, placed, strict=True):
                if result.error is not None:
                    outcomes.append(Outcome(work, f"{result.error.strerror or result.error}"))
                    continue
                if result.changed:
                    outcomes.append(Outcome(work, CHANGED_HERE))
                    continue
                if result.written:
                    outcomes.append(Outcome(work, WRITTEN))
                    continue
                if result.occupied:
                    outcomes.append(Outcome(work, NOT_EMPTY))
                    continue
                outcomes.append(Outcome(work))
                if action is Action.DELETE:
                    self._record_deleted(work)
                else:
                    self._record_real(work, placement.path, result)
                if work.hash is not None and _is_of_blob(placement, work.hash):
                    taken.append(work.hash)
                if work.kind is not Kind.DIR:
                    what = _what(action, result)
                    peer = "" if what == "added" else self._peer_of(work)
                    changed.setdefault((what, peer), []).append((placement.path, work))
            arena.work.finish(outcome.work for outcome in outcomes if not outcome.error)
            if taken:
                arena.blobs.given_out(taken)
                arena.cache.trash.forget(taken)
                for content in taken:  # RACE: another path may have come to be cached by it meanwhile
                    arena.cache.mark_dirty(arena.cache.cached.drop(content))
            for (what, peer), files in changed.items():
                arena.cache.emit(self._event(what, peer, files))
        return outcomes

    def _peer_of(self, work: Work) -> str:
        """Return the name of the peer whose change made the shown version; "" if that is not known."""
        author = _author(work)
        return self._arena.peer_names.get(author, "") if author is not None else ""

    def _event(self, what: FileChange, peer: str, files: Sequence[tuple[RelPath, Work]]) -> FilesChanged:
        befores = () if what == "added" else tuple(_known(work) for _, work in files)
        return FilesChanged(
            arena=self._arena.name,
            what=what,
            paths=tuple(path for path, _ in files),
            contents=() if what == "removed" else tuple(work.hash or b"" for _, work in files),
            befores=befores,
            cause="mark" if what == "added" else "peer",
            peer=peer,
        )

    def _record_real(self, work: Work, path: RelPath, result: Placed) -> None:
        """Record what is at a path now.

        RACE: a peer's rename may have been followed while it was put there: another node is at the path then.
        """
        cache = self._arena.cache
        node = work.node
        if cache.tree.parent_and_name(node) != (work.parent, work.name):
            directory, name = split(path)
            node = cache.tree.ensure_child(cache.tree.ensure_dir(directory), name)
            cache.mark_dirty([node])
        mode = work.mode & 0o777 if work.kind is not Kind.SYMLINK else work.mode
        entry = EntryRow(
            LOCAL_PEER,
            int(Holding.REAL),
            int(work.kind),
            work.size,
            work.mtime_ns,
            mode,
            work.hash,
            work.vector,
            work.target,
        )
        cache.set_real(node, entry, result.ino)

    def _record_deleted(self, work: Work) -> None:
        """Take over the tombstone that superseded the file: nothing new has happened."""
        cache = self._arena.cache
        entry = EntryRow(LOCAL_PEER, int(Holding.TOMBSTONE), int(Kind.NONE), 0, 0, 0, None, work.vector, None)
        cache.put_entry(work.node, entry)
        cache.history.append(work.node, Op.DROP)
        cache.refresh(work.node)
        cache.mark_left(work.parent)

    async def _adjust(self, datadir: Path, work: Work) -> Outcome:
        if work.entry is None:
            return Outcome(work)
        expected = _identity(work, work.entry)
        path = self._path(work)
        async with self._arena.exclusive():
            if self._is_stale(work):
                return Outcome(work, CHANGED_HERE)
            try:
                with trio.CancelScope(shield=True):
                    result = await trio.to_thread.run_sync(
                        adjust, datadir, path, expected, work.mode, work.mtime_ns, limiter=self._limiter
                    )
            except OSError as error:
                return Outcome(work, error.strerror or str(error))
            if result.changed:
                return Outcome(work, CHANGED_HERE)
            with self._arena.cache.write():
                self._record_real(work, path, result)
                self._arena.work.finish([work])
        return Outcome(work)


def _identity(work: Work, entry: EntryRow) -> Identity:
    return Identity(entry.size, entry.mtime_ns, work.ino, is_dir=entry.kind == Kind.DIR)


def _repeated(contents: Iterable[Hash | None]) -> dict[Hash, int]:
    return {content: count for content, count in Counter(contents).items() if content and count > 1}


def _known(work: Work) -> bytes:
    """Return the hash of what this host has, ``b""`` if it is not known."""
    return (work.entry.hash if work.entry is not None else None) or b""


def _reason(placement: Placement) -> Reason:
    return Reason.DELETED if placement.kind is Kind.NONE else Reason.REPLACED


def _author(work: Work) -> PeerKey | None:
    """Return whose change made the shown version out of this host's."""
    before = Vector(work.entry.vector) if work.entry is not None else EMPTY
    return next(iter(advanced(before, Vector(work.vector))), None)


def _is_of_blob(placement: Placement, content: Hash) -> bool:
    """Say whether the blob's own file was renamed away, not a copy of it."""
    return placement.source is not None and placement.source.name == content.hex()


def _what(action: Action, result: Placed) -> FileChange:
    if action is Action.DELETE:
        return "removed"
    return "replaced" if result.displaced else "added"
