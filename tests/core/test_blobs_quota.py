"""The cache quota: what is evicted, what never is, and that it holds at every instant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from core.blobdisk import DiskSpace
from core.blobrows import Area
from core.config import DiskUsage, Share
from core.errors import NoSpaceError
from core.quota import Quota
from core.types import Hash
from tests.fakes.links import hash_of
from tests.fakes.stores import Bench

PAGE = 4096
FILES = [os.urandom(PAGE) for _ in range(12)]
HASHES = [hash_of(data) for data in FILES]
ITEMS = [(content, PAGE, data) for content, data in zip(HASHES, FILES, strict=True)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.trio
async def test_the_least_recently_used_goes_first(bench: Bench) -> None:
    gone: list[Hash] = []

    def evicted(victims: Sequence[tuple[Hash, int]]) -> None:
        gone.extend(content for content, _ in victims)

    store = await bench.open(DiskUsage(max=4 * PAGE), evicted=evicted)
    for item in ITEMS[:4]:
        await store.add_many([item])
    store.touch(HASHES[0])
    await store.add_many(ITEMS[4:6])
    assert gone == [HASHES[1], HASHES[2]]
    assert [store.held(content) for content in HASHES[:6]] == [True, False, False, True, True, True]
    assert store.quota.used_bytes == 4 * PAGE
    await store.aclose()


@pytest.mark.trio
async def test_uses_are_remembered_without_a_write_to_the_database_each(bench: Bench) -> None:
    store = await bench.open(DiskUsage(max=4 * PAGE))
    for item in ITEMS[:4]:
        await store.add_many([item])
    await store.flush()
    before = bench.conn.total_changes()
    for _ in range(500):
        store.used(HASHES[0])
    assert bench.conn.total_changes() == before
    await store.flush()
    assert bench.conn.total_changes() - before <= 2, "one row, and that it was flushed"
    await store.aclose()
    store = await bench.open(DiskUsage(max=4 * PAGE))
    await store.add_many(ITEMS[4:7])
    assert store.held(HASHES[0]), "it was used last, also after a restart"
    await store.aclose()


@pytest.mark.trio
async def test_the_trash_goes_before_the_working_area_and_protected_stays(bench: Bench) -> None:
    store = await bench.open(DiskUsage(max=3 * PAGE))
    await store.add_many([ITEMS[0]], Area.PROTECTED)
    await store.add_many([ITEMS[1]])
    await store.add_many([ITEMS[2]], Area.PENDING)
    await store.add_many([ITEMS[3]])
    assert [store.held(content) for content in HASHES[:4]] == [True, True, False, True]
    await store.add_many(ITEMS[4:6])
    assert [store.held(content) for content in HASHES[:6]] == [True, False, False, False, True, True]
    with pytest.raises(NoSpaceError):
        await store.add_many(ITEMS[6:9])
    await store.aclose()


@pytest.mark.trio
async def test_open_blobs_and_last_copies_are_never_taken_and_nothing_goes_in_vain(bench: Bench) -> None:
    keep = {HASHES[1]}
    store = await bench.open(DiskUsage(max=3 * PAGE), may_evict=lambda content: content not in keep)
    await store.add_many(ITEMS[:3])
    blob = store.open(HASHES[0])
    with pytest.raises(NoSpaceError, match="nothing can be evicted") as failure:
        await store.add_many(ITEMS[3:5])
    assert "disk_usage" in failure.value.hint
    assert all(store.held(content) for content in HASHES[:3])
    await store.add_many(ITEMS[3:4])
    assert [store.held(content) for content in HASHES[:4]] == [True, True, False, True]
    await store.release(blob)
    await store.aclose()


@pytest.mark.trio
async def test_leave_counts_what_other_programs_took(bench: Bench) -> None:
    store = await bench.open(DiskUsage(leave=10 * PAGE))
    bench.disk.free_bytes = 12 * PAGE
    await store.add_many(ITEMS[:2])
    bench.disk.free_bytes = 10 * PAGE
    with pytest.raises(NoSpaceError, match="leave"):
        await store.reserve(3 * PAGE)
    bench.disk.free_bytes = 11 * PAGE
    await store.reserve(PAGE)
    store.quota.release(PAGE)
    await store.aclose()


@pytest.mark.trio
async def test_the_quota_holds_while_many_write_at_once(bench: Bench) -> None:
    store = await bench.open(DiskUsage(max=5 * PAGE))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            on_disk = sum(path.stat().st_blocks * 512 for path in (bench.workdir / "blobs").glob("*/*"))
            assert store.quota.used_bytes + store.quota.reserved_bytes <= 5 * PAGE
            most = max(most, on_disk)
            await trio.lowlevel.checkpoint()

    async def write(items: Sequence[tuple[Hash, int, bytes]]) -> None:
        for item in items:
            await store.add_many([item])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        async with trio.open_nursery() as writers:
            for first in range(3):  # three pages on their way at most, so two can always be evicted
                writers.start_soon(write, ITEMS[first::3])
        nursery.cancel_scope.cancel()
    assert 0 < most <= 5 * PAGE
    assert sum(store.held(content) for content in HASHES) == 5
    await store.aclose()


@given(
    used=st.integers(0, 10**6),
    total=st.integers(1, 10**6),
    free=st.integers(0, 10**6),
    limit=st.none() | st.integers(0, 10**6) | st.floats(0, 1).map(Share),
    leave=st.none() | st.integers(0, 10**6) | st.floats(0, 1).map(Share),
    wants=st.lists(st.integers(0, 10**5), max_size=10),
)
def test_what_is_reserved_never_breaks_a_limit(
    used: int, total: int, free: int, limit: int | Share | None, leave: int | Share | None, wants: list[int]
) -> None:
    quota = Quota(DiskUsage(limit, leave), lambda: DiskSpace(total, free, 4096), used)
    most = int(limit.fraction * total) if isinstance(limit, Share) else limit
    least = int(leave.fraction * total) if isinstance(leave, Share) else leave
    for want in wants:
        short = quota.shortage(want)
        if short:
            assert quota.reason(want)
            continue
        quota.reserve(want)
        assert most is None or used + quota.reserved_bytes <= most
        assert least is None or free - quota.reserved_bytes >= least
