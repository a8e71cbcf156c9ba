"""What is used often stays when room is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.blobrows import Area
from core.config import DiskUsage
from core.frequency import GENERATION_USES, Frequency
from core.types import Hash
from tests.fakes.links import hash_of
from tests.fakes.stores import Bench

PAGE = 4096
FILES = [os.urandom(PAGE) for _ in range(12)]
HASHES = [hash_of(data) for data in FILES]
ITEMS = [(content, PAGE, data) for content, data in zip(HASHES, FILES, strict=True)]


def name(number: int) -> Hash:
    return Hash(b"%032d" % number)


@given(
    uses=st.lists(st.integers(0, 30), max_size=400),
    sizes=st.lists(st.integers(1, 10_000), min_size=31, max_size=31),
    capacity=st.integers(1, 10_000),
)
def test_what_is_worth_keeping_fits_together(uses: list[int], sizes: list[int], capacity: int) -> None:
    frequency = Frequency()
    for number in uses:
        frequency.use(name(number))
    kept = [n for n in range(31) if frequency.worth_keeping(name(n), sizes[n], capacity)]
    assert sum(sizes[n] for n in kept) <= capacity
    assert all(frequency.count(name(n)) >= 2 for n in kept)


def test_counts_are_halved_each_generation_and_survive_a_restart() -> None:
    frequency = Frequency()
    for number in range(GENERATION_USES - 1):
        assert not frequency.use(name(number % 7 if number % 2 else 1000 + number))
    before = frequency.count(name(3))
    stored = [(content, count, frequency.generation) for content, count in frequency.take_changed()]
    assert frequency.use(name(8))
    assert frequency.generation == 1
    assert frequency.count(name(3)) == before // 2
    assert frequency.count(name(1002)) == 0
    again = Frequency(1, stored)
    assert again.count(name(3)) == before // 2
    assert Frequency(60, stored).count(name(3)) == 0


@pytest.mark.trio
async def test_frequent_contents_go_last_and_kept_ones_never(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    store = await bench.open(DiskUsage(max=6 * PAGE))
    await store.add_many(ITEMS[:2], Area.PROTECTED)
    await store.add_many(ITEMS[2:6])
    for _ in range(400):
        store.used(HASHES[2])
    store.used(HASHES[5])
    await store.add_many(ITEMS[6:9])  # the working area goes, whatever was used last in it
    assert [store.held(content) for content in HASHES[:9]] == [True] * 3 + [False] * 3 + [True] * 3
    row = store.info(HASHES[2])
    assert row is not None
    assert row.area is Area.FREQUENT
    await store.add_many(
        [ITEMS[3], *ITEMS[9:12]]
    )  # more than the working area has: the frequent one goes as well
    assert [store.held(content) for content in HASHES] == [True, True, False, True] + [False] * 5 + [True] * 3
    await store.aclose()
    store = await bench.open(DiskUsage(max=6 * PAGE))
    assert store.quota.used_bytes == 6 * PAGE
    await store.aclose()


@pytest.mark.trio
async def test_frequencies_are_remembered_and_what_is_rare_again_is_not_protected(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.opened(DiskUsage(max=6 * PAGE)) as store:
        await store.add_many(ITEMS[:3])
        for _ in range(GENERATION_USES // 2):
            store.used(HASHES[0])
    async with bench.opened(DiskUsage(max=6 * PAGE)) as store:
        row = store.info(HASHES[0])
        assert row is not None
        assert row.area is Area.FREQUENT
        for _ in range(4):
            for _ in range(GENERATION_USES):
                store.used(HASHES[1])
        row = store.info(HASHES[0])
        assert row is not None
        assert row.area is Area.WORKING


@pytest.mark.trio
async def test_marks_decide_before_frequency(tmp_path: Path) -> None:
    async with Bench(tmp_path).opened(DiskUsage(max=6 * PAGE)) as store:
        await store.add_many(ITEMS[:1])
        for _ in range(400):
            store.used(HASHES[0])
        await store.flush()
        areas = []
        for change in (store.unprotect, lambda c: store.set_area(c, Area.PROTECTED), store.unprotect):
            change([HASHES[0]])
            row = store.info(HASHES[0])
            areas.append(row.area if row is not None else None)
        assert areas == [Area.FREQUENT, Area.PROTECTED, Area.WORKING]
