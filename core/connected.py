"""What the engine knows at this moment and the databases do not, for readers in other threads.

Which peers are connected, and which bytes of open blobs can be read. One writer, the engine thread; any
thread reads. Values are immutable and replaced whole, so a reader needs no lock and sees one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from core.byteranges import ByteRanges
from core.types import Hash, PeerKey


class ConnectedPeers:
    """A snapshot of the keys of connected peers."""

    def __init__(self, keys: Iterable[PeerKey] = ()) -> None:
        """Start with ``keys`` connected."""
        self._keys = frozenset(keys)
        self._blobs: dict[str, Callable[[Hash], ByteRanges | None]] = {}

    @property
    def keys(self) -> frozenset[PeerKey]:
        """The peers connected at this moment."""
        return self._keys

    def add(self, key: PeerKey) -> None:
        """A peer is connected. Engine thread."""
        self._keys = self._keys | {key}

    def remove(self, key: PeerKey) -> None:
        """A peer is not connected any more. Engine thread."""
        self._keys = self._keys - {key}

    def publish_blobs(self, arena: str, ranges_of: Callable[[Hash], ByteRanges | None]) -> None:
        """Let readers ask ``ranges_of`` for the readable bytes of an arena's open blobs. Engine thread."""
        self._blobs[arena] = ranges_of

    def open_ranges(self, arena: str, content: Hash) -> ByteRanges | None:
        """Return the readable bytes of a blob that is open now, None if it is not open."""
        ranges_of = self._blobs.get(arena)
        return ranges_of(content) if ranges_of is not None else None
