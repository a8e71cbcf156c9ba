"""How much disk the cache of an arena may use: the arithmetic of `max` and `leave`.

Pure but for the figures of the filesystem, which come from a callable. Bytes are blocks in use on the
disk, not lengths of contents.

Without `leave` some is left as well: a cache that fills the disk would keep its own database from recording
anything, even that something was evicted.

INVARIANT: ``used + reserved + displaced <= max`` and ``free - reserved >= leave`` after every `reserve`; data
is written only against a reservation. What was ``displaced`` from the datadir and cannot go to the trash yet
takes disk too; it was the user's, nobody reserved anything for it, so the cache has to give way.
"""

from __future__ import annotations

from collections.abc import Callable

from core.blobdisk import DiskSpace
from core.config import DiskUsage, Share
from core.units import human_bytes

HEADROOM_BYTES = 16 * 1024 * 1024
"""LIMIT: left free where no `leave` is set: databases and their logs need it."""

SLACK_BYTES = 16 * 1024
"""LIMIT: blocks that a filesystem may add for the extents of one sparse file (ext4: 340 extents each)."""


class Quota:
    """Disk use of one blob store. Engine thread only."""

    def __init__(self, usage: DiskUsage, space: Callable[[], DiskSpace], used_bytes: int) -> None:
        """Start from what is in use; ``space`` measures the filesystem."""
        self._usage = usage
        self._space = space
        self._block_bytes = space().block_bytes
        self.used_bytes = used_bytes
        self.reserved_bytes = 0
        self.displaced_bytes = 0
        self.on_use: Callable[[], None] | None = None
        """Told after ``used_bytes`` changed."""

    @property
    def disk_bytes(self) -> int:
        """What is in use of the limit: cached content, and what was displaced from the datadir."""
        return self.used_bytes + self.displaced_bytes

    @property
    def max_bytes(self) -> int | None:
        """The most that may be used, None if there is no such limit."""
        limit = self._usage.max
        if isinstance(limit, Share):
            return int(limit.fraction * self._space().total_bytes)
        return limit

    @property
    def capacity_bytes(self) -> int:
        """What could be used if the disk had nothing else to do: the share that uses are weighed against."""
        space = self._space()
        capacity = self.used_bytes + space.free_bytes - self._floor(space)
        limit = self.max_bytes
        return max(1, capacity if limit is None else min(limit, capacity))

    def _floor(self, space: DiskSpace) -> int:
        leave = self._usage.leave
        if leave is None:
            return HEADROOM_BYTES
        return int(leave.fraction * space.total_bytes) if isinstance(leave, Share) else leave

    def configure(self, usage: DiskUsage) -> None:
        """Take other limits from now on."""
        self._usage = usage

    def blocks(self, size: int) -> int:
        """Return the bytes that ``size`` bytes take in whole blocks."""
        block = self._block_bytes
        return (size + block - 1) // block * block

    def shortage(self, count: int) -> int:
        """Return how many bytes must be freed before ``count`` more can be reserved; 0: none."""
        short = 0
        limit = self.max_bytes
        if limit is not None:
            short = self.disk_bytes + self.reserved_bytes + count - limit
        space = self._space()
        return max(0, short, self._floor(space) + self.reserved_bytes + count - space.free_bytes)

    def reason(self, count: int) -> str:
        """Say why ``count`` bytes cannot be reserved."""
        limit = self.max_bytes
        if limit is not None and self.disk_bytes + self.reserved_bytes + count > limit:
            most, used = human_bytes(limit), human_bytes(self.disk_bytes + self.reserved_bytes)
            return f"it may use {most}, {used} are in use and {human_bytes(count)} more are needed"
        space = self._space()
        keeps = "the databases need" if self._usage.leave is None else "`leave` keeps"
        free, floor = human_bytes(space.free_bytes), human_bytes(self._floor(space))
        return f"{free} are free on the disk, of which {keeps} {floor}"

    def reserve(self, count: int) -> None:
        """Take ``count`` bytes that `shortage` says are there."""
        self.reserved_bytes += count

    def release(self, count: int) -> None:
        """Give a reservation back, unused or settled."""
        self.reserved_bytes -= count

    def settle(self, change: int) -> None:
        """Count ``change`` bytes as used (freed if negative)."""
        self.used_bytes += change
        self._told()

    def displaced(self, count: int) -> None:
        """Take ``count`` as the bytes of all that was displaced from the datadir and waits."""
        if count != self.displaced_bytes:
            self.displaced_bytes = count
            self._told()

    def _told(self) -> None:
        if self.on_use is not None:
            self.on_use()
