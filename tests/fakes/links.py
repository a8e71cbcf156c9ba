"""A `core.ports.PeerLink` over a dictionary of contents, with knobs for what a real peer may do wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio
from blake3 import blake3

from core.announce import Batch
from core.byteranges import ByteRanges
from core.errors import WIRE_CODES, ChangedError, DisconnectedError, RemoteError
from core.ports import LinkStats
from core.types import BlockList, Hash, PeerKey, Priority, RelPath, Vector, block_bytes_for, block_count

FRAME_BYTES = 256 * 1024


def hash_of(data: bytes) -> Hash:
    return Hash(blake3(data).digest())


def blocks_of(data: bytes) -> BlockList:
    step = block_bytes_for(len(data))
    return BlockList(
        step, b"".join(blake3(data[at : at + step]).digest() for at in range(0, len(data), step))
    )


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        bytes_left: Content bytes until the link disconnects; None: never.
        stall_after: Content bytes until it says nothing any more; None: never.
        flip: Offsets of bytes that are sent inverted, per content.
        lists: Block lists that are given instead of the right ones.
        delay_s: Time that every piece takes, on trio's clock.
        shift: Offsets are named wrong by this much.
    """

    bytes_left: int | None = None
    stall_after: int | None = None
    flip: dict[Hash, set[int]] = field(default_factory=dict)
    lists: dict[Hash, BlockList] = field(default_factory=dict)
    delay_s: float = 0.0
    shift: int = 0


class FakeLink:
    """A peer that holds ``contents`` of one arena."""

    def __init__(self, name: str, contents: dict[Hash, bytes], faults: Faults | None = None) -> None:
        self._name = name
        self.contents = contents
        self.faults = faults or Faults()
        self.connected = True
        self.requests: list[tuple[Hash, ByteRanges]] = []
        self.priorities: list[Priority] = []
        self.groups: list[int] = []
        self.entries_asked = 0
        self.sent_bytes = 0
        self.concurrent = 0
        self.most_concurrent = 0
        self._lists: dict[Hash, BlockList] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def key(self) -> PeerKey:
        return PeerKey(hash_of(self._name.encode())[:8])

    @property
    def arenas(self) -> frozenset[str]:
        return frozenset({"docs"})

    def stats(self) -> LinkStats:
        return LinkStats(0.001, 0, self.sent_bytes, 0.0, 0.0, 0.0)

    def subscribe(
        self, arena: str, uuid: bytes, seq: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        raise AssertionError("not a link for announcements")

    async def acknowledge(self, arena: str, uuid: bytes, seq: int) -> None:
        raise AssertionError("not a link for announcements")

    async def read_version(
        self, arena: str, path: RelPath, vector: Vector, offset: int, length: int
    ) -> bytes:
        raise AssertionError("not a link for unhashed files")

    def _content(self, arena: str, content: Hash) -> bytes:
        if not self.connected:
            raise DisconnectedError(f"{self._name} is gone", peer=self._name)
        if arena not in self.arenas or content not in self.contents:
            raise RemoteError("not held", code=WIRE_CODES[ChangedError], peer=self._name)
        return self.contents[content]

    async def _spend(self, count: int) -> None:
        """Let time pass and count what is sent; the faults that hit here."""
        faults = self.faults
        await trio.sleep(faults.delay_s)
        if faults.stall_after is not None and self.sent_bytes + count > faults.stall_after:
            await trio.sleep_forever()
        if faults.bytes_left is not None:
            if count > faults.bytes_left:
                self.connected = False
            else:
                faults.bytes_left -= count
        if not self.connected:
            raise DisconnectedError(f"{self._name} is gone", peer=self._name)
        self.sent_bytes += count

    def _flipped(self, content: Hash, offset: int, data: memoryview) -> memoryview:
        hits = [at - offset for at in self.faults.flip.get(content, ()) if 0 <= at - offset < len(data)]
        if not hits:
            return data
        wrong = bytearray(data)
        for at in hits:
            wrong[at] ^= 0xFF
        return memoryview(wrong)

    @asynccontextmanager
    async def read(
        self, arena: str, content: Hash, ranges: ByteRanges, priority: Priority
    ) -> AsyncIterator[AsyncIterator[tuple[int, memoryview]]]:
        data = memoryview(self._content(arena, content))
        self.requests.append((content, ranges))
        self.priorities.append(priority)
        self.concurrent += 1
        self.most_concurrent = max(self.most_concurrent, self.concurrent)
        try:
            yield self._pieces(content, data, ranges)
        finally:
            self.concurrent -= 1

    async def _pieces(
        self, content: Hash, data: memoryview, ranges: ByteRanges
    ) -> AsyncIterator[tuple[int, memoryview]]:
        scratch = bytearray(FRAME_BYTES)
        for start, end in ranges:
            for at in range(start, min(end, len(data)), FRAME_BYTES):
                piece = self._flipped(content, at, data[at : min(end, at + FRAME_BYTES)])
                await self._spend(len(piece))
                # One buffer for all pieces, as a real link has: whoever keeps a piece sees it change.
                scratch[: len(piece)] = piece
                yield at + self.faults.shift, memoryview(scratch)[: len(piece)]

    @asynccontextmanager
    async def read_many(
        self, arena: str, contents: Sequence[Hash], sizes: Sequence[int]
    ) -> AsyncIterator[AsyncIterator[list[tuple[int, bytes | memoryview | None]]]]:
        if not self.connected:
            raise DisconnectedError(f"{self._name} is gone", peer=self._name)
        self.groups.append(len(contents))
        yield self._batches(contents, sizes)

    async def _batches(
        self, contents: Sequence[Hash], sizes: Sequence[int]
    ) -> AsyncIterator[list[tuple[int, bytes | memoryview | None]]]:
        batch: list[tuple[int, bytes | memoryview | None]] = []
        total = 0
        for index, (content, size) in enumerate(zip(contents, sizes, strict=True)):
            data = self.contents.get(content)
            if data is None or len(data) != size:
                batch.append((index, None))
                continue
            if total + size > FRAME_BYTES and batch:
                await self._spend(total)
                yield batch
                batch, total = [], 0
            batch.append((index, self._flipped(content, 0, memoryview(data))))
            total += size
        await self._spend(total)
        yield batch

    async def blocks(self, arena: str, content: Hash, first: int, count: int) -> BlockList:
        data = self._content(arena, content)
        await trio.sleep(self.faults.delay_s)
        self.entries_asked += count
        known = self.faults.lists.get(content) or self._lists.get(content)
        if known is None:
            known = self._lists[content] = blocks_of(data)
        assert first + count <= block_count(len(data), known.block_bytes)
        return BlockList(known.block_bytes, known.hashes[first * 32 : (first + count) * 32])

    async def lease(self, arena: str, paths: Sequence[RelPath], contents: Sequence[Hash]) -> list[bool]:
        return [content in self.contents for content in contents]

    async def have(self, arena: str, contents: Sequence[Hash]) -> list[bool]:
        return [content in self.contents for content in contents]
