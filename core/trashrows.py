"""The table ``trash``: which content that was replaced or deleted is still held, and where it was.

Owns no content: that is in the area *pending removal* of the blobs, where it goes first when room is
needed. INVARIANT: only rows whose blob is whole and verified are ever given out. Engine thread.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from core.blobrows import Area
from core.db import Connection, transaction
from core.types import Hash, PeerKey, RelPath


class Reason(enum.StrEnum):
    """Why a content is in the trash."""

    REPLACED = "replaced"
    DELETED = "deleted"
    DAMAGED = "damaged"
    """A file changed on the disk without anybody writing it; what it was repaired from is in its place."""


class Trashed(NamedTuple):
    """A content in the trash; ``mtime_ns`` and ``mode`` are of the file that it was."""

    id: int
    path: RelPath
    hash: Hash
    size: int
    mtime_ns: int
    mode: int
    at_ns: int
    why: Reason
    by: PeerKey | None


_COLUMNS = "t.id, t.path, t.hash, t.size, t.mtime_ns, t.mode, t.at_ns, t.why, t.by_peer"
_HELD = f"SELECT {_COLUMNS} FROM trash t JOIN blob b ON b.hash = t.hash AND b.verified = 1"  # noqa: S608
AT = f"{_HELD} WHERE t.path = ? ORDER BY t.at_ns DESC, t.id DESC"
BELOW = f"{_HELD} WHERE t.path > ? AND t.path < ? ORDER BY t.path, t.at_ns DESC, t.id DESC"
ALL = f"{_HELD} ORDER BY t.path, t.at_ns DESC, t.id DESC"
NEXT = (
    "SELECT t.path FROM trash t JOIN blob b ON b.hash = t.hash AND b.verified = 1"
    " WHERE t.path >= ? AND t.path < ? ORDER BY t.path LIMIT 1"
)


def below_range(path: bytes) -> tuple[bytes, bytes]:
    """Return the bounds of the paths below ``path``: greater than the first, less than the second."""
    return (path + b"/", path + b"0") if path else (b"", b"\xff" * 256)


class TrashRows:
    """The rows of one arena; on the writing connection, or a reader's to look only."""

    def __init__(self, conn: Connection) -> None:
        """Use ``conn``."""
        self._conn = conn

    def put(
        self,
        path: RelPath,
        content: Hash,
        size: int,
        *,
        mtime_ns: int,
        mode: int,
        at_ns: int,
        why: Reason,
        by: PeerKey | None,
    ) -> None:
        """Record that a content is in the trash; the same content of a path is recorded once."""
        with transaction(self._conn):
            self._conn.execute(
                "INSERT OR REPLACE INTO trash (path, hash, size, mtime_ns, mode, at_ns, why, by_peer)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (path, content, size, mtime_ns, mode, at_ns, why.value, by),
            )

    def put_aside(self, content: Hash) -> None:
        """Let a blob be the first to go when room is needed: it is in the trash now."""
        self._conn.execute("UPDATE blob SET area = ? WHERE hash = ?", (int(Area.PENDING), content))

    def forget(self, contents: Iterable[Hash]) -> None:
        """Remove the rows of contents that are not held any more."""
        with transaction(self._conn):
            self._conn.executemany("DELETE FROM trash WHERE hash = ?", ((content,) for content in contents))

    def remove(self, ids: Iterable[int]) -> None:
        """Remove rows."""
        with transaction(self._conn):
            self._conn.executemany("DELETE FROM trash WHERE id = ?", ((id_,) for id_ in ids))

    def forget_lost(self) -> None:
        """Remove the rows whose content is not held; at start."""
        with transaction(self._conn):
            self._conn.execute(
                "DELETE FROM trash WHERE NOT EXISTS (SELECT 1 FROM blob b WHERE b.hash = trash.hash)"
            )

    def holds(self, content: Hash, *, besides: bytes | None = None) -> bool:
        """Say whether a content is in the trash, for another path than ``besides``."""
        row = self._conn.execute(
            "SELECT 1 FROM trash WHERE hash = ? AND path IS NOT ? LIMIT 1", (content, besides)
        ).fetchone()
        return row is not None

    def paths_of(self, content: Hash) -> list[RelPath]:
        """Return the paths that a content is in the trash of."""
        rows: list[Any] = self._conn.execute("SELECT path FROM trash WHERE hash = ?", (content,)).fetchall()
        return [RelPath(path) for (path,) in rows]

    def at(self, path: bytes) -> list[Trashed]:
        """Return what is held of exactly one path, the newest first."""
        return self._rows(AT, (path,))

    def below(self, path: bytes) -> list[Trashed]:
        """Return what is held of all paths below one, by path, the newest of each first."""
        return self._rows(BELOW, below_range(path)) if path else self._rows(ALL, ())

    def any_below(self, path: bytes) -> bool:
        """Say whether anything is held of the paths below one."""
        first, last = below_range(path)
        return self._conn.execute(NEXT, (first, last)).fetchone() is not None

    def names_in(self, directory: bytes) -> Iterator[tuple[bytes, bool, bool]]:
        """Yield ``(name, is a file, is a directory)`` of what is in the trash in a directory, sorted."""
        first, last = below_range(directory)
        start = len(first)
        found: dict[bytes, list[bool]] = {}
        low = first
        while (row := self._conn.execute(NEXT, (low, last)).fetchone()) is not None:
            name, slash, _ = bytes(row[0])[start:].partition(b"/")
            kinds = found.setdefault(name, [False, False])
            kinds[bool(slash)] = True
            # Past everything below it; but names like ``a.b`` lie between the file ``a`` and what is in it.
            low = first + name + (b"0" if slash else b"\0")
        for name in sorted(found):
            yield name, found[name][0], found[name][1]

    def _rows(self, statement: str, values: Sequence[object]) -> list[Trashed]:
        rows: list[Any] = self._conn.execute(statement, values).fetchall()
        return [_trashed(*row) for row in rows]


def _trashed(
    id_: int,
    path: bytes,
    content: bytes,
    size: int,
    mtime_ns: int,
    mode: int,
    at_ns: int,
    why: str,
    by: bytes | None,
) -> Trashed:
    return Trashed(
        id_,
        RelPath(path),
        Hash(content),
        size,
        mtime_ns,
        mode,
        at_ns,
        Reason(why),
        PeerKey(by) if by else None,
    )
