"""Checking content: blocks against their list, whole contents against their hash.

Runs in workers; no database. `WholeHash` follows a download so that a content that arrives in order
needs no second pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3

from core.blobdisk import Disk
from core.byteranges import ByteRanges
from core.types import HASH_BYTES, BlockList, Hash, block_bytes_for

_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What became of a buffer: the ranges written, and those whose blocks were wrong."""

    good: tuple[tuple[int, int], ...]
    bad: tuple[tuple[int, int], ...]


class WholeHash:
    """The hash of a content that arrives in pieces, mostly in order. Any worker thread."""

    def __init__(self, disk: Disk, fd: int, size: int, held: ByteRanges) -> None:
        """Follow a content of which ``held`` is on the disk already."""
        self._disk, self._fd, self._size = disk, fd, size
        self._hasher = blake3()
        self._at = 0
        self._written = held
        self._lock = threading.Lock()
        self._busy = False

    def feed(self, offset: int, data: memoryview) -> None:
        """Take checked data that was just written; hashes it now if it is next.

        RACE: two workers may bring neighbours at the same time. One hashes; what the other brings is
        only noted, and read back from the page cache by whoever is next at that gap.
        """
        with self._lock:
            self._written = self._written.add(offset, offset + len(data))
            mine = not self._busy and self._at == offset
            self._busy = self._busy or mine
        if not mine:
            return
        self._hasher.update(data)
        with self._lock:
            self._at += len(data)
            self._busy = False

    def catch_up(self, limit_bytes: int) -> None:
        """Hash up to ``limit_bytes`` of what is written and next, unless another worker is at it."""
        with self._lock:
            if self._busy:
                return
            self._busy = True
        buffer = memoryview(bytearray(min(_READ_BYTES, limit_bytes)))
        try:
            while limit_bytes > 0 and (count := self._readable(min(len(buffer), limit_bytes))):
                self._disk.pread_into(self._fd, buffer[:count], self._at)
                self._hasher.update(buffer[:count])
                self._at += count
                limit_bytes -= count
        finally:
            with self._lock:
                self._busy = False

    def _readable(self, most: int) -> int:
        with self._lock:
            for start, end in self._written:
                if start <= self._at < end:
                    return min(most, end - self._at)
        return 0

    def lag_bytes(self) -> int:
        """Return how much is written, next and not hashed yet."""
        return self._readable(self._size)

    def finish(self) -> Hash:
        """Hash what is left and return the digest of the whole; nobody else may be at it."""
        self.catch_up(self._size + 1)
        if self._at != self._size:
            raise ValueError("content has a gap")
        return Hash(self._hasher.digest())


def absorb(
    disk: Disk,
    fd: int,
    offset: int,
    data: memoryview,
    block_bytes: int,
    expected: Sequence[bytes],
    whole: WholeHash | None,
) -> Absorbed:
    """Check each block of ``data`` and write the right ones at ``offset``; worker thread.

    Args:
        disk: Seam to the file.
        fd: Descriptor of the blob.
        offset: Where ``data`` belongs; a multiple of ``block_bytes``.
        data: Whole blocks; the last may be the short one at the end of the content.
        block_bytes: Size of a block.
        expected: BLAKE3 of each block of ``data``.
        whole: Follows the content; None when nobody needs its hash now.
    """
    good: list[tuple[int, int]] = []
    bad: list[tuple[int, int]] = []
    for index, digest in enumerate(expected):
        start = index * block_bytes
        end = min(start + block_bytes, len(data))
        right = blake3(data[start:end]).digest() == digest
        _append(good if right else bad, start, end)
    for start, end in good:
        disk.pwrite(fd, data[start:end], offset + start)
        if whole is not None:
            whole.feed(offset + start, data[start:end])
    if whole is not None and whole.lag_bytes() >= _READ_BYTES:
        whole.catch_up(2 * _READ_BYTES)
    return Absorbed(_shifted(good, offset), _shifted(bad, offset))


def _append(runs: list[tuple[int, int]], start: int, end: int) -> None:
    if runs and runs[-1][1] == start:
        runs[-1] = (runs[-1][0], end)
    else:
        runs.append((start, end))


def _shifted(runs: Iterable[tuple[int, int]], offset: int) -> tuple[tuple[int, int], ...]:
    return tuple((start + offset, end + offset) for start, end in runs)


def hash_file(disk: Disk, fd: int, size: int) -> tuple[Hash, BlockList | None]:
    """Return the hash and the block list of the first ``size`` bytes of a file, in one pass; worker.

    The list is None for a content of one block.

    Raises:
        StoreError: the file is shorter, or cannot be read.
    """
    block_bytes = block_bytes_for(size)
    buffer = memoryview(bytearray(min(_READ_BYTES, max(size, 1))))
    whole, block = blake3(), blake3()
    digests: list[bytes] = []
    several = size > block_bytes
    at = 0
    while at < size:
        count = min(len(buffer), size - at)
        disk.pread_into(fd, buffer[:count], at)
        whole.update(buffer[:count])
        if several:
            block = _hash_blocks(buffer[:count], at, block_bytes, block, digests)
        at += count
    if several and size % block_bytes:
        digests.append(block.digest())
    return Hash(whole.digest()), BlockList(block_bytes, b"".join(digests)) if several else None


def _hash_blocks(data: memoryview, at: int, block_bytes: int, block: blake3, digests: list[bytes]) -> blake3:
    start = 0
    while start < len(data):
        end = min(len(data), start + block_bytes - (at + start) % block_bytes)
        block.update(data[start:end])
        if (at + end) % block_bytes == 0:
            digests.append(block.digest())
            block = blake3()
        start = end
    return block


def bad_blocks(disk: Disk, fd: int, size: int, blocks: BlockList) -> ByteRanges:
    """Return the blocks of a file that do not match their list; worker thread."""
    _, found = hash_file(disk, fd, size)
    right = ByteRanges() if found is None else matching_blocks(found, blocks, size)
    return ByteRanges.whole(size).difference(right)


def matching_blocks(found: BlockList, expected: BlockList, size: int) -> ByteRanges:
    """Return the blocks in which two lists of a content of ``size`` bytes agree."""
    if found.block_bytes != expected.block_bytes or len(found.hashes) != len(expected.hashes):
        return ByteRanges()
    step = found.block_bytes
    return ByteRanges(
        (index * step, min(size, (index + 1) * step))
        for index in range(len(found.hashes) // HASH_BYTES)
        if entry(found, index) == entry(expected, index)
    )


def right_blocks(
    disk: Disk,
    fd: int,
    ranges: ByteRanges,
    size: int,
    block_bytes: int,
    hashes_of: Callable[[int, int], list[bytes]],
) -> ByteRanges:
    """Return the blocks within ``ranges`` of a file that have their hash; worker thread.

    ``hashes_of(start, end)`` gives the hashes of the blocks there. A block of which a part is missing is not
    looked at.
    """
    right: list[tuple[int, int]] = []
    buffer = memoryview(bytearray(min(block_bytes, max(size, 1))))
    for first, last in ranges:
        for start in range(-(-first // block_bytes) * block_bytes, last, block_bytes):
            end = min(start + block_bytes, size)
            if end > last:
                break
            disk.pread_into(fd, buffer[: end - start], start)
            if [blake3(buffer[: end - start]).digest()] == hashes_of(start, end):
                right.append((start, end))
    return ByteRanges(right)


def entry(blocks: BlockList, index: int) -> bytes:
    """Return the hash of one block of a list."""
    return blocks.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]
