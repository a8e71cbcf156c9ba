"""Small contents in groups, from whoever has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.config import DiskUsage
from core.errors import ChangedError, CorruptError, NoHolderError, NoSpaceError
from core.fetchsmall import GROUP_FILES
from tests.fakes.disks import full
from tests.fakes.fetchers import FetchBench, peer
from tests.fakes.links import Faults, hash_of
from tests.fakes.stores import read

FILES = [os.urandom(1 + 37 * index % 9000) for index in range(700)] + [b""]
ITEMS = [(hash_of(data), len(data)) for data in FILES]


@pytest.fixture
def bench(tmp_path: Path) -> FetchBench:
    return FetchBench(tmp_path)


def all_held(bench: FetchBench) -> bool:
    return all(read(bench.store, hash_of(data)) == data for data in FILES)


@pytest.mark.trio
async def test_many_files_come_in_few_requests_and_transactions(bench: FetchBench) -> None:
    a = peer("a", *FILES)
    done: list[int] = []
    async with bench.fetching() as fetcher:
        outcome = await fetcher.download_small(ITEMS, [a], progress=done.append)
        assert outcome == dict.fromkeys([content for content, _ in ITEMS])
        assert all_held(bench)
        assert sum(done) == sum(map(len, FILES))
        total = sum(map(len, FILES))
        assert len(a.groups) <= total // (1 << 20) + len(FILES) // GROUP_FILES + 2
        assert max(a.groups) <= GROUP_FILES
        assert await fetcher.download_small(ITEMS, []) == outcome


@pytest.mark.trio
async def test_what_one_does_not_have_another_gives(bench: FetchBench) -> None:
    a, b = peer("a", *FILES[::2]), peer("b", *FILES[1::3])
    async with bench.fetching() as fetcher:
        outcome = await fetcher.download_small(ITEMS, [a, b])
        both = set(a.contents) | set(b.contents)
        for content, _ in ITEMS:
            if content in both:
                assert outcome[content] is None
                assert bench.store.held(content)
            else:
                assert isinstance(outcome[content], ChangedError)
                assert bench.store.info(content) is None


@pytest.mark.trio
async def test_wrong_data_is_fetched_again_elsewhere(bench: FetchBench) -> None:
    wrong = {content: {0} for content, size in ITEMS[::50] if size}
    liar = peer("liar", *FILES, faults=Faults(flip=wrong))
    async with bench.fetching() as fetcher:
        outcome = await fetcher.download_small(ITEMS, [liar])
        assert {content for content, error in outcome.items() if error} == set(wrong)
        assert all(isinstance(outcome[content], CorruptError) for content in wrong)
        outcome = await fetcher.download_small(ITEMS, [liar, peer("good", *FILES)])
        assert not any(outcome.values())
        assert all_held(bench)


@pytest.mark.trio
async def test_a_disconnect_at_any_point_is_made_good_by_the_others(tmp_path: Path) -> None:
    for frames in range(100):
        bench = FetchBench(tmp_path / str(frames))
        bench.workdir.mkdir()
        flaky = peer("flaky", *FILES, faults=Faults(bytes_left=frames * 256 * 1024))
        async with bench.fetching() as fetcher:
            outcome = await fetcher.download_small(ITEMS, [flaky, peer("steady", *FILES)])
            assert not any(outcome.values())
            assert all_held(bench)
        if flaky.connected:
            return
    pytest.fail("the flaky peer never lasted")


@pytest.mark.trio
async def test_without_holders_each_is_told_why(bench: FetchBench) -> None:
    async with bench.fetching(stall_s=0.05) as fetcher:
        gone = peer("gone", *FILES, faults=Faults(bytes_left=0))
        stuck = peer("stuck", *FILES, faults=Faults(stall_after=0))
        outcome = await fetcher.download_small(ITEMS[:5], [gone, stuck])
        assert all(isinstance(error, NoHolderError) for error in outcome.values())
        assert "stuck" in str(outcome[ITEMS[0][0]])


@pytest.mark.trio
async def test_a_full_cache_or_disk_is_told_and_the_rest_stays(bench: FetchBench) -> None:
    async with bench.fetching(DiskUsage(max=100 * 4096)) as fetcher:
        outcome = await fetcher.download_small(ITEMS, [peer("a", *FILES)])
        failed = [error for error in outcome.values() if error]
        assert failed
        assert all(isinstance(error, NoSpaceError) for error in failed)
        assert bench.store.quota.used_bytes <= 100 * 4096
    async with bench.fetching() as fetcher:
        bench.disk.fail("put", 5, full())
        outcome = await fetcher.download_small(ITEMS, [peer("a", *FILES)])
        assert any(outcome.values())
        assert not any((await fetcher.download_small(ITEMS, [peer("a", *FILES)])).values())
        assert all_held(bench)


@pytest.mark.trio
async def test_two_of_the_same_are_one(bench: FetchBench) -> None:
    async with bench.fetching() as fetcher:
        a = peer("a", *FILES)
        outcome = await fetcher.download_small([ITEMS[3]] * 5, [a])
        assert outcome == {ITEMS[3][0]: None}
        assert a.groups == [1]
