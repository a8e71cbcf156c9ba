"""Version vectors are a partial order whose join is `merge`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.types import PeerKey, Vector
from core.versions import (
    EMPTY,
    MAX_PEERS,
    Order,
    bump,
    compare,
    decode,
    descends,
    encode,
    is_canonical,
    merge,
)

A, B, C = (PeerKey(letter * 8) for letter in (b"a", b"b", b"c"))
MAX = (1 << 64) - 1

counters = st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 4))
vectors = counters.map(encode)


@given(st.dictionaries(st.binary(min_size=8, max_size=8).map(PeerKey), st.integers(0, MAX), max_size=20))
def test_what_is_encoded_is_canonical_and_comes_back_without_zeros(mapping: dict[PeerKey, int]) -> None:
    vector = encode(mapping)
    assert is_canonical(vector)
    assert decode(vector) == {peer: count for peer, count in mapping.items() if count}


@pytest.mark.parametrize(
    ("left", "right", "order"),
    [
        ({}, {}, Order.EQUAL),
        ({A: 1}, {}, Order.DESCENDS),
        ({}, {A: 1}, Order.PRECEDES),
        ({A: 1, B: 1}, {A: 1}, Order.DESCENDS),
        ({A: 1}, {A: 2}, Order.PRECEDES),
        ({A: 1}, {B: 1}, Order.CONCURRENT),
        ({A: 2, B: 1}, {A: 1, B: 2}, Order.CONCURRENT),
        ({A: 2, C: 1}, {A: 1, B: 7, C: 1}, Order.CONCURRENT),
    ],
)
def test_compare(left: dict[PeerKey, int], right: dict[PeerKey, int], order: Order) -> None:
    assert compare(encode(left), encode(right)) is order


@given(vectors, vectors)
def test_each_order_is_the_mirror_of_the_other_way_round(left: Vector, right: Vector) -> None:
    mirror = {Order.DESCENDS: Order.PRECEDES, Order.PRECEDES: Order.DESCENDS}
    order = compare(left, right)
    assert compare(right, left) is mirror.get(order, order)
    assert (order is Order.EQUAL) == (left == right)


@given(vectors, vectors, vectors)
def test_descending_is_transitive(left: Vector, middle: Vector, right: Vector) -> None:
    if descends(left, middle) and descends(middle, right):
        assert descends(left, right)


@given(vectors, vectors, vectors)
def test_merge_is_the_least_that_descends_from_all(left: Vector, right: Vector, other: Vector) -> None:
    joined = merge([left, right])
    assert descends(joined, left)
    assert descends(joined, right)
    if descends(other, left) and descends(other, right):
        assert descends(other, joined)


@given(vectors, vectors, vectors)
def test_merge_does_not_depend_on_order_grouping_or_repetition(a: Vector, b: Vector, c: Vector) -> None:
    assert merge([a, b, c]) == merge([merge([c, a]), b]) == merge([a, a, c, b])
    assert merge([a]) == a
    assert merge([]) == EMPTY


@given(vectors, st.sampled_from([A, B, C]))
def test_a_change_comes_after_what_it_changes(vector: Vector, peer: PeerKey) -> None:
    changed = bump(vector, peer)
    assert compare(changed, vector) is Order.DESCENDS
    assert is_canonical(changed)


@given(vectors)
def test_changes_at_two_places_are_concurrent(vector: Vector) -> None:
    assert compare(bump(vector, A), bump(vector, B)) is Order.CONCURRENT


def test_an_exhausted_counter_is_refused() -> None:
    with pytest.raises(OverflowError):
        bump(encode({A: MAX}), A)


@pytest.mark.parametrize("mapping", [{PeerKey(b"short"): 1}, {A: -1}, {A: MAX + 1}])
def test_bad_records_are_not_encoded(mapping: dict[PeerKey, int]) -> None:
    with pytest.raises(ValueError, match="bad vector"):
        encode(mapping)


ONE = A + (1).to_bytes(8, "big")


@pytest.mark.parametrize(
    "data",
    [
        ONE[:-1],
        ONE + b"x",
        ONE + ONE,
        B + (1).to_bytes(8, "big") + ONE,
        A + bytes(8),
        b"".join(n.to_bytes(8, "big") + (1).to_bytes(8, "big") for n in range(MAX_PEERS + 1)),
    ],
    ids=["cut off", "too long", "twice the same peer", "not sorted", "a zero", "too many peers"],
)
def test_what_is_not_canonical_is_recognised(data: bytes) -> None:
    assert not is_canonical(data)


@given(st.binary(max_size=64))
def test_canonical_bytes_are_their_own_encoding(data: bytes) -> None:
    if is_canonical(data):
        assert encode(decode(Vector(data))) == data
