"""Whole contents: from several holders, resumed, checked, and right whatever fails on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from core.config import DiskUsage
from core.errors import ChangedError, CorruptError, NoHolderError, NoSpaceError, StoreError
from core.types import BLOCK_BYTES, BlockList
from tests.fakes.disks import broken, full
from tests.fakes.fetchers import FetchBench, peer
from tests.fakes.links import Faults, blocks_of, hash_of
from tests.fakes.stores import flip, read

MIB = 1 << 20
BLOCK = 128 * 1024
DATA = os.urandom(9 * MIB + 12_345)
CONTENT, SIZE = hash_of(DATA), len(DATA)
MIDDLE = DATA[: 3 * MIB + 99]
SHORT = os.urandom(5 * BLOCK + 77)


@pytest.fixture
def bench(tmp_path: Path) -> FetchBench:
    return FetchBench(tmp_path)


@pytest.mark.trio
async def test_a_content_comes_whole_verified_with_its_block_list(bench: FetchBench) -> None:
    a = peer("a", DATA)
    done: list[int] = []
    async with bench.fetching() as fetcher:
        await fetcher.download(CONTENT, SIZE, [a], progress=done.append)
        assert bench.store.held(CONTENT)
        assert read(bench.store, CONTENT) == DATA
        assert bench.store.get_blocks(CONTENT) == blocks_of(DATA)
        assert sum(done) == SIZE
        assert a.sent_bytes == SIZE
        assert bench.disk.calls["pread_into"] <= 10  # hashed as it came, mostly
        assert bench.store.quota.reserved_bytes == 0
        await fetcher.download(CONTENT, SIZE, [])
    async with bench.opened() as store:
        assert store.held(CONTENT)


@pytest.mark.trio
@pytest.mark.parametrize(
    "data",
    [b"", b"x", os.urandom(BLOCK), os.urandom(BLOCK + 1), SHORT],
    ids=["empty", "one byte", "a block", "a block and a byte", "several blocks"],
)
async def test_any_size(bench: FetchBench, data: bytes) -> None:
    async with bench.fetching() as fetcher:
        await fetcher.download(hash_of(data), len(data), [peer("a", data)])
        assert bench.store.held(hash_of(data))
        assert read(bench.store, hash_of(data)) == data


@pytest.mark.trio
async def test_a_content_that_cannot_exist_is_refused(bench: FetchBench) -> None:
    async with bench.fetching() as fetcher:
        with pytest.raises(CorruptError):
            await fetcher.download(CONTENT, 0, [peer("a", DATA)])
        assert not bench.store.held(CONTENT)


@pytest.mark.trio
async def test_only_what_is_missing_is_fetched(bench: FetchBench) -> None:
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        await fetcher.fetch_range(CONTENT, SIZE, MIB, 3 * MIB, [a])
    b = peer("b", DATA)
    async with bench.fetching() as fetcher:
        await fetcher.download(CONTENT, SIZE, [b])
        assert b.sent_bytes == SIZE - 2 * MIB
        assert read(bench.store, CONTENT) == DATA


@pytest.mark.trio
async def test_a_cancelled_download_keeps_what_has_come(bench: FetchBench) -> None:
    a = peer("a", DATA, faults=Faults(stall_after=5 * MIB))
    async with bench.fetching() as fetcher:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetcher.download, CONTENT, SIZE, [a])
                while a.sent_bytes < 4 * MIB:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        row = bench.store.info(CONTENT)
        assert row is not None
        assert row.ranges.total() >= 3 * MIB
        for start, end in row.ranges:
            assert read(bench.store, CONTENT)[start:end] == DATA[start:end]
        b = peer("b", DATA)
        await fetcher.download(CONTENT, SIZE, [b])
        assert b.sent_bytes == SIZE - row.ranges.total()


@pytest.mark.trio
@pytest.mark.parametrize("touched", [False, True])
async def test_a_download_goes_on_after_a_kill_with_what_is_still_right(
    bench: FetchBench, touched: bool
) -> None:
    store = await bench.open()
    blob = await store.create(CONTENT, SIZE)
    blob.write(0, DATA[: 4 * MIB])
    blob.add(0, 4 * MIB)
    await blob.record()
    blob.write(4 * MIB, DATA[4 * MIB : 5 * MIB])  # not recorded when it is killed
    if touched:
        flip(bench.file(CONTENT), MIB + 7)
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        row = bench.store.info(CONTENT)
        assert row is not None
        assert not row.ranges
        told: list[int] = []
        await fetcher.download(CONTENT, SIZE, [a], progress=told.append)
        assert sum(told) == SIZE
        assert a.sent_bytes == SIZE - 5 * MIB + (BLOCK_BYTES if touched else 0)
        assert bench.store.held(CONTENT)
        assert read(bench.store, CONTENT) == DATA
    async with bench.fetching():
        assert bench.store.held(CONTENT)
        assert not bench.report


@pytest.mark.trio
async def test_all_holders_share_the_work(bench: FetchBench) -> None:
    peers = [peer(name, DATA, faults=Faults(delay_s=0.001)) for name in "abc"]
    async with bench.fetching() as fetcher:
        await fetcher.download(CONTENT, SIZE, peers)
        assert all(link.sent_bytes > 0 for link in peers)
        assert SIZE <= sum(link.sent_bytes for link in peers) <= SIZE + MIB  # taking over costs a frame
        assert read(bench.store, CONTENT) == DATA


@pytest.mark.trio
async def test_two_downloads_of_one_content_are_one(bench: FetchBench) -> None:
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetcher.download, CONTENT, SIZE, [a])
            nursery.start_soon(fetcher.download, CONTENT, SIZE, [a])
        assert a.sent_bytes == SIZE


@pytest.mark.trio
async def test_a_disconnect_at_any_point_loses_nothing(tmp_path: Path) -> None:
    """Each life of the link carries one frame more, until the content is here."""
    for frames in range(1, 100):
        bench = FetchBench(tmp_path / str(frames))
        bench.workdir.mkdir()
        flaky = peer("flaky", MIDDLE, faults=Faults(bytes_left=frames * 256 * 1024))
        steady = peer("steady", MIDDLE)
        async with bench.fetching() as fetcher:
            await fetcher.download(hash_of(MIDDLE), len(MIDDLE), [flaky, steady])
            assert read(bench.store, hash_of(MIDDLE)) == MIDDLE
            assert flaky.sent_bytes + steady.sent_bytes <= len(MIDDLE) + 2 * MIB
        if flaky.connected:
            return
    pytest.fail("the flaky peer never lasted")


@pytest.mark.trio
async def test_tries_after_each_disconnect_come_to_an_end(bench: FetchBench) -> None:
    tries = 0
    async with bench.fetching() as fetcher:
        while not bench.store.held(CONTENT):
            tries += 1
            with pytest.raises(NoHolderError) if tries < 7 else trio.CancelScope():
                await fetcher.download(
                    CONTENT, SIZE, [peer("a", DATA, faults=Faults(bytes_left=3 * MIB // 2))]
                )
        assert tries == 7
        assert read(bench.store, CONTENT) == DATA


@pytest.mark.trio
async def test_a_holder_that_stalls_loses_its_pieces(bench: FetchBench) -> None:
    stuck = peer("stuck", DATA, faults=Faults(stall_after=MIB))
    async with bench.fetching(stall_s=0.1) as fetcher:
        await fetcher.download(CONTENT, SIZE, [stuck, peer("good", DATA)])
        assert read(bench.store, CONTENT) == DATA


@pytest.mark.trio
async def test_a_slow_holder_is_relieved_by_a_fast_one(bench: FetchBench) -> None:
    slow = peer("slow", DATA, faults=Faults(delay_s=0.05))
    fast = peer("fast", DATA)
    async with bench.fetching() as fetcher:
        fetcher.book.measured(slow.key, MIB, 1.0)
        fetcher.book.measured(fast.key, 1000 * MIB, 1.0)
        await fetcher.download(CONTENT, SIZE, [slow, fast])
        assert read(bench.store, CONTENT) == DATA
        # It would have taken two pieces of 4 MiB, one frame every 50 ms.
        assert slow.sent_bytes < 3 * MIB


@pytest.mark.trio
async def test_bad_blocks_come_from_another(bench: FetchBench, caplog: pytest.LogCaptureFixture) -> None:
    flips = set(range(5, SIZE, MIB))
    liar = peer("liar", DATA, faults=Faults(flip={CONTENT: flips}))
    async with bench.fetching() as fetcher:
        await fetcher.download(CONTENT, SIZE, [liar, peer("good", DATA)])
        assert read(bench.store, CONTENT) == DATA
        assert sum("liar" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.trio
@pytest.mark.parametrize("order", [0, 1])
async def test_whoever_lies_the_content_is_right(bench: FetchBench, order: int) -> None:
    """One holder has another content, and the block list to go with it."""
    liar, good = peer("liar"), peer("good", DATA)
    liar.contents[CONTENT] = DATA[:MIB] + bytes(MIB) + DATA[2 * MIB :]
    async with bench.fetching() as fetcher:
        await fetcher.download(CONTENT, SIZE, [liar, good] if order else [good, liar])
        assert bench.store.held(CONTENT)
        assert read(bench.store, CONTENT) == DATA
        assert good in fetcher.book.usable(CONTENT, [liar, good])


@pytest.mark.trio
async def test_a_list_that_lies_while_the_data_is_right(bench: FetchBench) -> None:
    wrong = blocks_of(bytes(SIZE))
    liar = peer("liar", DATA, faults=Faults(lists={CONTENT: wrong}))
    async with bench.fetching() as fetcher:
        fetcher.book.measured(liar.key, 1000 * MIB, 1.0)  # it is asked first
        await fetcher.download(CONTENT, SIZE, [liar, peer("good", DATA)])
        assert read(bench.store, CONTENT) == DATA


@pytest.mark.trio
async def test_when_the_only_holder_lies_nothing_wrong_is_held(bench: FetchBench) -> None:
    liar = peer("liar")
    liar.contents[CONTENT] = bytes(SIZE)
    done: list[int] = []
    async with bench.fetching() as fetcher:
        with pytest.raises(CorruptError):
            await fetcher.download(CONTENT, SIZE, [liar], progress=done.append)
        assert not bench.store.held(CONTENT)
        assert bench.store.info(CONTENT) is None
        assert sum(done) == 0


@pytest.mark.trio
async def test_a_wrong_list_of_our_own_is_dropped(bench: FetchBench) -> None:
    async with bench.fetching() as fetcher:
        bench.store.block_lists.put_many([(CONTENT, BlockList(BLOCK, bytes(32)))])
        await fetcher.download(CONTENT, SIZE, [peer("a", DATA)])
        assert bench.store.held(CONTENT)
        assert bench.store.get_blocks(CONTENT) == blocks_of(DATA)


@pytest.mark.trio
async def test_nobody_has_it(bench: FetchBench) -> None:
    async with bench.fetching() as fetcher:
        with pytest.raises(NoHolderError):
            await fetcher.download(CONTENT, SIZE, [])
        with pytest.raises(ChangedError):
            await fetcher.download(CONTENT, SIZE, [peer("a"), peer("b")])
        assert bench.files() == set()


@pytest.mark.trio
async def test_the_quota_is_asked_before_anything_is_fetched(bench: FetchBench) -> None:
    a = peer("a", DATA)
    async with bench.fetching(DiskUsage(max=MIB)) as fetcher:
        with pytest.raises(NoSpaceError):
            await fetcher.download(CONTENT, SIZE, [a])
        assert a.sent_bytes == 0
        assert bench.store.quota.reserved_bytes == 0


@pytest.mark.trio
@pytest.mark.parametrize("call", ["create", "pwrite", "sync", "pread_into"])
async def test_a_disk_error_at_any_call_is_said_and_repaired_by_the_next_try(
    tmp_path: Path, call: str
) -> None:
    for nth in range(1, 100):
        bench = FetchBench(tmp_path / str(nth))
        bench.workdir.mkdir()
        a = peer("a", SHORT)
        async with bench.fetching() as fetcher:
            bench.disk.fail(call, nth, full() if nth % 2 else broken())
            failed = False
            try:
                await fetcher.download(hash_of(SHORT), len(SHORT), [a])
            except StoreError:
                failed = True
                await fetcher.download(hash_of(SHORT), len(SHORT), [a])
            assert read(bench.store, hash_of(SHORT)) == SHORT
            assert bench.store.held(hash_of(SHORT))
            assert bench.store.quota.reserved_bytes == 0
        if not failed and bench.disk.calls[call] < nth:
            return
    pytest.fail("it never succeeded at once")


@pytest.mark.trio
async def test_a_blob_given_up_while_it_comes_ends_the_download(bench: FetchBench) -> None:
    a = peer("a", DATA, faults=Faults(delay_s=0.001))
    async with bench.fetching() as fetcher:
        async with trio.open_nursery() as nursery:

            async def expect() -> None:
                with pytest.raises(ChangedError):
                    await fetcher.download(CONTENT, SIZE, [a])

            nursery.start_soon(expect)
            while a.sent_bytes < MIB:
                await trio.lowlevel.checkpoint()
            await bench.store.remove([CONTENT])
        assert bench.files() == set()
        assert (bench.store.quota.used_bytes, bench.store.quota.reserved_bytes) == (0, 0)


@pytest.mark.trio
async def test_readers_get_their_blocks_while_it_comes(bench: FetchBench) -> None:
    a = peer("a", DATA, faults=Faults(delay_s=0.001))
    async with bench.fetching() as fetcher:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetcher.download, CONTENT, SIZE, [a])
            for at in range(0, SIZE, 777_777):
                held = await fetcher.fetch_range(CONTENT, SIZE, at, at + 4096, [a])
                assert held.covers(at, min(SIZE, at + 4096))
                assert read(bench.store, CONTENT)[at : at + 4096] == DATA[at : at + 4096]
        assert bench.store.held(CONTENT)
