"""Serving content: `core.ports.ContentProvider` behind the protocol.

Engine thread; files are read in workers, a megabyte per hop. Reading overlaps with sending, since
what was read waits in the connection's queue while the next is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import trio

from core.byteranges import ByteRanges
from core.errors import ChangedError, PathInvalidError
from core.ports import ContentProvider, OpenContent
from core.types import HASH_BYTES, Hash, PeerKey, Priority
from net.answers import Answers
from net.messages import (
    CHUNK_BYTES,
    ITEM_COST,
    BlockHashes,
    Blocks,
    Data,
    Flags,
    Have,
    Lease,
    Many,
    Read,
    ReadMany,
    ReadVersion,
)

_READ_BYTES = 1024 * 1024
"""Bytes per hop to a worker: the hop (0.1 ms) is small against it."""
_GROUP_FILES = 1024
"""LIMIT: small contents read in one hop."""
_CHUNKS_IN_MEMORY = 8
"""LIMIT: hops whose data waits for the stream, for each connection and priority."""

Piece = tuple[int, int]
"""Start and end of what one `pread` reads."""


class ContentService:
    """Answers what one peer asks about content; one for each connection."""

    def __init__(self, provider: ContentProvider, limiter: trio.CapacityLimiter) -> None:
        """Serve from ``provider``; ``limiter`` bounds the worker threads of all connections."""
        self._provider = provider
        self._limiter = limiter
        self._in_memory = {priority: trio.Semaphore(_CHUNKS_IN_MEMORY) for priority in Priority}

    async def read(self, request: Read, answers: Answers) -> None:
        """Send ranges of a content."""
        opened = self._provider.open_content(request.arena, request.content)
        try:
            if max(end for _, end in request.ranges) > opened.size:
                raise PathInvalidError("range beyond the end of the content")
            await self._send(opened, request.ranges, answers)
        finally:
            opened.close()

    async def read_version(self, request: ReadVersion, answers: Answers) -> None:
        """Send a part of a real file at exactly one version."""
        opened = self._provider.open_version(request.arena, request.path, request.vector)
        try:
            end = min(opened.size, request.offset + request.length)
            if request.offset < end:
                await self._send(opened, ByteRanges([(request.offset, end)]), answers)
        finally:
            opened.close()

    async def _send(self, opened: OpenContent, ranges: ByteRanges, answers: Answers) -> None:
        queue = list(ranges)
        queue.reverse()
        while queue:
            pieces = _plan(queue, await answers.credit())
            answers.reserve([end - start for start, end in pieces])
            async with self._in_memory[answers.priority]:
                chunks = await trio.to_thread.run_sync(_pread, opened.fd, pieces, limiter=self._limiter)
                opened.check()
                for (start, _), chunk in zip(pieces, chunks, strict=True):
                    await answers.send_reserved(Data(start), chunk)

    async def read_many(self, request: ReadMany, answers: Answers) -> None:
        """Send small contents whole, several in an item."""
        for start, stop in _groups(request.sizes):
            async with self._in_memory[answers.priority]:
                found = await self._provider.read_small(request.arena, request.contents[start:stop])
                kept = [
                    data if data is not None and len(data) == size else None
                    for data, size in zip(found, request.sizes[start:stop], strict=True)
                ]
                for item, payload in _pack(start, kept):
                    await answers.send(item, payload)

    async def blocks(self, request: Blocks, answers: Answers) -> None:
        """Send a part of the block list of a content."""
        blocks = await self._provider.blocks(request.arena, request.content)
        start, stop = request.first * HASH_BYTES, (request.first + request.count) * HASH_BYTES
        if stop > len(blocks.hashes):
            raise PathInvalidError("range beyond the end of the block list")
        await answers.send(BlockHashes(blocks.block_bytes), blocks.hashes[start:stop])

    async def have(self, request: Have, answers: Answers) -> None:
        """Say which contents are held."""
        arena, have = request.arena, self._provider.have
        flags = bytearray()
        for content in request.contents:
            flags.append(have(arena, Hash(content)))
            if len(flags) % 256 == 0:
                await trio.lowlevel.checkpoint()
        await answers.send(Flags(), bytes(flags))

    async def lease(self, peer: PeerKey, request: Lease, answers: Answers) -> None:
        """Say which contents stay held here while ``peer`` gives them up."""
        granted = await self._provider.lease(peer, request.arena, request.paths, request.contents)
        await answers.send(Flags(), bytes(granted))


def _plan(queue: list[Piece], credit: int) -> list[Piece]:
    """Take from a reversed list of ranges what is read in one hop and paid by ``credit``."""
    pieces: list[Piece] = []
    cost = 0
    while queue and cost < min(credit, _READ_BYTES):
        start, end = queue.pop()
        stop = min(end, start + CHUNK_BYTES)
        if stop < end:
            queue.append((stop, end))
        pieces.append((start, stop))
        cost += stop - start + ITEM_COST
    return pieces


def _pread(fd: int, pieces: list[Piece]) -> list[bytes]:
    """Read the pieces whole; in a worker.

    Raises:
        ChangedError: the file is shorter by now, or cannot be read.
    """
    chunks = []
    try:
        for start, end in pieces:
            chunk = os.pread(fd, end - start, start)
            while len(chunk) < end - start:
                more = os.pread(fd, end - start - len(chunk), start + len(chunk))
                if not more:
                    raise ChangedError("the file is shorter than it was")
                chunk += more
            chunks.append(chunk)
    except OSError as error:
        raise ChangedError(f"the file cannot be read: {error.strerror}") from error
    return chunks


def _groups(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (total + size > _READ_BYTES or index - start >= _GROUP_FILES):
            yield start, index
            start, total = index, 0
        total += size
    yield start, len(sizes)


def _pack(first: int, contents: list[bytes | None]) -> Iterator[tuple[Many, bytes]]:
    start = total = 0
    for index, data in enumerate(contents):
        size = len(data) if data is not None else 0
        if index > start and total + size > CHUNK_BYTES:
            yield _item(first + start, contents[start:index])
            start, total = index, 0
        total += size
    yield _item(first + start, contents[start:])


def _item(first: int, contents: list[bytes | None]) -> tuple[Many, bytes]:
    lengths = [None if data is None else len(data) for data in contents]
    return Many(first, lengths), b"".join(data for data in contents if data)
