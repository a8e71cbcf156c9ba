"""One blob that is open: its descriptor, the ranges that can be read, and when they are recorded.

Order of writes: data → flush → ranges in the row (spec 4 §Blobs). A range can be read as soon as it is
written and checked; it counts after a crash only once it is recorded.

INVARIANT: ``recorded`` ⊆ ``ranges``, and what is recorded was flushed before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from core.blobdisk import Buffer, Disk
from core.blobrows import BlobRow, BlobRows
from core.byteranges import ByteRanges
from core.errors import StoreError
from core.quota import Quota
from core.types import Hash

RECORD_BYTES = 4 * 1024 * 1024
"""LIMIT: written bytes after which ranges are recorded: a crash of the machine loses no more (spec 4)."""


@dataclass(frozen=True, slots=True)
class BlobParts:
    """What every open blob of a store uses."""

    disk: Disk
    rows: BlobRows
    quota: Quota
    workers: trio.CapacityLimiter
    sync_names: Callable[[Hash], None]
    """Flush the directory that holds a blob's name; worker thread."""


class Blob:
    """An open blob, shared by all who opened it. Engine thread, unless a method says otherwise.

    ``ranges`` is immutable and replaced whole, so any thread may look at it. The descriptor stays
    readable until the last `aclose`, even when the blob was removed meanwhile.
    """

    def __init__(self, parts: BlobParts, row: BlobRow, fd: int, *, new: bool) -> None:
        """Open the file of ``row``; `BlobStore.open` and `BlobStore.create` do this."""
        self._parts = parts
        self.hash: Hash = row.hash
        self.size = row.size
        self.fd = fd
        self.ranges = row.ranges
        self.verified = row.verified
        self.doubted = row.doubted
        self.settled = row.ctime_ns != 0
        """Whether the row has the change time of the file: nothing was recorded since it had."""
        self.removed = False
        self.users = 0
        self._recorded = row.ranges
        self._disk_bytes = row.disk_bytes
        self._reserved = 0
        self._recording = trio.Lock()
        self._named = not new

    @property
    def complete(self) -> bool:
        """Whether every byte can be read."""
        return self.ranges.covers(0, self.size)

    @property
    def held(self) -> bool:
        """Whether the content is whole and checked."""
        return self.verified and self.complete

    @property
    def unrecorded_bytes(self) -> int:
        """Bytes written since the ranges were recorded."""
        return self.ranges.total() - self._recorded.total()

    def add(self, start: int, end: int) -> None:
        """Make ``[start, end)`` readable: it is written and checked."""
        self.ranges = self.ranges.add(start, end)

    def filled(self, row: BlobRow) -> None:
        """Take over that the file was filled whole by `BlobStore.add_many`, as ``row`` says."""
        self.ranges = self._recorded = row.ranges
        self.verified = row.verified
        self.doubted = row.doubted
        self.settled = True
        self._disk_bytes = row.disk_bytes

    def charge(self, count: int) -> None:
        """Note ``count`` reserved bytes as this blob's; they are settled when it is recorded or closed."""
        self._reserved += count

    def write(self, offset: int, data: Buffer) -> None:
        """Write data that the caller checks and then adds; worker thread.

        Raises:
            NoSpaceError: the disk is full.
            StoreError: the write failed, or the data goes beyond the end.
        """
        if offset < 0 or offset + len(data) > self.size:
            raise StoreError("write beyond the end of a content")
        self._parts.disk.pwrite(self.fd, data, offset)

    async def record(self) -> None:
        """Flush what is written and record its ranges.

        Raises:
            NoSpaceError: the disk is full; what was not recorded before is forgotten.
            StoreError: the flush failed; likewise.
        """
        async with self._recording:
            ranges = self.ranges
            if self.removed or ranges == self._recorded:
                return
            try:
                disk_bytes = await trio.to_thread.run_sync(self._flush, limiter=self._parts.workers)
            except StoreError:
                # After a failed flush the kernel may have dropped the pages: only what is recorded counts.
                self.ranges = self._recorded
                raise
            if not self.removed:
                self._settle(disk_bytes)  # also if the row cannot be written: the disk is in use
                self._set_ranges(ranges, disk_bytes)
                self._recorded = ranges

    def _set_ranges(self, ranges: ByteRanges, disk_bytes: int) -> None:
        self._parts.rows.set_ranges(self.hash, ranges, disk_bytes)
        self.settled = False

    def _flush(self) -> int:
        self._parts.disk.sync(self.fd)
        if not self._named:
            self._parts.sync_names(self.hash)
            self._named = True
        return self._parts.disk.facts(self.fd).disk_bytes

    def _settle(self, disk_bytes: int) -> None:
        grown = disk_bytes - self._disk_bytes
        self._disk_bytes = disk_bytes
        self._parts.quota.settle(grown)
        settled = min(max(grown, 0), self._reserved)
        self._reserved -= settled
        self._parts.quota.release(settled)

    def share(self) -> Blob:
        """Open it once more, for another who gives it back by himself."""
        self.users += 1
        return self

    async def forget(self, ranges: ByteRanges) -> None:
        """Forget ranges that turned out wrong. Their bytes stay until they are written again.

        They are not punched out: a reader that has just seen them in ``ranges`` would read zeros.
        """
        async with self._recording:
            if self.removed:
                return
            self.ranges = self.ranges.difference(ranges)
            self._recorded = self._recorded.difference(ranges)
            self.verified = False
            self._parts.rows.set_verified(self.hash, verified=False)
            self._set_ranges(self._recorded, self._disk_bytes)

    async def vouch(self, checked: ByteRanges, right: ByteRanges) -> None:
        """End the doubt about ``checked``: the blocks ``right`` of it are what they should be."""
        async with self._recording:
            if self.removed:
                return
            self.doubted = self.doubted.difference(checked)
            self.ranges = self.ranges.union(right)
            self._recorded = self._recorded.union(right)
            self._set_ranges(self._recorded, self._disk_bytes)
            self._parts.rows.set_doubted(self.hash, self.doubted)

    def settle_file(self) -> None:
        """Note by which change time the file is known again; when nobody writes it any more."""
        if not self.settled and not self.removed:
            self._parts.rows.set_ctime(self.hash, self._parts.disk.facts(self.fd).ctime_ns)
            self.settled = True

    async def discard(self, ranges: ByteRanges) -> None:
        """Forget ranges and give their blocks back; the caller knows that nobody reads there."""
        await self.forget(ranges)
        async with self._recording:
            if self.removed:
                return
            disk_bytes = await trio.to_thread.run_sync(self._punch, ranges, limiter=self._parts.workers)
            if not self.removed:
                self._set_ranges(self._recorded, disk_bytes)
                self._settle(disk_bytes)

    def _punch(self, ranges: ByteRanges) -> int:
        for start, end in ranges:
            self._parts.disk.punch(self.fd, start, min(end, self.size))
        return self._parts.disk.facts(self.fd).disk_bytes

    def release_charge(self) -> None:
        """Give back what was reserved and not used; when closed or removed."""
        self._parts.quota.release(self._reserved)
        self._reserved = 0

    @property
    def disk_bytes(self) -> int:
        """Blocks in use when last measured, bytes."""
        return self._disk_bytes
