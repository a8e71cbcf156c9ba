"""Rows of the tables ``blob`` and ``block_list``, and the statements on them.

Engine thread only. Nothing here touches a file; the order of files and rows is `core.blobs`' matter.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from core.byteranges import ByteRanges
from core.db import Connection, transaction
from core.types import HASH_BYTES, BlockList, Hash, block_bytes_for, block_count


class Area(enum.IntEnum):
    """What a blob is held for; each area is an LRU (spec 4 §Blobs)."""

    WORKING = 0
    PROTECTED = 1
    PENDING = 2
    FREQUENT = 3
    """The part of the protected area that is watched only, and used often (`core.frequency`)."""


@dataclass(frozen=True, slots=True)
class BlobRow:
    """One row of ``blob``.

    Attributes:
        epoch: Flush epoch of the last write, 0 once known to be on the disk.
        ctime_ns: Change time by which the file is known again; 0 while it is written.
        doubted: Ranges that count once their blocks were checked again.
    """

    hash: Hash
    size: int
    ranges: ByteRanges
    verified: bool
    area: Area
    disk_bytes: int
    last_use_ns: int
    epoch: int = 0
    ctime_ns: int = 0
    doubted: ByteRanges = ByteRanges()  # noqa: RUF009 - immutable

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.ranges.covers(0, self.size)

    @property
    def held(self) -> bool:
        """Whether the content is there whole and was checked against its hash."""
        return self.verified and self.complete


class KnownFile(NamedTuple):
    """What a row says of its file; see `BlobRow`."""

    size: int
    disk_bytes: int
    epoch: int
    ctime_ns: int


_COLUMNS = "hash, size, ranges, verified, area, disk_bytes, last_use_ns, epoch, ctime_ns, doubted"
_SELECT = f"SELECT {_COLUMNS} FROM blob"  # noqa: S608 - a constant
_PAGE = 256


def _row(record: tuple[Any, ...]) -> BlobRow:
    digest, size, ranges, verified, area, disk_bytes, last_use_ns, epoch, ctime_ns, doubted = record
    return BlobRow(
        Hash(digest), size, ByteRanges.decode(ranges), bool(verified), Area(area),
        disk_bytes, last_use_ns, epoch, ctime_ns, ByteRanges.decode(doubted),
    )  # fmt: skip


def _values(row: BlobRow) -> tuple[bytes | int, ...]:
    return (
        row.hash, row.size, row.ranges.encode(), row.verified, row.area,
        row.disk_bytes, row.last_use_ns, row.epoch, row.ctime_ns, row.doubted.encode(),
    )  # fmt: skip


class BlobRows:
    """The table ``blob``."""

    def __init__(self, conn: Connection) -> None:
        """Use the arena's writing connection."""
        self._conn = conn

    def get(self, content: Hash) -> BlobRow | None:
        """Return the row of a content."""
        record = self._conn.execute(f"{_SELECT} WHERE hash = ?", (content,)).fetchone()
        return None if record is None else _row(record)

    def state(self, content: Hash) -> bool | None:
        """Say whether a content is whole and verified, None if there is no row; cheaper than `get`."""
        record = self._conn.execute("SELECT verified FROM blob WHERE hash = ?", (content,)).fetchone()
        return None if record is None else bool(record[0])

    def held(self, content: Hash) -> bool:
        """Say whether a content is whole and verified."""
        return bool(self.state(content))

    def put_many(self, rows: Iterable[BlobRow]) -> None:
        """Insert or replace rows, in one transaction."""
        with transaction(self._conn):
            self._conn.executemany(
                f"INSERT OR REPLACE INTO blob ({_COLUMNS}, frequency, generation)"  # noqa: S608 - constants
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
                map(_values, rows),
            )

    def set_ranges(self, content: Hash, ranges: ByteRanges, disk_bytes: int) -> None:
        """Record the ranges that are on the disk now; whoever changes them unverifies the blob."""
        with transaction(self._conn):
            self._conn.execute(
                "UPDATE blob SET ranges = ?, disk_bytes = ?, epoch = 0, ctime_ns = 0 WHERE hash = ?",
                (ranges.encode(), disk_bytes, content),
            )

    def set_times(self, times: Iterable[tuple[Hash, int]]) -> None:
        """Record the change times by which files are known again, in one transaction."""
        with transaction(self._conn):
            self._conn.executemany(
                "UPDATE blob SET ctime_ns = ? WHERE hash = ?", ((at_ns, content) for content, at_ns in times)
            )

    def set_ctime(self, content: Hash, ctime_ns: int) -> None:
        """Record by which change time the file is known again: nobody writes it any more."""
        with transaction(self._conn):
            self._conn.execute("UPDATE blob SET ctime_ns = ? WHERE hash = ?", (ctime_ns, content))

    def set_doubted(self, content: Hash, doubted: ByteRanges) -> None:
        """Record which ranges are still in doubt."""
        with transaction(self._conn):
            self._conn.execute("UPDATE blob SET doubted = ? WHERE hash = ?", (doubted.encode(), content))

    def set_verified(self, content: Hash, *, verified: bool) -> None:
        """Set whether the whole content was checked."""
        with transaction(self._conn):
            self._conn.execute("UPDATE blob SET verified = ? WHERE hash = ?", (verified, content))

    def set_area(self, contents: Iterable[Hash], area: Area) -> None:
        """Move blobs to an area, in one transaction."""
        with transaction(self._conn):
            self._conn.executemany(
                "UPDATE blob SET area = ? WHERE hash = ? AND area <> ?", ((area, h, area) for h in contents)
            )

    def unprotect(self, contents: Iterable[Hash]) -> None:
        """Move protected blobs that are not marked any more to the working area, in one transaction."""
        self._change_area(contents, Area.PROTECTED, Area.WORKING)

    def _change_area(self, contents: Iterable[Hash], old: Area, new: Area) -> None:
        with transaction(self._conn):
            self._conn.executemany(
                "UPDATE blob SET area = ? WHERE hash = ? AND area = ?", ((new, h, old) for h in contents)
            )

    def promote(self, contents: Iterable[Hash]) -> None:
        """Move blobs of the working area to the frequent ones, in one transaction."""
        self._change_area(contents, Area.WORKING, Area.FREQUENT)

    def demote(self, contents: Iterable[Hash]) -> None:
        """Move frequent blobs back to the working area, in one transaction."""
        self._change_area(contents, Area.FREQUENT, Area.WORKING)

    def area_of(self, content: Hash) -> tuple[Area, int] | None:
        """Return area and disk use of a content."""
        record: Any = self._conn.execute(
            "SELECT area, disk_bytes FROM blob WHERE hash = ?", (content,)
        ).fetchone()
        return None if record is None else (Area(record[0]), record[1])

    def frequencies(self) -> list[tuple[Hash, int, int]]:
        """Return ``(hash, count, generation of the count)`` of what was used; a scan, for start-up."""
        rows = self._conn.execute("SELECT hash, frequency, generation FROM blob WHERE frequency > 0")
        return [(Hash(content), count, generation) for content, count, generation in rows]

    def set_frequencies(self, counts: Iterable[tuple[Hash, int]], generation: int) -> None:
        """Write counts of uses, in one transaction."""
        with transaction(self._conn):
            self._conn.executemany(
                "UPDATE blob SET frequency = ?, generation = ? WHERE hash = ?",
                ((count, generation, content) for content, count in counts),
            )

    def rescue(self, contents: Iterable[Hash]) -> None:
        """Move those blobs that are pending removal to the working area, in one transaction."""
        self._change_area(contents, Area.PENDING, Area.WORKING)

    def delete_many(self, contents: Iterable[Hash]) -> int:
        """Delete rows, in one transaction; returns the disk use that was recorded in them."""
        with transaction(self._conn):
            rows: list[Any] = self._conn.executemany(
                "DELETE FROM blob WHERE hash = ? RETURNING disk_bytes", ((h,) for h in contents)
            ).fetchall()
        return sum(row[0] for row in rows)

    def touch_many(self, uses: Iterable[tuple[Hash, int]]) -> None:
        """Set the time of the last use (wall clock, ns) of many blobs, in one transaction."""
        with transaction(self._conn):
            self._conn.executemany(
                "UPDATE blob SET last_use_ns = ? WHERE hash = ?", ((at_ns, h) for h, at_ns in uses)
            )

    def oldest(self, area: Area) -> Iterator[tuple[Hash, int]]:
        """Yield ``(hash, disk_bytes)`` of an area, least recently used first; read in pages."""
        last: tuple[int, bytes] = (-1, b"")
        while True:
            page: list[tuple[Any, ...]] = self._conn.execute(
                "SELECT last_use_ns, hash, disk_bytes FROM blob"
                " WHERE area = ? AND (last_use_ns, hash) > (?, ?) ORDER BY last_use_ns, hash LIMIT ?",
                (area, *last, _PAGE),
            ).fetchall()
            for _, content, disk_bytes in page:
                yield Hash(content), disk_bytes
            if len(page) < _PAGE:
                return
            last = (page[-1][0], page[-1][1])

    def files(self, first: int) -> dict[Hash, KnownFile]:
        """Return what the rows of the hashes that begin with byte ``first`` say of their files."""
        low, high = bytes([first]), bytes([first + 1]) if first < 255 else b"\xff" * (HASH_BYTES + 1)
        query = "SELECT hash, size, disk_bytes, epoch, ctime_ns FROM blob WHERE hash >= ? AND hash < ?"
        return {Hash(digest): KnownFile(*known) for digest, *known in self._conn.execute(query, (low, high))}

    def disk_bytes(self) -> int:
        """Return the disk use of all blobs: a scan, for start-up."""
        return int(self._conn.execute("SELECT coalesce(sum(disk_bytes), 0) FROM blob").get)

    def protected_bytes(self) -> int:
        """Return the disk use of what is never evicted; reads all of that area."""
        query = "SELECT coalesce(sum(disk_bytes), 0) FROM blob WHERE area = ?"
        return int(self._conn.execute(query, (int(Area.PROTECTED),)).get)

    def meta(self, key: str, default: int) -> int:
        """Return a number of table ``meta``."""
        record = self._conn.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if record is None else int(record[0])

    def set_meta(self, key: str, value: int) -> None:
        """Set a number of table ``meta``."""
        with transaction(self._conn):
            self._conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


class BlockLists:
    """The table ``block_list``: the blocks' hashes of contents that are, or were, here."""

    def __init__(self, conn: Connection) -> None:
        """Use the arena's writing connection."""
        self._conn = conn

    def get(self, content: Hash) -> BlockList | None:
        """Return the whole list of a content, None when there is none."""
        record: tuple[Any, ...] | None = self._conn.execute(
            "SELECT block_bytes, hashes FROM block_list WHERE hash = ?", (content,)
        ).fetchone()
        return None if record is None else BlockList(record[0], record[1])

    def put_many(self, lists: Iterable[tuple[Hash, BlockList]]) -> None:
        """Keep lists computed here from checked content, in one transaction."""
        with transaction(self._conn):
            self._conn.executemany(
                "INSERT OR REPLACE INTO block_list (hash, block_bytes, hashes) VALUES (?, ?, ?)",
                ((content, blocks.block_bytes, blocks.hashes) for content, blocks in lists),
            )

    def delete(self, content: Hash) -> None:
        """Forget the list of a content."""
        with transaction(self._conn):
            self._conn.execute("DELETE FROM block_list WHERE hash = ?", (content,))


def fits(blocks: BlockList, size: int, count: int) -> bool:
    """Say whether an answer has the block size of a content of ``size`` and ``count`` entries."""
    return blocks.block_bytes == block_bytes_for(size) and len(blocks.hashes) == count * HASH_BYTES


def entries_of(size: int) -> int:
    """Return how many entries the block list of a content has; 0 for one of a single block."""
    count = block_count(size, block_bytes_for(size))
    return count if count > 1 else 0
