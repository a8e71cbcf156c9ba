"""Files that enter a blob store from the datadir, and leave it for the datadir, without being copied.

Engine thread; a rename is done at once, a copy in a worker. The caller gives the other side as a
directory descriptor and a name, opened safely.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import trio

from core.blobrows import Area, BlobRow
from core.blobshelf import Shelf, blob_name
from core.blobspace import Space
from core.byteranges import ByteRanges
from core.errors import ChangedError, StoreError
from core.types import Hash

_log = logging.getLogger("realize.core.blobs")


class Entering(NamedTuple):
    """A file on the way into the store: what it holds, its disk use, and where it waits."""

    content: Hash
    size: int
    disk_bytes: int
    path: Path
    area: Area


class Exchange:
    """Moves whole files in and out of one shelf."""

    def __init__(self, shelf: Shelf, space: Space) -> None:
        """Exchange files of ``shelf``."""
        self._shelf, self._space = shelf, space

    async def adopt(self, dir_fd: int, name: bytes, content: Hash, size: int, area: Area) -> None:
        """See `BlobStore.adopt_file`."""
        shelf = self._shelf
        await shelf.settled([content])
        disk_bytes = self._check(dir_fd, name, size)
        if shelf.held(content):
            shelf.disk.unlink(dir_fd, os.fsdecode(name))
            return
        await self._space.reserve(disk_bytes)
        try:
            while True:
                # RACE: others may have written, or be writing, that content while room was made.
                await shelf.settled([content])
                if shelf.held(content):
                    shelf.disk.unlink(dir_fd, os.fsdecode(name))
                    return
                if shelf.rows.get(content) is None:
                    break
                # INVARIANT: no row says less of a file than is in it. Killed after the rename, the whole
                # would be taken for the part fetched before; without a row it is found by its hash.
                await shelf.remove([content])
            shelf.disk.rename(dir_fd, name, shelf.root_fd, blob_name(content))
        except FileNotFoundError as error:
            raise ChangedError("the file is gone") from error
        finally:
            shelf.quota.release(disk_bytes)
        # The rename changed the change time; what was read of the file before belongs to its hash.
        ctime_ns = shelf.disk.facts_at(shelf.root_fd, blob_name(content)).ctime_ns
        self._adopted(self._whole(content, size, disk_bytes, area, ctime_ns))

    def _check(self, dir_fd: int, name: bytes, size: int) -> int:
        try:
            facts = self._shelf.disk.facts_at(dir_fd, os.fsdecode(name))
        except FileNotFoundError as error:
            raise ChangedError("the file is gone") from error
        if not facts.regular or facts.size != size:
            raise ChangedError("the file is not what it was")
        return facts.disk_bytes

    def _adopted(self, row: BlobRow) -> None:
        shelf = self._shelf
        shelf.rows.put_many([row])
        shelf.epoch_used = True
        shelf.quota.settle(row.disk_bytes)

    def enter(self, files: Sequence[Entering]) -> int:
        """See `BlobStore.enter`."""
        change = 0
        rows = self._shelf.rows
        for file in files:
            known = rows.area_of(file.content)
            area = Area.PROTECTED if known is not None and known[0] is Area.PROTECTED else file.area
            change += file.disk_bytes - (known[1] if known is not None else 0)
            rows.put_many([self._whole(file.content, file.size, file.disk_bytes, area)])
        self._shelf.epoch_used = True
        return change

    def carry_in(self, files: Sequence[Entering], change: int) -> list[Hash]:
        """See `BlobStore.carry_in`."""
        lost: list[Hash] = []
        times: list[tuple[Hash, int]] = []
        shelf = self._shelf
        shelf.quota.settle(change)
        for file in files:
            shelf.detach(file.content)  # what was held of it so far is replaced by the whole
            name = blob_name(file.content)
            try:
                shelf.disk.rename(shelf.root_fd, os.fsencode(file.path), shelf.root_fd, name)
                times.append((file.content, shelf.disk.facts_at(shelf.root_fd, name).ctime_ns))
            except (OSError, StoreError) as error:
                _log.error("%s stays in the work directory: %s", file.path, error)
                lost.append(file.content)
        shelf.rows.set_times(times)
        if lost:
            shelf.forget(lost)
        return lost

    def _whole(self, content: Hash, size: int, disk_bytes: int, area: Area, ctime_ns: int = 0) -> BlobRow:
        shelf, whole = self._shelf, ByteRanges.whole(size)
        return BlobRow(content, size, whole, True, area, disk_bytes, shelf.now_ns(), shelf.epoch, ctime_ns)

    async def take(self, content: Hash, dir_fd: int, name: bytes) -> None:
        """See `BlobStore.take_file`."""
        shelf = self._shelf
        self._check_held(content)
        if content in shelf.open_blobs:  # its readers must not see what becomes of the real file
            await self.copy(content, dir_fd, name)
            await shelf.remove([content])
            return
        try:
            shelf.disk.rename(shelf.root_fd, blob_name(content), dir_fd, name)
        except FileNotFoundError as error:
            shelf.forget([content])
            raise ChangedError(f"content {content.hex()[:12]} is not held here any more") from error
        shelf.forget([content])

    async def copy(self, content: Hash, dir_fd: int, name: bytes) -> None:
        """See `BlobStore.copy_file`."""
        shelf = self._shelf
        self._check_held(content)
        size = shelf.row(content).size
        fd = shelf.descriptor(content)
        try:
            await trio.to_thread.run_sync(shelf.disk.copy, fd, size, dir_fd, name, limiter=shelf.workers)
        finally:
            os.close(fd)

    def _check_held(self, content: Hash) -> None:
        if not self._shelf.held(content):
            raise ChangedError(f"content {content.hex()[:12]} is not held here")
