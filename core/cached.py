"""Which paths of an arena are cached: their content is whole and verified in the blob store.

Kept in this host's entries. Engine thread; what changes runs inside `ArenaCache.write`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from core.choice import LOCAL_PEER
from core.events import Warned
from core.history import Op
from core.paths import conflict_name, display, join
from core.trashrows import Reason
from core.types import Hash, Holding, PeerKey, RelPath
from core.versions import merge

if TYPE_CHECKING:
    from core.cache import ArenaCache

_TO_CACHE = (
    "SELECT n.parent, n.name, n.kind, n.size, n.mtime_ns, n.mode, n.hash, n.vector, e.holding, e.vector"
    " FROM node n LEFT JOIN entry e ON e.node = n.id AND e.peer = 0"
    " WHERE n.id = ? AND n.kind = 1 AND n.hash IS NOT NULL AND n.local = 0 AND e.holding IS NOT 1"
)
_INSERT_CACHED = (
    "INSERT OR REPLACE INTO entry (node, peer, holding, kind, size, mtime_ns, mode, hash, vector, target,"
    " ino, stamp) VALUES (?, 0, 2, ?, ?, ?, ?, ?, ?, NULL, 0, 0)"
)


class CachedNode(NamedTuple):
    """A file whose content has become cached here."""

    node: int
    parent: int
    name: bytes
    hash: Hash


class CachedContent:
    """The cached paths of one arena."""

    def __init__(self, cache: ArenaCache) -> None:
        """Look after those of ``cache``."""
        self._cache = cache

    def add(self, nodes: Iterable[int]) -> list[CachedNode]:
        """Record that the shown content of these nodes is held whole and verified as a blob.

        Returns those of which it was not known yet. What is real here stays so until it is replaced.
        """
        cache = self._cache
        done: list[CachedNode] = []
        entries: list[tuple[object, ...]] = []
        deleted: list[int] = []
        with cache.write() as changes:
            for node in nodes:
                row: Any = cache.conn.execute(_TO_CACHE, (node,)).fetchone()
                if row is None:
                    continue
                parent, name, kind, size, mtime_ns, mode, content, vector, holding, own_vector = row
                if holding == Holding.TOMBSTONE:
                    vector = merge((vector, own_vector))
                    deleted.append(node)
                entries.append((node, kind, size, mtime_ns, mode, content, vector))
                done.append(CachedNode(node, parent, name, content))
                cache.history.append(node, Op.AVAILABLE)
                changes.nodes.add(node)
                changes.touched.add(parent)
            cache.conn.executemany(_INSERT_CACHED, entries)
            cache.conn.executemany("UPDATE node SET local = 2 WHERE id = ?", [(item.node,) for item in done])
            for node in deleted:
                cache.refresh(node)
        return done

    def has(self, content: bytes, besides: int) -> bool:
        """Say whether a node other than ``besides`` is cached by the blob of a content."""
        cache = self._cache
        row = cache.conn.execute(
            "SELECT 1 FROM entry WHERE peer = 0 AND hash = ? AND hash IS NOT NULL AND holding = ?"
            " AND node <> ? LIMIT 1",
            (content, int(Holding.CACHED), besides),
        ).fetchone()
        return row is not None

    def nodes(self, content: bytes) -> list[int]:
        """Return the nodes that are cached by the blob of a content."""
        cache = self._cache
        return [
            row[0]
            for row in cache.conn.execute(
                "SELECT node FROM entry WHERE peer = 0 AND hash = ? AND hash IS NOT NULL AND holding = ?",
                (content, int(Holding.CACHED)),
            )
        ]

    def drop(self, content: bytes) -> list[int]:
        """Record that the blob of a content is gone; returns the nodes that were cached by it."""
        cache = self._cache
        with cache.write():
            nodes = [
                row[0]
                for row in cache.conn.execute(
                    "SELECT node FROM entry WHERE peer = 0 AND hash = ? AND holding = ?",
                    (content, int(Holding.CACHED)),
                )
            ]
            for node in nodes:
                cache.remove_entry(node, LOCAL_PEER)
                cache.history.append(node, Op.DROP)
                cache.refresh(node)
                cache.changes.touched.add(cache.tree.parent_and_name(node)[0])
        return nodes

    def make_way(self, node: int, place: tuple[int, bytes] | None = None) -> None:
        """Let a file that a user made or put at the path of a node take the place of its cached copy.

        Inside `write`, once the new file has its vector. ``place``: directory and name of the path, where the
        node is elsewhere already. A copy that was never in the datadir could not be seen there, and is no
        earlier version of the new file: it stays beside it, under a name of its own, unless somebody else
        is known to have it for good. What was seen there is given up as any file that its user replaced.
        """
        cache = self._cache
        entry = cache.local_entry(node)
        if entry is None or entry.holding != Holding.CACHED or entry.hash is None:
            return
        parent, name = place or cache.tree.parent_and_name(node)
        directory = cache.tree.directory_path(parent)
        if cache.local_ino(node) or self._has_durable_holder(node, entry.hash):
            self.give_up(node, cache.self_key, Reason.REPLACED, path=join(directory, name))
            return
        names = (conflict_name(name, cache.host_name, entry.mtime_ns, number) for number in count(1))
        free = next(one for one in names if cache.tree.child(parent, one) is None)
        beside = cache.tree.ensure_child(parent, free)
        cache.remove_entry(node, LOCAL_PEER)
        cache.history.append(node, Op.DROP)
        cache.refresh(node)
        cache.put_entry(beside, entry._replace(vector=cache.vector_over(beside, [])))
        cache.history.append(beside, Op.AVAILABLE)
        cache.refresh(beside)
        cache.mark_dirty([beside])
        text = (
            f"{display(join(directory, name))} was made here while this host had the only copy of another"
            f" file of that name; that one is {display(join(directory, free))} now"
        )
        cache.emit(Warned(arena=cache.name, text=text, hint="compare them, and delete what is not needed"))

    def _has_durable_holder(self, node: int, content: bytes) -> bool:
        row = self._cache.conn.execute(
            "SELECT 1 FROM entry WHERE node = ? AND peer > 0 AND hash = ? AND holding IN (1, 4) LIMIT 1",
            (node, content),
        ).fetchone()
        return row is not None

    def give_up(self, node: int, by: PeerKey | None, why: Reason, *, path: RelPath | None = None) -> None:
        """Give up the cached copy of a version that is outdated now: its content goes to the trash.

        Inside `write`, after `refresh`. ``by`` is whose change outdated it; ``path`` where it was, if the
        node is elsewhere already.
        """
        cache = self._cache
        entry = cache.local_entry(node)
        if entry is None or entry.holding != Holding.CACHED or entry.hash is None:
            return
        content = Hash(entry.hash)
        cache.remove_entry(node, LOCAL_PEER)
        cache.history.append(node, Op.DROP)
        if not self.has(content, node):
            cache.trash.put_aside(content)
        cache.trash.put(
            path if path is not None else cache.tree.path(node),
            content,
            entry.size,
            mtime_ns=entry.mtime_ns,
            mode=entry.mode,
            at_ns=time.time_ns(),
            why=why,
            by=by,
        )
        cache.refresh(node)
