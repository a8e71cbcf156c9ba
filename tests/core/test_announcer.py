"""What a peer is told: once per path, from where it was, or everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from core.announce import Batch, Phase
from core.announcer import Announcer
from core.cache import ArenaCache
from core.history import KEEP_ENTRIES, Op
from core.local import LocalEntries
from core.ports import Found, Hashed
from core.remote import RemoteEntries
from core.types import Hash, Holding, Kind, RelPath
from tests.core.caches import A, batch, deleted, file, hear, items_of, memory_cache, node, tree

pytestmark = pytest.mark.trio
ROOT = RelPath(b"")


@pytest.fixture
def cache() -> Iterator[ArenaCache]:
    with memory_cache() as cache:
        yield cache


def found(name: bytes, *, mtime_ns: int = 1, directory: bytes = b"") -> Found:
    return Found(RelPath(directory), name, Kind.FILE, 3, mtime_ns, 0o644, 7)


async def take(batches: AsyncIterator[Batch], count: int) -> list[Batch]:
    """Return the next batches; they are there already."""
    with trio.fail_after(5):
        return [await anext(batches) for _ in range(count)]


async def listing(announcer: Announcer, uuid: bytes = b"", seq: int = 0) -> list[Batch]:
    """Return the batches up to where the subscriber is up to date."""
    taken: list[Batch] = []
    with trio.fail_after(5):
        async for batch in announcer.batches(uuid, seq):
            taken.append(batch)
            if batch.phase.ends_listing:
                break
    return taken


async def test_an_empty_arena_is_still_a_whole_listing(cache: ArenaCache) -> None:
    batches = await listing(Announcer(cache))
    assert [batch.phase for batch in batches] == [Phase.CATCHUP_START, Phase.CATCHUP_COMPLETE]
    assert {(batch.uuid, batch.seq) for batch in batches} == {(cache.history.uuid, 0)}


async def test_who_knows_nothing_gets_everything(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([Found(ROOT, b"d", Kind.DIR, 0, 1, 0o755, 3), found(b"f", directory=b"d"), found(b"gone")])
    store.remove([RelPath(b"gone")])
    batches = await listing(Announcer(cache))
    told = dict(items_of(batches))
    assert set(told) == {b"d", b"d/f", b"gone"}
    assert told[b"gone"].holding == Holding.TOMBSTONE
    assert batches[-1].seq == cache.history.last


@pytest.mark.parametrize("case", ["another history", "ahead of us", "trimmed"])
async def test_who_cannot_be_served_from_history_gets_everything(cache: ArenaCache, case: str) -> None:
    store = LocalEntries(cache)
    store.record([found(b"a"), found(b"b")])
    uuid, seq = cache.history.uuid, 1
    if case == "another history":
        uuid = b"x" * 16
    elif case == "ahead of us":
        seq = 3
    else:
        with cache.write():
            cache.history.trim(2)
    batches = await listing(Announcer(cache), uuid, seq)
    assert batches[0].phase is Phase.CATCHUP_START
    assert set(dict(items_of(batches))) == {b"a", b"b"}


async def test_who_was_here_before_gets_what_followed(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"a")])
    seen = cache.history.last
    store.record([found(b"b")])
    batches = Announcer(cache).batches(cache.history.uuid, seen)
    hello, news = await take(batches, 2)
    assert (hello.phase, hello.seq, hello.groups) == (Phase.FOLLOW, seen, [])
    assert (news.phase, news.seq) == (Phase.FOLLOW, cache.history.last)
    assert set(dict(items_of([news]))) == {b"b"}


async def test_ten_edits_are_one_message(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"f")])
    seen = cache.history.last
    for mtime_ns in range(2, 12):
        store.record([found(b"f", mtime_ns=mtime_ns)])
    store.hashed([Hashed(RelPath(b"f"), 3, 11, 7, Hash(b"h" * 32), None)])
    assert cache.history.last == seen + 11
    _, news = await take(Announcer(cache).batches(cache.history.uuid, seen), 2)
    ((path, row),) = items_of([news])
    assert (path, row.mtime_ns, row.hash, news.seq) == (b"f", 11, b"h" * 32, cache.history.last)


async def test_changes_wake_the_subscriber(cache: ArenaCache) -> None:
    announcer, store = Announcer(cache), LocalEntries(cache)
    batches = announcer.batches(cache.history.uuid, 0)
    await take(batches, 1)
    heard: list[Batch] = []

    async def listen() -> None:
        heard.append(await anext(batches))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert not heard
        store.record([found(b"f")])
    assert set(dict(items_of(heard))) == {b"f"}


async def test_what_only_peers_hold_is_not_told(cache: ArenaCache) -> None:
    hear(cache, A, file(b"theirs", a=1))
    assert items_of(await listing(Announcer(cache))) == []


async def test_what_is_not_held_any_more_is_a_drop(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", a=1))
    cache.cached.add([node(cache, b"f")])
    seen = cache.history.last
    cache.cached.drop(b"1" * 32)
    _, news = await take(Announcer(cache).batches(cache.history.uuid, seen), 2)
    assert [row.holding for _, row in items_of([news])] == [Holding.DROPPED]


def renamed(cache: ArenaCache, old: bytes, new: bytes, *, a: int) -> None:
    """Hear from a peer that it renamed a file."""
    told = batch([file(new, a=a), deleted(old, a=a)], seq=2)
    told.groups[0].renamed_from = [old, b""]
    RemoteEntries(cache).apply(A, "a", told)


async def test_a_drop_is_told_of_the_path_where_it_was_though_the_node_has_moved(cache: ArenaCache) -> None:
    hear(cache, A, file(b"old", a=1))
    cache.cached.add([node(cache, b"old")])
    seen = cache.history.last
    cache.cached.drop(b"1" * 32)
    moved = node(cache, b"old")
    renamed(cache, b"old", b"new", a=2)
    assert node(cache, b"new") == moved
    _, news = await take(Announcer(cache).batches(cache.history.uuid, seen), 2)
    assert {path: row.holding for path, row in items_of([news])}[b"old"] == Holding.DROPPED


async def test_a_deletion_is_told_of_its_path_though_a_peer_renamed_a_file_to_it(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"new")])
    seen = cache.history.last
    store.remove([RelPath(b"new")])
    hear(cache, A, file(b"old", a=1))
    renamed(cache, b"old", b"new", a=2)
    _, news = await take(Announcer(cache).batches(cache.history.uuid, seen), 2)
    told = {path: row.holding for path, row in items_of([news])}
    assert told == {b"old": Holding.DROPPED, b"new": Holding.TOMBSTONE}


async def test_a_rename_elsewhere_is_no_news_of_who_holds_nothing_of_it(cache: ArenaCache) -> None:
    hear(cache, A, file(b"old", a=1))
    renamed(cache, b"old", b"new", a=2)
    assert cache.history.last == 0


async def test_a_subscriber_ends_with_the_same_tree_however_it_was_told(cache: ArenaCache) -> None:
    store, announcer = LocalEntries(cache), Announcer(cache)
    with memory_cache() as followed, memory_cache() as listed:
        batches = announcer.batches(cache.history.uuid, 0)
        followed_seq = 0
        for step in (
            [found(b"a"), found(b"b")],
            [
                found(b"b", mtime_ns=2),
                Found(ROOT, b"d", Kind.DIR, 0, 1, 0o700, 3),
                found(b"c", directory=b"d"),
            ],
            [Found(ROOT, b"l", Kind.SYMLINK, 0, 1, 0o777, 4, b"to")],
        ):
            store.record(step)
            store.remove([RelPath(b"a")])
            while followed_seq < cache.history.last:
                (batch,) = await take(batches, 1)
                hear(followed, A, *items_of([batch]), seq=batch.seq)
                followed_seq = batch.seq
        for batch in await listing(announcer):
            hear(listed, A, *items_of([batch]), phase=batch.phase, seq=batch.seq)
        assert tree(followed) == tree(listed) == tree(cache)


async def test_many_entries_come_in_parts(cache: ArenaCache) -> None:
    LocalEntries(cache).record([found(b"%04d" % number) for number in range(2500)])
    batches = await listing(Announcer(cache))
    assert max(batch.count() for batch in batches) <= 500
    assert len(dict(items_of(batches))) == 2500


async def test_many_renames_come_in_smaller_parts(cache: ArenaCache) -> None:
    local, number = LocalEntries(cache), 350
    local.record([Found(ROOT, b"old", Kind.DIR, 0, 1, 0o755, 1)])
    local.record([found(b"%04d" % at, directory=b"old") for at in range(number)])
    announcer = Announcer(cache)
    seq = cache.history.last
    assert local.renamed(Found(ROOT, b"new", Kind.DIR, 0, 1, 0o755, 1, hash_from=RelPath(b"old")))
    batches = [
        batch async for batch in _until(announcer.batches(cache.history.uuid, seq), cache.history.last)
    ]
    assert max(batch.count() for batch in batches) <= 200
    told = dict(items_of(batches))
    assert {path.partition(b"/")[0] for path in told} == {b"old", b"new"}
    assert len(told) == 2 * (number + 1)


async def _until(batches: AsyncIterator[Batch], seq: int) -> AsyncIterator[Batch]:
    with trio.fail_after(5):
        async for batch in batches:
            yield batch
            if batch.seq >= seq:
                return


async def test_history_is_trimmed_by_acknowledgement_age_and_number(
    cache: ArenaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = cache.history
    with cache.write():
        for _ in range(10):
            history.append(1, Op.REPLACE)
    with cache.write():
        history.trim(4)
    assert (history.first(), history.last) == (5, 10)
    with cache.write():
        cache.conn.execute("UPDATE history SET at_s = 0 WHERE seq <= 6")
        history.trim(0)
    assert history.first() == 7
    monkeypatch.setattr("core.history.KEEP_ENTRIES", 2)
    with cache.write():
        history.trim(0)
    assert history.first() == 9
    assert KEEP_ENTRIES > 2
    with cache.write():
        history.trim(10)
    assert (history.first(), history.last) == (11, 10)
    assert history.can_follow(history.uuid, 10)
