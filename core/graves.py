"""What is left of deletions: nodes that show nothing and wait to go, and graves, which are forgotten last.

Owns the tables ``departed`` and ``grave``; `core.trimming` moves what is due from the one to the other. A
grave is the vector of a deletion under the hash of its path: enough to treat a version that turns up later
as if the tombstone were still there. Engine thread; changes inside a transaction. Reasons and figures are in
docs/decisions/0060-trimming.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from blake3 import blake3

from core.db import Connection
from core.types import Vector
from core.versions import EMPTY, decode, merge

KEEP_UNACKNOWLEDGED_S = 90 * 24 * 3600
"""LIMIT: tombstones older than this go whoever has not acknowledged them (spec 4 §History)."""
KEEP_GRAVES_S = 2 * 365 * 24 * 3600
"""LIMIT: graves older than this are forgotten one by one; the *floor* remembers them together."""
_LOOK_AGAIN_S = 24 * 3600
_SWEEP = 2000
"""LIMIT: graves looked at in a step: about 2 ms."""


class Departed:
    """Nodes that show nothing."""

    def __init__(self, conn: Connection) -> None:
        """Keep the table of ``conn``."""
        self._conn = conn

    def add(self, nodes: Iterable[int]) -> None:
        """Note nodes that show nothing since now: all peers are to hear of it before they go."""
        now_s = int(time.time())
        self._conn.executemany(
            "INSERT OR REPLACE INTO departed (node, seq, at_s, look_s) VALUES (?, -1, ?, 0)",
            [(node, now_s) for node in nodes],
        )

    def look_at(self, node: int) -> None:
        """Have a node looked at that shows nothing and from which something went that kept it."""
        self._conn.execute(
            "INSERT INTO departed (node, seq, at_s, look_s) VALUES (?, -1, ?, 0)"
            " ON CONFLICT (node) DO UPDATE SET look_s = 0",
            (node, int(time.time())),
        )

    def remove(self, node: int) -> None:
        """Forget a node: it shows something again, or is gone."""
        self._conn.execute("DELETE FROM departed WHERE node = ?", (node,))

    def number(self, last: int, now_s: int, limit: int) -> bool:
        """Let up to ``limit`` new ones wait until ``last`` is acknowledged; says whether there were any.

        So do those that something else kept, a day later: what they show may have been told again meanwhile.
        """
        self._conn.execute(
            "UPDATE departed SET seq = -1 WHERE node IN"
            " (SELECT node FROM departed WHERE seq = 0 AND look_s <= ? LIMIT ?)",
            (now_s, limit),
        )
        self._conn.execute(
            "UPDATE departed SET seq = ? WHERE node IN (SELECT node FROM departed WHERE seq = -1 LIMIT ?)",
            (last + 1, limit),
        )
        return self._conn.changes() > 0

    def due(self, acknowledged: int, last: int, now_s: int, limit: int) -> list[int]:
        """Return up to ``limit`` nodes that nobody has to be told of any more.

        Those that every peer has ``acknowledged``, and those up to ``last`` that are too old to wait.
        """
        rows: list[Any] = self._conn.execute(
            "SELECT node FROM departed WHERE seq BETWEEN 1 AND ? ORDER BY seq LIMIT ?",
            (acknowledged + 1, limit),
        ).fetchall()
        old: list[Any] = self._conn.execute(
            "SELECT node, at_s FROM departed WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
            (acknowledged + 2, last + 1, limit - len(rows)),
        ).fetchall()
        rows += [row for row in old if row[1] <= now_s - KEEP_UNACKNOWLEDGED_S]
        return [int(row[0]) for row in rows]

    def keep(self, node: int, now_s: int) -> None:
        """Something needs the node: look again tomorrow."""
        self._conn.execute(
            "UPDATE departed SET seq = 0, look_s = ? WHERE node = ?", (now_s + _LOOK_AGAIN_S, node)
        )


class Graves:
    """Deletions of paths that have no node; true while there are any."""

    def __init__(self, conn: Connection) -> None:
        """Keep the table of ``conn``."""
        self._conn = conn
        self._any = conn.execute("SELECT 1 FROM grave LIMIT 1").fetchone() is not None
        self._swept = b""
        self.floor = self._load_floor()
        """Merged vector of all deletions whose graves were forgotten."""

    def _load_floor(self) -> Vector:
        row: Any = self._conn.execute("SELECT value FROM meta WHERE key = 'grave_floor'").fetchone()
        return Vector(bytes(row[0])) if row else EMPTY

    def __bool__(self) -> bool:
        """Say whether there may be any: nothing has to be asked if not."""
        return self._any

    def matter(self) -> bool:
        """Say whether what turns up may have been deleted: there are any, or some were forgotten."""
        return self._any or bool(self.floor)

    def rolled_back(self) -> None:
        """Read again what is written."""
        self._any = self._conn.execute("SELECT 1 FROM grave LIMIT 1").fetchone() is not None
        self.floor = self._load_floor()

    def put(self, path: bytes, vector: Vector, now_s: int) -> None:
        """Remember the deletion of a path that loses its node."""
        self._conn.execute(
            "INSERT OR REPLACE INTO grave (path, vector, at_s) VALUES (?, ?, ?)", (_key(path), vector, now_s)
        )
        self._any = True

    def get(self, path: bytes) -> Vector | None:
        """Return the vector of the deletion of a path."""
        if not self._any:
            return None
        row: Any = self._conn.execute("SELECT vector FROM grave WHERE path = ?", (_key(path),)).fetchone()
        return Vector(row[0]) if row else None

    def widen(self, path: bytes, vector: Vector) -> None:
        """Let the deletion of a path include another one."""
        self._conn.execute("UPDATE grave SET vector = ? WHERE path = ?", (vector, _key(path)))

    def remove(self, path: bytes) -> None:
        """Forget the deletion of a path: it has a node again."""
        self._conn.execute("DELETE FROM grave WHERE path = ?", (_key(path),))

    def may_be_deleted(self, vector: Vector) -> bool:
        """Say whether a version may be one that was deleted so long ago that its grave is forgotten."""
        if not self.floor:
            return False
        floor = decode(self.floor)
        return all(count <= floor.get(peer, 0) for peer, count in decode(vector).items())

    def sweep(self, now_s: int) -> Vector:
        """Forget what is too old among the next few graves; returns the merged vector of those."""
        rows: list[Any] = self._conn.execute(
            "SELECT path, vector, at_s FROM grave WHERE path > ? ORDER BY path LIMIT ?", (self._swept, _SWEEP)
        ).fetchall()
        self._swept = rows[-1][0] if len(rows) == _SWEEP else b""
        old = [(path, Vector(vector)) for path, vector, at_s in rows if at_s <= now_s - KEEP_GRAVES_S]
        if not old:
            return EMPTY
        self._conn.executemany("DELETE FROM grave WHERE path = ?", [(path,) for path, _ in old])
        forgotten = merge(vector for _, vector in old)
        self.floor = merge((self.floor, forgotten))
        self._conn.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('grave_floor', ?)", (self.floor,)
        )
        return forgotten


def _key(path: bytes) -> bytes:
    return blake3(path).digest()[:16]
