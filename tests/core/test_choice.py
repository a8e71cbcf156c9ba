"""Which version is shown: the same on every host and in whatever order entries are met."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.choice import LOCAL_PEER, EntryRow, Flag, Shown, alternatives, choose, show_directory
from core.types import Holding, Kind, PeerKey, Vector
from core.versions import EMPTY, Order, compare, encode, merge

A, B, C = (PeerKey(letter * 8) for letter in (b"a", b"b", b"c"))
H1, H2, H3 = b"1" * 32, b"2" * 32, b"3" * 32


def real(
    peer: int, content: bytes | None, *, mtime_ns: int = 1, mode: int = 0o644, **vector: int
) -> EntryRow:
    return _entry(peer, Holding.REAL, Kind.FILE, content, mtime_ns, mode, vector)


def cached(peer: int, content: bytes, **vector: int) -> EntryRow:
    return _entry(peer, Holding.CACHED, Kind.FILE, content, 1, 0o644, vector)


def deleted(peer: int, **vector: int) -> EntryRow:
    return _entry(peer, Holding.TOMBSTONE, Kind.NONE, None, 0, 0, vector)


def folder(peer: int, *, mode: int = 0o755, **vector: int) -> EntryRow:
    return _entry(peer, Holding.REAL, Kind.DIR, None, 1, mode, vector)


def _entry(
    peer: int,
    holding: int,
    kind: int,
    content: bytes | None,
    mtime_ns: int,
    mode: int,
    vector: dict[str, int],
) -> EntryRow:
    keys = {"a": A, "b": B, "c": C}
    encoded = encode({keys[name]: count for name, count in vector.items()})
    size = len(content or b"") if kind == Kind.FILE else 0
    return EntryRow(peer, holding, kind, size, mtime_ns, mode, content, encoded, None)


def flags(entries: Sequence[EntryRow]) -> int:
    return choose(entries).flags


def test_nothing_is_shown_of_what_nobody_has() -> None:
    assert choose([]).kind == Kind.NONE


def test_the_version_that_descends_from_all_is_shown() -> None:
    shown = choose([real(1, H1, a=1), real(2, H2, a=1, b=1), real(3, H3, a=1, b=1, c=1)])
    assert (shown.hash, shown.flags) == (H3, 0)


def test_an_outdated_local_file_is_not_shown() -> None:
    shown = choose([real(LOCAL_PEER, H1, a=1), real(1, H2, a=2)])
    assert (shown.hash, shown.local) == (H2, 0)


def test_equal_contents_are_one_version_with_the_merged_vector() -> None:
    shown = choose([real(LOCAL_PEER, H1, a=1), real(1, H1, b=1)])
    assert (shown.vector, shown.flags, shown.local) == (encode({A: 1, B: 1}), 0, Holding.REAL)


def test_a_version_held_by_two_is_newer_than_what_either_knew() -> None:
    shown = choose([real(1, H1, a=2), real(2, H1, b=2), real(3, H2, a=1, b=1)])
    assert (shown.hash, shown.flags) == (H1, 0)


def test_concurrent_versions_are_a_conflict_and_the_local_one_stays_shown() -> None:
    shown = choose([real(1, H2, mtime_ns=9, b=1), real(LOCAL_PEER, H1, mtime_ns=1, a=1)])
    assert (shown.hash, shown.flags) == (H1, Flag.CONFLICT)


def test_without_a_local_one_the_later_is_shown_and_then_the_greater_hash() -> None:
    assert choose([real(1, H2, mtime_ns=1, a=1), real(2, H1, mtime_ns=2, b=1)]).hash == H1
    assert choose([real(1, H1, mtime_ns=1, a=1), real(2, H2, mtime_ns=1, b=1)]).hash == H2


def test_a_real_file_is_preferred_to_a_cached_one_of_another_version() -> None:
    # One host has one entry; a conflict between cached and real is between hosts.
    shown = choose([cached(LOCAL_PEER, H1, a=1), real(1, H2, mtime_ns=9, b=1)])
    assert (shown.hash, shown.local) == (H1, Holding.CACHED)


def test_a_deletion_that_knows_the_file_wins() -> None:
    shown = choose([real(1, H1, a=1), deleted(2, a=1, b=1)])
    assert (shown.kind, shown.vector) == (Kind.NONE, encode({A: 1, B: 1}))


def test_a_change_wins_over_a_concurrent_deletion_and_is_flagged() -> None:
    shown = choose([real(1, H1, a=2), deleted(2, a=1, b=1)])
    assert (shown.hash, shown.flags) == (H1, Flag.REVIVED)


def test_deletions_everywhere_are_no_conflict() -> None:
    shown = choose([deleted(1, a=2), deleted(2, b=2)])
    assert (shown.kind, shown.flags, shown.vector) == (Kind.NONE, 0, encode({A: 2, B: 2}))


def test_an_unhashed_version_is_no_conflict_before_its_hash_is_known() -> None:
    unhashed = [real(1, H1, a=1), real(2, None, b=1)]
    assert not flags(unhashed)
    assert flags([unhashed[0], real(2, H2, b=1)]) == Flag.CONFLICT
    assert not flags([unhashed[0], real(2, H1, b=1)])


def test_the_hash_of_a_version_is_known_by_its_vector() -> None:
    shown = choose([real(1, None, a=2, mtime_ns=5), cached(2, H1, a=2)])
    assert (shown.hash, shown.flags) == (H1, 0)


def test_directories_are_one_version_whatever_made_them() -> None:
    shown = choose([folder(1, a=1), folder(2, b=3)])
    assert (shown.kind, shown.flags) == (Kind.DIR, 0)


def test_a_file_and_a_directory_of_one_name_are_a_conflict() -> None:
    assert flags([folder(1, a=1), real(2, H1, b=1)]) == Flag.CONFLICT


def test_metadata_is_that_of_the_newest_vector() -> None:
    shown = choose([real(1, H1, mode=0o600, a=2), real(2, H1, mode=0o777, mtime_ns=99, a=1)])
    assert (shown.mode, shown.mtime_ns) == (0o600, 1)


def test_of_one_version_the_latest_metadata_is_shown_and_how_it_is_held_here() -> None:
    entries = [cached(LOCAL_PEER, H1, a=2), real(1, H1, mtime_ns=5, mode=0o600, a=2), real(2, H1, a=2)]
    shown = choose(entries)
    assert shown == Shown(Kind.FILE, len(H1), 5, 0o600, H1, entries[0].vector, None, Holding.CACHED, 0)
    assert choose(entries[::-1]) == shown


def test_concurrent_metadata_has_one_winner() -> None:
    one, other = real(1, H1, mode=0o600, mtime_ns=5, a=1), real(2, H1, mode=0o777, mtime_ns=4, b=1)
    assert choose([one, other]).mode == choose([other, one]).mode == 0o600


vectors = st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 3), min_size=1).map(encode)


@st.composite
def entry_rows(draw: st.DrawFn) -> EntryRow:
    holding = draw(st.sampled_from([Holding.TOMBSTONE, Holding.REAL, Holding.REAL, Holding.CACHED]))
    if holding == Holding.TOMBSTONE:
        return EntryRow(0, holding, Kind.NONE, 0, 0, 0, None, draw(vectors), None)
    content = draw(st.sampled_from([H1, H2, None] if holding == Holding.REAL else [H1, H2]))
    mtime_ns, mode = draw(st.integers(1, 3)), draw(st.sampled_from([0o600, 0o644]))
    return EntryRow(0, holding, Kind.FILE, 1, mtime_ns, mode, content, draw(vectors), None)


def _numbered(entries: list[EntryRow]) -> list[EntryRow]:
    """Give each entry a peer, and equal vectors equal contents, as is always so."""
    contents: dict[bytes, EntryRow] = {}
    out = []
    for number, entry in enumerate(entries, 1):
        first = contents.setdefault(entry.vector, entry)
        if (first.kind, first.mtime_ns, first.mode) != (entry.kind, entry.mtime_ns, entry.mode) or (
            None not in (first.hash, entry.hash) and first.hash != entry.hash
        ):
            continue
        if first.hash is None:
            contents[entry.vector] = entry
        out.append(entry._replace(peer=number))
    return out


rows = st.lists(entry_rows(), max_size=5).map(_numbered)


@settings(max_examples=400)
@given(rows, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order(entries: list[EntryRow], rng: object) -> None:
    shuffled = list(entries)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    assert _visible(choose(entries)) == _visible(choose(shuffled))


def _visible(shown: Shown) -> tuple[object, ...]:
    return (shown.kind, shown.mtime_ns, shown.mode, shown.hash, shown.vector, shown.flags)


@given(rows)
def test_what_is_shown_is_never_outdated(entries: list[EntryRow]) -> None:
    shown = choose(entries)
    for entry in entries:
        assert compare(Vector(shown.vector), Vector(entry.vector)) is not Order.PRECEDES


@given(rows)
def test_nothing_vanishes_that_no_deletion_knew(entries: list[EntryRow]) -> None:
    live = [entry for entry in entries if entry.holding != Holding.TOMBSTONE]
    known = merge(Vector(entry.vector) for entry in entries if entry.holding == Holding.TOMBSTONE)
    unknown = [entry for entry in live if compare(Vector(entry.vector), known) is not Order.PRECEDES]
    if [entry for entry in unknown if entry.vector != known]:
        assert choose(entries).kind == Kind.FILE


@pytest.mark.parametrize("entries", [[], [deleted(1, a=1)], [deleted(1, a=1), deleted(2, b=1)]])
def test_what_is_deleted_has_no_metadata(entries: list[EntryRow]) -> None:
    shown = choose(entries)
    assert (shown.size, shown.mtime_ns, shown.mode, shown.hash, shown.local) == (0, 0, 0, None, 0)
    assert shown.vector == merge(Vector(entry.vector) for entry in entries) or shown.vector == EMPTY


def test_what_has_something_in_it_is_a_directory_and_a_file_in_its_place_a_conflict() -> None:
    outdated, replaced = folder(2, mode=0o700, a=1), real(1, H1, a=1, b=1)
    shown = show_directory([replaced, outdated], choose([replaced, outdated]))
    assert (shown.kind, shown.mode, shown.flags) == (Kind.DIR, 0o700, Flag.CONFLICT)
    assert shown.vector == outdated.vector
    found = alternatives([replaced, outdated], directory=True)
    assert [(one.meta.kind, one.peers) for one in found] == [(Kind.FILE, (1,)), (Kind.DIR, (2,))]
    alone = show_directory([replaced], choose([replaced]))
    assert (alone.kind, alone.local, alone.flags) == (Kind.DIR, 0, Flag.CONFLICT)
    found = alternatives([replaced], directory=True)
    assert [(one.meta.kind, one.peers) for one in found] == [(Kind.FILE, (1,)), (Kind.DIR, ())]
