"""The blob store of an arena: content by hash, one sparse file each under ``<workdir>/blobs``.

Owns the files, the rows of table ``blob`` and the quota of the cache; knows nothing of paths, peers or
marks. Engine thread; blocking calls go to workers.

Invariants: a row exists before a large file does, and a small file before its row (an orphan is adopted
by its hash at the next start); a file goes before its row; space is reserved before data is written; an
open blob is never evicted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from core.blob import Blob
from core.blobcheck import bad_blocks, hash_file
from core.blobdisk import Disk, LocalDisk
from core.blobexchange import Entering, Exchange
from core.blobgroup import GroupItem, add_group
from core.blobrows import Area, BlobRow, BlockLists
from core.blobshelf import Shelf, blob_name
from core.blobspace import Space
from core.byteranges import ByteRanges
from core.config import DiskUsage
from core.db import Connection, transaction
from core.errors import ChangedError, CorruptError, StoreError
from core.quota import SLACK_BYTES, Quota
from core.reconcile import (
    Doubts,
    Findings,
    ReconcileReport,
    Survey,
    reconcile_directory,
    survey_directory,
    what_is_right,
)
from core.types import BlockList, Hash

_log = logging.getLogger("realize.core.blobs")

__all__ = ["BlobStore", "blob_name"]

_CLEAN = "blob_clean"
_TRIED = "blob_tried"

_SURVEYED_AT_ONCE = 16
"""LIMIT: of the 256 directories, looked at in one trip to a worker at the start."""


def _anything(_: Hash) -> bool:
    return True


class BlobStore:
    """See the module. `start` it before use, `aclose` it at the end, call `flush` every few seconds."""

    def __init__(
        self,
        directory: Path,
        conn: Connection,
        *,
        usage: DiskUsage = DiskUsage(),  # noqa: B008 - frozen
        now_ns: Callable[[], int],
        workers: trio.CapacityLimiter | None = None,
        disk: Disk | None = None,
        may_evict: Callable[[Hash], bool] = _anything,
        evicted: Callable[[Sequence[tuple[Hash, int]]], None] | None = None,
    ) -> None:
        """Make the store of ``directory`` (created) with its rows behind ``conn``.

        Args:
            directory: ``<workdir>/blobs``.
            conn: The arena's writing connection.
            usage: The cache quota.
            now_ns: Wall clock.
            workers: Limits the threads used; default two.
            disk: Seam to the file system.
            may_evict: Says whether a blob may be given up for space (last copies, own in progress).
            evicted: Told ``(hash, bytes freed)`` of what was evicted.

        Raises:
            StoreError: the directory cannot be used.
        """
        self.workers = workers if workers is not None else trio.CapacityLimiter(2)
        self._shelf = Shelf(directory, conn, usage, now_ns, self.workers, disk or LocalDisk())
        self._space = Space(self._shelf, may_evict, evicted)
        self._exchange = Exchange(self._shelf, self._space)
        self.on_verified: Callable[[Hash], None] | None = None
        """Told of each large blob that was just checked whole."""

    @property
    def disk(self) -> Disk:
        """The seam to the files, for workers that write into open blobs."""
        return self._shelf.disk

    @property
    def quota(self) -> Quota:
        """What is used and reserved, and its limits."""
        return self._shelf.quota

    @property
    def block_lists(self) -> BlockLists:
        """The block lists of contents that are, or were, here."""
        return self._shelf.block_lists

    # Life

    async def start(self) -> ReconcileReport:
        """Make rows and files agree; check again what an unclean stop left in doubt.

        Raises:
            StoreError: the directory cannot be read.
        """
        shelf = self._shelf
        clean = bool(shelf.rows.meta(_CLEAN, 0))
        doubts = Doubts(clean, shelf.flushed, shelf.epoch, shelf.now_ns())
        shelf.rows.set_meta(_CLEAN, 0)
        report = ReconcileReport()
        for start in range(0, 256, _SURVEYED_AT_ONCE):
            known = [(first, shelf.rows.files(first)) for first in range(start, start + _SURVEYED_AT_ONCE)]
            surveys = await trio.to_thread.run_sync(
                lambda known: [
                    (first, survey_directory(shelf.disk, shelf.root_fd, first, files, doubts))
                    for first, files in known
                ],
                known,
                limiter=self.workers,
            )
            for first, survey in surveys:
                if survey:
                    report.add(await self._reconcile(first, survey, doubts))
        shelf.quota.used_bytes = shelf.rows.disk_bytes()
        shelf.epoch_used = not clean
        if report:
            _log.info("blobs reconciled: %s", report)
        return report

    async def _reconcile(self, first: int, survey: Survey, doubts: Doubts) -> ReconcileReport:
        shelf = self._shelf
        rows = [row for content in survey.doubtful if (row := shelf.rows.get(content)) is not None]
        found = await trio.to_thread.run_sync(
            reconcile_directory, shelf.disk, shelf.root_fd, first, survey, rows, doubts, limiter=self.workers
        )
        self._apply(found)
        return found.report

    def _apply(self, found: Findings) -> None:
        shelf = self._shelf
        for row, blocks in found.wrong:
            left = what_is_right(row, blocks, self.block_lists.get(row.hash))
            if left is not None:
                found.changed.append(left)
            else:
                shelf.disk.unlink(shelf.root_fd, blob_name(row.hash))
                found.gone.append(row.hash)
        with transaction(shelf.conn):
            shelf.rows.put_many(found.changed)
            shelf.rows.delete_many(found.gone)
            self.block_lists.put_many(found.lists)

    async def flush(self) -> None:
        """Write what is kept in memory, and make small blobs written so far survive a crash.

        Raises:
            StoreError: the disk failed; what is not flushed stays in doubt.
        """
        await self._shelf.flush()

    async def sync(self) -> None:
        """Bring everything that was written to this filesystem so far to the disk, blobs or not.

        Raises:
            StoreError: the disk failed.
        """
        if not await self._shelf.flush():
            await self._shelf.sync_all()

    async def aclose(self) -> None:
        """Flush and close; open blobs are recorded, their descriptors closed."""
        try:
            with trio.CancelScope(shield=True):
                for blob in list(self._shelf.open_blobs.values()):
                    blob.users = 1
                    await self.release(blob)
                await self.flush()
                self._shelf.write_counts()
                self._shelf.rows.set_meta(_CLEAN, 1)
        finally:
            os.close(self._shelf.root_fd)

    def try_to_write(self) -> None:
        """Write a row of no meaning.

        Raises:
            StoreError: nothing can be recorded.
        """
        self._shelf.rows.set_meta(_TRIED, self._shelf.now_ns())

    # Looking

    def info(self, content: Hash) -> BlobRow | None:
        """Return what is held of a content, with ranges that are written but not recorded yet."""
        if content in self._shelf.busy:
            return None
        row = self._shelf.rows.get(content)
        blob = self._shelf.open_blobs.get(content)
        if row is not None and blob is not None:
            return replace(row, ranges=blob.ranges, verified=blob.verified)
        return row

    def held(self, content: Hash) -> bool:
        """Say whether a content is here whole and verified."""
        return self._shelf.held(content)

    def get_blocks(self, content: Hash) -> BlockList | None:
        """Return the block list of a content that is, or was, here; None for one of a single block."""
        return self.block_lists.get(content)

    def file_path(self, content: Hash) -> Path:
        """Return where the file of a blob is, held or not."""
        return self._shelf.directory / blob_name(content)

    def is_open(self, content: Hash) -> bool:
        """Say whether someone has the blob open."""
        return content in self._shelf.open_blobs

    def open_ranges(self, content: Hash) -> ByteRanges | None:
        """Return what can be read of a blob that is open, None if it is not open; any thread."""
        blob = self._shelf.open_blobs.get(content)
        return blob.ranges if blob is not None else None

    def any_open(self) -> bool:
        """Say whether any blob is open; any thread."""
        return bool(self._shelf.open_blobs)

    # Opening

    def touch(self, content: Hash) -> None:
        """Note that a blob is used now; written in batches."""
        self._shelf.touch(content)

    def used(self, content: Hash) -> None:
        """Note and count a use by a reader, who may do that every now and then while he reads."""
        self._shelf.used(content)

    def open(self, content: Hash) -> Blob:
        """Open what is held of a content, whole or in part; `release` it.

        Raises:
            ChangedError: nothing of it is held.
            StoreError: its file cannot be opened.
        """
        shelf = self._shelf
        blob = shelf.open_blobs.get(content)
        if blob is None:
            row = shelf.row(content)
            blob = Blob(shelf.parts, row, shelf.descriptor(content), new=False)
            shelf.open_blobs[content] = blob
        shelf.touch(content)
        return blob.share()

    def open_file(self, content: Hash) -> int:
        """Open what is held of a content for reading; the descriptor is the caller's to close.

        Raises:
            ChangedError: nothing of it is held.
            StoreError: its file cannot be opened.
        """
        blob = self._shelf.open_blobs.get(content)
        if blob is not None:
            return os.dup(blob.fd)
        self._shelf.row(content)
        self._shelf.touch(content)
        return self._shelf.descriptor(content)

    async def create(self, content: Hash, size: int, area: Area = Area.WORKING) -> Blob:
        """Open a blob to fill it, creating it if nothing is held of it; `release` it.

        Raises:
            CorruptError: the content is held and has another size.
            NoSpaceError: not even an empty file fits.
            StoreError: the file cannot be made.
        """
        reserved = False
        try:
            while True:
                await self._shelf.settled([content])
                blob = self._shelf.open_blobs.get(content)
                if blob is not None and blob.size == size and not blob.removed:
                    return self.open(content)  # as for each block that is read of it
                row = self._shelf.rows.get(content)
                if row is None and reserved:
                    reserved = False
                    return self._created(content, size, area)
                if row is None:
                    await self._space.reserve(SLACK_BYTES)
                    reserved = True
                elif row.size != size:
                    await self._resolve_size(row, size)
                else:
                    try:
                        return self.open(content)
                    except ChangedError:
                        _log.debug("creating blob %s again", content.hex())
        finally:
            if reserved:
                self.quota.release(SLACK_BYTES)

    async def _resolve_size(self, row: BlobRow, size: int) -> None:
        if row.held:
            raise CorruptError(f"content {row.hash.hex()[:12]} is {row.size} bytes, not {size}")
        _log.warning("content %s: %d bytes announced, then %d", row.hash.hex(), row.size, size)
        await self._shelf.remove([row.hash])

    def _created(self, content: Hash, size: int, area: Area) -> Blob:
        shelf = self._shelf
        row = BlobRow(content, size, ByteRanges(), False, area, 0, shelf.now_ns())
        shelf.rows.put_many([row])
        try:
            fd = shelf.disk.create(shelf.root_fd, blob_name(content), size)
        except BaseException:
            shelf.quota.release(SLACK_BYTES)
            shelf.rows.delete_many([content])
            raise
        blob = shelf.open_blobs[content] = Blob(shelf.parts, row, fd, new=True)
        blob.charge(SLACK_BYTES)
        return blob.share()

    async def release(self, blob: Blob) -> None:
        """Give an opened blob back; the last one out records its ranges and closes the file.

        Shielded from cancellation. What cannot be written is logged: it is fetched or checked again.
        """
        with trio.CancelScope(shield=True):
            # RACE: others may open it, write and leave while this flushes; it stays counted till then.
            while blob.users == 1 and blob.unrecorded_bytes and not blob.removed:
                try:
                    await blob.record()
                except StoreError as error:
                    _log.info("blob %s: %s; fetching that part again later", blob.hash.hex(), error)
                    break
        blob.users -= 1
        if blob.users:
            return
        blob.release_charge()
        if self._shelf.open_blobs.get(blob.hash) is blob:
            del self._shelf.open_blobs[blob.hash]
        try:
            if not (blob.ranges or blob.doubted) and blob.size and not blob.removed:
                with trio.CancelScope(shield=True):
                    await self._shelf.remove([blob.hash])  # nothing of it ever came
            else:
                blob.settle_file()
        except StoreError as error:
            _log.info("blob %s is looked at again at the next start: %s", blob.hash.hex(), error)
        finally:
            os.close(blob.fd)

    # Completing

    async def complete(self, blob: Blob, digest: Hash) -> bool:
        """Record a blob whose bytes are all there and hash to ``digest``; says whether that is right.

        Raises:
            NoSpaceError: the flush failed for space.
            StoreError: the flush failed.
        """
        await blob.record()
        if digest != blob.hash or not blob.complete or blob.removed:
            return False
        self._shelf.rows.set_verified(blob.hash, verified=True)
        blob.verified = True
        if self.on_verified is not None:
            self.on_verified(blob.hash)
        return True

    async def verify(self, content: Hash) -> bool:
        """Read a complete blob again and check it against its hash; says whether it is right.

        What is found wrong is forgotten: the bad blocks if the block list tells them, else everything.

        Raises:
            ChangedError: nothing of it is held.
            StoreError: it cannot be read.
        """
        blob = self.open(content)
        try:
            if not blob.complete:
                return False
            digest, blocks = await trio.to_thread.run_sync(
                hash_file, self.disk, blob.fd, blob.size, limiter=self.workers
            )
            if digest == content:
                if blocks is not None and self.block_lists.get(content) is None:
                    self.block_lists.put_many([(content, blocks)])
                return await self.complete(blob, digest)
            _log.warning("blob %s does not match its hash; forgetting what is wrong", content.hex())
            await blob.forget(await self._wrong(blob))
            return False
        finally:
            await self.release(blob)

    async def _wrong(self, blob: Blob) -> ByteRanges:
        blocks = self.block_lists.get(blob.hash)
        if blocks is None:
            return ByteRanges.whole(blob.size)
        wrong = await trio.to_thread.run_sync(
            bad_blocks, self.disk, blob.fd, blob.size, blocks, limiter=self.workers
        )
        if wrong:
            return wrong
        self.block_lists.delete(blob.hash)  # every block fits a list that cannot be right
        return ByteRanges.whole(blob.size)

    async def ensure_durable(self, content: Hash) -> bool:
        """Make a held blob survive a crash of the machine; says whether it is held.

        Raises:
            StoreError: the disk failed.
        """
        row = self._shelf.rows.get(content)
        if row is None or not self.held(content):
            return False
        if row.epoch > self._shelf.flushed:
            await self.flush()
        return self.held(content)

    # Whole files in and out

    async def add_many(self, items: Sequence[GroupItem], area: Area = Area.WORKING) -> list[bool]:
        """Check and store whole small contents ``(hash, size, data)``; says of each whether it was right.

        One worker call and one transaction for all. They survive a crash of the machine after the next
        `flush`; before that they are checked again at the start.

        Raises:
            NoSpaceError: no room; those written before it was found out are kept.
            StoreError: a file cannot be written; likewise.
        """
        return await add_group(self._shelf, self._space, items, area)

    async def adopt_file(
        self, dir_fd: int, name: bytes, content: Hash, size: int, area: Area = Area.WORKING
    ) -> None:
        """Move a file of known content into the store; the caller knows that it has that hash.

        Raises:
            ChangedError: it is not a regular file of that size, or not there.
            NoSpaceError: the quota has no room.
            StoreError: it cannot be moved.
        """
        await self._exchange.adopt(dir_fd, name, content, size, area)

    async def take_file(self, content: Hash, dir_fd: int, name: bytes) -> None:
        """Move a whole, verified blob out to a name, replacing it; a copy if the blob is open.

        Raises:
            ChangedError: it is not held.
            NoSpaceError: the copy does not fit.
            StoreError: it cannot be moved.
        """
        await self._exchange.take(content, dir_fd, name)

    async def copy_file(self, content: Hash, dir_fd: int, name: bytes) -> None:
        """Copy a whole, verified blob to a new name, sharing blocks where possible; flushed.

        Raises:
            ChangedError: it is not held.
            NoSpaceError: the copy does not fit.
            StoreError: it cannot be copied.
        """
        await self._exchange.copy(content, dir_fd, name)

    def enter(self, files: Sequence[Entering]) -> int:
        """Record files of known content that are about to be renamed in; in a transaction, before `carry_in`.

        None of them may be busy (`settled`). Returns by how many bytes the use of the disk changes.
        """
        return self._exchange.enter(files)

    def carry_in(self, files: Sequence[Entering], change: int) -> list[Hash]:
        """Rename in what `enter` recorded, once that is committed; no ``await`` in between.

        Returns what could not be renamed: it is forgotten, and its file stays where it was.
        """
        return self._exchange.carry_in(files, change)

    async def settled(self, contents: Sequence[Hash]) -> None:
        """Wait until nothing is being removed or written of these contents."""
        await self._shelf.settled(contents)

    def given_out(self, contents: Sequence[Hash]) -> None:
        """Forget blobs whose files the caller has renamed away (see `file_path`)."""
        for content in contents:
            self._shelf.detach(content)
        self._shelf.forget(contents)

    # Space

    def set_area(self, contents: Iterable[Hash], area: Area) -> None:
        """Move blobs to an area."""
        self._shelf.rows.set_area(contents, area)

    def unprotect(self, contents: Iterable[Hash]) -> None:
        """Let blobs that were protected be evicted again; others stay where they are."""
        self._shelf.rows.unprotect(contents)

    def could_hold(self, size: int) -> bool:
        """Say whether a content could be stored if everything went that may be evicted."""
        room = self.quota.capacity_bytes
        if size <= room // 4:  # the rest is summed up only for contents of which there are few
            return True
        return size + self._shelf.rows.protected_bytes() <= room

    async def relieve(self) -> int:
        """Evict what is over the quota because limits or the disk changed; returns what is still over."""
        return await self._space.relieve()

    def rescue(self, contents: Iterable[Hash]) -> None:
        """Take blobs that are wanted again out of the trash."""
        self._shelf.rows.rescue(contents)

    async def remove(self, contents: Sequence[Hash]) -> int:
        """Remove blobs, open or not (those stay readable): file, then row. Returns the bytes freed."""
        return await self._shelf.remove(contents)

    async def reserve(self, count: int) -> None:
        """Reserve ``count`` bytes of disk, evicting if needed; the caller releases or charges them.

        Raises:
            NoSpaceError: not enough can be evicted; nothing was.
        """
        await self._space.reserve(count)
