"""Marks carried out between whole engines: equal contents, kinds that change, trees that go."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from core.errors import NoHolderError
from core.events import JobChanged
from core.types import Hash, Mark
from core.work import NOT_EMPTY
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio


@asynccontextmanager
async def pair(base: Path, ignore: tuple[str, ...] = ()) -> AsyncIterator[tuple[Host, Host]]:
    """Give two hosts that own everything, both up and linked."""
    one = Host(base, "one", ["other"], debounce_s=0.02, mark=Mark.OWN, ignore=ignore)
    other = Host(base, "other", ["one"], debounce_s=0.02, mark=Mark.OWN, ignore=ignore)
    async with one.up(), other.up(), linked(one, other):
        yield one, other


async def same(one: Host, other: Host) -> None:
    """Wait until both datadirs hold the same."""

    def look(host: Host) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in host.data.rglob("*"):
            at = path.lstat()
            what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            when = at.st_mtime_ns if path.is_file() else 0
            found[str(path.relative_to(host.data))] = (at.st_mode, when, what)
        return found

    await until(lambda: look(one) == look(other))
    for host in (one, other):
        await host.idle()
    assert look(one) == look(other)


async def test_equal_contents_all_become_real(tmp_path: Path) -> None:
    async with pair(tmp_path) as (one, other):
        for number in range(8):
            one.write(f"d{number % 3}/empty{number}", b"")
            one.write(f"d{number % 3}/equal{number}", b"the same everywhere")
        await same(one, other)
        started = [e for e in other.events if isinstance(e, JobChanged) and e.phase == "started"]
        assert sum(job.files for job in started if job.action == "download") <= 16  # none is fetched twice
        assert not list((other.base / "work" / "work").iterdir())


async def test_content_that_another_path_is_cached_by_stays_cached(tmp_path: Path) -> None:
    async with pair(tmp_path) as (one, other):
        await other.mark("", Mark.WATCH)
        one.write("kept/f", b"the same everywhere")
        one.write("owned/f", b"the same everywhere")
        await until(lambda: other.node("owned/f"))
        await other.mark("kept", Mark.KEEP)
        await until(lambda: other.arena.cache.shown(other.node("kept/f") or 0).local == 2)
        await other.mark("owned", Mark.OWN)
        await until(lambda: (other.data / "owned/f").exists())
        await other.idle()
        shown = other.arena.cache.shown(other.node("kept/f") or 0)
        assert shown.local == 2
        assert other.arena.blobs.held(shown.hash)  # type: ignore[arg-type]  # it is hashed


async def test_a_path_may_change_its_kind(tmp_path: Path) -> None:
    async with pair(tmp_path) as (one, other):
        path = one.write("p", b"a file")
        await same(one, other)
        path.unlink()
        one.write("p/inside", b"now a directory")
        await same(one, other)
        shutil.rmtree(path)
        path.symlink_to("elsewhere")
        await same(one, other)
        path.unlink()
        one.write("p", b"a file again")
        await same(one, other)


async def test_a_deep_tree_goes_at_once_though_it_was_deleted_while_apart(tmp_path: Path) -> None:
    one = Host(tmp_path, "one", ["other"], debounce_s=0.02, mark=Mark.OWN)
    other = Host(tmp_path, "other", ["one"], debounce_s=0.02, mark=Mark.OWN)
    async with one.up(), other.up():
        async with linked(one, other):
            one.write("/".join(["d"] * 12) + "/f")
            one.write("stays")
            await same(one, other)
        shutil.rmtree(one.data / "d")
        await until(lambda: one.node("d") is None)
        with one.arena.cache.write():
            one.arena.cache.history.trim(one.arena.cache.history.last)  # so that it is told by a listing
        async with linked(one, other):
            await until(lambda: not (other.data / "d").exists())
            await same(one, other)


async def test_a_file_that_was_replaced_or_deleted_elsewhere_is_in_the_trash(tmp_path: Path) -> None:
    async with pair(tmp_path) as (one, other):
        one.write("replaced", b"old of replaced")
        one.write("deleted", b"old of deleted")
        await same(one, other)
        one.write("replaced", b"new")
        (one.data / "deleted").unlink()
        await same(one, other)
        blobs = [path.read_bytes() for path in (other.base / "work" / "blobs").rglob("*") if path.is_file()]
        assert {b"old of replaced", b"old of deleted"} <= set(blobs)


async def test_a_change_here_that_came_first_is_not_overwritten(tmp_path: Path) -> None:
    async with pair(tmp_path) as (one, other):
        one.write("f", b"agreed")
        await same(one, other)
        other.write("f", b"the other's, not looked at yet")
        one.write("f", b"the one's")
        await until(lambda: other.arena.cache.shown(other.node("f") or 0).flags & 1)
        await other.idle()
        assert (one.data / "f").read_bytes() == b"the one's"
        assert (other.data / "f").read_bytes() == b"the other's, not looked at yet"


@pytest.mark.trio
async def test_a_fetch_that_fails_after_its_holder_came_back_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Host(tmp_path, "a", ["b"], mark=Mark.OWN), Host(tmp_path, "b", ["a"])
    a.write("f", b"content")
    async with a.up(), b.up(), linked(a, b):
        await a.idle()
        await until(lambda: b.node("f"))
        fetch = b.arena.fetcher.download_small
        failures = [NoHolderError("the line was cut, and joined again since")]

        async def fail_once(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the real one
            if failures:
                raise failures.pop()
            return await fetch(*args, **options)

        monkeypatch.setattr(b.arena.fetcher, "download_small", fail_once)
        await b.mark("f", Mark.OWN)
        await until(lambda: b.real() == {b"f": b"content"})
        assert not failures


async def test_what_was_marked_while_the_datadir_was_away_is_made_real_by_a_later_daemon(
    tmp_path: Path,
) -> None:
    one = Host(tmp_path, "one", ["other"])
    other = Host(tmp_path, "other", ["one"])
    one.write("d/f", b"data")
    async with one.up():
        async with other.up(), linked(one, other):
            await until(lambda: other.node("d/f"))
            await one.idle()
            other.data.rename(other.base / "away")
            await until(lambda: other.arena.offline)
            await other.mark("", Mark.OWN)
            await other.idle()
            assert other.arena.cache.shown(other.node("d/f") or 0).local == 2
        (other.base / "away").rename(other.data)
        async with other.up():
            await until(lambda: other.real() == {b"d/f": b"data"})


async def test_what_is_marked_is_made_real_once_the_arena_gets_a_datadir(tmp_path: Path) -> None:
    one = Host(tmp_path, "one", ["other"])
    other = Host(tmp_path, "other", ["one"], datadir=None, mark=Mark.OWN)
    one.write("d/f", b"data")
    async with one.up():
        async with other.up(), linked(one, other):
            await until(lambda: (node := other.node("d/f")) and other.arena.cache.shown(node).local == 2)
            await other.idle()
        arena = replace(other.config.arenas[0], datadir=other.data)
        other.config = replace(other.config, arenas=(arena,))
        async with other.up():
            await until(lambda: other.real() == {b"d/f": b"data"})


async def test_what_lies_in_blobs_is_given_though_the_datadir_is_away(tmp_path: Path) -> None:
    one = Host(tmp_path, "one", ["other"])
    other = Host(tmp_path, "other", ["one"])
    one.write("real", b"in the datadir")
    one.write("kept", b"in a blob")
    async with one.up(), other.up(), linked(one, other):
        await until(lambda: other.node("real") and other.node("kept"))
        await other.mark("kept", Mark.KEEP)
        await other.mark("real", Mark.OWN)
        await until(lambda: other.real() and other.arena.cache.shown(other.node("kept") or 0).local == 2)
        await other.idle()
        other.data.rename(other.base / "away")
        contents = [Hash(blake3(b"in the datadir").digest()), Hash(blake3(b"in a blob").digest())]
        assert await other.running.provider.read_small("docs", contents) == [None, b"in a blob"]


async def test_a_small_content_that_is_real_and_in_a_blob_is_given_though_the_datadir_is_away(
    tmp_path: Path,
) -> None:
    one = Host(tmp_path, "one", ["other"])
    other = Host(tmp_path, "other", ["one"])
    one.write("real", b"the same")
    one.write("kept", b"the same")
    content = Hash(blake3(b"the same").digest())
    async with one.up(), other.up(), linked(one, other):
        await until(lambda: other.node("real") and other.node("kept"))
        await one.idle()
        await other.mark("kept", Mark.KEEP)
        await until(lambda: other.arena.blobs.held(content))
        await other.idle()
        await other.mark("real", Mark.OWN)
        await until(lambda: other.real() == {b"real": b"the same"})
        await other.idle()
        provider = other.running.provider
        (other.data / "real").rename(other.base / "aside")
        assert await provider.read_small("docs", [content]) == [b"the same"], "the file alone is missing"
        (other.base / "aside").rename(other.data / "real")
        other.data.rename(other.base / "away")
        assert await provider.read_small("docs", [content]) == [b"the same"], "the datadir is missing"


async def test_a_tree_that_a_peer_deletes_while_the_datadir_is_away_goes_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (one, other):
        one.write("d/sub/deep/file", b"content")
        one.write("stays", b"here")
        await same(one, other)
        other.data.rename(other.base / "away")
        await until(lambda: bool(other.arena.offline))
        shutil.rmtree(one.data / "d")
        await until(lambda: other.node("d") is None)
        await other.idle()
        (other.base / "away").rename(other.data)
        await same(one, other)
        assert [path.name for path in other.data.iterdir()] == ["stays"]


async def test_what_peers_did_while_the_datadir_was_away_is_done_though_it_came_back_while_the_host_was_down(
    tmp_path: Path,
) -> None:
    one = Host(tmp_path, "one", ["other"], debounce_s=0.02, mark=Mark.OWN)
    other = Host(tmp_path, "other", ["one"], debounce_s=0.02, mark=Mark.OWN)
    one.write("old", b"content")
    one.write("stays", b"here")
    async with one.up():
        async with other.up(), linked(one, other):
            await same(one, other)
            other.data.rename(other.base / "away")
            await until(lambda: bool(other.arena.offline))
            (one.data / "old").unlink()
            one.write("new", b"content of the new file")
            await until(lambda: bool(other.node("new")) and not other.node("old"))
            await one.idle()
            await other.idle()
        (other.base / "away").rename(other.data)
        async with other.up(), linked(one, other):
            await same(one, other)


async def test_a_directory_that_a_peer_deletes_waits_for_an_ignored_file_in_it_and_says_so(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path, ("*.tmp",)) as (one, other):
        one.write("d/file", b"content")
        await same(one, other)
        ignored = other.write("d/x.tmp", b"nobody knows it")
        shutil.rmtree(one.data / "d")
        await until(lambda: [row[2] for row in other.arena.work.waiting(5)] == [NOT_EMPTY])
        assert ignored.read_bytes() == b"nobody knows it"
        assert other.arena.work.counts(0)[2] == 0, "it waits: it has not failed"
        ignored.unlink()
        other.arena.work.retry()
        other.running.churten.wake(other.arena.name)
        await until(lambda: not (other.data / "d").exists())
