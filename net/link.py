"""A link to a peer: `core.ports.PeerLink` over a connection, and what the peer may ask of us.

Engine thread. `Link.run` lives as long as the connection. Data from the peer is checked here against
what was asked: offsets, lengths and counts; anything else is a breach and closes the connection.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import trio

from core.announce import Batch
from core.byteranges import ByteRanges
from core.errors import LocalProtocolError, NetError, PathNotFoundError, RemoteError, RemoteProtocolError
from core.ports import ContentProvider, Household, LinkStats
from core.types import HASH_BYTES, BlockList, Hash, PeerKey, Priority, RelPath, Vector
from net import codec, messages
from net.answers import Answers
from net.connection import Connection
from net.frames import MAX_PAYLOAD
from net.incoming import Incoming
from net.messages import (
    ITEM_COST,
    MAX_CONTENTS,
    MAX_LEASE_PATH_BYTES,
    MAX_LEASES,
    MAX_SMALL,
    Hello,
    Request,
)
from net.services.content import ContentService
from net.services.household import serve_subscribe

READ_WINDOW = 8 * 1024 * 1024
"""LIMIT: bytes in flight of one read; several reads make up the rest of a long fat line's product."""
SUBSCRIBE_WINDOW = 2 * 1024 * 1024
"""LIMIT: announcements in flight: three of the largest messages."""


@dataclass(frozen=True, slots=True)
class LinkParts:
    """What every link of a host shares."""

    node_name: str
    household: Household
    content: ContentProvider
    limiter: trio.CapacityLimiter
    wall_ns: Callable[[], int] = time.time_ns
    suspended_s: Callable[[], float] = lambda: 0.0


class Link:
    """One connection to a peer; implements `core.ports.PeerLink`."""

    def __init__(
        self, stream: trio.abc.Stream, *, name: str, key: PeerKey, visible: frozenset[str], parts: LinkParts
    ) -> None:
        """Make the link over an authenticated stream.

        Args:
            stream: TLS, or anything in memory whose other end is known to be the peer.
            name: the peer's name in our config.
            key: the peer's key.
            visible: the arenas that we let it see.
            parts: what it may reach.
        """
        self._name = name
        self._key = key
        self._visible = visible
        self._arenas: frozenset[str] = frozenset()
        self._features = 0
        self._household = parts.household
        self._content = ContentService(parts.content, parts.limiter)
        self.connection = Connection(
            stream,
            Hello(parts.node_name, visible, parts.wall_ns()),
            self._serve,
            label=name,
            remote_error=self._remote_error,
            on_acknowledge=self._acknowledged,
            wall_ns=parts.wall_ns,
            suspended_s=parts.suspended_s,
        )

    @property
    def name(self) -> str:
        """The peer's name in our config."""
        return self._name

    @property
    def key(self) -> PeerKey:
        """The peer's key."""
        return self._key

    @property
    def arenas(self) -> frozenset[str]:
        """Arenas that both sides let each other see; empty before `greeted`."""
        return self._arenas

    def stats(self) -> LinkStats:
        """Return the current figures."""
        return self.connection.stats()

    async def run(self) -> NetError:
        """Serve and move frames until the connection ends; returns why."""
        return await self.connection.run()

    async def greeted(self) -> None:
        """Wait until the peer has said hello; nothing can be asked before.

        Raises:
            NetError: the connection ended first.
        """
        hello = await self.connection.greeted()
        self._features = hello.features & messages.FEATURES
        self._arenas = self._visible & hello.arenas

    # --- what the peer asks ---

    async def _serve(self, request: Request, payload: memoryview, answers: Answers) -> None:
        if isinstance(request, messages.Control):
            self.connection.breach(RemoteProtocolError("control request from a peer"))
            return
        if request.arena not in self._visible:
            raise PathNotFoundError("no such arena")
        match request:
            case messages.Subscribe():
                await serve_subscribe(self._household, self._key, request, answers)
            case messages.Read():
                await self._content.read(request, answers)
            case messages.ReadVersion():
                await self._content.read_version(request, answers)
            case messages.ReadMany():
                await self._content.read_many(request, answers)
            case messages.Blocks():
                await self._content.blocks(request, answers)
            case messages.Have():
                await self._content.have(request, answers)
            case messages.Lease():
                await self._content.lease(self._key, request, answers)

    def _acknowledged(self, message: messages.Acknowledge) -> None:
        if message.arena in self._visible:
            self._household.acknowledged(self._key, message.arena, message.uuid, message.seq)

    def _remote_error(self, failure: messages.Failure) -> RemoteError:
        return remote_error(failure, self._name)

    # --- what we ask ---

    @asynccontextmanager
    async def subscribe(self, arena: str, uuid: bytes, seq: int) -> AsyncIterator[AsyncIterator[Batch]]:
        """Subscribe to the peer's announcements; see `core.ports.PeerLink.subscribe`."""
        request = messages.Subscribe(arena, uuid, seq, SUBSCRIBE_WINDOW)
        async with self.connection.ask(request) as incoming:
            yield self._batches(incoming)

    async def _batches(self, incoming: Incoming) -> AsyncIterator[Batch]:
        while (taken := await incoming.take()) is not None:
            try:
                batch = codec.decode_batch(taken[1])
            except RemoteProtocolError as error:
                self.connection.breach(error)
                raise
            yield batch

    async def acknowledge(self, arena: str, uuid: bytes, seq: int) -> None:
        """Tell the peer that everything up to ``seq`` is applied and durable."""
        self.connection.tell(messages.Acknowledge(arena, uuid, seq))
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def read(
        self, arena: str, content: Hash, ranges: ByteRanges, priority: Priority
    ) -> AsyncIterator[AsyncIterator[tuple[int, memoryview]]]:
        """Read ranges of a content; see `core.ports.PeerLink.read`."""
        if len(ranges) > MAX_CONTENTS:
            raise LocalProtocolError(f"read of {len(ranges)} ranges")
        if not ranges:
            yield _nothing()
            return
        window = min(READ_WINDOW, ranges.total() + ITEM_COST * (len(ranges) + ranges.total() // 65536 + 1))
        request = messages.Read(arena, content, ranges, priority is Priority.INTERACTIVE, window)
        async with self.connection.ask(request) as incoming:
            yield self._pieces(incoming, ranges)

    async def _pieces(self, incoming: Incoming, ranges: ByteRanges) -> AsyncIterator[tuple[int, memoryview]]:
        for start, end in ranges:
            while start < end:
                taken = await incoming.take()
                if taken is None:
                    raise self._breach("answer without all that was asked")
                item, payload = taken
                if not isinstance(item, messages.Data) or item.offset != start:
                    raise self._breach("answer with another offset than was asked")
                if not 0 < len(payload) <= end - start:
                    raise self._breach("answer with another length than was asked")
                yield start, payload
                start += len(payload)
        if await incoming.take() is not None:
            raise self._breach("answer with more than was asked")

    @asynccontextmanager
    async def read_many(
        self, arena: str, contents: Sequence[Hash], sizes: Sequence[int]
    ) -> AsyncIterator[AsyncIterator[list[tuple[int, bytes | memoryview | None]]]]:
        """Read small contents whole; see `core.ports.PeerLink.read_many`."""
        if max(sizes, default=0) > MAX_SMALL:
            raise LocalProtocolError("content too large to be read with others")
        # Closing the generator cancels what it has asked, also when it was not taken to its end.
        async with aclosing(self._many(arena, contents, sizes)) as batches:
            yield batches

    async def _many(
        self, arena: str, contents: Sequence[Hash], sizes: Sequence[int]
    ) -> AsyncGenerator[list[tuple[int, bytes | memoryview | None]], None]:
        for first in range(0, len(contents), MAX_CONTENTS):
            some = list(contents[first : first + MAX_CONTENTS])
            expected = list(sizes[first : first + MAX_CONTENTS])
            request = messages.ReadMany(arena, some, expected, READ_WINDOW)
            async with self.connection.ask(request) as incoming:
                done = 0
                while (taken := await incoming.take()) is not None:
                    item, payload = taken
                    if not isinstance(item, messages.Many) or item.first != done:
                        raise self._breach("answer with other contents than were asked")
                    batch = self._cut(item, payload, expected, first)
                    done += len(batch)
                    yield batch
                if done != len(some):
                    raise self._breach("answer without all contents that were asked")

    def _cut(
        self, item: messages.Many, payload: memoryview, sizes: list[int], base: int
    ) -> list[tuple[int, bytes | memoryview | None]]:
        expected = sizes[item.first : item.first + len(item.lengths)]
        batch: list[tuple[int, bytes | memoryview | None]] = []
        at = 0
        if len(expected) != len(item.lengths):
            raise self._breach("answer with more contents than were asked")
        for index, (length, size) in enumerate(zip(item.lengths, expected, strict=True), base + item.first):
            if length is None:
                batch.append((index, None))
                continue
            if length != size:
                raise self._breach("content of another size than was asked")
            batch.append((index, payload[at : at + length]))
            at += length
        if at != len(payload):
            raise self._breach("contents of another length than stated")
        return batch

    async def read_version(
        self, arena: str, path: RelPath, vector: Vector, offset: int, length: int
    ) -> bytes:
        """Read a part of a file that has no hash yet; see `core.ports.PeerLink.read_version`."""
        if not 0 < length <= MAX_PAYLOAD:
            raise LocalProtocolError(f"read of {length} bytes")
        data = bytearray()
        async with self.connection.ask(messages.ReadVersion(arena, path, vector, offset, length)) as incoming:
            while (taken := await incoming.take()) is not None:
                item, payload = taken
                if not isinstance(item, messages.Data) or item.offset != offset + len(data):
                    raise self._breach("answer with another offset than was asked")
                data += payload
                if len(data) > length:
                    raise self._breach("answer with more than was asked")
        return bytes(data)

    async def blocks(self, arena: str, content: Hash, first: int, count: int) -> BlockList:
        """Return a part of the block list of a content; see `core.ports.PeerLink.blocks`."""
        item, payload = await self._single(messages.Blocks(arena, content, first, count))
        if not isinstance(item, messages.BlockHashes) or len(payload) != count * HASH_BYTES:
            raise self._breach("block list of another length than was asked")
        return BlockList(item.block_bytes, payload)

    async def have(self, arena: str, contents: Sequence[Hash]) -> list[bool]:
        """Say for each content whether the peer holds it whole and verified now."""
        flags: list[bool] = []
        for first in range(0, len(contents), MAX_CONTENTS):
            some = list(contents[first : first + MAX_CONTENTS])
            _, payload = await self._single(messages.Have(arena, some))
            if len(payload) != len(some) or max(payload) > 1:
                raise self._breach("answer with another count than was asked")
            flags.extend(map(bool, payload))
        return flags

    async def lease(self, arena: str, paths: Sequence[RelPath], contents: Sequence[Hash]) -> list[bool]:
        """Ask the peer to confirm its durable copies; see `core.ports.PeerLink.lease`."""
        if not self._features & messages.FEATURE_LEASES:
            return [False] * len(paths)
        flags: list[bool] = []
        for some in _lease_groups(paths):
            request = messages.Lease(arena, list(paths[some]), list(contents[some]))
            _, payload = await self._single(request)
            if len(payload) != len(request.paths) or max(payload) > 1:
                raise self._breach("answer with another count than was asked")
            flags.extend(map(bool, payload))
        return flags

    async def _single(self, request: Request) -> tuple[messages.Item, bytes]:
        async with self.connection.ask(request) as incoming:
            taken = await incoming.take()
            if taken is None or await incoming.take() is not None:
                raise self._breach("not exactly one answer")
            return taken[0], bytes(taken[1])

    def _breach(self, what: str) -> RemoteProtocolError:
        error = RemoteProtocolError(what, peer=self._name)
        self.connection.breach(error)
        return error


def _lease_groups(paths: Sequence[RelPath]) -> Iterator[slice]:
    """Cut paths into what fits one request each."""
    start = total = 0
    for index, path in enumerate(paths):
        total += len(path)
        if index - start == MAX_LEASES or (index > start and total > MAX_LEASE_PATH_BYTES):
            yield slice(start, index)
            start, total = index, len(path)
    if start < len(paths):
        yield slice(start, len(paths))


async def _nothing() -> AsyncIterator[tuple[int, memoryview]]:
    return
    yield  # makes it a generator


def remote_error(failure: messages.Failure, peer: str) -> RemoteError:
    """Return the error that a peer sent, with its causes."""
    error = RemoteError(f"{peer}: {failure.message}", code=failure.code, peer=peer, hint=failure.hint)
    at: BaseException = error
    for cause in failure.causes:
        at.__cause__ = RemoteError(cause, code=failure.code, peer=peer)
        at = at.__cause__
    return error
