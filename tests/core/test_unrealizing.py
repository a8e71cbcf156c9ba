"""Real files that nobody here wants become blobs, once enough other hosts confirmed that they keep theirs."""

from __future__ import annotations

import mmap
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from core.api import ArenaPath
from core.blobrows import Area
from core.events import FilesChanged, JobChanged
from core.types import Holding, Mark, PeerKey
from core.work import UNCONFIRMED
from tests.core.engines import Host, linked, until, waits

pytestmark = pytest.mark.trio

NAMES = ("one", "other", "third")


def hosts(base: Path, *marks: Mark, **arena: object) -> list[Host]:
    names = NAMES[: len(marks)]
    return [
        Host(base, name, [peer for peer in names if peer != name], debounce_s=0.02, mark=mark, **arena)
        for name, mark in zip(names, marks, strict=True)
    ]


@asynccontextmanager
async def pair(base: Path, left: Mark, right: Mark, **arena: object) -> AsyncIterator[tuple[Host, Host]]:
    one, other = hosts(base, left, right, **arena)
    async with one.up(), other.up(), linked(one, other):
        yield one, other


def local(host: Host, path: str) -> int:
    """Return how the shown version is held here."""
    node = host.node(path)
    return host.arena.cache.shown(node).local if node is not None else 0


async def state(host: Host, path: str) -> str:
    return str((await host.service.lookup(ArenaPath("docs", path.encode()))).state)


async def read(host: Host, path: str) -> bytes:
    """Read a file as the mount does: from the datadir, or from the blob store."""
    node = host.node(path)
    assert node is not None
    shown = host.arena.cache.shown(node)
    if shown.local == Holding.REAL:
        return (host.data / path).read_bytes()
    assert shown.hash is not None
    return host.arena.blobs.file_path(shown.hash).read_bytes()  # type: ignore[arg-type]


async def test_a_watched_file_is_unrealized_once_another_host_owns_it(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.WATCH, Mark.OWN) as (one, other):
        at = one.write("d/f", b"precious")
        ino = at.stat().st_ino
        await until(lambda: not at.exists())
        assert (other.data / "d/f").read_bytes() == b"precious"
        for host in (one, other):
            await host.idle()
        assert await state(one, "d/f") == "cached"
        blob = one.arena.blobs.file_path(one.arena.cache.shown(one.node("d/f") or 0).hash)  # type: ignore[arg-type]
        assert blob.read_bytes() == b"precious"
        assert blob.stat().st_ino == ino  # renamed, not copied
        assert at.parent.is_dir()
        assert not list((one.base / "work/work").iterdir())
        unrealized = [e for e in one.events if isinstance(e, FilesChanged) and e.what == "unrealized"]
        assert [e.paths for e in unrealized] == [(b"d/f",)]
        assert any(isinstance(e, JobChanged) and e.action == "unrealize" for e in one.events)


async def test_what_is_unrealized_under_keep_stays_kept_and_comes_back_under_own(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.KEEP, Mark.OWN) as (one, other):
        at = one.write("f", b"precious")
        os.utime(at, ns=(1, 1_234_567_890_123_456_789))
        await until(lambda: not at.exists())
        await one.idle()
        assert await state(one, "f") == "kept"
        await one.mark("f", Mark.OWN)
        await until(at.exists)
        await one.idle()
        assert at.read_bytes() == b"precious"
        assert at.stat().st_mtime_ns == 1_234_567_890_123_456_789
        assert await state(one, "f") == "real"
        await other.idle()
        assert (
            one.arena.cache.shown(one.node("f") or 0).vector
            == other.arena.cache.shown(other.node("f") or 0).vector
        )


async def test_the_only_copy_stays_real(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.WATCH, Mark.WATCH) as (one, other):
        at = one.write("f", b"precious")
        await until(lambda: other.node("f"))
        for host in (one, other):
            await host.idle()
        assert at.read_bytes() == b"precious"
        # A copy in a cache that may evict it is none to rely on.
        [step async for step in other.service.get([ArenaPath("docs", b"f")])]
        for host in (one, other):
            await host.idle()
        assert local(other, "f") == Holding.CACHED
        assert at.read_bytes() == b"precious"


async def test_two_hosts_with_the_same_files_keep_at_least_one_real_copy_of_each(tmp_path: Path) -> None:
    one, other = hosts(tmp_path, Mark.WATCH, Mark.WATCH)
    names = [f"d{number % 7}/f{number}" for number in range(60)]
    for name in names:
        one.write(name, name.encode())
        other.write(name, name.encode())
    async with one.up(), other.up():
        for host in (one, other):
            await host.idle()
        async with linked(one, other):
            await until(lambda: len(one.real()) + len(other.real()) == len(names))
            for host in (one, other):
                await host.idle()
            for name in names:
                assert (one.data / name).exists() != (other.data / name).exists(), name
                assert await read(one, name) == await read(other, name) == name.encode()


async def test_three_hosts_end_with_as_many_real_copies_as_min_copies_asks_for(tmp_path: Path) -> None:
    trio_of = hosts(tmp_path, Mark.WATCH, Mark.WATCH, Mark.WATCH, min_copies=2)
    names = [f"f{number}" for number in range(20)]
    for host in trio_of:
        for name in names:
            host.write(name, name.encode())
    one, other, third = trio_of
    async with one.up(), other.up(), third.up():
        for host in trio_of:
            await host.idle()
        async with linked(*trio_of):

            def copies() -> set[int]:
                return {sum((host.data / name).exists() for host in trio_of) for name in names}

            await until(lambda: copies() == {2})
            for host in trio_of:
                await host.idle()
            assert copies() == {2}


async def test_a_file_made_where_one_was_unrealized_replaces_it(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.WATCH, Mark.OWN) as (one, other):
        one.write("f", b"first")
        await until(lambda: local(one, "f") == Holding.CACHED)
        one.write("f", b"and the second")
        await until(lambda: (other.data / "f").read_bytes() == b"and the second")
        for host in (one, other):
            await host.idle()
            assert not await host.service.conflicts()


async def test_a_file_made_where_another_ones_was_only_cached_stands_beside_it(tmp_path: Path) -> None:
    name = "IMG_0001.jpg"
    async with pair(tmp_path, Mark.KEEP, Mark.OWN) as (one, other):
        other.write(name, b"a photo of the other's")
        await until(lambda: local(one, name) == Holding.CACHED)
        one.write(name, b"a photo of the one's")
        for host in (one, other):
            await until(lambda: host.arena.cache.shown(host.node(name) or 0).flags & 1)  # noqa: B023 - at once
            await host.idle()
        assert (one.data / name).read_bytes() == b"a photo of the one's"
        assert (other.data / name).read_bytes() == b"a photo of the other's"


async def test_an_open_file_stays_until_it_is_closed(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.OWN, Mark.OWN) as (one, other):
        at = one.write("f", b"precious")
        await until(lambda: (other.data / "f").exists())
        await other.idle()
        with at.open("r+b") as file:
            await one.mark("", Mark.WATCH)
            await until(lambda: "has it open" in waits(one, "f"))
            assert at.exists()
            file.write(b"PREcious")  # and what is written counts
        await until(lambda: (other.data / "f").read_bytes() == b"PREcious" and not at.exists())
        await one.idle()
        assert await read(one, "f") == b"PREcious"


async def test_a_mapped_file_stays_until_it_is_unmapped(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.OWN, Mark.OWN) as (one, other):
        at = one.write("f", b"precious")
        await until(lambda: (other.data / "f").exists())
        with at.open("r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        with mapped:
            await one.mark("", Mark.WATCH)
            await until(lambda: "has it open" in waits(one, "f"))
            assert at.exists()
        one.running.churten.retry("docs", one.node("f"))
        await until(lambda: not at.exists())


async def test_a_file_with_other_names_is_copied_so_that_they_cannot_change_the_blob(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.WATCH, Mark.OWN) as (one, _):
        outside = tmp_path / "outside"
        outside.write_bytes(b"precious")
        at = one.data / "f"
        at.hardlink_to(outside)
        await until(lambda: local(one, "f") == Holding.CACHED)
        outside.write_bytes(b"changed!")
        assert await read(one, "f") == b"precious"
        assert not list((one.base / "work/work").iterdir())


async def test_without_the_holder_connected_a_file_waits_for_it(tmp_path: Path) -> None:
    one, other = hosts(tmp_path, Mark.OWN, Mark.OWN)
    async with one.up(), other.up():
        async with linked(one, other):
            at = one.write("f", b"precious")
            await until(lambda: (other.data / "f").exists())
            for host in (one, other):
                await host.idle()
        await one.mark("", Mark.WATCH)
        await until(lambda: waits(one, "f") == UNCONFIRMED)
        assert at.exists()
        async with linked(one, other):
            await until(lambda: not at.exists())


async def test_why_says_that_a_copy_stays_and_what_is_missing(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.WATCH, Mark.KEEP, min_copies=2) as (one, other):

        async def said(host: Host) -> str:
            return dict((await host.service.why(ArenaPath("docs", b"f"))).lines)["next"]

        at = one.write("f", b"precious")
        await until(lambda: keepers(one) == 1)
        for host in (one, other):
            await host.idle()
        assert at.exists()
        assert await said(one) == "it stays a real file: only 1 other peer keeps a copy of its own, 2 have to"
        held = dict((await one.service.why(ArenaPath("docs", b"f"))).lines)
        assert any("kept" in line for line in held.values())
        await other.mark("", Mark.WATCH)
        await other.idle()
        assert await said(other) == "it is not evicted: only 1 other peer keeps a copy of its own, 2 have to"


async def test_a_holder_whose_file_is_not_there_any_more_confirms_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.OWN, Mark.OWN) as (one, other):
        at = one.write("f", b"precious")
        await until(lambda: (other.data / "f").exists())
        for host in (one, other):
            await host.idle()
        async with other.arena.exclusive():  # so that its index does not know yet
            (other.data / "f").write_bytes(b"spoiled!")
            await one.mark("f", Mark.WATCH)
            await until(lambda: "do not confirm" in waits(one, "f"))
            assert at.read_bytes() == b"precious"


async def test_what_was_kept_is_evicted_only_after_another_host_confirmed_a_durable_copy(
    tmp_path: Path,
) -> None:
    one, other = hosts(tmp_path, Mark.KEEP, Mark.KEEP)
    third = Host(tmp_path, "third", ["one", "other"], debounce_s=0.02, mark=Mark.OWN)
    object.__setattr__(one, "peers", ["other", "third"])
    object.__setattr__(other, "peers", ["one", "third"])
    async with one.up(), other.up():
        async with third.up(), linked(one, other, third):
            at = third.write("f", b"precious")
            await until(lambda: local(one, "f") == Holding.CACHED and local(other, "f") == Holding.CACHED)
            await until(lambda: keepers(one) == 2 and keepers(other) == 2)
            await third.mark("", Mark.WATCH)
            await until(lambda: not at.exists())
            for host in (one, other, third):
                await host.idle()
        async with linked(one, other):
            for host in (one, other):
                await host.mark("", Mark.WATCH)
            # One of the two gives way: it stays out of reach of eviction there, though nothing is marked.
            await until(lambda: {evictable(one), evictable(other)} == {True, False})
            for host in (one, other):
                await host.idle()
            assert {evictable(one), evictable(other)} == {True, False}


def keepers(host: Host) -> int:
    """Return how many peers said that they hold the file durably."""
    node = host.node("f")
    rows = host.arena.cache.conn.execute(
        "SELECT count(*) FROM entry WHERE node = ? AND peer > 0 AND holding IN (1, 4)", (node,)
    ).fetchone()
    assert rows is not None
    return int(rows[0])


def evictable(host: Host) -> bool:
    row = host.arena.cache.conn.execute("SELECT area FROM blob").fetchone()
    assert row is not None
    return int(row[0]) == 0


async def test_what_was_kept_stays_while_it_is_the_only_copy_of_another_path(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.OWN, Mark.KEEP) as (one, other):
        one.write("x", b"the same")
        one.write("y", b"the same")
        await until(lambda: local(other, "x") == local(other, "y") == Holding.CACHED)
        await one.mark("y", Mark.WATCH)
        await until(lambda: local(one, "y") == Holding.CACHED)
        for host in (one, other):
            await host.idle()
        await other.mark("", Mark.WATCH)
        await other.idle()
        content = other.arena.cache.shown(other.node("x") or 0).hash
        blob = other.arena.blobs.info(content)  # type: ignore[arg-type]
        assert blob is not None
        assert blob.area is Area.PROTECTED
        assert not other.arena.work.waiting(10), "it waits for nobody"
        await one.mark("y", Mark.OWN)
        await until(lambda: local(one, "y") == Holding.REAL)
        await until(lambda: other.arena.blobs.info(content).area is Area.WORKING)  # type: ignore[arg-type, union-attr]


async def test_killed_after_a_file_was_taken_out_it_is_put_back_before_the_scan(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.OWN, Mark.OWN) as (one, other):
        at = one.write("f", b"precious")
        await until(lambda: (other.data / "f").exists())
        for host in (one, other):
            await host.idle()
        node = one.node("f")
        content = one.arena.cache.shown(node or 0).hash
    assert content is not None
    at.rename(one.base / "work/work" / f"un-{content.hex()}-{node}-77")
    async with one.up(), other.up(), linked(one, other):
        await until(lambda: at.exists())
        for host in (one, other):
            await host.idle()
        assert at.read_bytes() == b"precious"
        assert (other.data / "f").read_bytes() == b"precious"
        assert await state(one, "f") == "real"
        assert not list((one.base / "work/work").iterdir())


async def test_killed_after_it_was_recorded_it_is_carried_on(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.WATCH, Mark.OWN) as (one, other):
        at = one.write("f", b"precious")
        await until(lambda: one.node("f") and not at.exists())
        for host in (one, other):
            await host.idle()
        node = one.node("f")
        content = one.arena.cache.shown(node or 0).hash
        assert content is not None
        blob = one.arena.blobs.file_path(content)  # type: ignore[arg-type]
    blob.rename(one.base / "work/work" / f"un-{content.hex()}-{node}-77")
    async with one.up():
        await one.idle()
        assert await state(one, "f") == "cached"
        assert local(one, "f") == Holding.CACHED
        assert await one.service.trash_list() == ()
        assert blob.read_bytes() == b"precious"


async def test_a_host_that_gives_up_itself_refuses_or_gives_way(tmp_path: Path) -> None:
    async with pair(tmp_path, Mark.OWN, Mark.OWN) as (one, other):
        one.write("f", b"precious")
        await until(lambda: (other.data / "f").exists())
        for host in (one, other):
            await host.idle()
        node = one.node("f")
        assert node is not None
        content = one.arena.cache.shown(node).hash
        assert content is not None

        async def granted(peer: bytes) -> bool:
            [answer] = await one.running.provider.lease(PeerKey(peer), "docs", [b"f"], [content])  # type: ignore[list-item]
            return answer

        assert await granted(b"a-------")
        with one.arena.giving_up.asking([node]) as mine:
            assert mine == [node]
            assert not await granted(b"z-------")  # that one gives way
            assert one.arena.giving_up.decide([node]) == {node}
            assert not await granted(b"a-------")  # too late to give way
        with one.arena.giving_up.asking([node]):
            assert await granted(b"a-------")
            assert one.arena.giving_up.decide([node]) == set()
        assert await granted(b"z-------")
        await trio.lowlevel.checkpoint()
