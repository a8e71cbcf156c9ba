"""The work queue of a download, and what is remembered of holders: pure parts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.byteranges import ByteRanges
from core.holders import HolderBook
from core.pieces import Piece, PieceQueue
from core.types import PeerKey
from tests.fakes.fetchers import peer
from tests.fakes.links import hash_of

BLOCK, PIECE = 8, 32
CONTENT = hash_of(b"content")


@given(
    blocks=st.sets(st.integers(0, 60), min_size=1),
    tail=st.integers(1, BLOCK),
    seed=st.integers(0, 2**32),
    speeds=st.lists(st.floats(1, 100), min_size=1, max_size=4),
)
def test_every_byte_is_fetched_whatever_fails(
    blocks: set[int], tail: int, seed: int, speeds: list[float]
) -> None:
    """Holders take, advance, break off, lose pieces to faster ones, and send wrong blocks."""
    dice = random.Random(seed)
    rates = {PeerKey(bytes([index])): speed for index, speed in enumerate(speeds)}
    size = max(blocks) * BLOCK + tail
    missing = ByteRanges((at * BLOCK, min(size, (at + 1) * BLOCK)) for at in blocks)
    queue = PieceQueue(missing, BLOCK, PIECE)
    held = ByteRanges()
    working: list[Piece] = []
    for _ in range(20_000):
        if queue.done:
            break
        holder = dice.choice(list(rates))
        if (
            len(working) < 4
            and (piece := queue.take(holder) or queue.steal(holder, rates.__getitem__)) is not None
        ):
            assert piece.start % BLOCK == 0
            assert piece.end % BLOCK == 0 or piece.end == size
            assert piece.end - piece.start <= PIECE
            working.append(piece)
            continue
        piece = dice.choice(working)
        piece.at = min(piece.end, piece.at + dice.randrange(1, PIECE))
        if piece.at < piece.end and dice.random() < 0.7:
            continue
        working.remove(piece)
        whole = piece.at if piece.at == size else piece.at // BLOCK * BLOCK
        if whole > piece.start:
            wrong = dice.random() < 0.2
            if wrong:
                queue.again(piece.start, whole)
            else:
                held = held.add(piece.start, whole)
        queue.finish(piece)
    assert queue.done
    assert held == missing


def test_pieces_come_in_order_and_the_rest_of_a_slow_one_can_be_taken_over() -> None:
    queue = PieceQueue(ByteRanges([(0, 100)]), BLOCK, PIECE)
    slow, fair, fast = PeerKey(b"slow"), PeerKey(b"fair"), PeerKey(b"fast")
    rates = {slow: 1.0, fair: 1.5, fast: 10.0}
    first, second = queue.take(slow), queue.take(fast)
    assert first is not None
    assert second is not None
    assert (first.start, first.end, second.start) == (0, 32, 32)
    while queue.take(fast) is not None:
        pass
    assert queue.steal(fair, rates.__getitem__) is None
    assert queue.steal(slow, rates.__getitem__) is None
    first.at = 9
    stolen = queue.steal(fast, rates.__getitem__)
    assert stolen is not None
    assert (stolen.start, stolen.end) == (16, 32)
    assert (first.end, first.stolen) == (16, True)


def test_the_fastest_right_holder_comes_first(caplog: pytest.LogCaptureFixture) -> None:
    book = HolderBook()
    a, b, c = peer("a"), peer("b"), peer("c")
    book.measured(a.key, 100, 1.0)
    book.measured(b.key, 1000, 1.0)
    assert [link.name for link in book.usable(CONTENT, [a, b, c])] == ["b", "a", "c"]
    book.accuse(CONTENT, b, a.key, "a wrong block")
    book.accuse(CONTENT, b, a.key, "a wrong block")
    assert len(caplog.records) == 1
    assert [link.name for link in book.usable(CONTENT, [a, b, c])] == ["a", "c"]
    assert [link.name for link in book.usable(hash_of(b"other"), [a, b, c])] == ["b", "a", "c"]


def test_whom_a_liar_accused_is_heard_again() -> None:
    book = HolderBook()
    a, b, c = peer("a"), peer("b"), peer("c")
    book.accuse(CONTENT, b, a.key, "a wrong block")
    book.accuse(CONTENT, c, None, "wrong data")
    book.convict(CONTENT, a.key)
    assert [link.name for link in book.usable(CONTENT, [a, b, c])] == ["b"]
    book.forget(a.key)
    assert [link.name for link in book.usable(CONTENT, [a, b, c])] == ["a", "b"]
