"""Files that were displaced from the datadir and cannot go to the trash yet: counted, told, tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.config import DiskUsage
from core.displaced import Why
from core.trashrows import Reason
from core.types import Mark, RelPath
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio

MIB = 1 << 20
GONE = Why(Reason.DELETED)


async def _cached(bert: Host, mark: Mark) -> None:
    """Let bert cache what anna owns."""
    await until(lambda: bert.node("film"))
    await bert.mark("film", mark)
    await until(lambda: bert.arena.blobs.quota.used_bytes >= 2 * MIB)
    await bert.idle()


def _pair(tmp_path: Path) -> tuple[Host, Host]:
    anna = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN)
    bert = Host(tmp_path, "bert", ["anna"], disk_usage=DiskUsage(max=3 * MIB))
    anna.write("film", os.urandom(2 * MIB))
    return anna, bert


async def test_what_waits_counts_and_the_cache_gives_way(tmp_path: Path) -> None:
    anna, bert = _pair(tmp_path)
    async with anna.up(), bert.up(), linked(anna, bert):
        await _cached(bert, Mark.KEEP)
        await bert.mark("film", None)
        await bert.idle()
        quota, displaced = bert.arena.blobs.quota, bert.arena.displaced
        file = bert.arena.work_path / "old-unhashed-0-1"
        file.write_bytes(os.urandom(2 * MIB))
        with file.open("r+b"):  # a program writes to it
            await displaced.settle(file, RelPath(b"f"), GONE)
            assert quota.displaced_bytes == file.stat().st_blocks * 512
            assert (await bert.service.status()).arenas[0].cache.used == quota.used_bytes + 2 * MIB
            assert quota.shortage(0)
            await bert.arena.room.relieve()
            assert quota.used_bytes + quota.displaced_bytes <= 3 * MIB
        await displaced.settle_waiting()
        assert quota.displaced_bytes == 0
        assert 2 * MIB <= quota.used_bytes <= 3 * MIB, "in the trash it is counted as any content"
        assert len(await bert.service.trash_list()) == 1


async def test_what_found_no_room_is_told_and_goes_to_the_trash_when_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.displaced._AGAIN_S", 0.02)
    anna, bert = _pair(tmp_path)
    async with anna.up(), bert.up(), linked(anna, bert):
        await _cached(bert, Mark.KEEP)
        file = bert.arena.work_path / "old-unhashed-0-1"
        file.write_bytes(os.urandom(2 * MIB))
        await bert.arena.displaced.settle(file, RelPath(b"f"), GONE)
        assert file.exists(), "what is kept is not evicted for it"
        (told,) = (await bert.service.status()).health
        assert "1 replaced or deleted file waits" in told
        assert "raise `disk_usage`" in told
        await bert.mark("film", None)  # once anna confirmed her copy, this one may go
        await until(lambda: not file.exists())
        assert [row.at.path for row in await bert.service.trash_list()] == [b"f"]
        assert not (await bert.service.status()).health


async def test_what_is_larger_than_the_quota_is_told_and_leaves_the_cache_alone(tmp_path: Path) -> None:
    anna, bert = _pair(tmp_path)
    async with anna.up(), bert.up(), linked(anna, bert):
        await _cached(bert, Mark.KEEP)
        await bert.mark("film", None)
        await bert.idle()
        file = bert.arena.work_path / "old-unhashed-0-1"
        file.write_bytes(os.urandom(4 * MIB))
        await bert.arena.displaced.settle(file, RelPath(b"f"), GONE)
        await bert.arena.room.relieve()
        assert file.exists(), "nothing is lost"
        assert bert.arena.blobs.quota.used_bytes >= 2 * MIB, "what is cached stays"
        read_ns = file.stat().st_atime_ns
        os.utime(file, ns=(0, file.stat().st_mtime_ns))  # so that the next read of it is seen
        await bert.arena.displaced.settle_waiting()
        assert file.stat().st_atime_ns == 0 != read_ns, "nor is it read again every few seconds"
        (told,) = (await bert.service.status()).health
        assert "1 replaced or deleted file waits" in told
