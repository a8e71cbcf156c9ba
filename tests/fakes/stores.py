"""Blob stores for tests: opened on a directory, killed, and looked at."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from core import db
from core.blobrows import BlobRow, BlobRows
from core.blobs import BlobStore
from core.config import DiskUsage
from core.types import Hash
from tests.fakes.disks import FaultyDisk
from tests.fakes.links import hash_of


class Bench:
    """One workdir over several lives of its blob store. The clock ticks at every look."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.disk = FaultyDisk()
        self._clock = itertools.count(1)

    async def open(
        self,
        usage: DiskUsage = DiskUsage(),  # noqa: B008 - frozen
        may_evict: Callable[[Hash], bool] = lambda _: True,
        evicted: Callable[[Sequence[tuple[Hash, int]]], None] | None = None,
    ) -> BlobStore:
        """Open and start the store; a store opened before is dead if it was not closed."""
        self.disk = FaultyDisk()
        self.conn = db.open_arena(self.workdir / "arena.db")
        store = BlobStore(
            self.workdir / "blobs",
            self.conn,
            usage=usage,
            now_ns=lambda: next(self._clock),
            disk=self.disk,
            may_evict=may_evict,
            evicted=evicted,
        )
        self.report = await store.start()
        return store

    @asynccontextmanager
    async def opened(self, usage: DiskUsage = DiskUsage()) -> AsyncIterator[BlobStore]:  # noqa: B008 - frozen
        store = await self.open(usage)
        try:
            yield store
        finally:
            await store.aclose()

    def file(self, content: Hash) -> Path:
        return self.workdir / "blobs" / content.hex()[:2] / content.hex()

    def files(self) -> set[str]:
        return {path.name for path in (self.workdir / "blobs").glob("*/*")}

    def rows(self) -> BlobRows:
        return BlobRows(self.conn)

    def all_rows(self) -> list[BlobRow]:
        rows = self.rows()
        found = [rows.get(content) for first in range(256) for content in rows.files(first)]
        return [row for row in found if row is not None]


def read(store: BlobStore, content: Hash) -> bytes:
    """Return the bytes of a blob through a descriptor of its own."""
    fd = store.open_file(content)
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


async def fill(store: BlobStore, data: bytes, *, upto: int | None = None) -> Hash:
    """Write ``data`` as a large blob, the first ``upto`` bytes of it, and record it."""
    content, end = hash_of(data), len(data) if upto is None else upto
    blob = await store.create(content, len(data))
    await trio.to_thread.run_sync(blob.write, 0, data[:end])
    blob.add(0, end)
    if end == len(data):
        assert await store.complete(blob, content)
    await store.release(blob)
    return content


def flip(path: Path, at: int) -> None:
    """Change one bit of a file by hand, so that its size, number and time are what they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
