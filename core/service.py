"""The engine's answers to users' programs: implements `core.api.Api` in-process.

Reads that look at many rows run in a worker on read-only connections; what changes something runs
here. Engine thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import msgspec
import trio

from core import conflicts, evicting, getting, health, marking, restoring, sums, verifying
from core.api import (
    ArenaInfo,
    ArenaPath,
    ArenaStatus,
    CacheUse,
    ChurtenStatus,
    ConflictRow,
    Entry,
    EvictStep,
    GetProgress,
    HashingRow,
    Jobs,
    LogLine,
    MarkChange,
    MarkEffect,
    MarkInfo,
    MarkRow,
    Page,
    PeerStatus,
    Resolved,
    Restored,
    Status,
    TrashRow,
    Usage,
    VerifyStep,
    Why,
)
from core.auditread import read_log
from core.connected import ConnectedPeers
from core.db import Connection, connect_readonly
from core.entries import EntryReader
from core.errors import NotYetError, PathNotFoundError
from core.events import AnyEvent
from core.explain import explain
from core.locate import locate, nearest, places_of
from core.paths import display, to_str
from core.reader import TreeReader
from core.types import Kind, Mark, PeerKey

if TYPE_CHECKING:
    from core.arena import Arena
    from core.engine import Engine

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LOOK_S = 0.05


class Service:
    """One object for all clients; see `core.api.Api` for each method."""

    def __init__(self, engine: Engine, fingerprint: str, connected: ConnectedPeers) -> None:
        """Answer from ``engine``; ``connected`` is the snapshot that readers look at."""
        self._engine = engine
        self._fingerprint = fingerprint
        config = engine.config
        # Three that never wait for each other: rows for a screen, searches, sums over subtrees.
        self._reader = EntryReader(TreeReader(config.cache_db, config.arenas, connected))
        self._searcher = EntryReader(TreeReader(config.cache_db, config.arenas, connected))
        self._conns: dict[str, Connection] = {}
        self._reading = trio.CapacityLimiter(1)
        self._searching = trio.CapacityLimiter(1)
        self._summing = trio.CapacityLimiter(1)
        self._usage: dict[tuple[str, int], tuple[int, Usage]] = {}
        self._places = [
            places_of(
                arena.name,
                [
                    arena.datadir,
                    arena.mountpoint,
                    config.node.mount / arena.name if config.node.mount is not None else None,
                ],
            )
            for arena in config.arenas
        ]

    def close(self) -> None:
        """Close the connections; when no call runs any more."""
        self._reader.tree.close()
        self._searcher.tree.close()
        for conn in self._conns.values():
            conn.close()

    async def _read(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a read in the one worker that may use the reader of rows."""
        return await trio.to_thread.run_sync(fn, *args, limiter=self._reading)

    async def _sums(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run what walks subtrees in the one worker that may use the connections for sums."""
        return await trio.to_thread.run_sync(fn, *args, limiter=self._summing)

    def _conn(self, arena: Arena) -> Connection:
        conn = self._conns.get(arena.name)
        if conn is None:
            conn = self._conns[arena.name] = connect_readonly(arena.db_path)
        return conn

    def _sum(self, arena: Arena, node: int) -> Usage:
        return sums.usage(self._conn(arena), node)

    def _files(self, arena: Arena, node: int) -> list[tuple[int, int]]:
        return sums.files_below(self._conn(arena), node)

    def _mark_rows(
        self, arena: Arena, explicit: dict[int, Mark], paths: dict[int, bytes], shown: set[int]
    ) -> list[MarkRow]:
        return marking.rows(arena, self._conn(arena), explicit, paths, shown)

    def _effect(self, arena: Arena, node: int, mark: Mark) -> MarkEffect:
        return marking.effect(self._conn(arena), [(node, mark)])

    # -- state

    async def status(self) -> Status:
        """See `Api.status`."""
        engine = self._engine
        arenas = [await self._arena_status(arena) for arena in engine.arenas.values()]
        active, queued, failed = engine.churten.counts()
        waiting = engine.waiting_for()
        return Status(
            schema=1,
            name=engine.config.node.name,
            fingerprint=self._fingerprint,
            version=version("realize"),
            mount=engine.mounted_at,
            idle=not waiting,
            arenas=tuple(arenas),
            peers=await self.peers(),
            churten=ChurtenStatus(engine.churten.running, active, queued, failed),
            waiting_for=waiting,
            health=(*engine.health, *health.sentences(engine.arenas.values())),
        )

    async def _arena_status(self, arena: Arena) -> ArenaStatus:
        counts = await self._engine.counts(arena.name)
        quota = arena.blobs.quota
        return ArenaStatus(
            name=arena.name,
            mark=arena.cache.marks.of_directory(arena.cache.root).value,
            files=counts.files,
            real=counts.real,
            cached=counts.cached,
            online=counts.online,
            bytes=counts.bytes,
            cache=CacheUse(quota.disk_bytes, quota.max_bytes),
            hashing=counts.unhashed,
            conflicts=counts.conflicts,
            only_here=counts.only_here,
            offline=arena.offline,
            held_deletes=arena.index.held_files if arena.index is not None else 0,
        )

    async def status_json(self) -> bytes:
        """Return the status as ``realize status --json`` prints it."""
        return msgspec.json.encode(await self.status())

    async def wait_idle(self, timeout_s: float) -> Status:
        """See `Api.wait_idle`."""
        waiting = ""
        with trio.move_on_after(timeout_s):
            quiet = 0
            while quiet < 2:
                # RACE: an event of inotify may be on its way between two looks; so two in a row.
                await trio.sleep(_LOOK_S)
                waiting = self._engine.waiting_for()
                quiet = 0 if waiting else quiet + 1
            return await self.status()
        raise NotYetError(
            f"not idle after {timeout_s:g} s: waiting for {waiting or 'the engine'}",
            hint="`realize status` and `realize churten jobs` show what goes on",
        )

    async def arenas(self) -> tuple[ArenaInfo, ...]:
        """See `Api.arenas`."""
        return tuple(
            ArenaInfo(
                name=arena.name,
                workdir=str(arena.workdir),
                datadir=str(arena.datadir) if arena.datadir is not None else None,
                mountpoint=str(arena.mountpoint) if arena.mountpoint is not None else None,
                mark=arena.mark,
            )
            for arena in self._engine.config.arenas
        )

    async def locate(self, text: bytes, cwd: bytes) -> ArenaPath:
        """See `Api.locate`."""
        return locate(text, cwd, self._places, self._engine.config.node.mount)

    # -- paths

    async def lookup(self, at: ArenaPath) -> Entry:
        """See `Api.lookup`."""
        self._engine.arena(at.arena)
        return await self._read(self._reader.lookup, at)

    async def listdir(self, at: ArenaPath, *, after: bytes = b"", limit: int = 1000) -> Page:
        """See `Api.listdir`."""
        self._engine.arena(at.arena)
        return await self._read(self._reader.listdir, at, after, min(max(limit, 1), 10_000))

    async def search(self, query: str, *, arena: str | None = None, limit: int = 200) -> tuple[Entry, ...]:
        """See `Api.search`."""
        found = min(max(limit, 1), 1000)
        return await trio.to_thread.run_sync(
            self._searcher.search, query, arena, found, limiter=self._searching
        )

    async def usage(self, at: ArenaPath) -> Usage:
        """See `Api.usage`."""
        arena, node = self._find(at)
        state = arena.cache.version
        known = self._usage.get((at.arena, node))
        if known is None or known[0] != state:
            found = await self._sums(self._sum, arena, node)
            if len(self._usage) > 2000:
                self._usage.clear()
            known = self._usage[at.arena, node] = (state, found)
        return known[1]

    async def why(self, at: ArenaPath) -> Why:
        """See `Api.why`."""
        arena = self._engine.arena(at.arena)
        node = arena.cache.tree.find(at.path)
        if node is None:
            raise self._reader.not_found(at)
        shown = arena.cache.shown(node).kind != Kind.NONE
        entry = await self.lookup(at) if shown else None
        return Why(at=at, entry=entry, lines=tuple(explain(self._engine, arena, node)))

    def _find(self, at: ArenaPath) -> tuple[Arena, int]:
        arena = self._engine.arena(at.arena)
        node = self._engine.node_of(arena, at.path)
        if node is None:
            raise self._missing(at)
        return arena, node

    def _find_marked(self, at: ArenaPath) -> tuple[Arena, int]:
        """Return where a path is that exists, or has a mark of its own."""
        arena = self._engine.arena(at.arena)
        node = marking.find(arena, at.path)
        if node is None:
            raise self._missing(at)
        return arena, node

    def _missing(self, at: ArenaPath) -> PathNotFoundError:
        arena = self._engine.arena(at.arena)
        parent, _, name = at.path.rpartition(b"/")
        node = self._engine.node_of(arena, parent)
        rows = arena.cache.conn.execute(
            "SELECT name FROM node WHERE parent = ? AND kind <> 0 ORDER BY name LIMIT 2000", (node or 0,)
        )
        hint = nearest(to_str(name), [to_str(row[0]) for row in rows if isinstance(row[0], bytes)])
        return PathNotFoundError(f"{display(at.arena)}/{display(at.path)} does not exist", hint=hint)

    # -- peers

    async def peers(self) -> tuple[PeerStatus, ...]:
        """See `Api.peers`."""
        network = self._engine.network
        return tuple(network.status()) if network is not None else ()

    async def peer_connect(self, name: str) -> None:
        """See `Api.peer_connect`."""
        if self._engine.network is not None:
            self._engine.network.connect(name)

    async def peer_disconnect(self, name: str) -> None:
        """See `Api.peer_disconnect`."""
        if self._engine.network is not None:
            self._engine.network.disconnect(name)

    # -- marks

    async def mark_get(self, at: ArenaPath) -> MarkInfo:
        """See `Api.mark_get`."""
        arena, node = self._find_marked(at)
        info = marking.info(arena, at, node)
        return info if info.exists else msgspec.structs.replace(info, hint=self._missing(at).hint)

    async def mark_apply(self, changes: Sequence[MarkChange]) -> tuple[MarkChange, ...]:
        """See `Api.mark_apply`."""
        found: dict[str, list[MarkChange]] = {}
        for change in changes:
            if change.mark is None:
                self._find_marked(change.at)
            else:
                marking.require_directory_above(self._engine.arena(change.at.arena), change.at.path)
            found.setdefault(change.at.arena, []).append(change)
        undo: list[MarkChange] = []
        for name, of_arena in found.items():
            undo += marking.apply(self._engine.arena(name), of_arena)
        return tuple(undo)

    async def mark_list(self, arena: str | None = None) -> tuple[MarkRow, ...]:
        """See `Api.mark_list`."""
        names = [arena] if arena is not None else list(self._engine.arenas)
        rows: list[MarkRow] = []
        for name in names:
            at = self._engine.arena(name)
            explicit = at.cache.marks.all_explicit()
            paths: dict[int, bytes] = {node: at.cache.tree.path(node) for node in explicit}
            shown = {node for node in explicit if marking.exists(at, node)}
            rows += await self._sums(self._mark_rows, at, explicit, paths, shown)
        return tuple(rows)

    async def mark_effect(self, changes: Sequence[MarkChange]) -> MarkEffect:
        """See `Api.mark_effect`."""
        total = MarkEffect(files=0, bytes_to_fetch=0, bytes_to_free=0)
        for change in changes:
            arena = self._engine.arena(change.at.arena)
            found = arena.cache.tree.find(change.at.path)
            if found is None:
                continue  # marked for when it comes
            node = found
            parent = arena.cache.tree.parent_and_name(node)[0]
            is_root = node == arena.cache.root
            mark: Mark = change.mark or (
                arena.config.mark if is_root else arena.cache.marks.of_directory(parent)
            )
            one = await self._sums(self._effect, arena, node, mark)
            total = MarkEffect(
                files=total.files + one.files,
                bytes_to_fetch=total.bytes_to_fetch + one.bytes_to_fetch,
                bytes_to_free=total.bytes_to_free + one.bytes_to_free,
            )
        return total

    # -- work

    async def churten_start(self) -> None:
        """See `Api.churten_start`."""
        self._engine.churten.start()

    async def churten_stop(self) -> None:
        """See `Api.churten_stop`."""
        self._engine.churten.stop()

    async def jobs(self, *, limit: int = 200) -> Jobs:
        """See `Api.jobs`."""
        hashing: list[HashingRow] = []
        for arena in self._engine.arenas.values():
            row = arena.index.progress() if arena.index is not None else None
            if row is not None:
                hashing.append(row)
        return self._engine.churten.jobs(min(max(limit, 0), 10_000), hashing)

    async def job_retry(self, at: ArenaPath) -> None:
        """See `Api.job_retry`."""
        arena = self._engine.arena(at.arena)
        self._engine.churten.retry(at.arena, arena.cache.tree.find(at.path))

    async def get(self, paths: Sequence[ArenaPath]) -> AsyncIterator[GetProgress]:
        """See `Api.get`."""
        files: list[tuple[Arena, int]] = []
        for at in paths:
            arena, node = self._find(at)
            found = await self._sums(self._files, arena, node)
            files += [(arena, file) for file, _ in found]
        async for progress in getting.fetch_files(files, self._engine.sources):
            yield progress

    # -- trash and conflicts

    def _at_or_all(self, at: ArenaPath | None) -> list[tuple[Arena, bytes]]:
        if at is None:
            return [(arena, b"") for arena in self._engine.arenas.values()]
        return [(self._engine.arena(at.arena), at.path)]

    def _trash_rows(self, arena: Arena, path: bytes, names: dict[PeerKey, str]) -> list[TrashRow]:
        return restoring.trash_rows(arena.name, self._conn(arena), path, names)

    async def trash_list(self, at: ArenaPath | None = None) -> tuple[TrashRow, ...]:
        """See `Api.trash_list`."""
        engine = self._engine
        names = {key: name for name, key in engine.peer_keys.items()}
        names[engine.self_key] = engine.config.node.name
        rows: list[TrashRow] = []
        for arena, path in self._at_or_all(at):
            rows += await self._read(self._trash_rows, arena, path, names)
        return tuple(sorted(rows, key=lambda row: (-row.when_ns, row.at)))

    async def trash_restore(self, at: ArenaPath, *, content: bytes = b"") -> tuple[Restored, ...]:
        """See `Api.trash_restore`."""
        return tuple(await restoring.restore(self._engine.arena(at.arena), at.path, content))

    async def conflicts(self, at: ArenaPath | None = None) -> tuple[ConflictRow, ...]:
        """See `Api.conflicts`."""
        return tuple(
            row
            for arena, path in self._at_or_all(at)
            for row in conflicts.conflict_rows(self._engine, arena, path)
        )

    async def conflict_resolve(self, at: ArenaPath, keep: str) -> Resolved:
        """See `Api.conflict_resolve`."""
        arena = self._engine.arena(at.arena)
        node = arena.cache.tree.find(at.path)
        if node is None:
            raise self._missing(at)
        return await conflicts.Resolver(self._engine, arena, node).resolve(keep)

    # -- upkeep

    async def log(
        self, at: ArenaPath | None = None, *, since_ns: int = 0, follow: bool = False
    ) -> AsyncIterator[list[LogLine]]:
        """See `Api.log`."""
        places = self._at_or_all(at)
        directories = {arena.name: arena.audit.directory for arena, _ in places}
        path = at.path if at is not None else b""
        async with aclosing(
            read_log(directories, self._engine.events, path, since_ns, follow=follow)
        ) as batches:
            async for batch in batches:
                yield batch

    async def verify(self, at: ArenaPath | None = None, *, repair: bool = True) -> AsyncIterator[VerifyStep]:
        """See `Api.verify`."""
        places = [self._find(at)] if at is not None else self._roots()
        async with aclosing(verifying.verify(self._engine, places, repair=repair)) as steps:
            async for step in steps:
                yield step

    def _roots(self) -> list[tuple[Arena, int]]:
        return [(arena, arena.cache.root) for arena in self._engine.arenas.values()]

    async def evict(self, paths: Sequence[ArenaPath]) -> AsyncIterator[EvictStep]:
        """See `Api.evict`."""
        files: list[tuple[Arena, int]] = []
        for at in paths:
            arena, node = self._find(at)
            files += [(arena, file) for file, _ in await self._sums(self._files, arena, node)]
        async with aclosing(evicting.evict_files(self._engine, files)) as steps:
            async for step in steps:
                yield step

    async def arena_confirm_deletes(self, name: str) -> int:
        """See `Api.arena_confirm_deletes`."""
        index = self._engine.arena(name).index
        return await index.confirm_deletes() if index is not None else 0

    async def events(self) -> AsyncIterator[list[AnyEvent]]:
        """See `Api.events`."""
        with self._engine.events.subscribe() as subscription:
            async for batch in subscription.batches():
                yield batch
