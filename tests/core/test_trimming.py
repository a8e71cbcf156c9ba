"""Trimming: what nobody needs goes, in small steps, and nothing that was deleted comes back because of it."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.announce import Phase
from core.api import MarkChange
from core.cache import ArenaCache
from core.choice import Flag
from core.config import PeerConfig
from core.errors import NoHolderError
from core.events import ConflictChanged
from core.graves import KEEP_GRAVES_S, KEEP_UNACKNOWLEDGED_S
from core.history import Op
from core.local import LocalEntries
from core.mounting import MountService
from core.ports import Found
from core.trimming import trim, trim_step
from core.types import Hash, Holding, Inode, Kind, Mark, PeerKey, RelPath, Vector
from core.versions import EMPTY, decode, descends
from tests.core.caches import (
    H2,
    SELF,
    A,
    B,
    C,
    Item,
    deleted,
    dropped,
    file,
    folder,
    hear,
    kinds,
    memory_cache,
    node,
    tree,
    vector,
)
from tests.core.engines import Host, linked, until
from tests.core.test_tree_cache import announced

trio_test = pytest.mark.trio
ROOT = RelPath(b"")


@pytest.fixture
def cache() -> Iterator[ArenaCache]:
    with memory_cache() as cache:
        yield cache


def found(path: bytes, kind: Kind = Kind.FILE, *, mtime_ns: int = 1, ino: int = 7, old: bytes = b"") -> Found:
    directory, _, name = path.rpartition(b"/")
    return Found(
        RelPath(directory), name, kind, 3, mtime_ns, 0o644, ino, hash_from=RelPath(old) if old else None
    )


def trimmed(
    cache: ArenaCache, acknowledged: int | None = None, after_s: int = 0, *, busy: bool = False
) -> None:
    """Trim all that may go; every peer has acknowledged everything if nothing else is said."""
    if not busy:
        with cache.write():
            cache.conn.execute("DELETE FROM dirty")  # as churten would, which is not here
    now_s = int(time.time()) + after_s
    while trim_step(cache, cache.history.last if acknowledged is None else acknowledged, now_s):
        pass


def paths(cache: ArenaCache) -> set[bytes]:
    """Return all paths that have a node, shown or not."""
    return {cache.tree.path(id_) for (id_,) in cache.conn.execute("SELECT id FROM node WHERE parent <> 0")}


def flags(cache: ArenaCache, path: bytes) -> int:
    return cache.shown(node(cache, path)).flags


def told(cache: ArenaCache, after: int) -> list[tuple[bytes, int]]:
    return [(cache.tree.path(row.node), row.op) for row in cache.history.after(after, 100)]


# -- what goes, and when


def test_a_tombstone_goes_when_every_peer_has_acknowledged_it_and_not_before(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"f"), found(b"stays")])
    store.remove([RelPath(b"f")])
    trimmed(cache, cache.history.last - 1)
    assert paths(cache) == {b"f", b"stays"}
    trimmed(cache)
    assert paths(cache) == {b"stays"}
    assert not cache.conn.execute("SELECT 1 FROM entry WHERE holding = 0").fetchall()


def test_a_tombstone_goes_after_ninety_days_whoever_lacks_it(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"f")])
    store.remove([RelPath(b"f")])
    with cache.write():
        cache.conn.execute("UPDATE history SET at_s = at_s - 40 * 86400")  # so that it is trimmed by age
    trimmed(cache, 0, KEEP_UNACKNOWLEDGED_S - 60)
    assert paths(cache) == {b"f"}
    trimmed(cache, 0, KEEP_UNACKNOWLEDGED_S + 60)
    assert paths(cache) == set()


def test_what_a_peer_may_still_be_told_from_history_does_not_go(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"f")])
    store.remove([RelPath(b"f")])
    trimmed(cache, 0, KEEP_UNACKNOWLEDGED_S + 60)
    assert paths(cache) == {b"f"}, "the entry of history is young: whoever follows it would miss the deletion"


def test_a_path_that_is_deleted_again_waits_again(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"f")])
    store.remove([RelPath(b"f")])
    first = cache.history.last
    trimmed(cache, 0)
    store.record([found(b"f", mtime_ns=2)])
    store.remove([RelPath(b"f")])
    trimmed(cache, first)
    assert paths(cache) == {b"f"}
    trimmed(cache)
    assert paths(cache) == set()


def test_nodes_left_with_nothing_go_too(cache: ArenaCache) -> None:
    hear(cache, A, file(b"d/e/f", a=1), file(b"g", a=1))
    hear(cache, A, dropped(b"d/e/f"), seq=2)
    trimmed(cache)
    assert paths(cache) == {b"g"}
    assert not cache.graves, "nobody deleted it"


def test_a_deleted_tree_goes_as_a_whole(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    deep = b"/".join([b"d"] * 40)
    store.record([found(deep[: 2 * depth + 1], Kind.DIR) for depth in range(40)])
    store.record([found(deep + b"/f")])
    store.remove([RelPath(b"d")])
    trimmed(cache)
    assert paths(cache) == set()
    assert cache.tree.find(deep) is None


@pytest.mark.parametrize("why", ["claimed", "marked", "work", "something in it", "shown"])
def test_what_is_needed_stays(cache: ArenaCache, why: str) -> None:
    hear(cache, A, deleted(b"f", a=2, b=1))
    found_node = node(cache, b"f")
    match why:
        case "claimed":
            hear(cache, B, file(b"f", b=1))
        case "marked":
            with cache.write():
                cache.marks.set(found_node, Mark.KEEP)
        case "work":
            with cache.write():
                cache.mark_dirty([found_node])
        case "something in it":
            hear(cache, B, file(b"f/below", b=1))
        case _:
            hear(cache, B, file(b"f", b=2))
    trimmed(cache, busy=True)
    assert b"f" in paths(cache)
    assert [entry.peer for entry in cache.entries(found_node)][:1] == [cache.peer_id(A)]
    if why == "claimed":
        hear(cache, B, dropped(b"f"), seq=2)
        trimmed(cache)
        assert b"f" in paths(cache), "it is looked at again the next day"
        trimmed(cache, after_s=86_500)
        assert paths(cache) == set()


def test_a_step_is_small_and_scans_nothing(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"%05d" % number, ino=number) for number in range(12_000)])
    store.remove([RelPath(b"%05d" % number) for number in range(12_000)])
    with cache.write():
        cache.conn.execute("DELETE FROM dirty")
    statements: set[str] = set()

    def note(cursor: object, sql: str, bindings: object) -> bool:
        statements.add(sql)
        return True

    cache.conn.set_exec_trace(note)
    steps, most = 0, 0
    more = True
    while more:
        before = cache.conn.total_changes()
        more = trim_step(cache, cache.history.last, int(time.time()))
        steps, most = steps + 1, max(most, cache.conn.total_changes() - before)
    cache.conn.set_exec_trace(None)
    assert paths(cache) == set()
    assert most <= 5000
    assert steps > 40
    for sql in statements:
        if sql.split()[0] in ("SELECT", "UPDATE", "DELETE"):
            plan: Any = cache.conn.execute(
                f"EXPLAIN QUERY PLAN {sql}", [0] * (1 if "?1" in sql else sql.count("?"))
            ).fetchall()
            assert not [row for row in plan if row[3].startswith("SCAN") and "CONSTANT" not in row[3]], sql


# -- what turns up afterwards


def _knows_itself(said: dict[tuple[PeerKey, bytes], Vector], peer: PeerKey, item: Item) -> bool:
    """Say whether a peer says nothing that it deleted itself before; without that it may take it back."""
    path, row = item
    if not descends(Vector(row.vector), said.get((peer, path), EMPTY)):
        return False
    if row.holding == Holding.TOMBSTONE:
        said[peer, path] = Vector(row.vector)
    return True


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(dict.fromkeys((A, B, C), st.lists(st.lists(announced, max_size=4), max_size=4))),
    st.randoms(use_true_random=False),
)
def test_trimming_makes_no_difference(words: dict[PeerKey, list[list[Item]]], rng: random.Random) -> None:
    with memory_cache() as whole, memory_cache() as trims:
        said: dict[tuple[PeerKey, bytes], Vector] = {}
        left = {peer: list(enumerate(batches, 1)) for peer, batches in words.items() if batches}
        while left:
            peer = rng.choice(sorted(left))
            seq, items = left[peer].pop(0)
            items = [item for item in items if _knows_itself(said, peer, item)]
            for cache in (whole, trims):
                hear(cache, peer, *items, seq=seq)
            if rng.random() < 0.6:
                trimmed(trims)
            assert tree(whole) == tree(trims)
            if not left[peer]:
                del left[peer]


def _deleted_and_trimmed(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", a=1), folder(b"d", a=1), file(b"d/f", a=1))
    hear(cache, A, deleted(b"d/f", a=1, b=2), deleted(b"d", a=2), deleted(b"f", a=1, b=2), seq=2)
    trimmed(cache)
    assert paths(cache) == set()


@pytest.mark.parametrize("phase", [Phase.FOLLOW, Phase.CATCHUP_START])
def test_a_version_from_before_the_deletion_stays_deleted_and_its_holder_is_told(
    cache: ArenaCache, phase: Phase
) -> None:
    _deleted_and_trimmed(cache)
    last = cache.history.last
    hear(cache, C, file(b"f", a=1), file(b"d/f", b=1), phase=phase)
    assert kinds(cache) == {}
    assert {(path, op) for path, op in told(cache, last)} == {
        (b"f", Op.REMOVE), (b"d/f", Op.REMOVE), (b"d", Op.REMOVE),
    }  # fmt: skip
    own = cache.local_entry(node(cache, b"f"))
    assert own is not None
    assert (own.holding, own.vector) == (Holding.TOMBSTONE, vector(a=1, b=2))


def test_a_change_that_did_not_know_of_the_deletion_is_flagged(cache: ArenaCache) -> None:
    _deleted_and_trimmed(cache)
    hear(cache, C, file(b"f", H2, a=1, c=1))
    assert kinds(cache) == {b"f": Kind.FILE}
    assert flags(cache, b"f") == Flag.REVIVED


def test_what_was_made_after_the_deletion_is_new(cache: ArenaCache) -> None:
    _deleted_and_trimmed(cache)
    hear(cache, C, file(b"f", H2, a=1, b=2, c=1), file(b"g", a=1))
    assert kinds(cache) == {b"f": Kind.FILE, b"g": Kind.FILE}
    assert flags(cache, b"f") == flags(cache, b"g") == 0
    assert [entry.peer for entry in cache.entries(node(cache, b"f"))] == [cache.peer_id(C)]


def test_another_deletion_of_a_trimmed_path_makes_no_node(cache: ArenaCache) -> None:
    _deleted_and_trimmed(cache)
    hear(cache, C, deleted(b"f", c=3))
    assert paths(cache) == set()
    hear(cache, B, file(b"f", c=3))
    assert kinds(cache) == {}
    assert cache.shown(node(cache, b"f")).vector == vector(a=1, b=2, c=3)


def test_a_file_made_here_again_comes_after_its_deletion(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([found(b"f")])
    store.remove([RelPath(b"f")])
    entry = cache.local_entry(node(cache, b"f"))
    assert entry is not None
    trimmed(cache)
    store.record([found(b"f", mtime_ns=2)])
    again = cache.local_entry(node(cache, b"f"))
    assert again is not None
    assert descends(Vector(again.vector), Vector(entry.vector))
    assert again.vector != entry.vector
    assert not cache.graves.get(b"f")


def test_a_directory_renamed_to_where_a_deleted_one_was_brings_no_conflicts(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    with memory_cache() as peer:
        store.record([found(b"old", Kind.DIR, ino=2), found(b"new", Kind.DIR, ino=1)])
        store.record([found(b"new/f", ino=3)])
        store.record([found(b"old/f", ino=4)])
        store.remove([RelPath(b"new")])
        gone = {path: Vector(cache.entries(node(cache, path))[0].vector) for path in (b"new", b"new/f")}
        trimmed(cache)
        assert paths(cache) == {b"old", b"old/f"}
        assert store.renamed(found(b"new", Kind.DIR, ino=2, old=b"old"))
        for path, deletion in gone.items():
            own = cache.local_entry(node(cache, path))
            assert own is not None
            assert own.holding == Holding.REAL
            assert descends(Vector(own.vector), deletion)
        del peer


def test_what_is_not_listed_any_more_stays_deleted(cache: ArenaCache) -> None:
    hear(cache, A, deleted(b"f", a=2))
    hear(cache, B, file(b"f", a=1))
    hear(cache, A, phase=Phase.CATCHUP_START, uuid=b"v" * 16)
    hear(cache, A, phase=Phase.CATCHUP_COMPLETE, uuid=b"v" * 16)
    assert kinds(cache) == {}, "A trimmed the deletion; it was one all the same"


def test_what_a_forgotten_peer_deleted_stays_deleted(cache: ArenaCache) -> None:
    hear(cache, A, deleted(b"f", a=2), deleted(b"g", a=2), file(b"h", a=1))
    hear(cache, B, file(b"f", a=1))
    cache.forget_peers([B])
    assert kinds(cache) == {}
    own = cache.local_entry(node(cache, b"f"))
    assert own is not None
    assert (own.holding, own.vector) == (Holding.TOMBSTONE, vector(a=2))
    trimmed(cache)
    assert paths(cache) == {b"f"}


@trio_test
async def test_when_even_the_graves_are_forgotten_what_is_listed_is_flagged(cache: ArenaCache) -> None:
    _deleted_and_trimmed(cache)
    await trim(cache, 0, int(time.time()) + KEEP_GRAVES_S - 60)
    assert cache.graves.get(b"f")
    await trim(cache, 0, int(time.time()) + KEEP_GRAVES_S + 60)
    assert not cache.graves.get(b"f")
    hear(cache, C, file(b"f", a=1), file(b"never/seen", a=1, c=1), phase=Phase.CATCHUP_START)
    assert flags(cache, b"f") == Flag.REVIVED
    assert flags(cache, b"never/seen") == 0
    hear(cache, B, file(b"told", a=1), seq=2)
    assert flags(cache, b"told") == 0, "what is told as it happens is new"


@trio_test
async def test_a_counter_of_a_forgotten_path_is_not_given_again(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", a=1, me=8))
    hear(cache, A, deleted(b"f", a=2, me=8), seq=2)
    trimmed(cache)
    await trim(cache, 0, int(time.time()) + KEEP_GRAVES_S + 60)
    LocalEntries(cache).record([found(b"f")])
    own = cache.local_entry(node(cache, b"f"))
    assert own is not None
    assert decode(Vector(own.vector)) == {SELF: 9}


# -- whole hosts


def _configure(host: Host, *peers: str) -> None:
    """Change the peers in the config of a host that is stopped."""
    host.peers = peers
    host.config = dataclasses.replace(host.config, peers=tuple(PeerConfig(peer, "") for peer in peers))


def _household(base: Path) -> list[Host]:
    names = ("anna", "bert", "carl")
    return [Host(base, name, [n for n in names if n != name], mark=Mark.OWN) for name in names]


async def _all_have(content: dict[bytes, bytes], *hosts: Host) -> None:
    await until(lambda: all(host.real() == content for host in hosts))
    for host in hosts:
        await host.idle()


def _has_node(host: Host, path: bytes) -> bool:
    return host.arena.cache.tree.find(path) is not None


_MONTHS_S = 100 * 86_400


async def _trim_everything(*hosts: Host) -> None:
    """Trim as 100 days later, when all entries of history are old too."""
    for host in hosts:
        with host.arena.cache.write():
            host.arena.cache.conn.execute("UPDATE history SET at_s = 0")
        await host.running.trim(int(time.time()) + _MONTHS_S)


@trio_test
@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("changed", [False, True])
async def test_a_peer_that_comes_back_after_trimming_resurrects_nothing_silently(
    tmp_path: Path, forgotten: bool, changed: bool
) -> None:
    anna, bert, carl = hosts = _household(tmp_path)
    anna.write("f", b"old")
    anna.write("d/g", b"stays")
    async with anna.up(), bert.up(), carl.up(), linked(*hosts):
        await _all_have({b"f": b"old", b"d/g": b"stays"}, *hosts)
    if forgotten:
        _configure(anna, "bert")
        _configure(bert, "anna")
    async with anna.up(), bert.up():
        async with linked(anna, bert):
            (anna.data / "f").unlink()
            await _all_have({b"d/g": b"stays"}, anna, bert)
        await _trim_everything(anna, bert)
        assert _has_node(anna, b"f") == _has_node(bert, b"f") == (not forgotten)
    _configure(anna, "bert", "carl")
    _configure(bert, "anna", "carl")
    if changed:
        carl.write("f", b"changed meanwhile")
    async with anna.up(), bert.up(), carl.up():
        for host in hosts:
            await host.idle()
        async with linked(*hosts):
            if changed:
                await _all_have({b"f": b"changed meanwhile", b"d/g": b"stays"}, *hosts)
                told = [e for host in hosts for e in host.events if isinstance(e, ConflictChanged)]
                assert any(event.revived for event in told), "it came back, and not silently"
            else:
                await _all_have({b"d/g": b"stays"}, *hosts)
                assert [bytes(row.at.path) for row in await carl.service.trash_list()] == [b"f"]
            trees = [await host.tree() for host in hosts]
            assert trees[0] == trees[1] == trees[2]


@trio_test
async def test_a_host_that_was_away_itself_brings_nothing_back_to_itself(tmp_path: Path) -> None:
    anna, bert, carl = hosts = _household(tmp_path)
    anna.write("f", b"old")
    anna.write("g", b"stays")
    async with anna.up(), bert.up(), carl.up(), linked(*hosts):
        await _all_have({b"f": b"old", b"g": b"stays"}, *hosts)
    async with carl.up():
        (carl.data / "f").unlink()
        await carl.idle()
        await _trim_everything(carl)
        assert carl.arena.cache.history.first() == carl.arena.cache.history.last + 1
    for other in (anna, bert):
        async with other.up(), carl.up(), linked(other, carl):
            await _all_have({b"g": b"stays"}, other, carl)
            await _trim_everything(carl)


@trio_test
async def test_a_peer_that_was_removed_is_not_waited_for(tmp_path: Path) -> None:
    anna, bert, carl = _household(tmp_path)
    anna.write("f", b"old")
    async with anna.up(), bert.up(), linked(anna, bert):
        await _all_have({b"f": b"old"}, anna, bert)
        (anna.data / "f").unlink()
        await _all_have({}, anna, bert)
        await anna.running.trim()
        assert _has_node(anna, b"f"), "carl has not acknowledged anything"
    _configure(anna, "bert")
    async with anna.up(), bert.up(), linked(anna, bert):
        await anna.idle()
        await anna.running.trim()
        assert not _has_node(anna, b"f")
        assert anna.arena.cache.history.first() == anna.arena.cache.history.last + 1
    _configure(anna, "bert", "carl")
    async with anna.up(), carl.up(), linked(anna, carl):
        await until(lambda: anna.arena.cache.acknowledged(carl.key) == anna.arena.cache.history.last)
        for host in (anna, carl):
            await host.idle()
            assert await host.tree() == {}


@trio_test
async def test_a_removed_peer_is_forgotten_and_known_again_when_it_is_added(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    anna.write("a", b"anna's")
    bert.write("b", b"bert's")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: anna.node("b") and bert.node("a"))
        await anna.idle()
    _configure(anna)
    async with anna.up():
        await anna.idle()
        assert set(await anna.tree()) == {b"a"}
        assert anna.arena.cache.position(bert.key) == (b"", 0)
        assert not anna.arena.cache.conn.execute("SELECT 1 FROM entry WHERE peer <> 0").fetchall()
    _configure(anna, "bert")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: anna.node("b"))
        assert set(await anna.tree()) == set(await bert.tree()) == {b"a", b"b"}


@trio_test
async def test_an_open_file_that_was_deleted_and_trimmed_is_no_error_of_ours(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    anna.write("f", b"x" * 1000)
    async with anna.up():
        await anna.idle()
        inode = anna.node("f")
        assert inode is not None
        content = Hash(anna.arena.cache.shown(inode).hash or b"")
        vector = Vector(anna.arena.cache.shown(inode).vector)
        (anna.data / "f").unlink()
        await until(lambda: anna.node("f") is None)
        await anna.idle()
        await anna.running.trim()
        assert not _has_node(anna, b"f")
        mount = MountService(anna.running, no_marks, no_status)
        with pytest.raises(NoHolderError):
            await mount.fetch("docs", Inode(inode), content, 1000, 0, 1000, 0)
        with pytest.raises(NoHolderError):
            await mount.read_unhashed("docs", Inode(inode), vector, 0, 10)


async def no_marks(changes: list[MarkChange]) -> None:
    raise AssertionError("no mark is set here")


async def no_status() -> bytes:
    raise AssertionError("nobody asks")
