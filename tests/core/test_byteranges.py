"""Byte ranges against a set of integers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.byteranges import ByteRanges

SIZE = 40
pair = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda p: (min(p), max(p)))
pairs = st.lists(pair, max_size=8)


def model(ranges: ByteRanges) -> set[int]:
    return {at for start, end in ranges for at in range(start, end)}


def well_formed(ranges: ByteRanges) -> bool:
    listed = list(ranges)
    return all(start < end for start, end in listed) and all(
        a[1] < b[0] for a, b in itertools.pairwise(listed)
    )


@given(pairs, pairs, pair)
def test_operations_agree_with_sets(
    left: list[tuple[int, int]], right: list[tuple[int, int]], one: tuple[int, int]
) -> None:
    a, b = ByteRanges(left), ByteRanges(right)
    for result, expected in (
        (a.union(b), model(a) | model(b)),
        (a.intersection(b), model(a) & model(b)),
        (a.difference(b), model(a) - model(b)),
        (a.add(*one), model(a) | set(range(*one))),
    ):
        assert well_formed(result)
        assert model(result) == expected
    assert a.total() == len(model(a))
    assert a.covers(*one) == (set(range(*one)) <= model(a))
    assert (a == b) == (model(a) == model(b))
    assert bool(a) == bool(model(a))
    assert ByteRanges.decode(a.encode()) == a


@given(pairs, st.integers(1, 9))
def test_growing_to_whole_blocks(ranges: list[tuple[int, int]], block: int) -> None:
    a = ByteRanges(ranges)
    blocks = {at // block for at in model(a)}
    grown = a.aligned(block, SIZE)
    assert well_formed(grown)
    assert model(grown) == {at for at in range(SIZE) if at // block in blocks}


@given(st.integers(0, 1 << 40))
def test_the_whole_is_one_range(size: int) -> None:
    assert ByteRanges.whole(size) == ByteRanges([(0, size)])


@pytest.mark.parametrize("bad", [[(-1, 2)], [(3, 2)]])
def test_impossible_ranges_are_refused(bad: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="bad range"):
        ByteRanges(bad)
    with pytest.raises(ValueError, match="bad range"):
        ByteRanges.whole(-1)
    with pytest.raises(ValueError, match="bad ranges"):
        ByteRanges.decode(b"short")
