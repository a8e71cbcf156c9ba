"""This host as a holder of content: a real file with the content that is wanted for another path.

So nothing travels twice. What it gives is checked and written like what a peer sends, since a real file may
be changed by its user at any moment. Engine thread; files are read in workers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from core.announce import Batch
from core.byteranges import ByteRanges
from core.errors import ChangedError
from core.ports import ContentProvider, LinkStats
from core.types import HASH_BYTES, BlockList, Hash, PeerKey, Priority, RelPath, Vector

_PIECE_BYTES = 256 * 1024


class LocalLink:
    """A `core.ports.PeerLink` to ourselves, for content only."""

    def __init__(self, name: str, key: PeerKey, arenas: frozenset[str], provider: ContentProvider) -> None:
        """Serve what ``provider`` does; ``name`` and ``key`` are our own."""
        self.name, self.key, self.arenas = name, key, arenas
        self._provider = provider
        self._workers = trio.CapacityLimiter(2)

    def stats(self) -> LinkStats:
        """See `PeerLink.stats`."""
        return LinkStats(0.0, 0, 0, 0.0, 0.0, 0.0)

    def subscribe(
        self, arena: str, uuid: bytes, seq: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """See `PeerLink.subscribe`; nobody subscribes to himself."""
        raise ChangedError("this host announces nothing to itself")

    async def acknowledge(self, arena: str, uuid: bytes, seq: int) -> None:
        """See `PeerLink.acknowledge`."""

    def read(
        self, arena: str, content: Hash, ranges: ByteRanges, priority: Priority
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[int, memoryview]]]:
        """See `PeerLink.read`."""
        return self._read(arena, content, ranges)

    @asynccontextmanager
    async def _read(
        self, arena: str, content: Hash, ranges: ByteRanges
    ) -> AsyncIterator[AsyncIterator[tuple[int, memoryview]]]:
        opened = self._provider.open_content(arena, content)
        try:
            yield self._pieces(opened.fd, ranges)
        finally:
            opened.close()

    async def _pieces(self, fd: int, ranges: ByteRanges) -> AsyncIterator[tuple[int, memoryview]]:
        for start, end in ranges:
            at = start
            while at < end:
                data = await trio.to_thread.run_sync(
                    os.pread, fd, min(_PIECE_BYTES, end - at), at, limiter=self._workers
                )
                if not data:
                    raise ChangedError("the file is shorter than it was")
                yield at, memoryview(data)
                at += len(data)

    def read_many(
        self, arena: str, contents: Sequence[Hash], sizes: Sequence[int]
    ) -> AbstractAsyncContextManager[AsyncIterator[list[tuple[int, bytes | memoryview | None]]]]:
        """See `PeerLink.read_many`."""
        return self._read_many(arena, contents, sizes)

    @asynccontextmanager
    async def _read_many(
        self, arena: str, contents: Sequence[Hash], sizes: Sequence[int]
    ) -> AsyncIterator[AsyncIterator[list[tuple[int, bytes | memoryview | None]]]]:
        async def answers() -> AsyncIterator[list[tuple[int, bytes | memoryview | None]]]:
            found = await self._provider.read_small(arena, contents)
            yield [
                (index, data if data is not None and len(data) == sizes[index] else None)
                for index, data in enumerate(found)
            ]

        yield answers()

    async def read_version(
        self, arena: str, path: RelPath, vector: Vector, offset: int, length: int
    ) -> bytes:
        """See `PeerLink.read_version`; what is real here is read from the disk."""
        raise ChangedError("this host does not read its own files over a link")

    async def blocks(self, arena: str, content: Hash, first: int, count: int) -> BlockList:
        """See `PeerLink.blocks`."""
        blocks = await self._provider.blocks(arena, content)
        part = blocks.hashes[first * HASH_BYTES : (first + count) * HASH_BYTES]
        return BlockList(blocks.block_bytes, part)

    async def lease(self, arena: str, paths: Sequence[RelPath], contents: Sequence[Hash]) -> list[bool]:
        """See `PeerLink.lease`; a host does not confirm anything to itself."""
        return [False] * len(paths)

    async def have(self, arena: str, contents: Sequence[Hash]) -> list[bool]:
        """See `PeerLink.have`."""
        return [self._provider.have(arena, content) for content in contents]
