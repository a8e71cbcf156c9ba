"""Inodes: never given twice, also when one of the two databases loses what it wrote."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from core import db
from core.config import ArenaConfig, Config, NodeConfig
from core.db import Connection, transaction
from core.engine import Engine
from core.errors import StoreError
from core.inodes import (
    GLOBAL_OWNER,
    RESERVED_LAST,
    ArenaInodes,
    InodeRange,
    allocate_global,
    allocate_range,
    owner_of,
    restore_ranges,
)
from core.types import PeerKey, RelPath

KEY = PeerKey(b"12345678")


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    conn = db.open_global(tmp_path / "cache.db")
    yield conn
    conn.close()


def arena(path: Path, conn: Connection, name: str) -> ArenaInodes:
    return ArenaInodes(db.open_arena(path), lambda end: allocate_range(conn, name, end))


def test_ranges_follow_each_other_after_the_reserved_inodes(conn: Connection) -> None:
    first = allocate_range(conn, "a", 0)
    second = allocate_range(conn, "b", 0)
    third = allocate_range(conn, "a", first.end)
    assert first == InodeRange(RESERVED_LAST + 1, RESERVED_LAST + 10_001)
    assert second == InodeRange(first.end, first.end + 10_000)
    assert third == InodeRange(second.end, second.end + 10_000)


def test_the_global_space_gets_small_ranges(conn: Connection) -> None:
    found = allocate_range(conn, GLOBAL_OWNER, 0)
    assert found.end - found.start == 100


def test_a_range_whose_arena_lost_it_is_given_again(conn: Connection) -> None:
    first = allocate_range(conn, "a", 0)
    assert allocate_range(conn, "a", 0) == first
    allocate_range(conn, "b", 0)
    second = allocate_range(conn, "a", first.end)
    assert allocate_range(conn, "a", first.end) == second
    assert allocate_range(conn, "a", 0) == first


def test_every_inode_has_the_owner_of_its_range(conn: Connection) -> None:
    a, b = allocate_range(conn, "a", 0), allocate_range(conn, "b", 0)
    assert [owner_of(conn, at) for at in (a.start, a.end - 1, b.start, b.end - 1)] == ["a", "a", "b", "b"]
    assert owner_of(conn, b.end) is None
    assert owner_of(conn, 1) == owner_of(conn, RESERVED_LAST) == GLOBAL_OWNER


@given(st.lists(st.sampled_from(["a", "b", ""]), max_size=12))
def test_ranges_never_overlap(owners: list[str]) -> None:
    conn = db.open_global(Path(":memory:"))
    ends = dict.fromkeys(owners, 0)
    taken: set[int] = set(range(RESERVED_LAST + 1))
    for owner in owners:
        found = allocate_range(conn, owner, ends[owner])
        ends[owner] = found.end
        assert taken.isdisjoint({found.start, found.end - 1})
        taken.update(range(found.start, found.end))
        assert owner_of(conn, found.start) == owner_of(conn, found.end - 1) == owner
    conn.close()


def test_an_arena_counts_up_and_goes_on_after_a_restart(conn: Connection, tmp_path: Path) -> None:
    inodes = arena(tmp_path / "arena.db", conn, "a")
    given = [inodes.allocate() for _ in range(3)]
    inodes.save()
    again = arena(tmp_path / "arena.db", conn, "a")
    assert given == [100, 101, 102]
    assert again.allocate() == 103


def test_what_was_not_saved_is_given_again(conn: Connection, tmp_path: Path) -> None:
    inodes = arena(tmp_path / "arena.db", conn, "a")
    first = inodes.allocate()
    inodes.rolled_back()
    assert inodes.allocate() == first
    assert arena(tmp_path / "arena.db", conn, "a").allocate() == first


def test_an_exhausted_range_is_followed_by_another(conn: Connection, tmp_path: Path) -> None:
    inodes = arena(tmp_path / "arena.db", conn, "a")
    last = [inodes.allocate() for _ in range(10_000)][-1]
    allocate_range(conn, "b", 0)
    assert inodes.allocate() == last + 10_001
    inodes.rolled_back()
    assert inodes.allocate() == 100


def test_ranges_are_recovered_in_order_after_the_arena_database_was_deleted(
    conn: Connection, tmp_path: Path
) -> None:
    inodes = arena(tmp_path / "arena.db", conn, "a")
    given = [inodes.allocate() for _ in range(10_001)]
    inodes.save()
    new = arena(tmp_path / "another.db", conn, "a")
    assert [new.allocate() for _ in range(10_001)] == given
    assert new.allocate() == given[-1] + 1


def test_global_inodes_are_never_given_twice(conn: Connection) -> None:
    with transaction(conn):
        given = [allocate_global(conn) for _ in range(150)]
    allocate_range(conn, "a", 0)
    with transaction(conn):
        given.append(allocate_global(conn))
    assert len(set(given)) == 151
    assert all(owner_of(conn, inode) == GLOBAL_OWNER for inode in given)


# -- a database of a whole host is deleted


async def _inodes(base: Path, *names: str) -> dict[str, list[int]]:
    """Start a host with these arenas, each with some new nodes; return all inodes of each, the root first.

    Under "" are those of the directories above the arenas.
    """
    arenas = tuple(ArenaConfig(name, base / name.replace("/", "-"), None) for name in names)
    node = NodeConfig("anna", base / "id.pem", (), None, False, base / "socket")
    engine = Engine(Config(base / "realize.toml", node, base / "cache.db", arenas, ()), KEY, {})
    found: dict[str, list[int]] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        for name, arena in engine.arenas.items():
            with arena.cache.write():
                arena.cache.tree.ensure_dir(RelPath(b"/".join([b"d"] * 30)))
            rows: list[Any] = arena.cache.conn.execute("SELECT id FROM node ORDER BY id").fetchall()
            found[name] = [arena.cache.root, *(row[0] for row in rows if row[0] != arena.cache.root)]
        above: list[Any] = engine.conn.execute("SELECT id FROM directory WHERE arena IS NULL").fetchall()
        found[""] = [row[0] for row in above]
        owned = {name: {owner_of(engine.conn, inode) for inode in inodes} for name, inodes in found.items()}
        assert owned == {name: {name} if inodes else set() for name, inodes in found.items()}
        nursery.cancel_scope.cancel()
    everything = [inode for inodes in found.values() for inode in inodes]
    assert len(set(everything)) == len(everything), "an inode was given twice"
    return found


def _delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@pytest.mark.trio
async def test_an_arena_without_its_database_gets_its_range_and_its_root_again(tmp_path: Path) -> None:
    before = await _inodes(tmp_path, "docs", "media/music")
    _delete(tmp_path / "docs" / "arena.db")
    after = await _inodes(tmp_path, "docs", "media/music", "new")
    assert after["docs"] == before["docs"]
    assert after["media/music"] == before["media/music"]


@pytest.mark.trio
async def test_a_new_global_database_learns_what_the_arenas_have(tmp_path: Path) -> None:
    before = await _inodes(tmp_path, "docs", "media/music")
    _delete(tmp_path / "cache.db")
    after = await _inodes(tmp_path, "a/new/one", "media/music", "docs")
    assert after["docs"] == before["docs"]
    assert after["media/music"] == before["media/music"]
    assert min(after["a/new/one"]) > max(before["docs"] + before["media/music"])


@pytest.mark.trio
async def test_a_host_without_any_database_begins_anew(tmp_path: Path) -> None:
    before = await _inodes(tmp_path, "docs", "media/music")
    for path in ("cache.db", "docs/arena.db", "media-music/arena.db"):
        _delete(tmp_path / path)
    assert await _inodes(tmp_path, "docs", "media/music") == before


@pytest.mark.trio
async def test_a_database_of_before_ranges_were_kept_still_knows_them(tmp_path: Path) -> None:
    before = await _inodes(tmp_path, "docs", "media/music")
    conn = db.open_arena(tmp_path / "docs" / "arena.db")
    for table in ("inode_range", "departed", "grave"):
        conn.execute(f"DROP TABLE {table}")
    conn.execute("PRAGMA user_version = 4")
    conn.close()
    _delete(tmp_path / "cache.db")
    after = await _inodes(tmp_path, "new", "docs", "media/music")
    assert after["docs"] == before["docs"]


@pytest.mark.trio
async def test_two_databases_with_the_same_inodes_are_refused(tmp_path: Path) -> None:
    await _inodes(tmp_path, "docs")
    shutil.copytree(tmp_path / "docs", tmp_path / "copy")
    with pytest.raises(StoreError, match=r"'docs'.*'copy'|'copy'.*'docs'") as caught:
        await _inodes(tmp_path, "docs", "copy")
    assert "move one of them away" in caught.value.hint


def test_ranges_are_written_back_in_any_order(conn: Connection) -> None:
    restore_ranges(conn, "b", [InodeRange(20_100, 30_100), InodeRange(50_200, 60_200)])
    restore_ranges(conn, "a", [InodeRange(100, 10_100), InodeRange(30_200, 40_200)])
    restore_ranges(conn, "a", [InodeRange(100, 10_100)])
    assert [owner_of(conn, at) for at in (100, 20_100, 30_200, 50_200, 60_199)] == ["a", "b", "a", "b", "b"]
    assert allocate_range(conn, "a", 40_200).start == 60_200
    assert allocate_range(conn, "a", 10_100).end == 40_200
