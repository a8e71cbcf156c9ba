"""A database that cannot be written for a while: work stops with the reason, and goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.api import ArenaPath
from core.errors import StoreError
from core.events import Warned
from core.types import Mark
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.engine._FLUSH_S", 0.2)
    monkeypatch.setattr("core.index.RETRY_S", 0.1)
    monkeypatch.setattr("core.subscriptions._STORE_RETRY_S", 0.1)


@contextmanager
def unwritable(host: Host) -> Iterator[None]:
    """Let no write to the arena's database succeed, as on a filesystem that became read-only or is full."""
    conn = host.arena.cache.conn
    conn.execute("PRAGMA query_only = 1")
    try:
        yield
    finally:
        conn.execute("PRAGMA query_only = 0")


def warnings(host: Host) -> list[Warned]:
    return [event for event in host.events if isinstance(event, Warned)]


async def health(host: Host) -> str:
    return " ".join((await host.service.status()).health)


async def test_what_a_peer_says_is_taken_over_when_it_can_be_recorded_again(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.idle()
        with unwritable(bert):
            anna.write("f")
            await until(lambda: bool(bert.arena.trouble.reason))
            assert "nothing can be recorded" in await health(bert)
            assert bert.node("f") is None
        await until(lambda: bert.node("f") is not None)
        assert not await health(bert)
        assert len(warnings(bert)) == 1
        assert warnings(bert)[0].hint


async def test_what_changes_in_the_datadir_is_seen_when_it_can_be_recorded_again(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    anna.write("old", b"old")
    anna.write("gone", b"gone")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("old") is not None and bert.node("gone") is not None)
        await anna.idle()
        with unwritable(anna):
            anna.write("new", b"new")
            anna.write("old", b"changed")
            (anna.data / "gone").unlink()
            await until(lambda: bool(anna.arena.offline))
            assert anna.arena.trouble.reason
        await until(lambda: bert.node("new") is not None and bert.node("gone") is None)
        await anna.idle()
        await bert.mark("", Mark.OWN)
        await until(lambda: bert.real() == {b"new": b"new", b"old": b"changed"})
        assert not anna.arena.offline


async def test_jobs_wait_with_the_reason_and_go_on(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    contents = {f"{number}".encode(): os.urandom(3000) for number in range(20)} | {
        b"large": os.urandom(3_000_000)
    }
    for name, data in contents.items():
        anna.write(name.decode(), data)
    async with anna.up(), bert.up():
        async with linked(anna, bert):
            await until(lambda: all(bert.node(name.decode()) for name in contents))
            await bert.idle()
        await bert.mark("", Mark.OWN)
        await bert.idle()  # everything waits for anna
        with unwritable(bert):
            async with linked(anna, bert):
                await until(lambda: bool(bert.arena.trouble.reason))
                rows = (await bert.service.jobs(limit=100)).rows
                assert rows
                assert {row.reason for row in rows} == {bert.arena.trouble.reason}
                assert set(bert.real()) <= contents.keys()
                assert all(data == contents[name] for name, data in bert.real().items())
        async with linked(anna, bert):
            await until(lambda: bert.real() == contents)
            await bert.idle()
        assert not list(bert.arena.work_path.iterdir())


async def test_a_download_under_way_ends_and_goes_on(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    data = os.urandom(40_000_000)
    anna.write("large", data)
    async with anna.up(), bert.up(), linked(anna, bert):
        await anna.idle()
        await until(lambda: bert.node("large") is not None)
        await bert.mark("large", Mark.OWN)
        await until(bert.arena.blobs.any_open)
        with unwritable(bert):
            await until(lambda: bool(bert.arena.trouble.reason))
            assert bert.real() == {}
        await until(lambda: bert.real() == {b"large": data})
        await bert.idle()
        assert not list(bert.arena.work_path.iterdir())


async def test_a_mark_that_cannot_be_recorded_is_an_error_and_not_set(tmp_path: Path) -> None:
    bert = Host(tmp_path, "bert", [])
    bert.write("f")
    async with bert.up():
        await bert.idle()
        with unwritable(bert), pytest.raises(StoreError):
            await bert.mark("f", Mark.KEEP)
        assert bert.explicit("f") is None
        assert (await bert.service.mark_get(ArenaPath("docs", b"f"))).mark is Mark.WATCH


async def test_a_stop_while_nothing_can_be_recorded_is_in_order_and_the_next_start_finds_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bert = Host(tmp_path, "bert", [])
    bert.write("f", b"before")
    async with bert.up():
        await bert.idle()
        bert.arena.cache.conn.execute("PRAGMA query_only = 1")
        bert.write("f", b"after, and longer")
        await until(lambda: bool(bert.arena.trouble.reason))
    assert "not recorded" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
    async with bert.up():
        await bert.idle()
        (entry,) = (await bert.entries()).values()
        assert entry.size == len(b"after, and longer")
