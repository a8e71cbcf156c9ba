"""The blob store: what is written, held, moved, removed, and what a crash leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from core.blobrows import Area
from core.blobs import BlobStore
from core.byteranges import ByteRanges
from core.errors import ChangedError, CorruptError, NoSpaceError, StoreError
from core.types import Hash
from tests.fakes.disks import CrashError, broken, full
from tests.fakes.links import blocks_of, hash_of
from tests.fakes.stores import Bench, fill, read

MIB = 1 << 20
BIG = os.urandom(600_000)
BIG_HASH = hash_of(BIG)
SMALL = [os.urandom(size) for size in (1, 4095, 4096, 4097, 100_000)] + [b""]
ITEMS = [(hash_of(data), len(data), data) for data in SMALL]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.trio
async def test_a_group_of_small_files_is_checked_and_stored(bench: Bench) -> None:
    async with bench.opened() as store:
        wrong = hash_of(b"something else")
        right = await store.add_many([*ITEMS, (wrong, 3, b"abc"), (hash_of(b"xy"), 3, b"xy")])
        assert right == [True] * len(ITEMS) + [False, False]
        for content, _, data in ITEMS:
            assert store.held(content)
            assert read(store, content) == data
        assert not store.held(wrong)
        assert store.info(wrong) is None
        assert bench.files() == {content.hex() for content, _, _ in ITEMS}
        assert store.quota.reserved_bytes == 0


@pytest.mark.trio
async def test_what_is_there_already_is_not_written_again(bench: Bench) -> None:
    async with bench.opened() as store:
        await store.add_many(ITEMS)
        used, puts = store.quota.used_bytes, bench.disk.calls["put"]
        assert await store.add_many([*ITEMS, (hash_of(b"new"), 3, b"new")]) == [True] * (len(ITEMS) + 1)
        assert bench.disk.calls["put"] == puts + 1
        assert store.quota.used_bytes == used + 4096


@pytest.mark.trio
async def test_what_was_written_counts_after_a_kill_once_it_was_checked_again(bench: Bench) -> None:
    store = await bench.open()
    blob = await store.create(BIG_HASH, len(BIG))
    blob.write(0, BIG[:131072])
    blob.add(0, 131072)
    await blob.record()
    blob.write(131072, BIG[131072:262144])
    blob.add(131072, 262144)
    assert blob.ranges.covers(0, 262144)
    store = await bench.open()  # the first one was killed
    row = store.info(BIG_HASH)
    assert row is not None
    assert not row.ranges  # nobody may read it before it was compared with the block list again
    assert row.doubted == ByteRanges([(0, 262144)])  # what was recorded and what was only written
    assert not row.held


@pytest.mark.trio
async def test_data_is_flushed_before_its_ranges_are_recorded(bench: Bench) -> None:
    async with bench.opened() as store:
        blob = await store.create(BIG_HASH, len(BIG))
        blob.write(0, BIG[:131072])
        blob.add(0, 131072)
        bench.disk.fail("sync", 1, broken())
        with pytest.raises(StoreError):
            await blob.record()
        # The kernel may have dropped the pages: nothing of it counts any more, and it can be written again.
        assert blob.ranges == ByteRanges()
        blob.write(0, BIG)
        blob.add(0, len(BIG))
        assert await store.complete(blob, BIG_HASH)
        await store.release(blob)
        assert read(store, BIG_HASH) == BIG


@pytest.mark.trio
async def test_a_blob_of_which_nothing_came_leaves_nothing(bench: Bench) -> None:
    async with bench.opened() as store:
        await store.release(await store.create(BIG_HASH, len(BIG)))
        assert store.info(BIG_HASH) is None
        assert bench.files() == set()
        assert (store.quota.used_bytes, store.quota.reserved_bytes) == (0, 0)


@pytest.mark.trio
async def test_an_open_blob_stays_readable_when_it_is_removed(bench: Bench) -> None:
    async with bench.opened() as store:
        await fill(store, BIG)
        blob = store.open(BIG_HASH)
        assert await store.remove([BIG_HASH]) >= len(BIG)
        assert not store.held(BIG_HASH)
        assert os.pread(blob.fd, len(BIG), 0) == BIG
        with pytest.raises(ChangedError):
            store.open(BIG_HASH)
        await store.release(blob)
        assert store.quota.used_bytes == 0
        await fill(store, BIG)
        assert read(store, BIG_HASH) == BIG


@pytest.mark.trio
async def test_removing_twice_at_once_counts_once_and_creating_waits_for_it(bench: Bench) -> None:
    async with bench.opened() as store:
        await fill(store, BIG)
        freed: list[int] = []

        async def remove() -> None:
            freed.append(await store.remove([BIG_HASH]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(remove)
            nursery.start_soon(remove)
            while store.held(BIG_HASH):
                await trio.lowlevel.checkpoint()
            nursery.start_soon(fill, store, BIG)
        assert min(freed) == 0
        assert store.held(BIG_HASH)
        assert read(store, BIG_HASH) == BIG


@pytest.mark.trio
async def test_users_that_come_and_go_while_it_closes_lose_nothing(bench: Bench) -> None:
    async with bench.opened() as store:

        async def write(at: int) -> None:
            blob = await store.create(BIG_HASH, len(BIG))
            await trio.to_thread.run_sync(blob.write, at, BIG[at : at + 4096])
            blob.add(at, min(len(BIG), at + 4096))
            await store.release(blob)

        async with trio.open_nursery() as nursery:
            for at in range(0, len(BIG), 4096):
                nursery.start_soon(write, at)
                await trio.lowlevel.checkpoint()
        row = bench.rows().get(BIG_HASH)
        assert row is not None
        assert row.complete
        assert read(store, BIG_HASH) == BIG
        assert store.quota.reserved_bytes == 0
        assert await store.verify(BIG_HASH)


@pytest.mark.trio
async def test_a_small_file_that_was_here_in_part_is_completed_under_its_readers(bench: Bench) -> None:
    async with bench.opened() as store:
        blob = await store.create(BIG_HASH, len(BIG))
        blob.write(0, BIG[:131072])
        blob.add(0, 131072)
        assert await store.add_many([(BIG_HASH, len(BIG), BIG)]) == [True]
        assert os.pread(blob.fd, len(BIG), 0) == BIG
        assert blob.held
        await store.release(blob)
        assert store.held(BIG_HASH)
        assert store.quota.used_bytes == bench.file(BIG_HASH).stat().st_blocks * 512


@pytest.mark.trio
async def test_a_group_and_an_opener_of_the_same_content_do_not_cross(bench: Bench) -> None:
    async with bench.opened() as store:
        for content, size, data in ITEMS[:5]:

            async def open_and_leave(content: Hash = content, size: int = size) -> None:
                await store.release(await store.create(content, size))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_and_leave)
                nursery.start_soon(store.add_many, [(content, size, data)])
                nursery.start_soon(open_and_leave)
            assert store.held(content)
            assert read(store, content) == data


@pytest.mark.trio
async def test_a_size_that_was_announced_wrong_is_put_right(bench: Bench) -> None:
    async with bench.opened() as store:
        blob = await store.create(BIG_HASH, len(BIG) + 1)
        blob.write(0, BIG[:131072])
        blob.add(0, 131072)
        await store.release(blob)
        await fill(store, BIG)
        assert read(store, BIG_HASH) == BIG
        with pytest.raises(CorruptError):
            await store.create(BIG_HASH, 5)


@pytest.mark.trio
async def test_verify_says_whether_the_content_is_right_and_keeps_its_block_list(bench: Bench) -> None:
    async with bench.opened() as store:
        await fill(store, BIG)
        assert store.get_blocks(BIG_HASH) is None
        assert await store.verify(BIG_HASH)
        assert store.get_blocks(BIG_HASH) == blocks_of(BIG)


@pytest.mark.trio
@pytest.mark.parametrize("known", [True, False])
async def test_verify_forgets_what_is_wrong(bench: Bench, known: bool) -> None:
    async with bench.opened() as store:
        await fill(store, BIG)
        if known:
            await store.verify(BIG_HASH)
        with bench.file(BIG_HASH).open("r+b") as file:
            file.seek(140_000)
            file.write(b"\0\1\2")
        assert not await store.verify(BIG_HASH)
        assert not store.held(BIG_HASH)
        row = store.info(BIG_HASH)
        if known:
            assert row is not None
            assert row.ranges == ByteRanges([(0, 131072), (262144, len(BIG))])
        else:
            assert row is None


@pytest.mark.trio
async def test_a_file_is_adopted_and_handed_out_without_copying(bench: Bench, tmp_path: Path) -> None:
    async with bench.opened() as store:
        (tmp_path / "real").write_bytes(BIG)
        inode = (tmp_path / "real").stat().st_ino
        dir_fd = os.open(tmp_path, os.O_RDONLY)
        await store.adopt_file(dir_fd, b"real", BIG_HASH, len(BIG), Area.PROTECTED)
        assert not (tmp_path / "real").exists()
        assert store.held(BIG_HASH)
        assert store.quota.used_bytes >= len(BIG)
        await store.take_file(BIG_HASH, dir_fd, b"back \xff")
        os.close(dir_fd)
        back = tmp_path / os.fsdecode(b"back \xff")
        assert back.read_bytes() == BIG
        assert back.stat().st_ino == inode
        assert store.info(BIG_HASH) is None
        assert (store.quota.used_bytes, store.quota.reserved_bytes) == (0, 0)


@pytest.mark.trio
async def test_readers_of_a_blob_do_not_see_edits_of_the_real_file(bench: Bench, tmp_path: Path) -> None:
    async with bench.opened() as store:
        await fill(store, BIG)
        blob = store.open(BIG_HASH)
        dir_fd = os.open(tmp_path, os.O_RDONLY)
        await store.take_file(BIG_HASH, dir_fd, b"real")
        os.close(dir_fd)
        (tmp_path / "real").write_bytes(b"edited in place")
        assert os.pread(blob.fd, len(BIG), 0) == BIG
        await store.release(blob)


@pytest.mark.trio
async def test_only_a_regular_file_of_the_right_size_is_adopted(bench: Bench, tmp_path: Path) -> None:
    async with bench.opened() as store:
        (tmp_path / "short").write_bytes(BIG[:10])
        (tmp_path / "link").symlink_to("short")
        dir_fd = os.open(tmp_path, os.O_RDONLY)
        for name in (b"short", b"link", b"none"):
            with pytest.raises(ChangedError):
                await store.adopt_file(dir_fd, name, BIG_HASH, len(BIG))
        os.close(dir_fd)
        assert store.quota.used_bytes == 0
        assert (tmp_path / "short").exists()


@pytest.mark.trio
async def test_a_copy_leaves_the_blob(bench: Bench, tmp_path: Path) -> None:
    async with bench.opened() as store:
        await fill(store, BIG)
        dir_fd = os.open(tmp_path, os.O_RDONLY)
        await store.copy_file(BIG_HASH, dir_fd, b"copy")
        os.close(dir_fd)
        assert (tmp_path / "copy").read_bytes() == BIG
        assert store.held(BIG_HASH)


@pytest.mark.trio
async def test_discarded_ranges_give_their_blocks_back(bench: Bench) -> None:
    async with bench.opened() as store:
        blob = await store.create(BIG_HASH, len(BIG))
        blob.write(0, BIG)
        blob.add(0, len(BIG))
        await blob.record()
        before = store.quota.used_bytes
        await blob.discard(ByteRanges([(0, 262144)]))
        assert before - store.quota.used_bytes == 262144
        assert blob.ranges == ByteRanges([(262144, len(BIG))])
        await store.release(blob)


@pytest.mark.trio
async def test_a_full_disk_keeps_what_was_written_and_says_so(bench: Bench) -> None:
    async with bench.opened() as store:
        bench.disk.fail("put", 3, full())
        with pytest.raises(NoSpaceError):
            await store.add_many(ITEMS)
        assert [store.held(content) for content, _, _ in ITEMS] == [True, True] + [False] * 4
        assert store.quota.reserved_bytes == 0
        assert await store.add_many(ITEMS) == [True] * len(ITEMS)


@pytest.mark.trio
async def test_a_file_that_somebody_removed_is_forgotten_when_it_is_opened(bench: Bench) -> None:
    async with bench.opened() as store:
        await fill(store, BIG)
        bench.file(BIG_HASH).unlink()
        with pytest.raises(ChangedError):
            store.open(BIG_HASH)
        assert not store.held(BIG_HASH)
        assert store.quota.used_bytes == 0


@pytest.mark.trio
async def test_durability_of_a_group_takes_one_flush(bench: Bench) -> None:
    async with bench.opened() as store:
        await store.add_many(ITEMS)
        assert bench.disk.calls["sync_all"] == 0
        assert await store.ensure_durable(ITEMS[0][0])
        assert await store.ensure_durable(ITEMS[1][0])
        assert bench.disk.calls["sync_all"] == 1
        assert not await store.ensure_durable(BIG_HASH)


@pytest.mark.trio
async def test_a_kill_at_any_step_leaves_a_right_store(tmp_path: Path) -> None:
    """Whatever counts as held after the restart is right, on the disk, and accounted for."""
    for steps in range(1000):
        workdir = tmp_path / str(steps)
        workdir.mkdir()
        bench = Bench(workdir)
        store = await bench.open()
        bench.disk.crash(steps)
        done: list[str] = []
        try:
            await _scenario(store, workdir, done)
        except (CrashError, BaseExceptionGroup):
            store = await bench.open()
        _check(bench, store)
        moved = ITEMS[4][0]
        places = [store.held(moved), (workdir / "out").exists()].count(True)
        assert ("stored" in done) <= places <= 1
        await store.aclose()
        if "end" in done:
            assert steps > 15
            return
    pytest.fail("the scenario never ended")


async def _scenario(store: BlobStore, workdir: Path, done: list[str]) -> None:
    dir_fd = os.open(workdir, os.O_RDONLY)
    try:
        await store.add_many(ITEMS)
        done.append("stored")
        await fill(store, BIG, upto=262144)
        await fill(store, BIG)
        await store.remove([ITEMS[0][0], ITEMS[1][0]])
        await store.take_file(ITEMS[4][0], dir_fd, b"out")
        await store.flush()
        done.append("end")
    finally:
        os.close(dir_fd)


def _check(bench: Bench, store: BlobStore) -> None:
    contents = {content: data for content, _, data in ITEMS} | {BIG_HASH: BIG}
    rows = {row.hash: row for row in bench.all_rows()}
    assert bench.files() == {content.hex() for content in rows}
    for content, row in rows.items():
        assert row.held or row.ranges or row.doubted
        for start, end in row.ranges:
            assert read(store, content)[start:end] == contents[content][start:end]
    used = sum(path.stat().st_blocks * 512 for path in (bench.workdir / "blobs").glob("*/*"))
    assert store.quota.used_bytes == used
