"""The cache of an arena: what peers announce, in whatever order, and what is shown of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from core.announce import Phase
from core.cache import ArenaCache
from core.changes import Changes
from core.choice import LOCAL_PEER, EntryRow, Flag
from core.errors import StoreError
from core.events import ConflictChanged, FileChanged
from core.history import Op
from core.local import LocalEntries
from core.paths import split
from core.ports import Found
from core.remote import RemoteEntries
from core.types import Holding, Kind, Mark, PeerKey, RelPath, Vector
from core.versions import bump, encode
from core.work import WorkQueue
from tests.core.caches import (
    H1,
    H2,
    H3,
    SELF,
    UUID,
    A,
    B,
    C,
    Item,
    batch,
    deleted,
    dirty,
    dropped,
    file,
    folder,
    hear,
    kinds,
    link,
    memory_cache,
    node,
    tree,
    vector,
)


@pytest.fixture
def cache() -> Iterator[ArenaCache]:
    with memory_cache() as cache:
        yield cache


def changes_of(cache: ArenaCache) -> list[Changes]:
    heard: list[Changes] = []
    cache.listen(heard.append)
    return heard


# -- the tree


def test_paths_go_both_ways(cache: ArenaCache) -> None:
    hear(cache, A, file(b"d/e/\xff\n", a=1))
    found = node(cache, b"d/e/\xff\n")
    assert cache.tree.path(found) == b"d/e/\xff\n"
    assert [cache.tree.path(at) for at in cache.tree.ancestors(found)] == [b"d/e", b"d", b""]
    assert cache.tree.find(b"d/nothing") is None
    assert cache.tree.find(b"no/such") is None
    assert cache.tree.find(b"") == cache.root


def test_a_moved_directory_takes_its_paths_along(cache: ArenaCache) -> None:
    hear(cache, A, file(b"old/f", a=1))
    found = node(cache, b"old/f")
    assert cache.tree.directory_path(node(cache, b"old")) == b"old"
    with cache.write():
        cache.conn.execute("UPDATE node SET name = ? WHERE id = ?", (b"new", node(cache, b"old")))
        cache.tree.moved()
    assert cache.tree.path(found) == b"new/f"
    assert cache.tree.find(b"old/f") is None
    assert cache.tree.find(b"new/f") == found


def test_nothing_below_a_renamed_directory_is_remembered_at_its_old_path(cache: ArenaCache) -> None:
    local = LocalEntries(cache)

    def found(path: bytes, kind: Kind, ino: int) -> Found:
        directory, name = split(path)
        return Found(RelPath(directory), name, kind, 3, 1, 0o755, ino)

    local.record([found(b"d", Kind.DIR, 1), found(b"d/e", Kind.DIR, 2), found(b"d/e/f", Kind.FILE, 3)])
    cache.tree.moved()  # as after a restart: nothing is remembered, and then only what is asked for
    local.record([found(b"d/e/g", Kind.FILE, 4)])
    assert local.renamed(found(b"new", Kind.DIR, 1)._replace(hash_from=RelPath(b"d")))
    local.record([found(b"d", Kind.DIR, 5), found(b"d/e", Kind.DIR, 6), found(b"d/e/h", Kind.FILE, 7)])
    assert set(kinds(cache)) >= {b"d/e/h", b"new/e/f", b"new/e/g"}
    assert b"new/e/h" not in kinds(cache)


def test_what_was_rolled_back_is_not_remembered(cache: ArenaCache) -> None:
    def fail() -> None:
        with cache.write():
            cache.tree.ensure_dir(RelPath(b"a/b"))
            cache.peer_id(A)
            cache.history.append(1, Op.ADD)
            raise StoreError("no")

    with pytest.raises(StoreError):
        fail()
    assert cache.tree.find(b"a/b") is None
    assert cache.history.last == 0
    hear(cache, A, file(b"a/b/f", a=1))
    assert cache.position(A) == (UUID, 1)
    assert kinds(cache)[b"a/b/f"] is Kind.FILE


# -- announcements


def test_what_a_peer_holds_is_shown(cache: ArenaCache) -> None:
    hear(cache, A, folder(b"d", a=1), file(b"d/f", a=1), link(b"d/l", b"f", a=1))
    assert kinds(cache) == {b"d": Kind.DIR, b"d/f": Kind.FILE, b"d/l": Kind.SYMLINK}
    assert cache.shown(node(cache, b"d/l")).target == b"f"


def test_the_last_word_of_a_peer_counts(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", H1, a=1))
    hear(cache, A, file(b"f", H2, a=2), seq=2)
    assert cache.shown(node(cache, b"f")).hash == H2
    assert len(cache.entries(node(cache, b"f"))) == 1
    assert cache.position(A) == (UUID, 2)


def test_a_deletion_hides_a_file_and_a_drop_only_takes_back_a_holder(cache: ArenaCache) -> None:
    for peer in (A, B):
        hear(cache, peer, file(b"f", a=1))
    hear(cache, B, dropped(b"f"), seq=2)
    assert kinds(cache) == {b"f": Kind.FILE}
    hear(cache, A, dropped(b"f"), seq=2)
    assert kinds(cache) == {}
    hear(cache, A, file(b"f", a=1), seq=3)
    hear(cache, B, deleted(b"f", a=1, b=1), seq=3)
    assert kinds(cache) == {}
    hear(cache, C, file(b"f", a=1))
    assert kinds(cache) == {}


def test_a_name_may_come_twice_in_a_batch(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", H1, a=1), file(b"f", H2, a=2))
    assert cache.shown(node(cache, b"f")).hash == H2


def test_directories_are_visible_while_something_is_in_them(cache: ArenaCache) -> None:
    hear(cache, A, file(b"d/e/f", a=1))
    assert kinds(cache) == {b"d": Kind.DIR, b"d/e": Kind.DIR, b"d/e/f": Kind.FILE}
    hear(cache, A, deleted(b"d/e/f", a=2), seq=2)
    assert kinds(cache) == {}


def test_a_deleted_directory_stays_while_another_peer_has_something_in_it(cache: ArenaCache) -> None:
    hear(cache, A, folder(b"d", a=1), file(b"d/f", a=1))
    hear(cache, B, file(b"d/g", b=1))
    hear(cache, A, deleted(b"d/f", a=2), deleted(b"d", a=2), seq=2)
    assert kinds(cache) == {b"d": Kind.DIR, b"d/g": Kind.FILE}
    hear(cache, B, deleted(b"d/g", b=2), seq=2)
    assert kinds(cache) == {}


def test_directories_are_visible_while_what_a_peer_renamed_is_in_them(cache: ArenaCache) -> None:
    hear(cache, A, file(b"old/f", a=1), deleted(b"new", a=1))
    cache.cached.add([node(cache, b"old/f")])
    renamed = batch([file(b"new/f", a=2)])
    renamed.groups[0].renamed_from = [b"old/f"]
    RemoteEntries(cache).apply(A, "a", renamed)
    hear(cache, A, deleted(b"old/f", a=2))
    assert kinds(cache) == {b"new": Kind.DIR, b"new/f": Kind.FILE}
    assert cache.shown(node(cache, b"new/f")).local == Holding.CACHED


def _renamed(cache: ArenaCache, old: bytes, new: bytes, count: int) -> None:
    """Hear of a renamed file, and look at both paths."""
    one = batch([file(new, a=count)])
    one.groups[0].renamed_from = [old]
    RemoteEntries(cache).apply(A, "a", one)
    hear(cache, A, deleted(old, a=count))
    with cache.write():
        cache.conn.execute("DELETE FROM dirty")


def test_where_a_real_file_was_to_be_renamed_to_is_looked_at_when_its_user_deletes_it(
    cache: ArenaCache,
) -> None:
    _hold(cache, file(b"old", a=1))
    hear(cache, A, file(b"old", a=1))
    _renamed(cache, b"old", b"new", 2)
    LocalEntries(cache).remove([RelPath(b"old")])
    assert dirty(cache) == {b"old", b"new"}


def test_where_a_real_file_was_to_be_renamed_to_is_looked_at_when_another_peer_changed_it(
    cache: ArenaCache,
) -> None:
    _hold(cache, file(b"old", a=1))
    hear(cache, A, file(b"old", a=1))
    _renamed(cache, b"old", b"new", 2)
    hear(cache, B, file(b"old", H2, a=1, b=1))
    assert dirty(cache) == {b"old", b"new"}


def test_where_a_real_file_was_to_be_renamed_to_is_looked_at_when_another_peer_renamed_it(
    cache: ArenaCache,
) -> None:
    _hold(cache, file(b"old", a=1))
    for peer in (A, B):
        hear(cache, peer, file(b"old", a=1))
    _renamed(cache, b"old", b"new", 2)
    other = batch([file(b"other", b=1)])
    other.groups[0].renamed_from = [b"old"]
    RemoteEntries(cache).apply(B, "b", other)
    assert dirty(cache) == {b"old", b"new"}


def test_an_empty_directory_that_is_announced_is_visible(cache: ArenaCache) -> None:
    hear(cache, A, folder(b"d", a=1))
    assert kinds(cache) == {b"d": Kind.DIR}


# -- listings


def test_what_a_full_listing_leaves_out_is_dropped_for_that_peer_only(cache: ArenaCache) -> None:
    hear(cache, A, file(b"both", a=1), file(b"only", a=1))
    hear(cache, B, file(b"both", a=1))
    hear(cache, A, phase=Phase.CATCHUP_START, seq=9, uuid=b"v" * 16)
    hear(cache, A, file(b"new", a=1), phase=Phase.CATCHUP, seq=9, uuid=b"v" * 16)
    assert set(kinds(cache)) == {b"both", b"only", b"new"}
    assert cache.position(A) == (UUID, 1)
    hear(cache, A, phase=Phase.CATCHUP_COMPLETE, seq=9, uuid=b"v" * 16)
    assert set(kinds(cache)) == {b"both", b"new"}
    assert [entry.peer for entry in cache.entries(node(cache, b"both"))] == [cache.peer_id(B)]
    assert cache.position(A) == (b"v" * 16, 9)


def test_an_empty_listing_drops_everything_and_deletes_nothing(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", a=1))
    hear(cache, A, phase=Phase.CATCHUP_START)
    hear(cache, A, phase=Phase.CATCHUP_COMPLETE)
    assert kinds(cache) == {}
    assert cache.entries(node(cache, b"f")) == []


def test_a_broken_off_listing_begins_again(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", a=1), file(b"g", a=1))
    hear(cache, A, file(b"f", a=1), phase=Phase.CATCHUP_START, seq=5)
    hear(cache, A, file(b"g", a=1), phase=Phase.CATCHUP_START, seq=6)
    hear(cache, A, phase=Phase.CATCHUP_COMPLETE, seq=6)
    assert set(kinds(cache)) == {b"g"}


def test_a_peer_that_is_not_configured_any_more_is_forgotten(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", a=1), file(b"both", a=1))
    hear(cache, B, file(b"both", a=1))
    cache.forget_peers([B])
    assert set(kinds(cache)) == {b"both"}
    assert cache.position(A) == (b"", 0)


# -- what is told


def test_one_change_is_told_once(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", a=1))
    heard = changes_of(cache)
    hear(cache, A, file(b"f", H2, a=2), seq=2)
    assert [event.what for event in heard[0].events if isinstance(event, FileChanged)] == ["replaced"]
    hear(cache, A, file(b"f", H2, a=2), seq=3)
    assert not any(change.listings for change in heard)
    assert heard[0].nodes == {node(cache, b"f")}


def test_the_first_hash_of_a_version_and_its_repetition_are_no_change(cache: ArenaCache) -> None:
    heard = changes_of(cache)
    hear(cache, A, file(b"f", None, a=1))
    hear(cache, A, file(b"f", H1, a=1), seq=2)
    hear(cache, A, file(b"f", None, a=2), seq=3)
    hear(cache, A, file(b"f", H2, a=2), seq=4)
    hear(cache, B, file(b"f", H2, a=2, b=1))
    hear(cache, A, file(b"f", H2, a=2, b=1), seq=5)
    hear(cache, A, file(b"f", H2, mtime_ns=2, a=3, b=1), seq=6)
    hear(cache, A, file(b"f", None, a=4, b=1), seq=7)
    hear(cache, A, file(b"f", H3, a=4, b=1), seq=8)
    told = [event.what for change in heard for event in change.events if isinstance(event, FileChanged)]
    assert told == ["added", "replaced", "replaced"]


def test_what_comes_back_after_a_deletion_is_added(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", H1, a=1))
    heard = changes_of(cache)
    hear(cache, A, deleted(b"f", a=2), seq=2)
    hear(cache, A, file(b"f", H1, a=3), seq=3)
    hear(cache, B, dropped(b"f"))
    told = [event.what for change in heard for event in change.events if isinstance(event, FileChanged)]
    assert told == ["removed", "added"]


def test_conflicts_are_told_when_they_come_and_go(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", H1, a=1))
    heard = changes_of(cache)
    hear(cache, B, file(b"f", H2, b=1))
    assert cache.shown(node(cache, b"f")).flags & Flag.CONFLICT
    hear(cache, A, file(b"f", H2, a=2, b=1), seq=2)
    assert not cache.shown(node(cache, b"f")).flags & Flag.CONFLICT
    told = [
        event.resolved for change in heard for event in change.events if isinstance(event, ConflictChanged)
    ]
    assert told == [False, True]


def test_only_what_churten_could_do_something_about_is_dirty(cache: ArenaCache) -> None:
    hear(cache, A, folder(b"kept", a=1), file(b"kept/old", a=1), file(b"other", a=1))
    assert dirty(cache) == set()
    with cache.write():
        cache.marks.set(node(cache, b"kept"), Mark.KEEP)
    hear(cache, A, file(b"kept/new", a=1), file(b"kept/old", H2, a=2), file(b"other", H2, a=2), seq=2)
    assert dirty(cache) == {b"kept/new", b"kept/old"}


# -- what this host holds


def _hold(cache: ArenaCache, item: Item, holding: Holding = Holding.REAL) -> None:
    path, row = item
    with cache.write():
        found = cache.tree.ensure_child(cache.tree.ensure_dir(RelPath(path.rpartition(b"/")[0])), path)
        cache.put_entry(found, row._replace(peer=LOCAL_PEER, holding=int(holding)))
        cache.refresh(found)


def test_a_change_here_descends_from_what_is_shown_here(cache: ArenaCache) -> None:
    _hold(cache, file(b"f", H1, a=1))
    hear(cache, B, file(b"f", H1, b=4))
    assert cache.next_vector(node(cache, b"f")) == vector(a=1, b=4, me=1)


def test_a_change_of_an_outdated_file_does_not_know_what_replaced_it(cache: ArenaCache) -> None:
    _hold(cache, file(b"f", H1, a=1))
    hear(cache, A, file(b"f", H2, a=2))
    assert cache.next_vector(node(cache, b"f")) == vector(a=1, me=1)


def test_what_is_made_where_all_have_deleted_comes_after_the_deletions(cache: ArenaCache) -> None:
    hear(cache, A, file(b"d/f", H1, a=1), folder(b"d", a=1))
    hear(cache, A, deleted(b"d/f", a=2), deleted(b"d", a=2), seq=2)
    hear(cache, B, deleted(b"d/f", b=1))
    assert cache.next_vector(node(cache, b"d/f"), over_deletions=True) == vector(a=2, b=1, me=1)
    assert cache.next_vector(node(cache, b"d"), over_deletions=True) == vector(a=2, me=1)
    hear(cache, C, file(b"d/f", H2, c=1))
    assert cache.next_vector(node(cache, b"d/f"), over_deletions=True) == vector(me=1)


def test_a_counter_is_never_used_twice(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", H1, a=1, me=7))
    assert cache.next_vector(node(cache, b"f")) == vector(me=8)


def test_a_subtree_that_is_to_be_looked_at_stays_one_whatever_happens_to_its_top(cache: ArenaCache) -> None:
    hear(cache, A, folder(b"d", a=1), file(b"d/f", a=1))
    with cache.write():
        cache.mark_dirty([node(cache, b"d")], subtree=True)
        cache.mark_dirty([node(cache, b"d")])
    assert cache.conn.execute("SELECT subtree FROM dirty").fetchall() == [(1,)]


def test_what_is_superseded_here_is_looked_at(cache: ArenaCache) -> None:
    _hold(cache, file(b"f", H1, a=1))
    hear(cache, A, file(b"f", H2, a=2))
    assert dirty(cache) == {b"f"}


def test_a_directory_that_others_deleted_is_looked_at_when_it_is_empty(cache: ArenaCache) -> None:
    _hold(cache, folder(b"d", a=1))
    hear(cache, B, file(b"d/f", b=1))
    hear(cache, A, deleted(b"d", a=2))
    cache.conn.execute("DELETE FROM dirty")
    assert kinds(cache)[b"d"] is Kind.DIR
    hear(cache, B, deleted(b"d/f", b=2), seq=2)
    assert kinds(cache) == {}
    assert b"d" in dirty(cache)


def test_cached_content_is_announced_and_counts_as_local(cache: ArenaCache) -> None:
    hear(cache, A, file(b"d/f", H1, a=1), file(b"g", None, a=1))
    done = cache.cached.add([node(cache, b"d/f"), node(cache, b"g"), node(cache, b"d")])
    assert [(item.node, item.name, item.hash) for item in done] == [(node(cache, b"d/f"), b"f", H1)]
    assert cache.shown(node(cache, b"d/f")).local == Holding.CACHED
    assert [(row.node, row.op) for row in cache.history.after(0, 9)] == [(node(cache, b"d/f"), Op.AVAILABLE)]
    assert cache.cached.add([node(cache, b"d/f")]) == []


def test_a_real_file_stays_real_when_its_successor_is_cached(cache: ArenaCache) -> None:
    _hold(cache, file(b"f", H1, a=1))
    hear(cache, A, file(b"f", H2, a=2))
    assert cache.cached.add([node(cache, b"f")]) == []
    entry = cache.local_entry(node(cache, b"f"))
    assert entry is not None
    assert (entry.holding, entry.hash) == (Holding.REAL, H1)


@pytest.mark.parametrize("realized", [False, True])
def test_a_deletion_stays_known_when_the_change_that_outlived_it_is_taken(
    cache: ArenaCache, realized: bool
) -> None:
    _hold(cache, deleted(b"f", a=1, me=1), Holding.TOMBSTONE)
    hear(cache, B, file(b"f", H2, b=1))
    found = node(cache, b"f")
    assert cache.shown(found).flags == Flag.REVIVED
    if realized:
        row = EntryRow(LOCAL_PEER, Holding.REAL, Kind.FILE, 7, 1, 0o644, H2, vector(b=1), None)
        cache.set_real(found, row, 5)
    else:
        cache.cached.add([found])
    shown = cache.shown(found)
    assert (shown.hash, shown.vector, shown.flags) == (H2, vector(a=1, b=1, me=1), 0)


def test_content_that_is_gone_is_told(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", H1, a=1), file(b"g", H1, a=1))
    cache.cached.add([node(cache, b"f"), node(cache, b"g")])
    assert cache.cached.has(H1, node(cache, b"f"))
    assert set(cache.cached.drop(H1)) == {node(cache, b"f"), node(cache, b"g")}
    assert not cache.cached.has(H1, 0)
    assert [row.op for row in cache.history.after(2, 9)] == [Op.DROP, Op.DROP]
    assert cache.shown(node(cache, b"f")).local == 0


def _made(path: bytes, ino: int = 7) -> Found:
    directory, name = split(RelPath(path))
    return Found(directory, name, Kind.FILE, 7, 5, 0o644, ino)


def _beside(cache: ArenaCache, directory: bytes = b"") -> dict[bytes, tuple[bytes | None, int]]:
    """Return the files of a directory that are told apart by a name of their own: content, and how held."""
    found = {path: cache.shown(node(cache, path)) for path in kinds(cache) if b".conflict-" in path}
    return {
        path: (row.hash, row.local) for path, row in found.items() if split(RelPath(path))[0] == directory
    }


def test_the_only_copy_of_a_file_stays_beside_another_that_is_made_at_its_path(cache: ArenaCache) -> None:
    hear(cache, A, file(b"f", H1, a=1), file(b"g", H1, a=1))
    cache.cached.add([node(cache, b"f"), node(cache, b"g")])
    hear(cache, A, dropped(b"f"))
    LocalEntries(cache).record([_made(b"f"), _made(b"g", 8)])
    assert _beside(cache) == {b"f.conflict-this-host-19700101-000000": (H1, Holding.CACHED)}
    assert not cache.cached.has(H1, node(cache, b"f.conflict-this-host-19700101-000000"))


def test_the_only_copy_of_a_file_stays_beside_another_that_is_renamed_to_its_path(cache: ArenaCache) -> None:
    store = LocalEntries(cache)
    store.record([_made(b"mine"), Found(RelPath(b""), b"d", Kind.DIR, 0, 5, 0o755, 20), _made(b"d/x", 8)])
    hear(cache, A, file(b"f", H1, a=1), file(b"e/x", H2, a=1))
    cache.cached.add([node(cache, b"f"), node(cache, b"e/x")])
    hear(cache, A, dropped(b"f"), dropped(b"e/x"))
    assert store.renamed(_made(b"f")._replace(hash_from=RelPath(b"mine")))
    assert store.renamed(Found(RelPath(b""), b"e", Kind.DIR, 0, 5, 0o755, 20, hash_from=RelPath(b"d")))
    assert _beside(cache) == {b"f.conflict-this-host-19700101-000000": (H1, Holding.CACHED)}
    assert _beside(cache, b"e") == {b"e/x.conflict-this-host-19700101-000000": (H2, Holding.CACHED)}
    assert {row.ino for row in store.local_children(RelPath(b"e")).values()} == {8}


# -- whatever the order

_PATHS = [b"f", b"g", b"d", b"d/f", b"d/e/f"]


def _heard(path: bytes, counters: Vector, kind: int) -> Item:
    """Return an entry whose content and metadata follow from its vector, as they do in a household."""
    number = blake3(path + counters).digest()[0]
    if kind == 0:
        row = EntryRow(0, Holding.TOMBSTONE, Kind.NONE, 0, 0, 0, None, bump(counters, SELF), None)
    elif path == b"d":
        row = EntryRow(0, Holding.REAL, Kind.DIR, 0, number, 0o700 + number % 8, None, counters, None)
    else:
        content = bytes([number % 3]) * 32
        row = EntryRow(0, Holding.REAL, Kind.FILE, 7, number, 0o600, content, counters, None)
    return path, row


vectors = st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 3), min_size=1).map(encode)
announced = st.builds(_heard, st.sampled_from(_PATHS), vectors, st.integers(0, 3))
said = st.lists(st.lists(announced | st.sampled_from(_PATHS).map(dropped), max_size=4), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({A: said, B: said, C: said}), st.randoms(use_true_random=False))
def test_order_of_peers_and_repetition_make_no_difference(
    words: dict[PeerKey, list[list[Item]]], rng: random.Random
) -> None:
    with memory_cache() as one, memory_cache() as other:
        for peer, batches in words.items():
            for seq, items in enumerate(batches, 1):
                hear(one, peer, *items, seq=seq)
        left = {peer: list(enumerate(batches, 1)) for peer, batches in words.items() if batches}
        while left:
            peer = rng.choice(sorted(left))
            seq, items = left[peer].pop(0)
            for _ in range(rng.choice([1, 1, 2])):
                hear(other, peer, *items, seq=seq)
            if not left[peer]:
                del left[peer]
        assert tree(one) == tree(other)


@settings(max_examples=100, deadline=None)
@given(said, said)
def test_a_listing_gives_what_following_gave(words: list[list[Item]], others: list[list[Item]]) -> None:
    with memory_cache() as followed, memory_cache() as listed:
        for cache in (followed, listed):
            for seq, items in enumerate(others, 1):
                hear(cache, B, *items, seq=seq)
        last: dict[bytes, Item] = {}
        for seq, items in enumerate(words, 1):
            hear(followed, A, *items, seq=seq)
            last.update((item[0], item) for item in items)
        hear(listed, A, file(b"stale", H1, a=1), file(b"f", H2, a=1), seq=1)
        hear(listed, A, phase=Phase.CATCHUP_START, seq=9)
        current = [item for item in last.values() if item[1].holding != Holding.DROPPED]
        hear(listed, A, *current, phase=Phase.CATCHUP_COMPLETE, seq=9)
        assert tree(followed) == tree(listed)


def test_a_subtree_in_the_queue_stays_one_whatever_happens_to_its_directory(cache: ArenaCache) -> None:
    with cache.write():
        directory = cache.tree.ensure_dir(RelPath(b"d"))
        cache.mark_dirty([directory], subtree=True)
        cache.mark_dirty([directory])
    (work,) = (work for work in WorkQueue(cache).due(0, 1, 10) if work.node == directory)
    assert work.subtree
