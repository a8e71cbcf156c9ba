"""Killed after each step on the disk or in the database: rows and files agree, nothing held is lost."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.blobrows import Area
from core.blobs import BlobStore
from core.byteranges import ByteRanges
from core.errors import StoreError
from core.types import Hash
from tests.fakes.disks import CrashError
from tests.fakes.links import blocks_of, hash_of
from tests.fakes.stores import Bench, fill, flip, read

DATA = os.urandom(400_000)
CONTENT = hash_of(DATA)
BYSTANDER = b"was here before and stays"
SMALL = [b"small %d" % number for number in range(3)]
HALF = 262_144


class Dead(Bench):
    """A bench whose process can also die at a commit: before it, or after it at the next step."""

    def die_after(self, steps: int) -> None:
        self.disk.crash(steps)
        self.conn.set_commit_hook(lambda: self.disk.step("commit"))


Step = Callable[[BlobStore, Path], Awaitable[object]]


@dataclass(frozen=True)
class Operation:
    """``before`` prepares, ``act`` is killed; only if ``lossy`` may the content be gone after it."""

    before: Step
    act: Step
    lossy: bool = False
    held_before: bool = False


async def nothing(_: BlobStore, __: Path) -> None:
    pass


async def whole(store: BlobStore, _: Path) -> None:
    await fill(store, DATA)
    store.block_lists.put_many([(CONTENT, blocks_of(DATA))])
    await store.flush()


async def part(store: BlobStore, _: Path) -> None:
    await fill(store, DATA, upto=HALF)


async def a_file(_: BlobStore, workdir: Path) -> None:
    (workdir / "in").write_bytes(DATA)


async def part_and_file(store: BlobStore, workdir: Path) -> None:
    await part(store, workdir)
    await a_file(store, workdir)


async def wrong_block(store: BlobStore, workdir: Path) -> None:
    await whole(store, workdir)
    content = CONTENT.hex()
    flip(workdir / "blobs" / content[:2] / content, HALF + 1)


async def create(store: BlobStore, _: Path) -> None:
    await store.release(await store.create(CONTENT, len(DATA)))


async def write_and_record(store: BlobStore, _: Path) -> None:
    blob = await store.create(CONTENT, len(DATA))
    for start, end in ((0, HALF), (HALF, len(DATA))):
        blob.write(start, DATA[start:end])
        blob.add(start, end)
        await blob.record()
    await store.release(blob)


async def complete(store: BlobStore, _: Path) -> None:
    await fill(store, DATA)


async def remove(store: BlobStore, _: Path) -> None:
    await store.remove([CONTENT])


async def adopt(store: BlobStore, workdir: Path) -> None:
    dir_fd = os.open(workdir, os.O_RDONLY)
    try:
        await store.adopt_file(dir_fd, b"in", CONTENT, len(DATA), Area.PENDING)
    finally:
        os.close(dir_fd)


async def take(store: BlobStore, workdir: Path) -> None:
    dir_fd = os.open(workdir, os.O_RDONLY)
    try:
        await store.take_file(CONTENT, dir_fd, b"out")
    finally:
        os.close(dir_fd)


async def take_open(store: BlobStore, workdir: Path) -> None:
    store.open(CONTENT)  # somebody reads it, so it is copied out
    await take(store, workdir)


async def discard(store: BlobStore, _: Path) -> None:
    blob = store.open(CONTENT)
    await blob.discard(ByteRanges([(0, HALF)]))
    await store.release(blob)


async def verify(store: BlobStore, _: Path) -> None:
    await store.verify(CONTENT)


async def group(store: BlobStore, _: Path) -> None:
    await store.add_many([(hash_of(data), len(data), data) for data in (*SMALL, DATA)])
    await store.flush()


async def close(store: BlobStore, _: Path) -> None:
    await store.aclose()


OPERATIONS = {
    "create": Operation(nothing, create, lossy=True),
    "write and record": Operation(nothing, write_and_record, lossy=True),
    "complete": Operation(part, complete, lossy=True),
    "a group of small ones": Operation(nothing, group, lossy=True),
    "a group over a part": Operation(part, group, lossy=True),
    "remove": Operation(whole, remove, lossy=True, held_before=True),
    "adopt": Operation(a_file, adopt),
    "adopt over a part": Operation(part_and_file, adopt),
    "take": Operation(whole, take, held_before=True),
    "take an open one": Operation(whole, take_open, held_before=True),
    "discard": Operation(whole, discard, lossy=True, held_before=True),
    "verify a right one": Operation(whole, verify, held_before=True),
    "verify a wrong one": Operation(wrong_block, verify, lossy=True),
    "close": Operation(whole, close, held_before=True),
}


@pytest.mark.trio
@pytest.mark.parametrize("name", OPERATIONS)
async def test_killed_after_each_single_step(tmp_path: Path, name: str) -> None:
    operation = OPERATIONS[name]
    for steps in range(100):
        workdir = tmp_path / str(steps)
        workdir.mkdir()
        bench = Dead(workdir)
        store = await bench.open()
        await store.add_many([(hash_of(BYSTANDER), len(BYSTANDER), BYSTANDER)])
        await operation.before(store, workdir)
        assert store.held(CONTENT) is operation.held_before or operation.before is wrong_block
        bench.die_after(steps)
        died = True
        with suppress(CrashError, BaseExceptionGroup, StoreError):
            await operation.act(store, workdir)
            died = False
        store = await bench.open()
        _check(bench, store, operation)
        await store.aclose()
        if not died:
            assert steps > 0, "the operation does nothing"
            return
    pytest.fail("the operation never ended")


def _check(bench: Bench, store: BlobStore, operation: Operation) -> None:
    contents: dict[Hash, bytes] = {hash_of(data): data for data in (*SMALL, DATA, BYSTANDER)}
    rows = {row.hash: row for row in bench.all_rows()}
    assert bench.files() == {content.hex() for content in rows}
    for content, row in rows.items():
        assert row.held or row.ranges or row.doubted
        for start, end in row.ranges:  # what may be read is right, and what is verified whole too
            assert read(store, content)[start:end] == contents[content][start:end]
        assert not row.verified or row.complete
    assert store.quota.used_bytes == sum(p.stat().st_blocks * 512 for p in bench.workdir.glob("blobs/*/*"))
    assert store.quota.reserved_bytes == 0
    assert store.held(hash_of(BYSTANDER))
    places = [store.held(CONTENT)]
    places += [
        (bench.workdir / name).exists() and (bench.workdir / name).read_bytes() == DATA
        for name in ("in", "out")
    ]
    assert any(places) or operation.lossy
