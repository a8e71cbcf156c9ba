"""What the store finds at its start, and what it makes of it (the table in `core.reconcile`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.blobrows import Area, BlobRow
from core.byteranges import ByteRanges
from core.errors import StoreError
from core.types import Hash
from tests.fakes.links import blocks_of, hash_of
from tests.fakes.stores import Bench, fill, flip, read

DATA = os.urandom(300_000)
CONTENT = hash_of(DATA)
SMALL = b"small"
ITEM = (hash_of(SMALL), len(SMALL), SMALL)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def prepare(bench: Bench, *, clean: bool = False) -> None:
    """Leave a store that holds nothing, stopped in order or not."""
    store = await bench.open()
    if clean:
        await store.aclose()


def put(bench: Bench, data: bytes, content: Hash = CONTENT) -> None:
    bench.file(content).write_bytes(data)


def row(ranges: ByteRanges, *, verified: bool = False, epoch: int = 0, size: int = len(DATA)) -> BlobRow:
    return BlobRow(CONTENT, size, ranges, verified, Area.WORKING, 4096, 1, epoch)


WHOLE = ByteRanges.whole(len(DATA))
PART = ByteRanges([(0, 131072)])


@pytest.mark.trio
@pytest.mark.parametrize(
    ("had", "file", "ranges", "held"),
    [
        pytest.param(row(WHOLE, verified=True), DATA, WHOLE, True, id="all well"),
        pytest.param(row(WHOLE, verified=True), None, None, False, id="file missing"),
        pytest.param(row(ByteRanges()), None, None, False, id="killed between row and file"),
        pytest.param(row(ByteRanges()), b"", None, False, id="killed between file and size"),
        pytest.param(row(PART), DATA[:131072] + bytes(len(DATA) - 131072), WHOLE, False, id="partial"),
        pytest.param(row(ByteRanges()), DATA[:131072], PART, False, id="killed before it was recorded"),
        pytest.param(row(PART), DATA[:100_000], ByteRanges([(0, 100_000)]), False, id="partial, cut off"),
        pytest.param(row(WHOLE, verified=True), DATA[:1000], None, False, id="cut off"),
        pytest.param(row(WHOLE, verified=True), DATA + b"more", WHOLE, True, id="longer, content right"),
        pytest.param(row(WHOLE, verified=True), b"x" + DATA, None, False, id="longer, content wrong"),
        pytest.param(row(WHOLE, verified=True, epoch=99), DATA, WHOLE, True, id="not flushed, right"),
        pytest.param(
            row(WHOLE, verified=True, epoch=99), bytes(len(DATA)), None, False, id="not flushed, zeros"
        ),
        pytest.param(row(WHOLE, verified=True, epoch=99), b"", None, False, id="not flushed, empty"),
        pytest.param(row(WHOLE), DATA, WHOLE, True, id="complete, never checked"),
        pytest.param(row(WHOLE), bytes(len(DATA)), WHOLE, False, id="complete, never checked, wrong"),
        pytest.param(None, DATA, WHOLE, True, id="orphan that is right"),
        pytest.param(None, DATA[:1000], None, False, id="orphan that is torn"),
    ],
)
async def test_rows_and_files_after_an_unclean_stop(
    bench: Bench, had: BlobRow | None, file: bytes | None, ranges: ByteRanges | None, held: bool
) -> None:
    await prepare(bench)
    if had is not None:
        bench.rows().put_many([had])
    if file is not None:
        put(bench, file)
    async with bench.opened() as store:
        found = store.info(CONTENT)
        # What is not held whole is in doubt: it was being written when the store died.
        here = None if found is None else found.ranges if held else found.doubted
        assert here == ranges
        assert store.held(CONTENT) is held
        assert found is None or held or not found.ranges
        assert bench.file(CONTENT).exists() is (ranges is not None)
        if found is not None:
            assert bench.file(CONTENT).stat().st_size == len(DATA)
            assert store.quota.used_bytes == found.disk_bytes
        for start, end in ranges if ranges and held else ():
            assert read(store, CONTENT)[start:end] == DATA[start:end]
        lost = had is not None and bool(had.ranges) and ranges is None
        assert bench.report.lost == ([CONTENT] if lost else [])


@pytest.mark.trio
async def test_an_adopted_orphan_gets_its_block_list(bench: Bench) -> None:
    await prepare(bench)
    put(bench, DATA)
    async with bench.opened() as store:
        assert store.get_blocks(CONTENT) == blocks_of(DATA)
        assert bench.report.adopted == 1


@pytest.mark.trio
async def test_foreign_names_are_cleared_away_and_never_followed(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await prepare(bench)
    outside = tmp_path / "outside"
    outside.write_bytes(DATA)
    directory = bench.file(CONTENT).parent
    (directory / "junk").write_bytes(b"x")
    (directory / CONTENT.hex().upper()).write_bytes(DATA)
    (directory / "subdir").mkdir()
    bench.file(CONTENT).symlink_to(outside)
    elsewhere = tmp_path / "blobs" / f"{CONTENT[0] ^ 1:02x}" / CONTENT.hex()
    elsewhere.write_bytes(DATA)
    async with bench.opened() as store:
        assert store.info(CONTENT) is None
        assert sorted(path.name for path in directory.iterdir()) == ["subdir"]
        assert not elsewhere.exists()
        assert outside.read_bytes() == DATA
    assert "subdir" in caplog.text


@pytest.mark.trio
@pytest.mark.parametrize("clean", [True, False])
async def test_a_bit_flipped_while_down_is_found_and_only_its_block_forgotten(
    bench: Bench, clean: bool
) -> None:
    store = await bench.open()
    await fill(store, DATA)
    await store.add_many([ITEM])
    await store.flush()
    store.block_lists.put_many([(CONTENT, blocks_of(DATA))])
    if clean:
        await store.aclose()
    flip(bench.file(CONTENT), 131072 + 5)
    flip(bench.file(ITEM[0]), 2)
    async with bench.opened() as store:
        assert sorted(bench.report.damaged) == sorted([CONTENT, ITEM[0]])
        assert not store.held(CONTENT)
        assert store.info(ITEM[0]) is None
        found = store.info(CONTENT)
        assert found is not None
        assert found.ranges == WHOLE.difference(ByteRanges([(131072, 262144)]))
        assert store.quota.used_bytes == sum(
            p.stat().st_blocks * 512 for p in bench.workdir.glob("blobs/*/*")
        )
    async with bench.opened():
        assert not bench.report


@pytest.mark.trio
async def test_a_bit_flipped_while_down_without_a_block_list_costs_the_whole(bench: Bench) -> None:
    store = await bench.open()
    await fill(store, DATA)
    await store.aclose()
    flip(bench.file(CONTENT), 7)
    async with bench.opened() as store:
        assert bench.report.damaged == [CONTENT]
        assert store.info(CONTENT) is None
        assert bench.files() == set()


@pytest.mark.trio
@pytest.mark.parametrize("clean", [True, False])
async def test_a_part_that_was_touched_while_down_is_not_read_before_it_was_checked(
    bench: Bench, clean: bool
) -> None:
    store = await bench.open()
    await fill(store, DATA, upto=262144)
    if clean:
        await store.aclose()
    flip(bench.file(CONTENT), 7)
    async with bench.opened() as store:
        found = store.info(CONTENT)
        assert found is not None
        assert (found.ranges, found.doubted) == (ByteRanges(), ByteRanges([(0, 262144)]))


@pytest.mark.trio
async def test_a_part_that_nobody_touched_is_read_at_once_after_a_kill(bench: Bench) -> None:
    store = await bench.open()
    await fill(store, DATA, upto=262144)
    async with bench.opened() as store:
        found = store.info(CONTENT)
        assert found is not None
        assert (found.ranges, found.doubted) == (ByteRanges([(0, 262144)]), ByteRanges())


@pytest.mark.trio
async def test_a_file_replaced_by_another_of_the_same_size_is_found(bench: Bench, tmp_path: Path) -> None:
    store = await bench.open()
    await store.add_many([ITEM])
    await store.aclose()
    before = bench.file(ITEM[0]).stat()
    (tmp_path / "other").write_bytes(b"wrong")
    os.utime(tmp_path / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(tmp_path / "other", bench.file(ITEM[0]))
    async with bench.opened() as store:
        assert bench.report.damaged == [ITEM[0]]
        assert store.info(ITEM[0]) is None


@pytest.mark.trio
async def test_a_file_deleted_while_down_is_told(bench: Bench) -> None:
    store = await bench.open()
    await store.add_many([ITEM])
    await store.aclose()
    bench.file(ITEM[0]).unlink()
    async with bench.opened() as store:
        assert bench.report.missing == [ITEM[0]]
        assert store.info(ITEM[0]) is None


@pytest.mark.trio
async def test_a_clean_start_reads_no_content_that_nobody_touched(bench: Bench, tmp_path: Path) -> None:
    store = await bench.open()
    await store.add_many([ITEM])
    await fill(store, DATA)
    with tmp_path.joinpath("adopted").open("wb") as file:
        file.write(b"adopted")
    dir_fd = os.open(tmp_path, os.O_RDONLY)
    await store.adopt_file(dir_fd, b"adopted", hash_of(b"adopted"), 7)
    os.close(dir_fd)
    await store.aclose()
    async with bench.opened():
        assert not bench.report
        assert bench.disk.calls["pread_into"] == 0


@pytest.mark.trio
async def test_a_file_whose_attributes_were_touched_is_looked_at_once(bench: Bench) -> None:
    store = await bench.open()
    await store.add_many([ITEM])
    await store.aclose()
    bench.file(ITEM[0]).chmod(0o640)
    for rechecked in (1, 0):
        async with bench.opened() as store:
            assert bench.report.rechecked == rechecked
            assert store.held(ITEM[0])


@pytest.mark.trio
async def test_what_was_flushed_is_not_read_again_after_a_kill(bench: Bench) -> None:
    store = await bench.open()
    await store.add_many([ITEM])
    await store.flush()
    other = (hash_of(b"later"), 5, b"later")
    await store.add_many([other])
    async with bench.opened() as store:
        assert bench.report.rechecked == 1
        assert store.held(ITEM[0])
        assert store.held(other[0])
    async with bench.opened() as store:
        assert bench.report.rechecked == 0


@pytest.mark.trio
async def test_a_flush_that_fails_leaves_the_doubt(bench: Bench) -> None:
    store = await bench.open()
    await store.add_many([ITEM])
    bench.disk.fail("sync_all", 1, StoreError("no"))
    with pytest.raises(StoreError):
        await store.flush()
    bench.file(ITEM[0]).write_bytes(bytes(5))
    async with bench.opened() as store:
        assert not store.held(ITEM[0])
