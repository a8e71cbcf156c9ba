"""Where the copies of contents and versions are: in this host's datadir, and with peers by what they said.

Questions to the database of an arena; nothing is changed. Engine thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.cache import ArenaCache
from core.choice import Flag
from core.paths import join
from core.placing import Identity
from core.types import HELD, Hash, Holding, Kind, Mark, PeerKey, RelPath, Vector


class Copies:
    """The copies that are known in one arena."""

    def __init__(self, cache: ArenaCache) -> None:
        """Look in the database of ``cache``."""
        self._cache, self._conn = cache, cache.conn

    def may_evict(self, content: Hash) -> bool:
        """Say whether a blob may be evicted for space: it is held elsewhere, and no mark here wants it.

        The mark may have been set a moment ago, with the blob not protected yet.
        """
        marks = self._cache.marks
        return all(
            held and marks.effective(node, parent) is Mark.WATCH
            for node, parent, held in self._cached_at(content)
        )

    def held_elsewhere(self, content: Hash) -> bool:
        """Say whether another peer said of each path that is cached by a blob that it holds it durably.

        That peer need not be asked: if it has given its copy up since, another confirmed one (`core.leases`).
        What peers merely have in their caches proves nothing: they may be evicting it at this moment.
        """
        return all(held for *_, held in self._cached_at(content))

    def _cached_at(self, content: Hash) -> list[Any]:
        """Return the nodes cached by a blob, with their parents and whether a peer holds it durably."""
        return self._conn.execute(
            "SELECT n.id, n.parent, EXISTS (SELECT 1 FROM entry o WHERE o.node = e.node AND o.peer > 0"
            " AND o.hash = e.hash AND o.holding IN (1, 4)) FROM entry e CROSS JOIN node n ON n.id = e.node"
            " WHERE e.peer = 0 AND e.hash = ? AND e.hash IS NOT NULL AND e.holding = ?",
            (content, int(Holding.CACHED)),
        ).fetchall()

    def real_files(self, content: Hash) -> Iterator[tuple[RelPath, Identity]]:
        """Yield the real files that are indexed with a content; not those known to be damaged."""
        rows: list[Any] = self._conn.execute(
            "SELECT e.size, e.mtime_ns, e.ino, n.parent, n.name FROM entry e JOIN node n ON n.id = e.node"
            " WHERE e.peer = 0 AND e.hash = ? AND e.hash IS NOT NULL AND e.holding = ? AND n.flags & ? = 0",
            (content, int(Holding.REAL), int(Flag.DAMAGED)),
        ).fetchall()
        for size, mtime_ns, ino, parent, name in rows:
            yield join(self._cache.tree.directory_path(parent), name), Identity(size, mtime_ns, ino)

    def real_version(self, path: RelPath, vector: Vector) -> Identity | None:
        """Return how the real file of that very version is recognised; None if it is not held."""
        node = self._cache.tree.find(path)
        row: Any = (
            node
            and self._conn.execute(
                "SELECT size, mtime_ns, ino FROM entry"
                " WHERE node = ? AND peer = 0 AND holding = ? AND kind = ? AND vector = ?",
                (node, int(Holding.REAL), int(Kind.FILE), vector),
            ).fetchone()
        )
        return Identity(*row) if row else None

    def holder_keys(
        self, node: int, content: bytes | None, holdings: Sequence[Holding] = HELD
    ) -> list[PeerKey]:
        """Return the peers that announced a content for a node, held in one of these ways."""
        rows: list[Any] = self._conn.execute(
            "SELECT p.key, e.holding FROM entry e JOIN peer p ON p.id = e.peer"
            " WHERE e.node = ? AND e.peer > 0 AND e.hash IS ?",
            (node, content),
        ).fetchall()
        return [PeerKey(key) for key, holding in rows if holding in holdings]

    def version_keys(self, node: int, vector: Vector) -> list[PeerKey]:
        """Return the peers that announced a real file of that very version for a node."""
        rows: list[Any] = self._conn.execute(
            "SELECT p.key FROM entry e JOIN peer p ON p.id = e.peer"
            " WHERE e.node = ? AND e.peer > 0 AND e.vector = ? AND e.holding = 1",
            (node, vector),
        ).fetchall()
        return [PeerKey(key) for (key,) in rows]
