"""The cache of a whole host within its quota: what is kept stays, what is told, what waits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from core.blobrows import Area
from core.config import DiskUsage
from core.events import JobChanged, QuotaChanged, Warned
from core.types import FileState, Hash, Mark
from tests.core.engines import Host, linked, until

MIB = 1024 * 1024


@pytest.mark.trio
async def test_kept_files_stay_and_those_without_room_wait_with_the_reason(tmp_path: Path) -> None:
    a = Host(tmp_path, "a", ["b"], mark=Mark.OWN)
    b = Host(tmp_path, "b", ["a"], disk_usage=DiskUsage(max=5 * MIB))
    for number in range(4):
        a.write(f"kept/{number}", os.urandom(2 * MIB))
    async with a.up(), b.up(), linked(a, b):
        await until(lambda: b.node("kept/3"))
        await a.idle()
        await b.mark("kept", Mark.KEEP)

        async def some_wait() -> bool:
            reasons = [reason for _, _, reason, _ in b.arena.work.waiting(10)]
            if len(reasons) > 2 and all(reasons):
                # They met while all were half way; what gave up is tried again at once, not in 30 s.
                b.running.churten.retry("docs", None)
            return len(reasons) == 2 and all("no room in the cache" in reason for reason in reasons)

        await until(some_wait)
        states = [entry.state for path, entry in sorted((await b.entries()).items()) if path != b"kept"]
        assert states.count(FileState.KEPT) == 2
        assert b.arena.blobs.quota.used_bytes <= 5 * MIB
        jobs = await b.service.jobs(limit=10)
        assert [row.state for row in jobs.rows] == ["waiting"] * 2
        assert "docs: the cache is full, 2 paths wait for room" in "".join((await b.service.status()).health)
        warned = [event for event in b.events if isinstance(event, Warned)]
        assert len(warned) == 1, "once, however often they are tried"
        assert "may use 5.0 M" in warned[0].text
        assert not [event for event in b.events if isinstance(event, JobChanged) and event.phase == "failed"]

        def told() -> list[QuotaChanged]:
            return [event for event in b.events if isinstance(event, QuotaChanged)]

        await until(lambda: told()[-1].used >= 4 * MIB)
        assert all(event.max == 5 * MIB for event in told())
        # Letting go of one makes room for another, at once.
        kept = [path.decode() for path, entry in (await b.entries()).items() if entry.state is FileState.KEPT]
        await b.mark(kept[0], Mark.WATCH)
        await until(lambda: len(b.arena.work.waiting(10)) <= 1)
        # And so does what the user evicts, within the time of a flush.
        kept = [path.decode() for path, entry in (await b.entries()).items() if entry.state is FileState.KEPT]
        await b.mark(kept[0], Mark.WATCH)
        await until(lambda: not b.arena.work.waiting(10))
        assert (await b.service.status()).health == ()


@pytest.mark.trio
async def test_when_others_fill_the_disk_the_cache_shrinks_and_says_what_it_cannot(tmp_path: Path) -> None:
    a = Host(tmp_path, "a", ["b"], mark=Mark.OWN)
    b = Host(tmp_path, "b", ["a"], disk_usage=DiskUsage(leave=1))
    a.write("kept", os.urandom(MIB))
    a.write("watched", os.urandom(MIB))
    async with a.up(), b.up(), linked(a, b):
        await until(lambda: b.node("watched") and b.node("kept"))
        await a.idle()
        for name in ("kept", "watched"):
            await b.mark(name, Mark.KEEP)
        await b.idle()
        await b.mark("watched", Mark.WATCH)
        await b.idle()
        free = os.statvfs(b.base).f_bavail * os.statvfs(b.base).f_frsize
        b.arena.blobs.quota.configure(DiskUsage(leave=free * 10))
        for _ in range(2):
            await b.arena.room.relieve()
        entries = await b.entries()
        assert entries[b"watched"].state is FileState.ONLINE
        assert entries[b"kept"].state is FileState.KEPT
        warnings = [event for event in b.events if isinstance(event, Warned) and "cache uses" in event.text]
        assert len(warnings) == 1


@pytest.mark.trio
async def test_a_protected_rest_of_a_download_is_let_go_when_nothing_wants_it(tmp_path: Path) -> None:
    a = Host(tmp_path, "a", ["b"], mark=Mark.OWN)
    async with a.up():
        content = Hash(b"x" * 32)
        blob = await a.arena.blobs.create(content, 10_000, Area.PROTECTED)
        blob.write(0, b"y" * 4096)
        blob.add(0, 4096)
        await a.arena.blobs.release(blob)
    async with a.up():
        row = a.arena.blobs.info(content)
        assert row is not None
        assert row.area is Area.WORKING


@pytest.mark.trio
async def test_a_larger_quota_after_a_restart_is_used_at_once(tmp_path: Path) -> None:
    a = Host(tmp_path, "a", ["b"], mark=Mark.OWN)
    b = Host(tmp_path, "b", ["a"], disk_usage=DiskUsage(max=MIB))
    a.write("f", os.urandom(2 * MIB))
    async with a.up():
        async with b.up(), linked(a, b):
            await until(lambda: b.node("f"))
            await a.idle()
            await b.mark("f", Mark.KEEP)
            await until(lambda: any(reason for _, _, reason, _ in b.arena.work.waiting(10)))
            (arena,) = b.config.arenas
            b.config = replace(b.config, arenas=(replace(arena, disk_usage=DiskUsage(max=9 * MIB)),))
        async with b.up(), linked(a, b):
            await until(lambda: not b.arena.work.waiting(10))
            assert (await b.entries())[b"f"].state is FileState.KEPT
