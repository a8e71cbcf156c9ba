"""Many renames of a peer in one batch: few statements, and the same as if each had been followed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cache import ArenaCache
from core.choice import LOCAL_PEER
from core.paths import split
from core.remote import RemoteEntries
from core.types import Holding, Mark, RelPath
from tests.core.caches import (
    A,
    B,
    Item,
    batch,
    deleted,
    dirty,
    dropped,
    file,
    folder,
    hear,
    link,
    memory_cache,
    node,
    tree,
    vector,
)

FILES = 60
"""Enough that a batch of their renames is a large one: more than a hundred entries."""


@pytest.fixture
def cache() -> Iterator[ArenaCache]:
    with memory_cache() as cache:
        yield cache


def content(number: int) -> bytes:
    return number.to_bytes(32, "big")


def names(number: int) -> tuple[bytes, bytes]:
    return b"old/%02d" % number, b"new/%02d" % number


def listed(cache: ArenaCache, cases: Sequence[str]) -> None:
    """Let a cache know the files of A before they are renamed, each with what its case says of it."""
    hear(cache, A, folder(b"old", a=1))
    for number, case in enumerate(cases):
        old, new = names(number)
        hear(cache, A, link(old, b"to", a=2) if case == "link" else file(old, content(number), a=2))
        match case:
            case "cached" | "forgotten":
                cache.cached.add([node(cache, old)])
                if case == "forgotten":
                    cache.cached.drop(content(number))
            case "held by another":
                hear(cache, B, file(old, content(number), a=2))
            case "place taken by another":
                hear(cache, B, file(new, content(1000), b=1))
            case "deleted there before":
                hear(cache, A, deleted(new, a=1))
            case "deleted there by us":
                with cache.write():
                    cache.put_tombstone(node_at(cache, new), vector(me=1))
            case "a grave there":
                with cache.write():
                    cache.graves.put(new, vector(b=3), 1)
            case "marked":
                with cache.write():
                    cache.marks.set(node(cache, old), Mark.KEEP)
            case "something was in it":
                hear(cache, A, file(old + b"/x", a=1))
                hear(cache, A, deleted(old + b"/x", a=2))
            case _:
                pass


def node_at(cache: ArenaCache, path: bytes) -> int:
    directory, name = split(path)
    return cache.tree.ensure_child(cache.tree.ensure_dir(directory), name)


CASES = [
    "",
    "cached",
    "forgotten",
    "held by another",
    "place taken by another",
    "deleted there before",
    "deleted there by us",
    "a grave there",
    "marked",
    "something was in it",
    "link",
    "changed as well",
    "another in its place",
    "not held any more",
    "another time",
]


def said(number: int, case: str) -> tuple[Item, Item]:
    """Return what A says of a file that it renamed, and of its old path."""
    old, new = names(number)
    told = file(new, content(number + 500 if case == "changed as well" else number), a=3)
    if case == "link":
        told = link(new, b"to", a=3)
    if case == "another time":
        told = file(new, content(number), mtime_ns=99, a=3)
    left = deleted(old, a=3)
    if case == "another in its place":
        left = file(old, content(number + 700), a=3)
    if case == "not held any more":
        left = dropped(old)
    return told, left


def renamed(cache: ArenaCache, cases: Sequence[str], *, at_once: int) -> None:
    """Hear of the renames, so many in a batch."""
    for start in range(0, len(cases), at_once):
        part = range(start, min(start + at_once, len(cases)))
        pairs = [said(number, cases[number]) for number in part]
        told = batch([item for item, _ in pairs] + [item for _, item in pairs], seq=2)
        told.groups[0].renamed_from = [names(number)[0] for number in part]
        RemoteEntries(cache).apply(A, "a", told)


def entries(cache: ArenaCache) -> dict[tuple[bytes, int], tuple[object, ...]]:
    """Return who holds what, by path and peer."""
    rows: list[Any] = cache.conn.execute(
        "SELECT node, peer, holding, kind, size, mtime_ns, mode, hash, vector, target, ino FROM entry"
    ).fetchall()
    return {(cache.tree.path(row[0]), row[1]): row[2:] for row in rows}


def marks(cache: ArenaCache) -> dict[bytes, Mark]:
    return {cache.tree.path(node): mark for node, mark in cache.marks.all_explicit().items()}


def nodes(cache: ArenaCache) -> dict[bytes, int]:
    return {path: node(cache, path) for path in tree(cache) if path.startswith((b"old/", b"new/"))}


def followed(cache: ArenaCache, before: dict[bytes, int]) -> dict[bytes, int]:
    """Return where the nodes are now that there were before."""
    known = set(before.values())
    return {path: number for path, number in nodes(cache).items() if number in known}


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.sampled_from(CASES), min_size=FILES, max_size=FILES),
    st.sampled_from(list(Mark)),
    st.dictionaries(st.sampled_from([b"old", b"new"]), st.sampled_from(list(Mark))),
)
def test_many_at_once_are_the_same_as_a_few_at_a_time(
    cases: list[str], mark: Mark, marked: dict[bytes, Mark]
) -> None:
    with memory_cache(mark) as one, memory_cache(mark) as other:
        for cache in (one, other):
            with cache.write():
                for path, own in marked.items():
                    cache.marks.set(cache.tree.ensure_dir(RelPath(path)), own)
            listed(cache, cases)
        before = nodes(one)
        assert nodes(other) == before
        renamed(one, cases, at_once=FILES)
        renamed(other, cases, at_once=20)
        assert tree(one) == tree(other)
        assert entries(one) == entries(other)
        assert marks(one) == marks(other)
        assert followed(one, before) == followed(other, before)
        assert one.graves.get(b"new/00") == other.graves.get(b"new/00")


@pytest.mark.parametrize("case", ["", "cached"])
def test_a_rename_of_many_costs_few_statements_and_no_content(cache: ArenaCache, case: str) -> None:
    listed(cache, [case] * FILES)
    before, records = nodes(cache), cache.history.last
    statements: list[str] = []
    cache.conn.trace_v2(1, lambda event: statements.append(event["sql"]))  # SQLITE_TRACE_STMT
    renamed(cache, [case] * FILES, at_once=FILES)
    cache.conn.trace_v2(0)
    assert nodes(cache) == {path.replace(b"old", b"new"): node for path, node in before.items()}
    assert len(statements) <= 10 * FILES + 40
    assert cache.history.last - records == (2 * FILES if case == "cached" else 0)
    held = [
        row for (path, peer), row in entries(cache).items() if peer == LOCAL_PEER and path.startswith(b"new/")
    ]
    assert [row[0] for row in held] == ([Holding.CACHED] * FILES if case == "cached" else [])


def test_what_is_cached_under_another_mark_now_is_looked_at(cache: ArenaCache) -> None:
    listed(cache, ["cached"] * FILES)
    with cache.write():
        cache.marks.set(cache.tree.ensure_dir(RelPath(b"new")), Mark.KEEP)
    renamed(cache, ["cached"] * FILES, at_once=FILES)
    assert dirty(cache) >= {names(number)[1] for number in range(FILES)}


def test_what_is_seen_of_many_renames_is_told_to_the_kernel(cache: ArenaCache) -> None:
    listed(cache, [""] * FILES)
    old = node(cache, b"old")
    told: list[Any] = []
    cache.listen(told.append)
    renamed(cache, [""] * FILES, at_once=FILES)
    assert len(told) == 1
    assert {(old, b"%02d" % number) for number in range(FILES)} <= set(told[0].gone)
    assert {old, node(cache, b"new")} <= told[0].listings
    assert set(tree(cache)) == {b"old", b"new", *(names(number)[1] for number in range(FILES))}
    hear(cache, A, deleted(b"old", a=2))
    assert b"old" not in tree(cache)
