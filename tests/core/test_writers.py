"""A file that a program has open for writing is not taken from it; what is written to it is never lost."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blake3 import blake3

from core.api import ArenaPath
from core.config import DiskUsage
from core.displaced import Why
from core.errors import ChangedError
from core.filelease import WRITTEN
from core.trash import displaced_name
from core.trashrows import Reason
from core.types import Mark, RelPath
from tests.core.engines import Host, linked, until, waits

pytestmark = pytest.mark.trio
LOG = ArenaPath("docs", RelPath(b"log"))


@asynccontextmanager
async def _both_own(tmp_path: Path, data: bytes) -> AsyncIterator[tuple[Host, Host]]:
    """Two hosts that have ``log`` as a real file, made by the first."""
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    anna.write("log", data)
    async with anna.up(), bert.up(), linked(anna, bert):
        for host in (anna, bert):
            await host.mark("", Mark.OWN)
        await until(lambda: bert.real() == {b"log": data})
        await bert.idle()
        yield anna, bert


async def test_a_file_open_for_writing_is_replaced_once_it_is_closed(tmp_path: Path) -> None:
    async with _both_own(tmp_path, b"one") as (anna, bert):
        with (bert.data / "log").open("r+b"):
            anna.write("log", b"two, longer")
            await until(lambda: WRITTEN in waits(bert, "log"))
            assert bert.real() == {b"log": b"one"}
            assert (await bert.service.status()).churten.failed == 0, "it waits; nothing has failed"
        await until(lambda: bert.real() == {b"log": b"two, longer"})
        assert not await bert.service.conflicts()


async def test_a_file_open_for_reading_is_replaced_at_once(tmp_path: Path) -> None:
    async with _both_own(tmp_path, b"one") as (anna, bert):
        with (bert.data / "log").open("rb") as reader:
            anna.write("log", b"two, longer")
            await until(lambda: bert.real() == {b"log": b"two, longer"})
            assert reader.read() == b"one"


async def test_what_a_program_writes_while_the_other_replaces_the_file_is_a_conflict(tmp_path: Path) -> None:
    async with _both_own(tmp_path, b"one") as (anna, bert):
        with (bert.data / "log").open("r+b") as writer:
            anna.write("log", b"anna's, longer")
            await until(lambda: WRITTEN in waits(bert, "log"))
            writer.write(b"bert's own")
        await until(lambda: bert.arena.cache.shown(bert.node("log") or 0).flags & 1)
        (row,) = await bert.service.conflicts()
        kept = {version.hash for version in row.versions}
        assert kept == {blake3(b"anna's, longer").digest(), blake3(b"bert's own").digest()}


async def test_what_a_program_writes_while_the_other_deletes_the_file_is_kept(tmp_path: Path) -> None:
    async with _both_own(tmp_path, b"first line\n") as (anna, bert):
        with (bert.data / "log").open("ab") as writer:
            (anna.data / "log").unlink()
            await until(lambda: WRITTEN in waits(bert, "log"))
            writer.write(b"second line\n")
        both = {b"log": b"first line\nsecond line\n"}
        await until(lambda: bert.real() == both and anna.real() == both)


async def test_a_deleted_file_that_is_only_open_goes_once_it_is_closed(tmp_path: Path) -> None:
    async with _both_own(tmp_path, b"first line\n") as (anna, bert):
        with (bert.data / "log").open("ab"):
            (anna.data / "log").unlink()
            await until(lambda: WRITTEN in waits(bert, "log"))
        await until(lambda: not bert.real())


async def test_nothing_is_restored_over_a_file_open_for_writing(tmp_path: Path) -> None:
    async with _both_own(tmp_path, b"one") as (anna, bert):
        bert.write("log", b"two, longer")
        await until(lambda: anna.real() == {b"log": b"two, longer"})
        await anna.idle()
        with (anna.data / "log").open("r+b"), pytest.raises(ChangedError, match="open for writing"):
            await anna.service.trash_restore(LOG)
        await anna.service.trash_restore(LOG)
        assert anna.real() == {b"log": b"one"}


@pytest.mark.parametrize("before", [b"one", None])
async def test_what_is_written_to_a_displaced_file_stands_beside_its_path(
    tmp_path: Path, before: bytes | None
) -> None:
    """RACE: a program may have looked the name up before, and open the file after it was displaced."""
    async with _both_own(tmp_path, b"one") as (_, bert):
        displaced = bert.arena.displaced
        indexed = blake3(before).digest() if before else None
        file = bert.arena.work_path / displaced_name(indexed, bert.node("log") or 0, 7)
        file.write_bytes(b"one")
        with file.open("ab", buffering=0) as writer:
            assert not await displaced.settle(file, RelPath(b"log"), Why(Reason.REPLACED))
            writer.write(b", and more")
            await displaced.settle_waiting()
            assert file.exists(), "it may still change"
        await displaced.settle_waiting()
        assert not displaced.waiting
        if before is None:  # nobody knows what it was: it is in the trash, whole
            assert [row.hash for row in await bert.service.trash_list()] == [
                blake3(b"one, and more").digest()
            ]
            return
        await until(lambda: len(bert.real()) == 2)
        beside = next(path for path in bert.real() if path.startswith(b"log.conflict-bert-"))
        assert bert.real()[beside] == b"one, and more"
        await until(lambda: bert.node(os.fsdecode(beside)))


async def test_a_displaced_file_waits_while_there_is_no_room_for_it(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [], disk_usage=DiskUsage(max=1 << 20))
    async with anna.up():
        file = anna.arena.work_path / "old-unhashed-0-1"
        file.write_bytes(os.urandom(2 << 20))
        content = file.read_bytes()
        assert not await anna.arena.displaced.settle(file, RelPath(b"f"), Why(Reason.DELETED))
        assert file.read_bytes() == content
        file.write_bytes(content[: 64 << 10])  # as if there were room
        await anna.arena.displaced.settle_waiting()
        assert not file.exists()
        assert len(await anna.service.trash_list()) == 1
