"""Contents larger than the cache could hold are read through a window and never stored."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from core.buffers import BufferPool
from core.config import DiskUsage
from core.download import FetchParts
from core.entrybook import EntryBook
from core.errors import CorruptError, NoHolderError
from core.holders import HolderBook
from core.mounting import MountService
from core.ports import Fetched
from core.streaming import StreamFetch
from core.types import Inode, Mark
from tests.core.engines import Host, linked, until
from tests.fakes.links import FakeLink, Faults, hash_of
from tests.fakes.stores import Bench

MIB = 1024 * 1024
LARGE = os.urandom(12 * MIB + 777)
CONTENT = hash_of(LARGE)
WINDOW = 2 * MIB


@asynccontextmanager
async def window(bench: Bench) -> AsyncIterator[StreamFetch]:
    async with bench.opened() as store, trio.open_nursery() as nursery:
        parts = FetchParts("docs", store, HolderBook(), BufferPool(), trio.CapacityLimiter(2), 5.0)
        yield StreamFetch(parts, nursery, EntryBook(parts), WINDOW)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_sequential_and_random_reads_within_the_window(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    link = FakeLink("peer", {CONTENT: LARGE})
    rng = random.Random(1)
    async with window(bench) as streams:
        at = 0
        while at < len(LARGE):
            data = await streams.read(CONTENT, len(LARGE), at, at + 300_000, [link])
            assert data == LARGE[at : at + len(data)]
            assert len(data) == min(300_000, len(LARGE) - at)
            assert streams.used_bytes <= WINDOW
            at += len(data)
            streams.ahead(CONTENT, len(LARGE), at, at + MIB, [link])
        for _ in range(50):
            start = rng.randrange(len(LARGE))
            end = start + rng.choice([1, 4096, 500_000, 6 * MIB])
            data = await streams.read(CONTENT, len(LARGE), start, end, [link])
            assert data
            assert data == LARGE[start : start + len(data)]
            assert streams.used_bytes <= WINDOW
        streams.forget(CONTENT)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.files() == set()


@pytest.mark.trio
async def test_readers_of_the_same_blocks_share_a_request(tmp_path: Path) -> None:
    link = FakeLink("peer", {CONTENT: LARGE}, Faults(delay_s=0.01))
    async with window(Bench(tmp_path)) as streams:
        got: list[bytes] = []

        async def read() -> None:
            got.append(await streams.read(CONTENT, len(LARGE), 5, 100, [link]))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
        assert got == [LARGE[5:100]] * 5
        assert streams.used_bytes == 128 * 1024


@pytest.mark.trio
async def test_a_wrong_block_never_reaches_a_reader(tmp_path: Path) -> None:
    liar = FakeLink("liar", {CONTENT: LARGE}, Faults(flip={CONTENT: {10}}))
    honest = FakeLink("honest", {CONTENT: LARGE})
    async with window(Bench(tmp_path)) as streams:
        assert await streams.read(CONTENT, len(LARGE), 0, 100, [liar, honest]) == LARGE[:100]
        with pytest.raises(CorruptError):
            await streams.read(CONTENT, len(LARGE), 3 * MIB, 3 * MIB + 1, [liar])
        with pytest.raises(NoHolderError):
            await streams.read(hash_of(b"unknown"), len(LARGE), 0, 1, [])


@asynccontextmanager
async def mounted(tmp_path: Path, usage: DiskUsage) -> AsyncIterator[tuple[Host, Host, MountService, Inode]]:
    """Run a host that reads a large file of another, with a quota."""
    a, b = Host(tmp_path, "a", ["b"]), Host(tmp_path, "b", ["a"], disk_usage=usage)
    a.write("large", LARGE)

    async def nothing(*_: object) -> bytes:
        return b""

    async with a.up(), b.up(), linked(a, b), trio.open_nursery() as nursery:
        await until(lambda: b.node("large"))
        await a.idle()
        await b.idle()
        service = MountService(b.running, nothing, nothing)
        await nursery.start(service.run)
        node = b.node("large")
        assert node is not None
        yield a, b, service, Inode(node)
        nursery.cancel_scope.cancel()


async def read_all(b: Host, service: MountService, inode: Inode) -> tuple[bytes, set[str]]:
    """Read the file as the mount does; returns it, and how it came."""
    out, how = bytearray(), set()
    service.opened("docs", CONTENT, len(LARGE))
    while len(out) < len(LARGE):
        at, end = len(out), min(len(LARGE), len(out) + MIB)
        fetched: Fetched = await service.fetch("docs", inode, CONTENT, len(LARGE), at, end, MIB)
        if fetched.data:
            how.add("streamed")
            out += fetched.data
        else:
            how.add("stored")
            with b.arena.blobs.file_path(CONTENT).open("rb") as file:
                reached = next(last for first, last in fetched.ranges if first <= at < last)
                file.seek(at)
                out += file.read(reached - at)
        assert used(b) <= 4 * MIB
    service.closed("docs", CONTENT)
    return bytes(out), how


def used(host: Host) -> int:
    return sum(path.stat().st_blocks * 512 for path in (host.base / "work" / "blobs").glob("*/*"))


@pytest.mark.trio
async def test_a_file_larger_than_the_quota_is_streamed(tmp_path: Path) -> None:
    async with mounted(tmp_path, DiskUsage(max=4 * MIB)) as (_, b, service, inode):
        data, how = await read_all(b, service, inode)
        assert data == LARGE
        assert how == {"streamed"}
        assert used(b) == 0
        await until(lambda: b.arena.fetcher.streams.used_bytes == 0)


@pytest.mark.trio
async def test_a_file_for_which_no_room_can_be_made_is_streamed(tmp_path: Path) -> None:
    async with mounted(tmp_path, DiskUsage(max=14 * MIB)) as (a, b, service, inode):
        other = os.urandom(3 * MIB)
        a.write("kept", other)
        await until(lambda: b.node("kept"))
        await a.idle()
        await b.mark("kept", Mark.KEEP)
        await b.idle()
        service.opened("docs", CONTENT, len(LARGE))
        fetched = await service.fetch("docs", inode, CONTENT, len(LARGE), 100, 200, 0)
        assert fetched.data[:100] == LARGE[100:200]
        service.closed("docs", CONTENT)
        assert b.arena.blobs.held(hash_of(other))


@pytest.mark.trio
async def test_a_disk_that_fills_up_in_the_middle_of_a_read_does_not_end_it(tmp_path: Path) -> None:
    async with mounted(tmp_path, DiskUsage(leave=0)) as (_, b, service, inode):
        service.opened("docs", CONTENT, len(LARGE))
        first = await service.fetch("docs", inode, CONTENT, len(LARGE), 0, MIB, 0)
        assert first.ranges.covers(0, MIB)
        b.arena.blobs.quota.configure(DiskUsage(max=0))
        second = await service.fetch("docs", inode, CONTENT, len(LARGE), MIB, 2 * MIB, 0)
        assert second.data == LARGE[MIB : 2 * MIB]
        again = await service.fetch("docs", inode, CONTENT, len(LARGE), 0, MIB, 0)
        assert not again.data
        assert again.ranges.covers(0, MIB)
        service.closed("docs", CONTENT)
