"""Version vectors: which of two versions of a path came later, or neither.

Pure. A vector is canonical bytes (`core.types.Vector`), so that equal vectors are equal bytes and
databases and frames carry it as it is. The order is the usual one of version vectors
(Parker et al., *Detection of mutual inconsistency in distributed systems*, 1983).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Mapping

from core.types import PEER_KEY_BYTES, PeerKey, Vector

_RECORD = struct.Struct(">8sQ")
RECORD_BYTES = _RECORD.size
"""Bytes of a vector for each peer in it."""
_MAX_COUNTER = (1 << 64) - 1
EMPTY = Vector(b"")
MAX_PEERS = 256
"""LIMIT: a vector from outside names at most this many peers."""


class Order(enum.Enum):
    """How one vector relates to another."""

    EQUAL = "equal"
    DESCENDS = "descends"
    PRECEDES = "precedes"
    CONCURRENT = "concurrent"


def encode(counters: Mapping[PeerKey, int]) -> Vector:
    """Return the canonical bytes of a mapping; counters of 0 are left out.

    Raises:
        ValueError: a key is not 8 bytes or a counter not in 0 … 2⁶⁴-1.
    """
    out = bytearray()
    for peer in sorted(counters):
        count = counters[peer]
        if len(peer) != PEER_KEY_BYTES or not 0 <= count <= _MAX_COUNTER:
            raise ValueError("bad vector record")
        if count:
            out += _RECORD.pack(peer, count)
    return Vector(bytes(out))


def decode(vector: Vector) -> dict[PeerKey, int]:
    """Return the counters of a canonical vector."""
    return {PeerKey(peer): count for peer, count in _RECORD.iter_unpack(vector)}


def is_canonical(data: bytes) -> bool:
    """Say whether bytes from outside are a canonical vector of bounded size."""
    if len(data) % _RECORD.size or len(data) > MAX_PEERS * _RECORD.size:
        return False
    last = b""
    for peer, count in _RECORD.iter_unpack(data):
        if count == 0 or peer <= last:
            return False
        last = peer
    return True


def compare(left: Vector, right: Vector) -> Order:
    """Return how ``left`` relates to ``right``."""
    if left == right:
        return Order.EQUAL
    a, b = decode(left), decode(right)
    ahead = any(count > b.get(peer, 0) for peer, count in a.items())
    behind = any(count > a.get(peer, 0) for peer, count in b.items())
    if ahead and behind:
        return Order.CONCURRENT
    return Order.DESCENDS if ahead else Order.PRECEDES


def descends(left: Vector, right: Vector) -> bool:
    """Say whether ``left`` knows everything ``right`` knows (equal included)."""
    return left == right or compare(left, right) is Order.DESCENDS


def merge(vectors: Iterable[Vector]) -> Vector:
    """Return the least vector that descends from all (the join)."""
    merged: dict[PeerKey, int] = {}
    for vector in vectors:
        for peer, count in decode(vector).items():
            if count > merged.get(peer, 0):
                merged[peer] = count
    return encode(merged)


def advanced(before: Vector, after: Vector) -> list[PeerKey]:
    """Return the peers whose changes ``after`` knows and ``before`` does not."""
    known = decode(before)
    return [peer for peer, count in decode(after).items() if count > known.get(peer, 0)]


def bump(vector: Vector, peer: PeerKey) -> Vector:
    """Return ``vector`` with the counter of ``peer`` one higher: the vector of a change made there.

    Raises:
        OverflowError: the counter is at its end, which only a hostile vector can bring about.
    """
    counters = decode(vector)
    count = counters.get(peer, 0)
    if count >= _MAX_COUNTER:
        raise OverflowError("version counter exhausted")
    counters[peer] = count + 1
    return encode(counters)
