"""The quota holds at every instant, and what must not be taken never is, whatever is done (I5, I6, I7)."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from core.blob import Blob
from core.blobdisk import DiskSpace
from core.blobrows import Area, BlobRow
from core.blobs import BlobStore
from core.config import DiskUsage
from core.errors import ChangedError, CorruptError, NoSpaceError
from core.types import Hash
from tests.fakes.links import hash_of
from tests.fakes.stores import Bench

PAGE = 4096
MAX_BYTES = 40 * PAGE
LEAVE_BYTES = 30 * PAGE
CONTENTS = [os.urandom(PAGE * pages) for pages in (1, 1, 1, 2, 3, 1, 2, 5, 1, 8, 1, 12, 1, 1, 2, 20)]
HASHES = [hash_of(data) for data in CONTENTS]
STEPS = 120


class SmallDisk:
    """Makes a bench's disk one of which others have taken all but ``left`` bytes of what is not ours."""

    def __init__(self, bench: Bench, left: int) -> None:
        self.bench, self.left = bench, left
        bench.disk.space = self.space  # type: ignore[method-assign]

    def used(self) -> int:
        total = 0
        for path in (self.bench.workdir / "blobs").glob("*/*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
        return total

    def space(self, fd: int) -> DiskSpace:
        return DiskSpace(10_000 * PAGE, max(0, self.left - self.used()), PAGE)


class Load:
    """Random use of one store by several tasks, watched between any two steps."""

    def __init__(self, bench: Bench, store: BlobStore, seed: int, last_copies: set[Hash]) -> None:
        self.disk = SmallDisk(bench, 500 * PAGE)
        self.bench, self.store, self.rng = bench, store, random.Random(seed)
        self.last_copies = last_copies
        self.kept: set[Hash] = set()
        self.opened: list[Blob] = []
        self.done = 0
        self.most = 0

    def check(self) -> None:
        quota = self.store.quota
        on_disk = self.disk.used()
        assert on_disk <= MAX_BYTES
        assert quota.used_bytes + quota.reserved_bytes <= MAX_BYTES
        assert quota.reserved_bytes >= 0
        self.most = max(self.most, on_disk)
        held = [content for content in self.kept | self.last_copies if self.store.held(content)]
        assert len(held) >= len(self.kept)  # nothing kept ever went
        for blob in self.opened:
            assert not blob.removed
            os.pread(blob.fd, 1, 0)

    async def watch(self) -> None:
        while True:
            self.check()
            await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        while self.done < STEPS:
            self.done += 1
            step = self.rng.choice(
                [self.add, self.add, self.add, self.fill, self.open, self.close, self.keep, self.let_go,
                 self.use, self.give_out, self.adopt, self.others]
            )  # fmt: skip
            try:
                await step()
            except (NoSpaceError, ChangedError, CorruptError):
                await trio.lowlevel.checkpoint()

    def pick(self) -> int:
        return self.rng.randrange(len(CONTENTS))

    async def add(self) -> None:
        picked = self.rng.sample(range(len(CONTENTS)), self.rng.randint(1, 3))
        items = [(HASHES[at], len(CONTENTS[at]), CONTENTS[at]) for at in picked]
        await self.store.add_many(items, self.rng.choice([Area.WORKING, Area.PENDING]))

    async def fill(self) -> None:
        """Download in two halves; perhaps only the first."""
        at = self.pick()
        data = CONTENTS[at]
        blob = await self.store.create(HASHES[at], len(data))
        try:
            if blob.held:
                return
            need = self.store.quota.blocks(len(data))
            await self.store.reserve(need)
            blob.charge(need)
            for start in range(0, len(data), PAGE):
                await trio.to_thread.run_sync(blob.write, start, data[start : start + PAGE])
                blob.add(start, start + PAGE)
                if self.rng.random() < 0.2:
                    return
            await self.store.complete(blob, HASHES[at])
        finally:
            await self.store.release(blob)

    async def open(self) -> None:
        if len(self.opened) < 3:
            self.opened.append(self.store.open(HASHES[self.pick()]))

    async def close(self) -> None:
        if self.opened:
            await self.store.release(self.opened.pop())

    async def keep(self) -> None:
        at = self.pick()
        if len(CONTENTS[at]) <= 3 * PAGE and self.store.held(HASHES[at]):
            self.store.set_area([HASHES[at]], Area.PROTECTED)
            self.kept.add(HASHES[at])

    async def let_go(self) -> None:
        if self.kept:
            content = self.kept.pop()
            self.store.unprotect([content])

    async def use(self) -> None:
        at = self.pick()
        for _ in range(self.rng.choice([1, 5, 300])):
            self.store.used(HASHES[at])

    def _free(self, content: Hash) -> bool:
        return content not in self.kept and not any(blob.hash == content for blob in self.opened)

    async def give_out(self) -> None:
        content = HASHES[self.pick()]
        if self._free(content) and content not in self.last_copies and not self.store.is_open(content):
            fd = os.open(self.bench.workdir, os.O_RDONLY | os.O_DIRECTORY)
            try:
                await self.store.take_file(content, fd, b"out")
            finally:
                os.close(fd)

    async def adopt(self) -> None:
        at = self.pick()
        if not self._free(HASHES[at]):
            return
        path = self.bench.workdir / f"in-{self.done}"
        path.write_bytes(CONTENTS[at])
        fd = os.open(self.bench.workdir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            await self.store.adopt_file(
                fd, os.fsencode(path.name), HASHES[at], len(CONTENTS[at]), Area.PENDING
            )
        finally:
            os.close(fd)

    async def others(self) -> None:
        """Other programs fill the disk, and free it again."""
        self.disk.left = self.rng.choice([10, 40, 55, 70, 500]) * PAGE
        await self.store.relieve()
        self.disk.left = 500 * PAGE

    def rows(self) -> list[BlobRow]:
        return self.bench.all_rows()


@pytest.mark.trio
@pytest.mark.parametrize("seed", range(12))
async def test_the_quota_holds_and_nothing_is_taken_that_must_stay(tmp_path: Path, seed: int) -> None:
    bench = Bench(tmp_path)
    last_copies = set(HASHES[:2]) if seed % 2 else set()
    gone: list[Hash] = []
    store = await bench.open(
        DiskUsage(max=MAX_BYTES, leave=LEAVE_BYTES),
        may_evict=lambda content: content not in last_copies,
        evicted=lambda victims: gone.extend(content for content, _ in victims),
    )
    load = Load(bench, store, seed, last_copies)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.watch)
        async with trio.open_nursery() as tasks:
            for _ in range(3):
                tasks.start_soon(load.run)
        nursery.cancel_scope.cancel()
    assert load.most > MAX_BYTES // 2
    assert gone
    assert not last_copies.intersection(gone)
    while load.opened:
        await store.release(load.opened.pop())
    assert store.quota.reserved_bytes == 0
    assert store.quota.used_bytes == sum(row.disk_bytes for row in load.rows())
    await store.aclose()


@pytest.mark.trio
async def test_what_others_take_is_given_back_as_far_as_possible(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    store = await bench.open(DiskUsage(leave=10 * PAGE))
    small = [(hash_of(data), PAGE, data) for data in (os.urandom(PAGE) for _ in range(6))]
    await store.add_many(small[:2], Area.PROTECTED)
    await store.add_many(small[2:4])
    await store.add_many(small[4:], Area.PENDING)
    disk = SmallDisk(bench, 15 * PAGE)
    assert await store.relieve() == 0
    assert [store.held(content) for content, _, _ in small].count(True) == 5
    assert [store.held(content) for content, _, _ in small[:4]] == [True] * 4
    disk.left = 4 * PAGE
    assert await store.relieve() == 8 * PAGE
    assert [store.held(content) for content, _, _ in small] == [True] * 2 + [False] * 4
    await store.aclose()
