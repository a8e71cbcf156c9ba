"""Which files share a job: small ones do, a large one has its own. And reads of a file that is in change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.errors import ChangedError
from core.events import JobChanged
from core.mounting import MountService
from core.types import Inode, Mark, Vector
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio


async def test_small_files_share_jobs_and_a_large_one_has_its_own(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN), Host(tmp_path, "bert", ["anna"])
    for number in range(60):
        anna.write(f"d/small{number}", os.urandom(1000))
    for number in range(2):
        anna.write(f"d/large{number}", os.urandom(1_500_000))
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("d/large1") and bert.node("d/small59"))
        await anna.idle()
        await bert.idle()
        bert.events.clear()
        await bert.mark("", Mark.KEEP)
        await until(lambda: bert.arena.blobs.quota.used_bytes > 3_000_000)
        await bert.idle()
        jobs = [
            event
            for event in bert.events
            if isinstance(event, JobChanged) and event.phase == "started" and event.action == "download"
        ]
        large = [job for job in jobs if job.path.startswith(b"d/large")]
        small = [job for job in jobs if job not in large]
        assert sorted((job.path, job.files, job.bytes_total) for job in large) == [
            (b"d/large0", 1, 1_500_000),
            (b"d/large1", 1, 1_500_000),
        ]
        assert sum(job.files for job in small) == 60
        assert len(small) <= 5


async def test_a_read_of_an_unhashed_file_that_changed_fails_and_mixes_nothing(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"], debounce_s=60.0), Host(tmp_path, "bert", ["anna"])
    async with anna.up(), bert.up(), linked(anna, bert):
        await anna.idle()
        path = anna.write("film", b"again" * 1000)
        # Announced as soon as it is seen; its hash would come after a minute.
        await until(lambda: bert.node("film"))
        node = bert.node("film") or 0
        shown = bert.arena.cache.shown(node)
        assert shown.hash is None
        mount = MountService(bert.running, bert.service.mark_apply, bert.service.status_json)
        read = mount.read_unhashed
        assert await read("docs", Inode(node), Vector(shown.vector), 0, 5000) == b"again" * 1000
        async with anna.arena.exclusive():  # before the index looks
            path.write_bytes(b"other" * 1000)
            with pytest.raises(ChangedError):
                await read("docs", Inode(node), Vector(shown.vector), 2500, 2500)
