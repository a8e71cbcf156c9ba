"""The numbered log of an arena's local changes, and what is left to tell a subscriber.

An entry names a node; the message is made from the node's state when it is sent, so many edits
before a peer comes back are one message (spec 4 §History). `core.announcer` makes the messages.
"""

from __future__ import annotations

import enum
import secrets
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from core.db import Connection

KEEP_S = 30 * 24 * 3600
"""LIMIT: entries older than this are trimmed whoever still lacks them (spec 4 §History)."""
KEEP_ENTRIES = 200_000
"""LIMIT: entries beyond the newest so many are trimmed (spec 4 §History)."""
_TRIM_ENTRIES = 5000
"""LIMIT: entries that go in one transaction: about 5 ms."""
_LOOK_THROUGH = 10_000
"""LIMIT: entries that are searched for nodes: about 2 ms."""


class Op(enum.IntEnum):
    """What a history entry reports."""

    ADD = 1
    REPLACE = 2
    REMOVE = 3
    DROP = 4
    AVAILABLE = 5
    RENAME = 6
    META = 7


class HistoryRow(NamedTuple):
    """One entry; ``moved_from`` is the full old path of a rename."""

    seq: int
    node: int
    op: int
    moved_from: bytes | None


class History:
    """History of one arena. Engine thread; `flush` is called inside the transaction."""

    def __init__(self, conn: Connection) -> None:
        """Load the position; `ensure_uuid` makes the identity of a new database."""
        self._conn = conn
        self._pending: list[tuple[int, int, bytes | None]] = []
        self.uuid = b""
        self.last = self._load_last()

    def _load_last(self) -> int:
        row = self._conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'history'").fetchone()
        return int(row[0]) if row else 0

    def ensure_uuid(self) -> None:
        """Load the identity of this history, made when the database is new; inside a transaction."""
        row = self._conn.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone()
        if row is None:
            self.uuid = secrets.token_bytes(16)
            self._conn.execute("INSERT INTO meta (key, value) VALUES ('uuid', ?)", (self.uuid,))
        else:
            self.uuid = bytes(row[0])

    def append(self, node: int, op: Op, moved_from: bytes | None = None) -> None:
        """Report a change of a node; written by `flush`."""
        self._pending.append((node, int(op), moved_from))

    def flush(self) -> bool:
        """Write what was appended; says whether there was any. Call before the commit."""
        if not self._pending:
            return False
        now_s = int(time.time())
        self._conn.executemany(
            "INSERT INTO history (node, op, at_s, moved_from) VALUES (?, ?, ?, ?)",
            [(node, op, now_s, moved) for node, op, moved in self._pending],
        )
        self.last += len(self._pending)
        self._pending.clear()
        return True

    def rolled_back(self) -> None:
        """Forget what a failed transaction appended."""
        self._pending.clear()
        self.last = self._load_last()

    def first(self) -> int:
        """Return the number of the oldest entry still there; ``last + 1`` when there is none."""
        row = self._conn.execute("SELECT min(seq) FROM history").fetchone()
        return int(row[0]) if row and row[0] is not None else self.last + 1

    def has_any(self) -> bool:
        """Say whether there may be a peer who is still to be told of a change."""
        return bool(self._pending) or self.first() <= self.last

    def tells_of(self, nodes: Iterable[int]) -> set[int]:
        """Return those of these nodes of which there may be a peer who is still to be told something."""
        if not self.has_any():
            return set()
        if self.last - self.first() >= _LOOK_THROUGH:
            return set(nodes)
        told: set[int] = {row[0] for row in self._conn.execute("SELECT DISTINCT node FROM history")}
        told.update(node for node, _, _ in self._pending)
        return told.intersection(nodes)

    def can_follow(self, uuid: bytes, seq: int) -> bool:
        """Say whether everything after ``seq`` of history ``uuid`` is still known."""
        return uuid == self.uuid and self.first() - 1 <= seq <= self.last

    def after(self, seq: int, limit: int) -> list[HistoryRow]:
        """Return up to ``limit`` entries after ``seq``, oldest first."""
        return [
            HistoryRow(*row)
            for row in self._conn.execute(
                "SELECT seq, node, op, moved_from FROM history WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, limit),
            )
        ]

    def trim(self, acknowledged: int, limit: int = _TRIM_ENTRIES) -> bool:
        """Remove what every configured peer has acknowledged, and what is too old or too much.

        ``acknowledged`` is the least position of the configured peers. At most the oldest ``limit`` entries
        go; says whether any did. Call inside a transaction.
        """
        first = self.first()
        if first > self.last:
            return False
        until = min(first + limit - 1, self.last)
        old: Any = self._conn.execute(
            "SELECT coalesce(max(seq), 0) FROM history WHERE seq <= ? AND at_s < ?",
            (until, int(time.time()) - KEEP_S),
        ).fetchone()
        until = min(until, max(acknowledged, self.last - KEEP_ENTRIES, int(old[0])))
        if until < first:
            return False
        self._conn.execute("DELETE FROM history WHERE seq <= ?", (until,))
        return True
