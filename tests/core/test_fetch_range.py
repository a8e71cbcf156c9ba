"""Ranges that a reader waits for: only the blocks touched, each checked, from whoever is right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from core.byteranges import ByteRanges
from core.config import DiskUsage
from core.errors import ChangedError, CorruptError, NoHolderError, NoSpaceError
from core.types import BlockList, Priority
from tests.fakes.fetchers import FetchBench, peer
from tests.fakes.links import Faults, blocks_of, hash_of
from tests.fakes.stores import fill, flip, read

BLOCK = 128 * 1024
DATA = os.urandom(20 * BLOCK + 1000)
CONTENT, SIZE = hash_of(DATA), len(DATA)


@pytest.fixture
def bench(tmp_path: Path) -> FetchBench:
    return FetchBench(tmp_path)


@pytest.mark.trio
async def test_only_the_blocks_touched_are_fetched(bench: FetchBench) -> None:
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        held = await fetcher.fetch_range(CONTENT, SIZE, 3 * BLOCK - 10, 3 * BLOCK + 10, [a])
        assert held == ByteRanges([(2 * BLOCK, 4 * BLOCK)])
        assert a.sent_bytes == 2 * BLOCK
        assert a.entries_asked <= 256
        await fetcher.fetch_range(CONTENT, SIZE, 2 * BLOCK, 4 * BLOCK, [])
        await fetcher.fetch_range(CONTENT, SIZE, SIZE - 1, SIZE + 100, [a])
        assert a.sent_bytes == 2 * BLOCK + 1000
        assert read(bench.store, CONTENT)[2 * BLOCK : 4 * BLOCK] == DATA[2 * BLOCK : 4 * BLOCK]
        assert read(bench.store, CONTENT)[-1000:] == DATA[-1000:]
        assert not bench.store.held(CONTENT)


@pytest.mark.trio
async def test_a_reader_gets_nothing_of_a_touched_part_before_it_was_checked(bench: FetchBench) -> None:
    store = await bench.open()
    await fill(store, DATA, upto=4 * BLOCK)
    await store.aclose()
    flip(bench.file(CONTENT), BLOCK + 7)
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        with pytest.raises(NoHolderError):
            await fetcher.fetch_range(CONTENT, SIZE, BLOCK, 2 * BLOCK, [])
        assert await fetcher.fetch_range(CONTENT, SIZE, 0, 3 * BLOCK, [a]) == ByteRanges([(0, 3 * BLOCK)])
        assert read(bench.store, CONTENT)[: 3 * BLOCK] == DATA[: 3 * BLOCK]
        assert a.sent_bytes <= 3 * BLOCK
        await fetcher.fetch_range(CONTENT, SIZE, 3 * BLOCK, 4 * BLOCK, [a])
        assert read(bench.store, CONTENT)[: 4 * BLOCK] == DATA[: 4 * BLOCK]
    async with bench.fetching():
        found = bench.store.info(CONTENT)
        assert found is not None
        assert (found.ranges, found.doubted) == (ByteRanges([(0, 4 * BLOCK)]), ByteRanges())


@pytest.mark.trio
async def test_readers_of_the_same_block_share_one_request(bench: FetchBench) -> None:
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        async with trio.open_nursery() as nursery:
            for at in range(0, 5 * BLOCK, BLOCK // 4):
                nursery.start_soon(fetcher.fetch_range, CONTENT, SIZE, at, at + 4096, [a])
        assert a.sent_bytes == 5 * BLOCK
        assert read(bench.store, CONTENT)[: 5 * BLOCK] == DATA[: 5 * BLOCK]


@pytest.mark.trio
async def test_a_file_of_one_block_needs_no_list_and_is_verified_at_once(bench: FetchBench) -> None:
    a = peer("a", b"tiny")
    async with bench.fetching() as fetcher:
        await fetcher.fetch_range(hash_of(b"tiny"), 4, 1, 2, [a])
        assert a.entries_asked == 0
        assert read(bench.store, hash_of(b"tiny")) == b"tiny"
        await held(bench, b"tiny")


async def held(bench: FetchBench, data: bytes) -> None:
    """Wait until a content that is here by ranges was checked whole."""
    while not bench.store.held(hash_of(data)):
        await trio.lowlevel.checkpoint()


@pytest.mark.trio
async def test_a_content_read_from_end_to_end_becomes_verified(bench: FetchBench) -> None:
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        for at in range(0, SIZE, 3 * BLOCK):
            await fetcher.fetch_range(CONTENT, SIZE, at, at + 3 * BLOCK, [a])
        await held(bench, DATA)
        assert bench.store.get_blocks(CONTENT) == blocks_of(DATA)


@pytest.mark.trio
async def test_a_bad_block_is_fetched_from_another_and_the_liar_avoided(
    bench: FetchBench, caplog: pytest.LogCaptureFixture
) -> None:
    liar = peer("liar", DATA, faults=Faults(flip={CONTENT: {5, BLOCK + 5}}))
    good = peer("good", DATA)
    async with bench.fetching() as fetcher:
        for at in (0, BLOCK):
            await fetcher.fetch_range(CONTENT, SIZE, at, at + 10, [liar, good])
        assert read(bench.store, CONTENT)[: 2 * BLOCK] == DATA[: 2 * BLOCK]
        assert len(liar.requests) == 1
        assert [record.levelname for record in caplog.records].count("WARNING") == 1
        assert "liar" in caplog.text


@pytest.mark.trio
async def test_a_peer_that_connects_anew_is_heard_again(bench: FetchBench) -> None:
    a = peer("a", DATA, faults=Faults(flip={CONTENT: {5}}))
    async with bench.fetching() as fetcher:
        for _ in range(2):
            with pytest.raises(CorruptError):
                await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [a])
        assert len(a.requests) == 1
        a.faults.flip.clear()
        fetcher.book.forget(a.key)
        await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [a])


@pytest.mark.trio
async def test_without_a_holder_it_fails_at_once_and_leaves_nothing(bench: FetchBench) -> None:
    async with bench.fetching() as fetcher:
        with pytest.raises(NoHolderError) as failure:
            await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [])
        assert failure.value.hint
        assert bench.files() == set()


@pytest.mark.trio
@pytest.mark.parametrize(
    "faults",
    [
        Faults(bytes_left=0),
        Faults(stall_after=0),
        Faults(shift=1),
        Faults(lists={CONTENT: BlockList(1, b"")}),
    ],
    ids=["disconnects", "stalls", "wrong offset", "malformed list"],
)
async def test_what_one_holder_fails_another_gives(bench: FetchBench, faults: Faults) -> None:
    bad, good = peer("bad", DATA, faults=faults), peer("good", DATA)
    async with bench.fetching(stall_s=0.05) as fetcher:
        with pytest.raises(NoHolderError, match="bad"):
            await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [bad])
        bad.connected = True
        await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [bad, good])
        assert read(bench.store, CONTENT)[:BLOCK] == DATA[:BLOCK]


@pytest.mark.trio
async def test_a_content_that_all_have_given_up_is_changed(bench: FetchBench) -> None:
    async with bench.fetching() as fetcher:
        with pytest.raises(ChangedError):
            await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [peer("a"), peer("b")])
        await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [peer("a"), peer("b", DATA)])


@pytest.mark.trio
async def test_a_reader_that_gives_up_does_not_take_the_others_along(bench: FetchBench) -> None:
    a = peer("a", DATA, faults=Faults(delay_s=0.01))
    async with bench.fetching() as fetcher:
        impatient = trio.CancelScope()

        async def give_up() -> None:
            with impatient:
                await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [a])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            while not a.requests:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(fetcher.fetch_range, CONTENT, SIZE, 0, 10, [a])
            impatient.cancel()
        assert impatient.cancelled_caught
        assert len(a.requests) == 1
        assert read(bench.store, CONTENT)[:BLOCK] == DATA[:BLOCK]


@pytest.mark.trio
async def test_a_list_that_lies_is_found_out_when_the_content_is_whole(bench: FetchBench) -> None:
    """The block lists of peers prove nothing; only the hash of the whole does."""
    other = bytes(BLOCK) + DATA[BLOCK:]
    liar = peer("liar")
    liar.contents[CONTENT] = other
    good = peer("good", DATA)
    async with bench.fetching() as fetcher:
        await fetcher.fetch_range(CONTENT, SIZE, 0, SIZE, [liar])
        while fetcher.book.usable(CONTENT, [liar]):
            await trio.lowlevel.checkpoint()
        assert not bench.store.held(CONTENT)
        await fetcher.fetch_range(CONTENT, SIZE, 0, SIZE, [liar, good])
        await held(bench, DATA)
        assert read(bench.store, CONTENT) == DATA


@pytest.mark.trio
async def test_a_full_cache_is_said(bench: FetchBench) -> None:
    async with bench.fetching(DiskUsage(max=2 * BLOCK)) as fetcher:
        with pytest.raises(NoSpaceError):
            await fetcher.fetch_range(CONTENT, SIZE, 0, 5 * BLOCK, [peer("a", DATA)])
        assert bench.store.quota.used_bytes + bench.store.quota.reserved_bytes <= 2 * BLOCK


@pytest.mark.trio
async def test_read_ahead_comes_in_the_background_and_within_its_window(bench: FetchBench) -> None:
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        assert fetcher.prefetch(CONTENT, SIZE, 0, BLOCK, [a]) == 0  # nobody reads it
        await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [a])
        blob = bench.store.open(CONTENT)
        assert fetcher.prefetch(CONTENT, SIZE, BLOCK, 8 * BLOCK, [a]) == 8 * BLOCK
        while not blob.ranges.covers(0, 8 * BLOCK):
            await trio.lowlevel.checkpoint()
        far = 1 << 40
        assert fetcher.prefetch(CONTENT, far, 8 * BLOCK, far, [a]) <= 8 * BLOCK + (64 << 20)
        await bench.store.release(blob)


@pytest.mark.trio
async def test_interactive_reads_say_so(bench: FetchBench) -> None:
    a = peer("a", DATA)
    async with bench.fetching() as fetcher:
        await fetcher.fetch_range(CONTENT, SIZE, 0, 10, [a])
        await fetcher.fetch_range(CONTENT, SIZE, BLOCK, BLOCK + 10, [a], Priority.BATCH)
        assert a.priorities == [Priority.INTERACTIVE, Priority.BATCH]
