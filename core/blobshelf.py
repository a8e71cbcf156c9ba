"""What all parts of a blob store work on: its directory, rows, open blobs, and how one is taken away.

Engine thread. `BlobStore` is the front; nothing else uses a shelf.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from core.blob import Blob, BlobParts
from core.blobdisk import Disk
from core.blobrows import Area, BlobRow, BlobRows, BlockLists
from core.config import DiskUsage
from core.db import Connection, transaction
from core.errors import ChangedError, StoreError
from core.frequency import Frequency
from core.quota import Quota
from core.types import Hash

_log = logging.getLogger("realize.core.blobs")

_FLUSHED = "blob_flushed"
_GENERATION = "blob_generation"
_MAX_USES = 4096
"""LIMIT: last uses kept in memory before they are written."""
_COUNTS_NS = 180_000_000_000
"""LIMIT: counts of uses are written this often; a crash forgets those of some minutes."""


def blob_name(content: Hash) -> str:
    """Return the name of a blob's file below the blob directory."""
    text = content.hex()
    return f"{text[:2]}/{text}"


class Shelf:
    """The files and rows of one blob store.

    Attributes:
        open_blobs: Blobs that someone has open.
        busy: Blobs whose file is being removed or written whole; the event is set when that is done.
        epoch: Flush epoch that rows of small blobs get when they are written now.
    """

    def __init__(
        self,
        directory: Path,
        conn: Connection,
        usage: DiskUsage,
        now_ns: Callable[[], int],
        workers: trio.CapacityLimiter,
        disk: Disk,
    ) -> None:
        """Open ``directory``, creating it; see `BlobStore`."""
        self.directory, self.conn, self.now_ns = directory, conn, now_ns
        self.workers, self.disk = workers, disk
        self.rows, self.block_lists = BlobRows(conn), BlockLists(conn)
        self.root_fd = _open_root(directory)
        self.quota = Quota(usage, lambda: disk.space(self.root_fd), self.rows.disk_bytes())
        self.parts = BlobParts(disk, self.rows, self.quota, workers, self._sync_names)
        self.open_blobs: dict[Hash, Blob] = {}
        self.busy: dict[Hash, trio.Event] = {}
        self._uses: dict[Hash, int] = {}
        self.frequency = Frequency(self.rows.meta(_GENERATION, 0), self.rows.frequencies())
        self._counts_written_ns = now_ns()
        # No row written before this start has an epoch that a flush to come will name.
        self.epoch = self.flushed + 2
        self.epoch_used = False

    @property
    def flushed(self) -> int:
        """The last epoch that is known to be on the disk."""
        return self.rows.meta(_FLUSHED, 0)

    async def flush(self) -> bool:
        """Write last uses, and flush the filesystem if small blobs were written since the last time.

        Returns whether it was flushed.
        """
        self.write_uses()
        if not 0 <= self.now_ns() - self._counts_written_ns < _COUNTS_NS:
            self.write_counts()
        if not self.epoch_used:
            return False
        flushed, self.epoch, self.epoch_used = self.epoch, self.epoch + 1, False
        try:
            await self.sync_all()
        except BaseException:
            self.epoch_used = True
            raise
        self.rows.set_meta(_FLUSHED, flushed)
        return True

    async def sync_all(self) -> None:
        """Flush the filesystem.

        Raises:
            StoreError: the disk failed.
        """
        await trio.to_thread.run_sync(self.disk.sync_all, self.root_fd, limiter=self.workers)

    def touch(self, content: Hash) -> None:
        """Note that a blob is used now; written in batches."""
        self._uses[content] = self.now_ns()
        if len(self._uses) >= _MAX_USES:
            self.write_uses()

    def used(self, content: Hash) -> None:
        """Note and count a use by a reader."""
        self.touch(content)
        if self.frequency.use(content):
            self._end_generation()

    def _end_generation(self) -> None:
        """What was frequent in earlier generations may not be any more."""
        self.rows.set_meta(_GENERATION, self.frequency.generation)
        capacity = self.quota.capacity_bytes
        worth = self.frequency.worth_keeping
        self.rows.demote(
            [
                content
                for content, size in self.rows.oldest(Area.FREQUENT)
                if not worth(content, size, capacity)
            ]
        )

    def write_uses(self) -> None:
        """Write the last uses that are in memory; what is used often by now is protected from now on."""
        if not self._uses:
            return
        uses, self._uses = self._uses, {}
        self.rows.touch_many(uses.items())
        capacity = self.quota.capacity_bytes
        frequent = []
        for content in uses:
            if self.frequency.count(content) > 1:
                known = self.rows.area_of(content)
                if (
                    known is not None
                    and known[0] is Area.WORKING
                    and self.frequency.worth_keeping(content, known[1], capacity)
                ):
                    frequent.append(content)
        self.rows.promote(frequent)

    def write_counts(self) -> None:
        """Write the counts of uses that changed."""
        self._counts_written_ns = self.now_ns()
        self.rows.set_frequencies(self.frequency.take_changed(), self.frequency.generation)

    def row(self, content: Hash) -> BlobRow:
        """Return the row of a content that is not busy.

        Raises:
            ChangedError: nothing of it is held.
        """
        row = None if content in self.busy else self.rows.get(content)
        if row is None:
            raise ChangedError(f"content {content.hex()[:12]} is not held here")
        return row

    def held(self, content: Hash) -> bool:
        """Say whether a content is here whole and verified."""
        return content not in self.busy and self.rows.held(content)

    async def settled(self, contents: Sequence[Hash]) -> None:
        """Wait until none of ``contents`` is busy."""
        while busy := [self.busy[content] for content in contents if content in self.busy]:
            await busy[0].wait()

    @contextmanager
    def occupied(self, contents: Sequence[Hash]) -> Iterator[None]:
        """Make ``contents``, which are not, busy for the time of the context."""
        done = trio.Event()
        self.busy.update(dict.fromkeys(contents, done))
        try:
            yield
        finally:
            for content in contents:
                self.busy.pop(content, None)
            done.set()

    def descriptor(self, content: Hash) -> int:
        """Open the file of a blob; one that somebody removed is forgotten.

        Raises:
            ChangedError: the file is gone.
            StoreError: it cannot be opened.
        """
        try:
            return self.disk.open(self.root_fd, blob_name(content))
        except FileNotFoundError as error:
            _log.warning("the file of blob %s is gone; forgetting it", content.hex())
            self.forget([content])
            raise ChangedError(f"content {content.hex()[:12]} is not held here any more") from error

    async def remove(self, contents: Sequence[Hash]) -> int:
        """Remove blobs, open or not (those stay readable): file, then row. Returns the bytes freed."""
        going = [content for content in dict.fromkeys(contents) if content not in self.busy]
        going = [content for content in going if self.rows.get(content) is not None]
        if not going:
            return 0
        with self.occupied(going):
            for content in going:
                self.detach(content)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._unlink, going, limiter=self.workers)
            return self.forget(going)

    def _unlink(self, contents: Sequence[Hash]) -> None:
        for content in contents:
            self.disk.unlink(self.root_fd, blob_name(content))

    def detach(self, content: Hash) -> None:
        """Let go of an open blob whose file goes: its users can read on, nothing is recorded any more."""
        blob = self.open_blobs.pop(content, None)
        if blob is not None:
            blob.removed = True
            blob.release_charge()

    def forget(self, contents: Sequence[Hash]) -> int:
        """Delete rows whose files are gone; returns the bytes that were counted for them."""
        for content in contents:
            self._uses.pop(content, None)
        with transaction(self.conn):
            freed = self.rows.delete_many(set(contents))
        self.quota.settle(-freed)
        return freed

    def _sync_names(self, content: Hash) -> None:
        fd = os.open(content.hex()[:2], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root_fd)
        try:
            self.disk.sync(fd)
        finally:
            os.close(fd)


def _open_root(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        present = set(os.listdir(root_fd))
        for first in range(256):
            if f"{first:02x}" not in present:
                os.mkdir(f"{first:02x}", 0o700, dir_fd=root_fd)
    except OSError as error:
        raise StoreError(f"{directory} cannot be used: {error.strerror}", hint="check `workdir`") from error
    return root_fd
