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
        self._any_open: dict[str, Callable[[], bool]] = {}

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

    def publish_blobs(
        self, arena: str, ranges_of: Callable[[Hash], ByteRanges | None], any_open: Callable[[], bool]
    ) -> None:
        """Let readers ask ``ranges_of`` for the readable bytes of an arena's open blobs. Engine thread.

        ``any_open`` says whether any is open, so that readers need not look at each.
        """
        self._blobs[arena] = ranges_of
        self._any_open[arena] = any_open

    def has_open(self, arena: str) -> bool:
        """Say whether any blob of an arena is open now."""
        any_open = self._any_open.get(arena)
        return any_open is not None and any_open()

    def open_ranges(self, arena: str, content: Hash) -> ByteRanges | None:
        """Return the readable bytes of a blob that is open now, None if it is not open."""
        ranges_of = self._blobs.get(arena)
        return ranges_of(content) if ranges_of is not None else None
