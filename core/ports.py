"""What core needs from the layers above it, and what it offers them, as protocols.

`PeerLink` is implemented by ``net`` and used by core; `Household` and `ContentProvider` are
implemented by core and used by ``net``; `app.daemon` plugs them together. Everything here runs in
the engine thread (trio) unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from core.announce import Batch
from core.byteranges import ByteRanges
from core.types import BlockList, Hash, PeerKey, Priority, RelPath, Vector


@dataclass(frozen=True, slots=True)
class LinkStats:
    """Figures of one connection. Rates in bytes/s over the last seconds; ``rtt_s`` None before a ping."""

    rtt_s: float | None
    rx_bytes: int
    tx_bytes: int
    rx_rate: float
    tx_rate: float
    clock_skew_s: float | None


class PeerLink(Protocol):
    """One authenticated connection to a peer. All calls raise `NetError` when it is gone."""

    @property
    def name(self) -> str:
        """The peer's name in our config."""
        ...

    @property
    def key(self) -> PeerKey:
        """The peer's key."""
        ...

    @property
    def arenas(self) -> frozenset[str]:
        """Arenas that we let it see and it lets us see."""
        ...

    def stats(self) -> LinkStats:
        """Return the current figures."""
        ...

    def subscribe(
        self, arena: str, uuid: bytes, seq: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Subscribe to the peer's announcements after ``seq`` of history ``uuid`` (``b""``: none seen)."""
        ...

    async def acknowledge(self, arena: str, uuid: bytes, seq: int) -> None:
        """Tell the peer that everything up to ``seq`` is applied and durable."""
        ...

    def read(
        self, arena: str, content: Hash, ranges: ByteRanges, priority: Priority
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[int, memoryview]]]:
        """Read ``ranges`` of a content: pieces ``(offset, data)`` of at most 256 KiB in order.

        The iterator ends after the last byte of ``ranges``. A piece is valid until the next is taken.

        Raises:
            RemoteError: wire code of `ChangedError` when the peer does not hold it any more.
        """
        ...

    def read_many(
        self, arena: str, contents: Sequence[Hash], sizes: Sequence[int]
    ) -> AbstractAsyncContextManager[AsyncIterator[list[tuple[int, bytes | memoryview | None]]]]:
        """Read small contents whole: batches of ``(index, data)``; data None where the peer has none.

        Every index comes exactly once unless the connection fails. Data of another length than
        ``sizes[index]`` is a protocol breach and never yielded.
        """
        ...

    async def read_version(
        self, arena: str, path: RelPath, vector: Vector, offset: int, length: int
    ) -> bytes:
        """Read a part of a file that has no hash yet; at most 1 MiB; short only at its end.

        Raises:
            RemoteError: wire code of `ChangedError` when the file is no longer that version.
        """
        ...

    async def blocks(self, arena: str, content: Hash, first: int, count: int) -> BlockList:
        """Return ``count`` entries of the block list of a content, from ``first``.

        The ``block_bytes`` of the answer is checked by the caller against `block_bytes_for`.
        """
        ...

    async def have(self, arena: str, contents: Sequence[Hash]) -> list[bool]:
        """Say for each content whether the peer holds it whole and verified now."""
        ...


class Household(Protocol):
    """What net tells core about links, and asks for subscribers."""

    def link_up(self, link: PeerLink) -> None:
        """A link is authenticated and has exchanged hellos."""
        ...

    def link_down(self, link: PeerLink, reason: str) -> None:
        """A link is gone; called exactly once for each `link_up`."""
        ...

    def announcements(self, peer: PeerKey, arena: str, uuid: bytes, seq: int) -> AsyncIterator[Batch]:
        """Serve a subscription: batches for as long as the subscriber stays. An async generator.

        Net has checked that the peer may see the arena.
        """
        ...

    def acknowledged(self, peer: PeerKey, arena: str, uuid: bytes, seq: int) -> None:
        """A peer has applied our history up to ``seq``. A foreign ``uuid`` is ignored."""
        ...


class OpenContent(Protocol):
    """A content opened for serving. Close it."""

    @property
    def fd(self) -> int:
        """Descriptor to ``pread`` from, in a worker."""
        ...

    @property
    def size(self) -> int:
        """Size of the content in bytes."""
        ...

    def check(self) -> None:
        """Check, after reading, that what was read was still that version.

        Raises:
            ChangedError: the file was changed since it was opened.
        """
        ...

    def close(self) -> None:
        """Release the descriptor; idempotent."""
        ...


class ContentProvider(Protocol):
    """Where net reads what peers ask for. The methods are quick; descriptors are read in workers.

    Only content held whole and verified, or the current version of a real file, is ever served.
    """

    def open_content(self, arena: str, content: Hash) -> OpenContent:
        """Open a content by hash.

        Raises:
            ChangedError: it is not held (any more).
        """
        ...

    def open_version(self, arena: str, path: RelPath, vector: Vector) -> OpenContent:
        """Open a real file at exactly that version, hashed or not.

        Raises:
            ChangedError: the path is not held at that version.
        """
        ...

    async def read_small(self, arena: str, contents: Sequence[Hash]) -> list[bytes | None]:
        """Read many small contents whole (the caller bounds their number); None where not held."""
        ...

    async def blocks(self, arena: str, content: Hash) -> BlockList:
        """Return the whole block list of a content that is held (computed when it was hashed).

        Raises:
            ChangedError: it is not held.
        """
        ...

    def have(self, arena: str, content: Hash) -> bool:
        """Say whether a content is held whole and verified."""
        ...
