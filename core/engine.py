"""The engine of a host: all arenas, links, jobs and the index, run together in one trio loop.

Composition and life only. `core.service` answers users' programs, `core.mounting` the mount,
`core.subscriptions` and `core.provider` the peers; `app.daemon` plugs the network and mount in.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import trio

from core import db
from core.arena import Arena
from core.arenastats import ArenaCounter, ArenaCounts
from core.changes import Changes
from core.churten import Churten
from core.config import Config
from core.errors import PathNotFoundError, StoreError
from core.events import EventBus, TreeChanged
from core.inodes import allocate_global
from core.locallink import LocalLink
from core.locate import nearest
from core.locks import DirectoryLock
from core.ports import Network, PeerLink
from core.provider import Provider
from core.reader import ARENA_DB
from core.subscriptions import Subscriptions
from core.trimming import trim
from core.types import DURABLE, Hash, Kind, PeerKey, Vector

_log = logging.getLogger("realize.core.engine")

_FLUSH_S = 5.0
_TRIM_S = 300.0
_ROOT = 1


class Engine:
    """Everything that runs in the engine thread of a daemon."""

    def __init__(self, config: Config, self_key: PeerKey, peer_keys: dict[str, PeerKey]) -> None:
        """Open all databases and directories; nothing runs before `run`.

        Raises:
            StoreLockedError: another daemon uses one of the directories.
            StoreError: a database or directory cannot be used.
        """
        self.config = config
        self.self_key = self_key
        self.peer_keys = peer_keys
        self.events = EventBus(time.time_ns)
        self.network: Network | None = None
        self.health: list[str] = []
        self.mounted_at: str | None = None
        with contextlib.ExitStack() as undo:
            self._global_lock = self._lock_global()
            undo.callback(self._global_lock.release)
            self.conn = db.open_global(config.cache_db)
            undo.callback(self.conn.close)
            # Those with a database first: what inodes they have must be known before others get any.
            by_age = sorted(config.arenas, key=lambda arena: not (arena.workdir / ARENA_DB).exists())
            opened = {
                arena.name: Arena(arena, self.conn, self_key, self.events, time.time_ns) for arena in by_age
            }
            self.arenas = {arena.name: opened[arena.name] for arena in config.arenas}
            self._record_directories()
            undo.pop_all()
        for each in self.arenas.values():
            each.peer_names = {key: name for name, key in peer_keys.items()}
            each.cache.host_name = config.node.name
        self.counters = {name: ArenaCounter(arena.db_path) for name, arena in self.arenas.items()}
        self._counts: dict[str, tuple[int, ArenaCounts]] = {}
        self._counting = trio.CapacityLimiter(1)
        self.subscriptions = Subscriptions(self.arenas, self._links_changed)
        self.provider = Provider(self.arenas)
        self._self_link = LocalLink(config.node.name, self_key, frozenset(self.arenas), self.provider)
        self.churten = Churten(
            self.arenas,
            self.events,
            self.sources,
            self.durable_holders,
            time.time_ns,
            running=self._setting("churten", "running") == "running",
            remember=lambda running: self._set_setting("churten", "running" if running else "stopped"),
        )
        self._on_links: list[Callable[[], None]] = []
        for arena in self.arenas.values():
            arena.cache.listen(self._on_changes)

    # -- life

    def _lock_global(self) -> DirectoryLock:
        path = self.config.cache_db
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot be made: {error.strerror}") from error
        return DirectoryLock(path.with_name(path.name + ".lock"))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; started once everything local answers. Closes everything at the end."""
        try:
            for arena in self.arenas.values():
                arena.cache.forget_peers(self.peer_keys.values())
                await arena.start()
            async with trio.open_nursery() as nursery:
                for arena in self.arenas.values():
                    await nursery.start(arena.run)
                nursery.start_soon(self.subscriptions.run)
                nursery.start_soon(self.churten.run)
                nursery.start_soon(self._maintain)
                nursery.start_soon(self._trim)
                task_status.started()
        finally:
            with trio.CancelScope(shield=True):
                await self._close()

    async def _close(self) -> None:
        self.subscriptions.close()
        for counter in self.counters.values():
            counter.close()
        for arena in self.arenas.values():
            await arena.aclose()
        try:
            db.close(self.conn)
        except StoreError as error:
            _log.warning("the last things done were not recorded: %s", error)
        finally:
            self._global_lock.release()

    async def _maintain(self) -> None:
        """Flush now and then, and give back what is over the quota."""
        while True:
            await trio.sleep(_FLUSH_S)
            for arena in self.arenas.values():
                troubled = bool(arena.trouble.reason)
                await arena.keep()
                if troubled and not arena.trouble.reason:
                    self._links_changed()  # those who wait for a peer may have missed one

    async def _trim(self) -> None:
        """Trim now and then."""
        while True:
            await trio.sleep(_TRIM_S)
            await self.trim()

    async def trim(self, now_s: int | None = None) -> None:
        """Let go of what nobody needs any more: entries of history, tombstones, unwanted blobs.

        ``now_s`` is the wall clock, for what goes by age.
        """
        self.subscriptions.flush_acknowledgements()
        for arena in self.arenas.values():
            cache = arena.cache
            keys = [self.peer_keys[peer.name] for peer in self.config.peers if _sees(peer.arenas, arena.name)]
            acknowledged = min((cache.acknowledged(key) for key in keys), default=cache.history.last)
            try:
                arena.release_unwanted()
                await trim(cache, acknowledged, int(time.time()) if now_s is None else now_s)
            except StoreError as error:
                _log.warning("%s: history could not be trimmed: %s", arena.name, error)

    # -- the directories above the arenas

    def _record_directories(self) -> None:
        """Write where the arenas are in the mount; an arena ``a/b`` makes a directory ``a``."""
        with db.transaction(self.conn):
            for name, arena in self.arenas.items():
                *above, last = name.encode("utf-8", "surrogateescape").split(b"/")
                parent = _ROOT
                for component in above:
                    parent = self._ensure_directory(parent, component)
                self.conn.execute(
                    "INSERT INTO directory (id, parent, name, arena) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (parent, name) DO UPDATE SET arena = excluded.arena, id = excluded.id",
                    (arena.cache.root, parent, last, name),
                )
            self._remove_directories()

    def _ensure_directory(self, parent: int, name: bytes) -> int:
        row: Any = self.conn.execute(
            "SELECT id FROM directory WHERE parent = ? AND name = ?", (parent, name)
        ).fetchone()
        if row is not None:
            return int(row[0])
        inode = allocate_global(self.conn)
        self.conn.execute(
            "INSERT INTO directory (id, parent, name, arena) VALUES (?, ?, ?, NULL)", (inode, parent, name)
        )
        return inode

    def _remove_directories(self) -> None:
        """Take arenas that are not configured any more out of the mount; their inodes stay theirs."""
        rows: list[Any] = self.conn.execute(
            "SELECT id, arena FROM directory WHERE arena IS NOT NULL"
        ).fetchall()
        for inode, name in rows:
            if name not in self.arenas:
                self.conn.execute("DELETE FROM directory WHERE id = ?", (inode,))
        while self.conn.execute(
            "SELECT id FROM directory d WHERE arena IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM directory c WHERE c.parent = d.id) LIMIT 1"
        ).fetchone():
            self.conn.execute(
                "DELETE FROM directory WHERE arena IS NULL AND id NOT IN (SELECT parent FROM directory)"
            )

    # -- settings and peers

    def _setting(self, key: str, default: str) -> str:
        row: Any = self.conn.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else default

    def _set_setting(self, key: str, value: str) -> None:
        with db.transaction(self.conn):
            self.conn.execute("INSERT OR REPLACE INTO setting (key, value) VALUES (?, ?)", (key, value))

    def disabled_peers(self) -> set[str]:
        """Return the peers that the user disconnected before."""
        return {str(name) for (name,) in self.conn.execute("SELECT name FROM peer WHERE disabled = 1")}

    def last_seen(self) -> dict[str, int]:
        """Return when each peer was last connected, wall clock in ns."""
        rows: list[Any] = self.conn.execute(
            "SELECT name, last_seen_ns FROM peer WHERE last_seen_ns IS NOT NULL"
        ).fetchall()
        return dict(rows)

    def remember_peer(
        self, name: str, fingerprint: str, *, disabled: bool | None = None, seen: bool = False
    ) -> None:
        """Write that a peer was seen just now, or was disabled or enabled by the user."""
        with db.transaction(self.conn):
            self.conn.execute(
                "INSERT INTO peer (name, key, fingerprint, last_seen_ns, disabled) VALUES (?, ?, ?, NULL, 0)"
                " ON CONFLICT (name) DO UPDATE SET key = excluded.key, fingerprint = excluded.fingerprint",
                (name, self.peer_keys[name], fingerprint),
            )
            if disabled is not None:
                self.conn.execute("UPDATE peer SET disabled = ? WHERE name = ?", (int(disabled), name))
            if seen:
                self.conn.execute("UPDATE peer SET last_seen_ns = ? WHERE name = ?", (time.time_ns(), name))

    # -- what parts ask of each other

    def arena(self, name: str) -> Arena:
        """Return an arena by name.

        Raises:
            PathNotFoundError: it is not configured; the hint offers the nearest.
        """
        found = self.arenas.get(name)
        if found is None:
            raise PathNotFoundError(f"no arena {name!r}", hint=nearest(name, list(self.arenas)))
        return found

    def holders(self, arena: Arena, node: int, content: Hash | None) -> list[PeerLink]:
        """Return the connected peers that announced a content for a node."""
        links = self.subscriptions.links
        return [
            links[key]
            for key in arena.copies.holder_keys(node, content)
            if key in links and arena.name in links[key].arenas
        ]

    def sources(self, arena: Arena, node: int, content: Hash, size: int) -> list[PeerLink]:
        """Return where to fetch a content from: this host, if a real file has it, else those that hold it."""
        if arena.can_copy(content, size, self.self_key):
            return [self._self_link]
        return self.holders(arena, node, content)

    def durable_holders(self, arena: Arena, node: int, content: Hash) -> list[PeerLink]:
        """Return the connected peers that announced a durable copy of a content for a node."""
        links = self.subscriptions.links
        return [
            links[key]
            for key in arena.copies.holder_keys(node, content, DURABLE)
            if key in links and arena.name in links[key].arenas
        ]

    def holders_of_version(self, arena: Arena, node: int, vector: Vector) -> list[PeerLink]:
        """Return the connected peers that announced that very version of a node, hashed or not."""
        links = self.subscriptions.links
        return [
            links[key]
            for key in arena.copies.version_keys(node, vector)
            if key in links and arena.name in links[key].arenas
        ]

    def on_links(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after a link came or went."""
        self._on_links.append(callback)

    def _links_changed(self) -> None:
        self.churten.links_changed()
        for callback in self._on_links:
            callback()

    def _on_changes(self, changes: Changes) -> None:
        for event in changes.events:
            self.events.emit(event)
        if changes.touched or changes.listings:
            self._emit_tree(changes)
        if changes.dirty:
            self.churten.wake(changes.arena)

    def _emit_tree(self, changes: Changes) -> None:
        directories = changes.touched | changes.listings
        tree = self.arenas[changes.arena].cache.tree
        if len(directories) > 100:
            self.events.emit(TreeChanged(arena=changes.arena))
            return
        paths = tuple(tree.directory_path(node) for node in directories if node)
        self.events.emit(TreeChanged(arena=changes.arena, directories=paths))

    async def counts(self, name: str) -> ArenaCounts:
        """Return the figures of an arena, counted again only when something changed."""
        version = self.arenas[name].cache.version
        known = self._counts.get(name)
        if known is None or known[0] != version:
            counts = await trio.to_thread.run_sync(self.counters[name].count, limiter=self._counting)
            known = self._counts[name] = (version, counts)
        return known[1]

    def waiting_for(self) -> str:
        """Say what keeps the daemon from being idle; "" when it is."""
        for arena in self.arenas.values():
            waiting = arena.index.waiting_for() if arena.index is not None else ""
            if waiting:
                return f"{arena.name}: {waiting}"
            if arena.displaced.busy:
                return f"{arena.name}: replaced files on their way to the trash"
        return self.churten.waiting_for() or self.subscriptions.waiting_for()

    def node_of(self, arena: Arena, path: bytes) -> int | None:
        """Return the node of a path that is shown; None if there is nothing."""
        node = arena.cache.tree.find(path)
        if node is None or arena.cache.shown(node).kind == Kind.NONE:
            return None
        return node


def _sees(arenas: Sequence[str] | None, name: str) -> bool:
    return arenas is None or name in arenas
