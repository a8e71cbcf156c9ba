"""Conflicts: listing the versions of a path, and ending one with a version that descends from all.

Engine thread. Nothing that a user wrote is lost: what is not kept goes to the trash of each host that
had it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from core.api import ArenaPath, ConflictRow, ConflictVersion, Resolved
from core.choice import LOCAL_PEER, Alternative, EntryRow, Flag, alternatives
from core.errors import ChangedError, NoHolderError, PathReadOnlyError, UsageError
from core.events import ConflictChanged, FileChange, FileChanged
from core.history import Op
from core.paths import conflict_name, display, join, split
from core.putting import Cause, NewVersion, put_real, require_datadir
from core.trashrows import Reason
from core.types import Hash, Holding, Kind, Mark, RelPath, Vector

if TYPE_CHECKING:
    from core.arena import Arena
    from core.engine import Engine

LOCAL, BOTH = "local", "both"
"""What `resolve` keeps, when it is not a peer's name."""

FLAGGED = "SELECT id, flags FROM node WHERE flags <> 0 AND flags & 5"


def conflict_rows(engine: Engine, arena: Arena, path: bytes) -> list[ConflictRow]:
    """Return the paths at and below one that are in conflict or were revived, sorted."""
    rows: list[Any] = arena.cache.conn.execute(FLAGGED).fetchall()
    found = []
    for node, flags in rows:
        at = arena.cache.tree.path(node)
        if not path or at == path or at.startswith(path + b"/"):
            found.append(_row(engine, arena, node, at, flags))
    return sorted(found, key=lambda row: row.at)


def _row(engine: Engine, arena: Arena, node: int, path: RelPath, flags: int) -> ConflictRow:
    shown = arena.cache.shown(node)
    versions = []
    for one in alternatives(arena.cache.entries(node), directory=shown.kind == Kind.DIR):
        is_shown = not one.deleted and (one.meta.hash, one.meta.target) == (shown.hash, shown.target)
        versions.append(
            ConflictVersion(
                peers=tuple(_names(engine, arena, one)),
                here=LOCAL_PEER in one.peers,
                shown=is_shown and one.meta.kind == shown.kind,
                kind=Kind.NONE if one.deleted else Kind(one.meta.kind),
                size=one.meta.size,
                mtime_ns=one.meta.mtime_ns,
                mode=one.meta.mode,
                hash=one.meta.hash,
                target=one.meta.target or b"",
            )
        )
    return ConflictRow(ArenaPath(arena.name, path), not flags & Flag.CONFLICT, tuple(versions))


def _names(engine: Engine, arena: Arena, one: Alternative) -> Iterator[str]:
    by_key = {key: name for name, key in engine.peer_keys.items()}
    for peer in one.peers:
        key = arena.cache.peer_key(peer) if peer != LOCAL_PEER else None
        if key is not None:
            yield by_key.get(key, key.hex())


class Resolver:
    """Ends the conflict of one path."""

    def __init__(self, engine: Engine, arena: Arena, node: int) -> None:
        """Resolve ``node`` of ``arena``.

        Raises:
            UsageError: it is in no conflict.
        """
        self._engine, self._arena, self._node = engine, arena, node
        self._path = arena.cache.tree.path(node)
        self._at = ArenaPath(arena.name, self._path)
        shown = arena.cache.shown(node)
        if not shown.flags & (Flag.CONFLICT | Flag.REVIVED):
            raise UsageError(
                f"{self._text} is in no conflict", hint="`realize conflicts list` shows those that are"
            )
        self._versions = alternatives(arena.cache.entries(node), directory=shown.kind == Kind.DIR)
        below = arena.cache.visible_below(node) if shown.kind == Kind.DIR else []
        self._seen_here = {one: arena.cache.local_entry(one) for one in (node, *below)}

    @property
    def _text(self) -> str:
        return f"{display(self._arena.name)}/{display(self._path)}"

    async def resolve(self, keep: str) -> Resolved:
        """Keep a version and say so; see `Api.conflict_resolve`.

        Raises:
            UsageError: ``keep`` names no version.
            NoHolderError: its content cannot be had now.
            PathReadOnlyError: the arena has no datadir, which this needs.
            ChangedError: one of the versions is not hashed yet, so nobody can have looked at it.
        """
        if any(self._is_unhashed(one) for one in self._versions):
            raise ChangedError(f"a version of {self._text} is not hashed yet", hint="try again soon")
        before = self._arena.cache.shown(self._node)
        beside: list[ArenaPath] = []
        if keep == BOTH:
            kept = self._shown()
            if kept.meta.kind != Kind.DIR:
                kept = next((one for one in self._versions if LOCAL_PEER in one.peers), kept)
            for one in self._versions:
                if one is not kept and not one.deleted:
                    beside.append(await self._put_beside(one))
        elif keep == LOCAL:
            kept = self._local()
        else:
            kept = self._of_peer(keep)
        await self._keep(kept)
        self._tell(before.hash, kept)
        return Resolved(self._at, keep, tuple(beside))

    @staticmethod
    def _is_unhashed(one: Alternative) -> bool:
        return not one.deleted and one.meta.kind == Kind.FILE and one.meta.hash is None

    def _local(self) -> Alternative:
        for one in self._versions:
            if LOCAL_PEER in one.peers:
                return one
        raise UsageError(f"this host holds no version of {self._text}", hint=self._hint())

    def _of_peer(self, name: str) -> Alternative:
        for one in self._versions:
            if name in _names(self._engine, self._arena, one):
                return one
        raise UsageError(f"{display(name)} holds no version of {self._text}", hint=self._hint())

    def _hint(self) -> str:
        names = [name for one in self._versions for name in _names(self._engine, self._arena, one)]
        here = [LOCAL] if any(LOCAL_PEER in one.peers for one in self._versions) else []
        return f"--keep takes one of: {', '.join([*here, *names, BOTH])}"

    def _shown(self) -> Alternative:
        shown = self._arena.cache.shown(self._node)
        return next(
            one
            for one in self._versions
            if not one.deleted and (one.meta.kind, one.meta.hash) == (shown.kind, shown.hash)
        )  # choose took it from these

    def _vector(self, node: int) -> Vector:
        # Above what was seen when it was decided: what came since stays a version beside the one kept.
        # What is below a directory that is not kept goes as it is.
        cache = self._arena.cache
        if node == self._node:
            return cache.vector_over(node, [one.vector for one in self._versions])
        return cache.vector_over(node, [Vector(entry.vector) for entry in cache.entries(node)])

    def _vector_of_copy(self, node: int) -> Vector:
        cache = self._arena.cache
        return cache.vector_over(node, [Vector(cache.shown(node).vector)])

    async def _fetch(self, one: Alternative) -> Hash:
        """Make the content of a version whole and verified here.

        Raises:
            ChangedError: it is not hashed yet.
            NoHolderError: nobody who is connected holds it.
        """
        arena = self._arena
        if one.meta.hash is None:
            raise ChangedError(f"a version of {self._text} is not hashed yet", hint="try again soon")
        content = Hash(one.meta.hash)
        if not arena.blobs.held(content):
            links = self._engine.sources(arena, self._node, content, one.meta.size)
            if not links:
                raise NoHolderError(
                    f"no connected peer holds that version of {self._text}",
                    hint="`realize conflicts list` names who does, `realize peer list` who is connected",
                )
            await arena.fetcher.download(content, one.meta.size, links)
        return content

    # -- carrying it out

    async def _keep(self, one: Alternative) -> None:
        if one.meta.kind != Kind.DIR and self._arena.cache.shown(self._node).kind == Kind.DIR:
            if one.meta.kind == Kind.FILE and LOCAL_PEER not in one.peers:
                await self._fetch(one)  # before anything goes
            await self._clear_below()
            now = self._arena.cache.shown(self._node)
            if not now.flags & Flag.CONFLICT and (now.kind, now.hash) == (one.meta.kind, one.meta.hash):
                return  # nothing else stood against it
        if LOCAL_PEER in one.peers:
            self._confirm()
        elif one.deleted:
            await self._delete()
        else:
            await self._take(one)

    async def _clear_below(self) -> None:
        """Delete what is in the directory that is not kept: on each host it goes to the trash."""
        arena, cache = self._arena, self._arena.cache
        cause = Cause(Reason.DELETED, cache.self_key)
        below = cache.visible_below(self._node)
        for node in below:
            if not self._was_seen(node, cache.local_entry(node)):
                text = f"{display(cache.tree.path(node))} was changed here meanwhile"
                raise ChangedError(text, hint="look at it again first")
        for node in below:
            local = cache.local_entry(node)
            if local is not None and local.holding == Holding.REAL:
                gone, seen = NewVersion(Kind.NONE), partial(self._was_seen, node)
                await put_real(arena, cache.tree.path(node), gone, self._vector, cause, may_replace=seen)
                continue
            with cache.write():
                vector = self._vector(node)
                cache.cached.give_up(node, cause.by, cause.why)
                cache.put_tombstone(node, vector)

    def _confirm(self) -> None:
        """Give this host's own version a vector above all."""
        cache = self._arena.cache
        with cache.write():
            cache.revalue(self._node, self._vector(self._node))
            cache.refresh(self._node)

    async def _delete(self) -> None:
        arena, cache, node = self._arena, self._arena.cache, self._node
        cause = Cause(Reason.DELETED, cache.self_key)
        if self._is_real():
            gone = NewVersion(Kind.NONE)
            await put_real(
                arena, self._path, gone, self._vector, cause, may_replace=partial(self._was_seen, self._node)
            )
            return
        with cache.write():
            vector = self._vector(node)
            cache.cached.give_up(node, cause.by, cause.why)
            cache.put_tombstone(node, vector)

    async def _take(self, one: Alternative) -> None:
        """Make a peer's version the one that is shown and held here."""
        arena, cache, meta = self._arena, self._arena.cache, one.meta
        content = await self._fetch(one) if meta.kind == Kind.FILE else None
        parent = cache.tree.parent_and_name(self._node)[0]
        wanted = arena.datadir is not None and cache.marks.effective(self._node, parent) is Mark.OWN
        if wanted or self._is_real() or content is None:
            version = NewVersion(
                Kind(meta.kind), meta.size, meta.mtime_ns, meta.mode, content, meta.target or b""
            )
            cause = Cause(Reason.REPLACED, cache.self_key)
            await put_real(
                arena,
                self._path,
                version,
                self._vector,
                cause,
                may_replace=partial(self._was_seen, self._node),
            )
            return
        with cache.write():
            vector = self._vector(self._node)
            cache.cached.give_up(self._node, cache.self_key, Reason.REPLACED)
            entry = meta._replace(peer=LOCAL_PEER, holding=int(Holding.CACHED), vector=vector)
            cache.put_entry(self._node, entry)
            arena.blobs.rescue([content])  # it may be held because it is in the trash
            cache.history.append(self._node, Op.AVAILABLE)
            cache.refresh(self._node)
            cache.mark_dirty([self._node])

    def _was_seen(self, node: int, local: EntryRow | None) -> bool:
        """Say whether a real file here is what was decided about: its user may have saved another since."""
        if local is None or local.holding != Holding.REAL or local.kind == Kind.DIR:
            return True
        if local.kind == Kind.FILE and local.hash is None:
            return False
        seen = self._seen_here.get(node)
        return seen is not None and (local.kind, local.hash, local.target) == (
            seen.kind,
            seen.hash,
            seen.target,
        )

    def _is_real(self) -> bool:
        local = self._arena.cache.local_entry(self._node)
        return local is not None and local.holding == Holding.REAL

    async def _put_beside(self, one: Alternative) -> ArenaPath:
        """Put a version beside the path, under a name that says whose it is and when it was written."""
        arena, meta = self._arena, one.meta
        if arena.datadir is None:
            raise PathReadOnlyError(
                f"arena {display(arena.name)} has no datadir on this host, so it cannot keep both",
                hint="keep one of them, or do it on a host with a datadir",
            )
        require_datadir(arena)
        if meta.kind == Kind.DIR:
            raise UsageError(f"a version of {self._text} is a directory", hint="keep one of them")
        content = await self._fetch(one) if meta.kind == Kind.FILE else None
        directory, name = split(self._path)
        whose = next(_names(self._engine, arena, one), arena.cache.self_key.hex())
        for number in range(1, 1000):
            path = join(directory, conflict_name(name, whose, meta.mtime_ns, number))
            there = arena.cache.tree.find(path)
            if there is None or arena.cache.shown(there).kind == Kind.NONE:
                break
            if content is not None and arena.cache.shown(there).hash == content:
                return ArenaPath(arena.name, path)  # put there by an attempt that did not come to its end
        version = NewVersion(
            Kind(meta.kind), meta.size, meta.mtime_ns, meta.mode, content, meta.target or b""
        )
        cause = Cause(Reason.REPLACED, arena.cache.self_key)
        await put_real(arena, path, version, self._vector_of_copy, cause)
        self._emit(path, "added", None, meta.hash)
        return ArenaPath(arena.name, path)

    def _tell(self, before: bytes | None, kept: Alternative) -> None:
        if kept.meta.hash != before or kept.deleted:
            what: FileChange = "removed" if kept.deleted else "replaced"
            self._emit(self._path, what, before, None if kept.deleted else kept.meta.hash)
        with self._arena.cache.write():
            self._arena.cache.emit(
                ConflictChanged(arena=self._arena.name, path=self._path, peers=(), resolved=True)
            )

    def _emit(self, path: RelPath, what: FileChange, before: bytes | None, after: bytes | None) -> None:
        with self._arena.cache.write():
            self._arena.cache.emit(
                FileChanged(
                    arena=self._arena.name, path=path, what=what, cause="user", before=before, after=after
                )
            )
