"""Which peers are connected now, for readers in other threads.

One writer, the engine thread; any thread reads. The set is immutable and replaced whole, so a reader
needs no lock and sees one moment.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.types import PeerKey


class ConnectedPeers:
    """A snapshot of the keys of connected peers."""

    def __init__(self, keys: Iterable[PeerKey] = ()) -> None:
        """Start with ``keys`` connected."""
        self._keys = frozenset(keys)

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
