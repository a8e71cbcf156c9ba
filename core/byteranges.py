"""Sets of byte ranges: which parts of a content are held.

Pure and immutable. A set is a sorted tuple of disjoint, non-adjacent, half-open ``(start, end)``.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator

_PAIR = struct.Struct(">QQ")


class ByteRanges:
    """An immutable set of bytes, as half-open ranges of offsets."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """Make the set that covers all ``ranges``; empty ones are dropped, the rest joined.

        Raises:
            ValueError: a range is negative or ends before it starts.
        """
        joined: list[tuple[int, int]] = []
        for start, end in sorted(ranges):
            if start < 0 or end < start:
                raise ValueError("bad range")
            if start == end:
                continue
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        self._ranges = tuple(joined)

    @classmethod
    def whole(cls, size: int) -> ByteRanges:
        """Return the set of all bytes of a content of ``size`` bytes."""
        if size < 0:
            raise ValueError("bad range")
        ranges = cls()
        ranges._ranges = ((0, size),) if size else ()
        return ranges

    @classmethod
    def decode(cls, data: bytes) -> ByteRanges:
        """Return the set that `encode` made.

        Raises:
            ValueError: ``data`` is not such bytes.
        """
        if len(data) % _PAIR.size:
            raise ValueError("bad ranges")
        return cls(_PAIR.iter_unpack(data))

    def encode(self) -> bytes:
        """Return the set as bytes for a database: pairs of big-endian u64."""
        return b"".join(_PAIR.pack(start, end) for start, end in self._ranges)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over the ranges in order."""
        return iter(self._ranges)

    def __len__(self) -> int:
        """Return the number of ranges."""
        return len(self._ranges)

    def __bool__(self) -> bool:
        """Say whether there is any byte."""
        return bool(self._ranges)

    def __eq__(self, other: object) -> bool:
        """Say whether both hold the same bytes."""
        return isinstance(other, ByteRanges) and self._ranges == other._ranges

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self._ranges)

    def __repr__(self) -> str:
        """Show the ranges."""
        return f"ByteRanges({list(self._ranges)})"

    def total(self) -> int:
        """Return the number of bytes."""
        return sum(end - start for start, end in self._ranges)

    def covers(self, start: int, end: int) -> bool:
        """Say whether all of ``[start, end)`` is in the set; an empty range always is."""
        if start >= end:
            return True
        index = bisect.bisect_right(self._ranges, (start, 1 << 64)) - 1
        return index >= 0 and self._ranges[index][1] >= end

    def add(self, start: int, end: int) -> ByteRanges:
        """Return the set with ``[start, end)`` added."""
        ranges = self._ranges
        if not 0 <= start < end:
            return ByteRanges((*ranges, (start, end)))
        first = bisect.bisect_left(ranges, (start, 0))
        if first and ranges[first - 1][1] >= start:
            first -= 1
        last = bisect.bisect_right(ranges, (end, 1 << 64))
        if first < last:  # it joins those from ``first`` on
            start, end = min(start, ranges[first][0]), max(end, ranges[last - 1][1])
        grown = ByteRanges()
        grown._ranges = (*ranges[:first], (start, end), *ranges[last:])
        return grown

    def union(self, other: ByteRanges) -> ByteRanges:
        """Return the bytes that are in either."""
        return ByteRanges((*self._ranges, *other._ranges))

    def intersection(self, other: ByteRanges) -> ByteRanges:
        """Return the bytes that are in both."""
        out: list[tuple[int, int]] = []
        a, b = self._ranges, other._ranges
        i = j = 0
        while i < len(a) and j < len(b):
            start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
            if start < end:
                out.append((start, end))
            if a[i][1] < b[j][1]:
                i += 1
            else:
                j += 1
        return ByteRanges(out)

    def difference(self, other: ByteRanges) -> ByteRanges:
        """Return the bytes that are here and not in ``other``."""
        out: list[tuple[int, int]] = []
        for start, end in self._ranges:
            at = start
            first = max(0, bisect.bisect_right(other._ranges, (start, 1 << 64)) - 1)
            for o_start, o_end in other._ranges[first:]:
                if o_start >= end:
                    break
                if o_end <= at:
                    continue
                if o_start > at:
                    out.append((at, o_start))
                at = max(at, o_end)
            if at < end:
                out.append((at, end))
        return ByteRanges(out)

    def aligned(self, block: int, size: int) -> ByteRanges:
        """Return the set grown to whole blocks of ``block`` bytes, cut off at ``size``."""
        return ByteRanges(
            (start // block * block, min(size, -(-end // block) * block)) for start, end in self._ranges
        )
