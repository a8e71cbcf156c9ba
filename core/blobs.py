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

from core.blob import Blob, BlobParts
from core.blobcheck import bad_blocks, hash_file
from core.blobdisk import Disk, LocalDisk
from core.blobgroup import GroupItem, write_group
from core.blobrows import Area, BlobRow, BlobRows, BlockLists
from core.byteranges import ByteRanges
from core.config import DiskUsage
from core.db import Connection, transaction
from core.errors import ChangedError, NoSpaceError, StoreError
from core.quota import SLACK_BYTES, Quota
from core.reconcile import Doubts, Findings, ReconcileReport, reconcile_directory
from core.types import BlockList, Hash

_log = logging.getLogger("realize.core.blobs")

_FLUSHED = "blob_flushed"
_CLEAN = "blob_clean"
_MAX_USES = 4096
"""LIMIT: last uses kept in memory before they are written."""


def blob_name(content: Hash) -> str:
    """Return the name of a blob's file below the blob directory."""
    text = content.hex()
    return f"{text[:2]}/{text}"


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
        """
        self._disk: Disk = disk if disk is not None else LocalDisk()
        self._conn = conn
        self._rows = BlobRows(conn)
        self.block_lists = BlockLists(conn)
        self._now_ns = now_ns
        self.workers = workers if workers is not None else trio.CapacityLimiter(2)
        self._may_evict = may_evict
        self._evicted = evicted
        self.on_verified: Callable[[Hash], None] | None = None
        """Told of each large blob that was just checked whole."""
        self._directory = directory
        self._directory = directory
        self._root_fd = _open_root(directory)
        self.quota = Quota(usage, lambda: self._disk.space(self._root_fd), self._rows.disk_bytes())
        self._parts = BlobParts(self._disk, self._rows, self.quota, self.workers, self._sync_names)
        self._open: dict[Hash, Blob] = {}
        self._leaving: dict[Hash, trio.Event] = {}
        self._uses: dict[Hash, int] = {}
        self._room = trio.Lock()
        # Nothing written before this start has the epoch of a flush to come.
        self._epoch = self._rows.meta(_FLUSHED, 0) + 2
        self._epoch_used = False

    @property
    def disk(self) -> Disk:
        """The seam to the files, for workers that write into open blobs."""
        return self._disk

    # Life

    async def start(self) -> ReconcileReport:
        """Make rows and files agree; check again what an unclean stop left in doubt.

        Raises:
            StoreError: the directory cannot be read.
        """
        doubts = Doubts(
            bool(self._rows.meta(_CLEAN, 0)), self._rows.meta(_FLUSHED, 0), self._epoch, self._now_ns()
        )
        self._rows.set_meta(_CLEAN, 0)
        report = ReconcileReport()
        for first in range(256):
            rows = {row.hash: row for row in self._rows.starting_with(first)}
            found = await trio.to_thread.run_sync(
                reconcile_directory, self._disk, self._root_fd, first, rows, doubts, limiter=self.workers
            )
            self._apply(found)
            report.add(found.report)
        self.quota.used_bytes = self._rows.disk_bytes()
        self._epoch_used = not doubts.clean
        if report:
            _log.info("blobs reconciled: %s", report)
        return report

    def _apply(self, found: Findings) -> None:
        with transaction(self._conn):
            self._rows.put_many(found.changed)
            self._rows.delete_many(found.gone)
            self.block_lists.put_many(found.lists)

    async def flush(self) -> None:
        """Write what is kept in memory, and make small blobs written so far survive a crash."""
        self._write_uses()
        if not self._epoch_used:
            return
        flushed, self._epoch, self._epoch_used = self._epoch, self._epoch + 1, False
        try:
            await trio.to_thread.run_sync(self._disk.sync_all, self._root_fd, limiter=self.workers)
        except BaseException:
            self._epoch_used = True
            raise
        self._rows.set_meta(_FLUSHED, flushed)

    async def aclose(self) -> None:
        """Flush and close; open blobs are recorded, their descriptors closed."""
        with trio.CancelScope(shield=True):
            for blob in list(self._open.values()):
                blob.users = 1
                await self.release(blob)
            await self.flush()
            self._rows.set_meta(_CLEAN, 1)
        os.close(self._root_fd)

    # Looking

    def info(self, content: Hash) -> BlobRow | None:
        """Return what is held of a content, with ranges that are written but not recorded yet."""
        if content in self._leaving:
            return None
        row = self._rows.get(content)
        blob = self._open.get(content)
        if row is not None and blob is not None:
            return replace(row, ranges=blob.ranges, verified=blob.verified)
        return row

    def held(self, content: Hash) -> bool:
        """Say whether a content is here whole and verified."""
        return content not in self._leaving and self._rows.held(content)

    def get_blocks(self, content: Hash) -> BlockList | None:
        """Return the block list of a content that is, or was, here; None for one of a single block."""
        return self.block_lists.get(content)

    def path(self, content: Hash) -> Path:
        """Return where the file of a blob is."""
        return self._directory / blob_name(content)

    # Opening

    def touch(self, content: Hash) -> None:
        """Note that a blob is used now; written in batches."""
        self._uses[content] = self._now_ns()
        if len(self._uses) >= _MAX_USES:
            self._write_uses()

    def _write_uses(self) -> None:
        if self._uses:
            uses, self._uses = self._uses, {}
            self._rows.touch_many(uses.items())

    def open(self, content: Hash) -> Blob:
        """Open what is held of a content, whole or in part; `release` it.

        Raises:
            ChangedError: nothing of it is held.
            StoreError: its file cannot be opened.
        """
        blob = self._open.get(content)
        if blob is None:
            row = None if content in self._leaving else self._rows.get(content)
            if row is None:
                raise ChangedError(f"content {content.hex()[:12]} is not held here")
            blob = self._opened(row)
        blob.users += 1
        self.touch(content)
        return blob

    def open_file(self, content: Hash) -> int:
        """Open what is held of a content for reading; the descriptor is the caller's to close.

        Raises:
            ChangedError: nothing of it is held.
            StoreError: its file cannot be opened.
        """
        blob = self._open.get(content)
        if blob is not None:
            return os.dup(blob.fd)
        row = None if content in self._leaving else self._rows.get(content)
        if row is None:
            raise ChangedError(f"content {content.hex()[:12]} is not held here")
        self.touch(content)
        return self._descriptor(content)

    def _descriptor(self, content: Hash) -> int:
        try:
            return self._disk.open(self._root_fd, blob_name(content))
        except FileNotFoundError as error:
            _log.warning("the file of blob %s is gone; forgetting it", content.hex())
            self._forget([content])
            raise ChangedError(f"content {content.hex()[:12]} is not held here any more") from error

    def _opened(self, row: BlobRow) -> Blob:
        fd = self._descriptor(row.hash)
        blob = self._open[row.hash] = Blob(self._parts, row, fd, new=False)
        return blob

    async def create(self, content: Hash, size: int, area: Area = Area.WORKING) -> Blob:
        """Open a blob to fill it, creating it if nothing is held of it; `release` it.

        Raises:
            NoSpaceError: not even an empty file fits.
            StoreError: what is held has another size, or the file cannot be made.
        """
        while (leaving := self._leaving.get(content)) is not None:
            await leaving.wait()
        row = self._rows.get(content)
        if row is not None:
            if row.size != size:
                raise StoreError(f"content {content.hex()[:12]} is {row.size} bytes here, not {size}")
            try:
                return self.open(content)
            except ChangedError:
                _log.debug("creating blob %s again", content.hex())
        await self.reserve(SLACK_BYTES)
        return self._created(content, size, area)

    def _created(self, content: Hash, size: int, area: Area) -> Blob:
        # RACE: another task may have created it while space was made.
        blob = self._open.get(content)
        if blob is not None:
            self.quota.release(SLACK_BYTES)
            blob.users += 1
            return blob
        row = BlobRow(content, size, ByteRanges(), False, area, 0, self._now_ns())
        try:
            self._rows.put_many([row])
            fd = self._disk.create(self._root_fd, blob_name(content), size)
        except BaseException:
            self.quota.release(SLACK_BYTES)
            self._rows.delete_many([content])
            raise
        blob = self._open[content] = Blob(self._parts, row, fd, new=True)
        blob.charge(SLACK_BYTES)
        blob.users = 1
        return blob

    async def release(self, blob: Blob) -> None:
        """Give an opened blob back; the last one out records its ranges and closes the file.

        Shielded from cancellation. A failed flush is logged: its ranges are fetched again.
        """
        blob.users -= 1
        if blob.users:
            return
        with trio.CancelScope(shield=True):
            try:
                await blob.record()
            except StoreError as error:
                _log.warning("blob %s: %s; fetching that part again later", blob.hash.hex(), error)
            if not blob.users and not blob.ranges and blob.size and not blob.removed:
                await self.remove([blob.hash])  # nothing of it ever came
        if blob.users:  # opened again meanwhile
            return
        if self._open.get(blob.hash) is blob:
            del self._open[blob.hash]
        blob.release_charge()
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
        self._rows.set_verified(blob.hash, verified=True)
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
                hash_file, self._disk, blob.fd, blob.size, limiter=self.workers
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
            bad_blocks, self._disk, blob.fd, blob.size, blocks, limiter=self.workers
        )
        if wrong:
            return wrong
        self.block_lists.delete(blob.hash)  # every block fits a list that cannot be right
        return ByteRanges.whole(blob.size)

    # Small files

    async def add_many(self, items: Sequence[GroupItem], area: Area = Area.WORKING) -> list[bool]:
        """Check and store whole small contents ``(hash, size, data)``; says of each whether it was right.

        One worker call and one transaction for all. They survive a crash of the machine after the next
        `flush`; before that they are checked again at the start.

        Raises:
            NoSpaceError: no room; those written before it was found out are kept.
            StoreError: a file cannot be written; likewise.
        """
        while leaving := [self._leaving[h] for h, _, _ in items if h in self._leaving]:
            await leaving[0].wait()
        new = [item for item in items if not self._rows.held(item[0])]
        need = sum(self.quota.blocks(size) for _, size, _ in new)
        await self.reserve(need)
        try:
            with trio.CancelScope(shield=True):  # files without rows would be lost work
                written = await trio.to_thread.run_sync(
                    write_group, self._disk, self._root_fd, new, limiter=self.workers
                )
            self._insert(new, written.right, area)
        finally:
            self.quota.release(need)
        if written.error is not None:
            raise written.error
        return self._outcome(items, new, written.right)

    def _insert(self, items: Sequence[GroupItem], right: Sequence[bool], area: Area) -> None:
        now_ns = self._now_ns()
        blocks = self.quota.blocks
        rows = [
            BlobRow(content, size, ByteRanges.whole(size), True, area, blocks(size), now_ns, self._epoch)
            for (content, size, _), fine in zip(items, right, strict=False)
            if fine
        ]
        if not rows:
            return
        with transaction(self._conn):
            replaced = sum(self._replaced(row) for row in rows)
            self._rows.put_many(rows)
        self._epoch_used = True
        self.quota.settle(sum(row.disk_bytes for row in rows) - replaced)

    def _replaced(self, row: BlobRow) -> int:
        old = self._rows.get(row.hash)
        blob = self._open.get(row.hash)
        if blob is not None:
            blob.ranges, blob.verified = row.ranges, True
        return 0 if old is None else old.disk_bytes

    @staticmethod
    def _outcome(items: Sequence[GroupItem], new: Sequence[GroupItem], right: Sequence[bool]) -> list[bool]:
        if len(new) == len(items):
            return list(right)
        verdicts = {content: fine for (content, _, _), fine in zip(new, right, strict=True)}
        return [verdicts.get(content, True) for content, _, _ in items]

    # Files in and out

    async def adopt_file(
        self, dir_fd: int, name: bytes, content: Hash, size: int, area: Area = Area.WORKING
    ) -> None:
        """Move a file of known content into the store; the caller knows that it has that hash.

        Raises:
            ChangedError: it is not a regular file of that size, or not there.
            NoSpaceError: the quota has no room.
            StoreError: it cannot be moved.
        """
        while (leaving := self._leaving.get(content)) is not None:
            await leaving.wait()
        try:
            facts = self._disk.facts_at(dir_fd, os.fsdecode(name))
        except FileNotFoundError as error:
            raise ChangedError("the file is gone") from error
        if not facts.regular or facts.size != size:
            raise ChangedError("the file is not what it was")
        if self.held(content):
            self._disk.unlink(dir_fd, os.fsdecode(name))
            return
        await self.reserve(facts.disk_bytes)
        try:
            self._disk.rename(dir_fd, name, self._root_fd, blob_name(content))
        except FileNotFoundError as error:
            raise ChangedError("the file is gone") from error
        finally:
            self.quota.release(facts.disk_bytes)
        self._detach(content)
        row = BlobRow(
            content, size, ByteRanges.whole(size), True, area, facts.disk_bytes, self._now_ns(), self._epoch
        )
        old = self._rows.get(content)
        self._rows.put_many([row])
        self._epoch_used = True
        self.quota.settle(facts.disk_bytes - (old.disk_bytes if old else 0))

    async def take_file(self, content: Hash, dir_fd: int, name: bytes) -> None:
        """Move a whole, verified blob out to a name, replacing it; a copy if the blob is open.

        Raises:
            ChangedError: it is not held.
            NoSpaceError: the copy does not fit.
            StoreError: it cannot be moved.
        """
        if not self.held(content):
            raise ChangedError(f"content {content.hex()[:12]} is not held here")
        if content in self._open:  # its readers must not see what becomes of the real file
            await self.copy_file(content, dir_fd, name)
            await self.remove([content])
            return
        try:
            self._disk.rename(self._root_fd, blob_name(content), dir_fd, name)
        except FileNotFoundError as error:
            self._forget([content])
            raise ChangedError(f"content {content.hex()[:12]} is not held here any more") from error
        self._forget([content])

    async def copy_file(self, content: Hash, dir_fd: int, name: bytes) -> None:
        """Copy a whole, verified blob to a new name, sharing blocks where possible; flushed.

        Raises:
            ChangedError: it is not held.
            NoSpaceError: the copy does not fit.
            StoreError: it cannot be copied.
        """
        if not self.held(content):
            raise ChangedError(f"content {content.hex()[:12]} is not held here")
        blob = self.open(content)
        try:
            await trio.to_thread.run_sync(
                self._disk.copy, blob.fd, blob.size, dir_fd, name, limiter=self.workers
            )
        finally:
            await self.release(blob)

    async def ensure_durable(self, content: Hash) -> bool:
        """Make a held blob survive a crash of the machine; says whether it is held."""
        row = self._rows.get(content)
        if row is None or not self.held(content):
            return False
        if row.epoch > self._rows.meta(_FLUSHED, 0):
            await self.flush()
        return self.held(content)

    def file_path(self, content: Hash) -> Path:
        """Return where the file of a blob is, held or not."""
        return self._directory / blob_name(content)

    def open_ranges(self, content: Hash) -> ByteRanges | None:
        """Return what can be read of a blob that is open, None if it is not open; any thread."""
        blob = self._open.get(content)
        return blob.ranges if blob is not None else None

    def is_open(self, content: Hash) -> bool:
        """Say whether someone has the blob open."""
        return content in self._open

    def given_out(self, contents: Sequence[Hash]) -> None:
        """Forget blobs whose files the caller has renamed away (see `file_path`)."""
        for content in contents:
            self._detach(content)
        self._forget(contents)

    def set_area(self, contents: Iterable[Hash], area: Area) -> None:
        """Move blobs to an area."""
        self._rows.set_area(contents, area)

    # Removing

    async def remove(self, contents: Sequence[Hash]) -> int:
        """Remove blobs, open or not (those stay readable): file, then row. Returns the bytes freed."""
        going = [
            h for h in dict.fromkeys(contents) if h not in self._leaving and self._rows.get(h) is not None
        ]
        if not going:
            return 0
        done = trio.Event()
        for content in going:
            self._leaving[content] = done
            self._detach(content)
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._unlink, going, limiter=self.workers)
            return self._forget(going)
        finally:
            for content in going:
                del self._leaving[content]
            done.set()

    def _unlink(self, contents: Sequence[Hash]) -> None:
        for content in contents:
            self._disk.unlink(self._root_fd, blob_name(content))

    def _detach(self, content: Hash) -> None:
        blob = self._open.pop(content, None)
        if blob is not None:
            blob.removed = True
            blob.release_charge()

    def _forget(self, contents: Sequence[Hash]) -> int:
        freed = 0
        with transaction(self._conn):
            for content in contents:
                row = self._rows.get(content)
                freed += row.disk_bytes if row is not None else 0
                self._uses.pop(content, None)
            self._rows.delete_many(contents)
        self.quota.settle(-freed)
        return freed

    # Space

    async def reserve(self, count: int) -> None:
        """Reserve ``count`` bytes of disk, evicting if needed; the caller releases or charges them.

        Raises:
            NoSpaceError: not enough can be evicted; nothing was.
        """
        if not self.quota.shortage(count):
            self.quota.reserve(count)
            return
        async with self._room:
            while short := self.quota.shortage(count):
                victims = self._victims(short)
                if not victims:
                    raise NoSpaceError(
                        f"no room in the cache: {self.quota.reason(count)}, nothing can be evicted",
                        hint="raise `disk_usage`, or unmark or evict something",
                    )
                await self._evict(victims)
            self.quota.reserve(count)

    def _victims(self, need: int) -> list[tuple[Hash, int]]:
        """Return the least recently used blobs that free ``need`` bytes; none if there are not enough."""
        self._write_uses()
        victims: list[tuple[Hash, int]] = []
        for area in (Area.PENDING, Area.WORKING):
            for content, disk_bytes in self._rows.oldest(area):
                if content in self._open or content in self._leaving or not self._may_evict(content):
                    continue
                victims.append((content, disk_bytes))
                need -= disk_bytes
                if need <= 0:
                    return victims
        return []

    async def _evict(self, victims: Sequence[tuple[Hash, int]]) -> None:
        await self.remove([content for content, _ in victims])
        if self._evicted is not None:
            self._evicted(victims)

    def _sync_names(self, content: Hash) -> None:
        fd = os.open(content.hex()[:2], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root_fd)
        try:
            self._disk.sync(fd)
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
