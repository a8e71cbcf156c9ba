"""Inodes: never given twice, also when one of the two databases loses what it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import db
from core.db import Connection, transaction
from core.inodes import (
    GLOBAL_OWNER,
    RESERVED_LAST,
    ArenaInodes,
    InodeRange,
    allocate_global,
    allocate_range,
    owner_of,
)


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
