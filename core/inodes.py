"""Allocation of inodes: ranges handed out by the global database, numbers by each arena.

A range is remembered by its last inode only (spec 4 §Tree and inodes). Two databases cannot commit
together, so an arena that lost the record of a range gets the same range again: it passes the end
of the one it exhausted, and a later range of its own is returned before a new one is made. The other way
round, an arena knows its ranges, for a global database that was deleted (`restore_ranges`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from core.db import Connection, transaction
from core.errors import StoreError
from core.types import Inode

RESERVED_LAST = 99
"""Inodes up to here are never handed out: 0, the root of the mount (1) and its generated files."""

GLOBAL_OWNER = ""
_ARENA_RANGE = 10_000
_GLOBAL_RANGE = 100


@dataclass(frozen=True, slots=True)
class InodeRange:
    """Half-open range of inodes ``[start, end)``."""

    start: int
    end: int


def allocate_range(conn: Connection, owner: str, exhausted_end: int) -> InodeRange:
    """Return the next range of ``owner`` that begins at or after ``exhausted_end`` (0 the first time).

    ``conn`` is the global database. An earlier allocation is returned again before a new one is made.
    """
    with transaction(conn):
        known = conn.execute(
            "SELECT last FROM inode_range WHERE last >= ? AND owner = ? ORDER BY last LIMIT 1",
            (exhausted_end, owner),
        ).fetchone()
        if known is not None:
            before = conn.execute("SELECT max(last) FROM inode_range WHERE last < ?", known).fetchone()
            start = (before[0] if before and before[0] is not None else RESERVED_LAST) + 1
            return InodeRange(start, known[0] + 1)
        highest = conn.execute("SELECT max(last) FROM inode_range").fetchone()
        last = highest[0] if highest and highest[0] is not None else RESERVED_LAST
        size = _size_of(owner)
        conn.execute("INSERT INTO inode_range (last, owner) VALUES (?, ?)", (last + size, owner))
        return InodeRange(last + 1, last + size + 1)


def ranges_of(conn: Connection) -> list[InodeRange]:
    """Return the ranges that the arena database ``conn`` was given, in order."""
    return [InodeRange(*row) for row in conn.execute("SELECT start, end FROM inode_range ORDER BY start")]


def restore_ranges(conn: Connection, owner: str, ranges: Iterable[InodeRange]) -> None:
    """Write ranges that an arena has into the global database ``conn``, which may have lost them.

    Before any range is allocated: the inodes would be given out twice.

    Raises:
        StoreError: they belong to something else by now.
    """
    with transaction(conn):
        for one in ranges:
            above: Any = conn.execute(
                "SELECT last, owner FROM inode_range WHERE last >= ? ORDER BY last LIMIT 1", (one.start,)
            ).fetchone()
            if above == (one.end - 1, owner):
                continue
            if above is not None and above[0] - _size_of(above[1]) < one.end - 1:
                raise StoreError(
                    f"inodes from {one.start} on are those of {owner!r} and of {above[1] or 'the mount'!r}",
                    hint="the arena's database is not of this `[cache].db`; move one of them away",
                )
            conn.execute("INSERT INTO inode_range (last, owner) VALUES (?, ?)", (one.end - 1, owner))


def _size_of(owner: str) -> int:
    return _ARENA_RANGE if owner else _GLOBAL_RANGE


def owner_of(conn: Connection, inode: int) -> str | None:
    """Return the owner of the range that holds ``inode``; None if it was never handed out."""
    if inode <= RESERVED_LAST:
        return GLOBAL_OWNER
    row = conn.execute(
        "SELECT owner FROM inode_range WHERE last >= ? ORDER BY last LIMIT 1", (inode,)
    ).fetchone()
    return row[0] if row else None


def allocate_global(conn: Connection) -> Inode:
    """Return the next inode of the global space, for a directory above arenas; inside a transaction."""
    rows: dict[Any, Any] = dict(
        conn.execute("SELECT key, value FROM setting WHERE key IN ('inode_next', 'inode_end')")
    )
    inode, end = int(rows.get("inode_next", 0)), int(rows.get("inode_end", 0))
    if inode >= end:
        got = allocate_range(conn, GLOBAL_OWNER, end)
        inode, end = got.start, got.end
    conn.executemany(
        "INSERT OR REPLACE INTO setting (key, value) VALUES (?, ?)",
        [("inode_next", str(inode + 1)), ("inode_end", str(end))],
    )
    return Inode(inode)


class ArenaInodes:
    """Hands out the inodes of one arena; call inside a transaction of the arena's database.

    The position is written by `save`, in the same transaction as the nodes that use it: what is not
    committed is handed out again.
    """

    def __init__(self, conn: Connection, request_range: Callable[[int], InodeRange]) -> None:
        """Make the allocator; ``request_range(exhausted_end)`` asks the global database."""
        self._conn = conn
        self._request_range = request_range
        self._new_ranges: list[InodeRange] = []
        self._next, self._end = self._load()
        self._saved = (self._next, self._end)

    def _load(self) -> tuple[int, int]:
        rows = dict(
            self._conn.execute("SELECT key, value FROM meta WHERE key IN ('inode_next', 'inode_end')")
        )
        return int(rows.get("inode_next", 0)), int(rows.get("inode_end", 0))

    def allocate(self) -> Inode:
        """Return the next free inode."""
        if self._next >= self._end:
            got = self._request_range(self._end)
            self._new_ranges.append(got)
            self._next, self._end = got.start, got.end
        inode = Inode(self._next)
        self._next += 1
        return inode

    def save(self) -> None:
        """Write the position; call before the transaction commits."""
        if self._saved != (self._next, self._end):
            self._conn.executemany(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                [("inode_next", self._next), ("inode_end", self._end)],
            )
            self._conn.executemany(
                "INSERT OR IGNORE INTO inode_range (start, end) VALUES (?, ?)",
                [(got.start, got.end) for got in self._new_ranges],
            )
            self._new_ranges.clear()
            self._saved = (self._next, self._end)

    def rolled_back(self) -> None:
        """Forget what was handed out in a transaction that failed."""
        self._new_ranges.clear()
        self._next, self._end = self._load()
        self._saved = (self._next, self._end)
