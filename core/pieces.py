"""The work queue of a large download: pieces of the content that several holders take from (pure).

Pieces are handed out in order of offset, so that a content mostly arrives in order. A piece that a
holder fails is handed to the next one that asks. When nothing is left to hand out, a holder may take
over the rest of what a much slower one is still fetching.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from core.byteranges import ByteRanges
from core.types import PeerKey


@dataclass(slots=True, eq=False)
class Piece:
    """A run of whole blocks that one holder fetches: ``[at, end)`` is still to come."""

    start: int
    end: int
    at: int = field(init=False)
    stolen: bool = False

    def __post_init__(self) -> None:
        """Begin at the start."""
        self.at = self.start

    @property
    def left_bytes(self) -> int:
        """Bytes that have not arrived."""
        return self.end - self.at


class PieceQueue:
    """Pieces that wait, and those being fetched."""

    def __init__(self, missing: ByteRanges, block_bytes: int, piece_bytes: int) -> None:
        """Cut ``missing`` (whole blocks) into pieces of at most ``piece_bytes``, a multiple of a block."""
        self._block_bytes = block_bytes
        self._waiting: list[tuple[int, int]] = []
        for start, end in missing:
            while start < end:
                cut = min(end, (start // piece_bytes + 1) * piece_bytes)
                self._waiting.append((start, cut))
                start = cut
        heapq.heapify(self._waiting)
        self._fetching: dict[Piece, PeerKey] = {}

    @property
    def done(self) -> bool:
        """Whether nothing waits and nothing is being fetched."""
        return not self._waiting and not self._fetching

    @property
    def waiting(self) -> bool:
        """Whether pieces wait."""
        return bool(self._waiting)

    def take(self, holder: PeerKey) -> Piece | None:
        """Hand out the next piece to a holder; None if none waits."""
        if not self._waiting:
            return None
        piece = Piece(*heapq.heappop(self._waiting))
        self._fetching[piece] = holder
        return piece

    def steal(self, thief: PeerKey, rate: Callable[[PeerKey], float]) -> Piece | None:
        """Take over a piece from another holder of less than half the rate; the one with most to come.

        The piece is marked stolen and cut where its old holder is, at the next block. What that one has
        on its way beyond the cut comes twice: a frame at most.
        """
        own = rate(thief)
        slow = [piece for piece, other in self._fetching.items() if other != thief and 2 * rate(other) < own]
        victim = max(slow, key=lambda piece: piece.left_bytes, default=None)
        if victim is None:
            return None
        cut = min(victim.end, -(-victim.at // self._block_bytes) * self._block_bytes)
        if cut >= victim.end:
            return None
        piece = Piece(cut, victim.end)
        victim.end, victim.stolen = cut, True
        self._fetching[piece] = thief
        return piece

    def finish(self, piece: Piece) -> None:
        """Take back a piece; what has not arrived (from the last whole block on) waits again."""
        if self._fetching.pop(piece, None) is None:
            return
        cut = max(piece.start, piece.at // self._block_bytes * self._block_bytes)
        if piece.at < piece.end:
            self.again(cut, piece.end)

    def again(self, start: int, end: int) -> None:
        """Queue ``[start, end)`` again: it arrived wrong."""
        if start < end:
            heapq.heappush(self._waiting, (start, end))
