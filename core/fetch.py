"""Fetching content from connected holders into the blob store of one arena.

`Fetcher` is what the rest of core uses: ranges for readers (`core.blockfetch`), whole contents for jobs
(`core.download`), groups of small ones (`core.fetchsmall`). Engine thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from core.blobrows import Area
from core.blobs import BlobStore
from core.blockfetch import BlockFetch
from core.buffers import BufferPool
from core.byteranges import ByteRanges
from core.download import FetchParts, Progress, download
from core.entrybook import EntryBook
from core.errors import RealizeError
from core.fetchsmall import SmallFetch
from core.holders import HolderBook
from core.ports import PeerLink
from core.streaming import StreamFetch
from core.streams import STALL_S
from core.types import Hash, Priority


def _unseen(_: int) -> None:
    pass


class Fetcher:
    """Fetches for one arena. ``nursery`` runs what outlives a caller: shared and read-ahead fetches."""

    def __init__(
        self,
        arena: str,
        store: BlobStore,
        nursery: trio.Nursery,
        *,
        book: HolderBook | None = None,
        workers: trio.CapacityLimiter | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        """Fetch into ``store``; ``book`` may be shared by all arenas."""
        self.book = book if book is not None else HolderBook()
        self._parts = FetchParts(
            arena, store, self.book, BufferPool(), workers if workers is not None else store.workers, stall_s
        )
        entries = EntryBook(self._parts)
        self._blocks = BlockFetch(self._parts, nursery, entries)
        self.streams = StreamFetch(self._parts, nursery, entries)
        """Reads what is too large to be stored."""
        self._downloads: dict[Hash, trio.Event] = {}

    async def fetch_range(
        self,
        content: Hash,
        size: int,
        start: int,
        end: int,
        holders: Sequence[PeerLink],
        priority: Priority = Priority.INTERACTIVE,
    ) -> ByteRanges:
        """Make ``[start, end)`` of a content readable here; returns what is held of it then.

        Only the blocks touched are fetched, each is checked before it counts, and callers that want
        the same block share one request.

        Raises:
            NoHolderError: no holder is connected, or none of them answers.
            ChangedError: those that answer do not have it any more.
            CorruptError: all that have it send something else.
            NoSpaceError: the quota or the disk is full.
            StoreError: it cannot be written.
        """
        return await self._blocks.fetch(content, size, start, min(end, size), holders, priority)

    def prefetch(self, content: Hash, size: int, start: int, end: int, holders: Sequence[PeerLink]) -> int:
        """Start to fetch ``[start, end)`` in the background, as far as the window allows; never fails.

        Returns the offset up to which everything is here or on its way.
        """
        return self._blocks.prefetch(content, size, start, min(end, size), holders)

    async def download(
        self,
        content: Hash,
        size: int,
        holders: Sequence[PeerLink],
        priority: Priority = Priority.BATCH,
        progress: Progress | None = None,
        area: Area = Area.WORKING,
    ) -> None:
        """Bring a content in whole and verified; only what is missing is fetched.

        Raises:
            NoHolderError: no holder is left.
            ChangedError: those that answer do not have it any more.
            CorruptError: all that have it send something else.
            NoSpaceError: the quota or the disk is full.
            StoreError: it cannot be written.
        """
        while (other := self._downloads.get(content)) is not None:
            await other.wait()
        if self._parts.store.held(content):
            return
        done = self._downloads[content] = trio.Event()
        try:
            await download(self._parts, content, size, holders, priority, progress or _unseen, area)
        finally:
            del self._downloads[content]
            done.set()
            if not self._downloads:
                self._parts.buffers.trim()

    async def download_small(
        self,
        items: Sequence[tuple[Hash, int]],
        holders: Sequence[PeerLink],
        progress: Progress | None = None,
        area: Area = Area.WORKING,
    ) -> dict[Hash, RealizeError | None]:
        """Bring many small contents ``(hash, size)`` in, in groups; says of each what went wrong, or None.

        Each content of at most `fetchsmall.GROUP_BYTES`; larger ones go through `download`.
        """
        return await SmallFetch(self._parts, items, progress or _unseen, area).run(holders)
