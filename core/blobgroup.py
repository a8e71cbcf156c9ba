"""Storing a group of small contents in one worker call and one transaction.

They are not flushed one by one: rows carry the flush epoch they were written in, and until that epoch
is flushed an unclean stop has them hashed again at the start.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import trio
from blake3 import blake3

from core.blobdisk import Buffer, Disk
from core.blobrows import Area, BlobRow
from core.blobshelf import Shelf, blob_name
from core.blobspace import Space
from core.byteranges import ByteRanges
from core.db import transaction
from core.errors import StoreError
from core.types import Hash

GroupItem = tuple[Hash, int, Buffer]
"""A whole small content: its hash, its size, and the bytes that should be it."""


@dataclass(frozen=True, slots=True)
class GroupWritten:
    """``ctimes_ns``: for each item up to the failure, that of its file; 0 if it does not match its hash."""

    ctimes_ns: list[int]
    error: StoreError | None


def write_group(
    disk: Disk, root_fd: int, items: Sequence[GroupItem], partial: Container[Hash]
) -> GroupWritten:
    """Check each content and write the right ones to their files; worker thread.

    Files of ``partial`` contents may have readers: they are written over, never cut. Stops at the first
    file that cannot be written; what is torn then has no row and goes at the next start.
    """
    ctimes_ns: list[int] = []
    for content, size, data in items:
        if len(data) != size or blake3(data).digest() != content:
            ctimes_ns.append(0)
            continue
        try:
            ctimes_ns.append(disk.put(root_fd, blob_name(content), data, cut=content not in partial))
        except StoreError as error:
            return GroupWritten(ctimes_ns, error)
    return GroupWritten(ctimes_ns, None)


async def add_group(shelf: Shelf, space: Space, items: Sequence[GroupItem], area: Area) -> list[bool]:
    """See `BlobStore.add_many`."""
    await shelf.settled([content for content, _, _ in items])
    states = {content: shelf.rows.state(content) for content, _, _ in items}
    new = [item for item in items if not states[item[0]]]
    partial = {content for content, state in states.items() if state is False}
    need = sum(shelf.quota.blocks(size) for _, size, _ in new)
    with shelf.occupied([content for content, _, _ in new]):
        await space.reserve(need)
        try:
            with trio.CancelScope(shield=True):  # files without rows would be lost work
                written = await trio.to_thread.run_sync(
                    write_group, shelf.disk, shelf.root_fd, new, partial, limiter=shelf.workers
                )
            right = [(item, at) for item, at in zip(new, written.ctimes_ns, strict=False) if at]
            if right:
                _insert(shelf, right, partial, area)
        finally:
            shelf.quota.release(need)
    if written.error is not None:
        raise written.error
    wrong = {item[0] for item, at in zip(new, written.ctimes_ns, strict=True) if not at}
    return [content not in wrong for content, _, _ in items]


def _insert(
    shelf: Shelf, items: Sequence[tuple[GroupItem, int]], partial: Container[Hash], area: Area
) -> None:
    now_ns, blocks = shelf.now_ns(), shelf.quota.blocks
    rows = [
        BlobRow(
            content, size, ByteRanges.whole(size), True, area, blocks(size), now_ns, shelf.epoch, ctime_ns
        )
        for (content, size, _), ctime_ns in items
    ]
    with transaction(shelf.conn):
        replaced = sum(_replaced(shelf, row) for row in rows if row.hash in partial)
        shelf.rows.put_many(rows)
    shelf.epoch_used = True
    shelf.quota.settle(sum(row.disk_bytes for row in rows) - replaced)


def _replaced(shelf: Shelf, row: BlobRow) -> int:
    old = shelf.rows.get(row.hash)
    blob = shelf.open_blobs.get(row.hash)
    if blob is not None:
        blob.filled(row)
    return 0 if old is None else old.disk_bytes
