"""Reading contents too large to be stored: blocks in a bounded window of memory, checked, never on the disk.

A block is dropped when newer ones need its room, or when nobody has the content open any more. Sequential
and random access work alike; blocks that are on their way are shared by those who wait. Engine thread.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence

import trio
from blake3 import blake3

from core.buffers import BUFFER_BYTES
from core.download import FetchParts
from core.entrybook import EntryBook
from core.errors import ChangedError, CorruptError, NetError, NoHolderError, RealizeError
from core.ports import PeerLink
from core.streams import nobody, open_stream
from core.types import Hash, Priority, block_bytes_for

_log = logging.getLogger("realize.core.streaming")

WINDOW_BYTES = 64 * 1024 * 1024
"""LIMIT: memory for blocks of streamed contents of one arena (spec 4 §Streaming reads)."""
_AHEAD_BYTES = 16 * 1024 * 1024
"""LIMIT: read-ahead on its way at once; with what is waited for well within the window."""
_ANSWER_BYTES = 4 * 1024 * 1024
"""LIMIT: bytes handed over at once, unless a block is larger."""

_Key = tuple[Hash, int]


class _Flight:
    """Neighbouring blocks on their way; ``blocks`` are there once ``done`` is set, unless ``error``."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.blocks: dict[int, bytes] = {}
        self.done = trio.Event()
        self.error: RealizeError | None = None


class StreamFetch:
    """The window of one arena."""

    def __init__(
        self, parts: FetchParts, nursery: trio.Nursery, book: EntryBook, window_bytes: int = WINDOW_BYTES
    ) -> None:
        """Run what outlives a reader in ``nursery``; ``book`` knows what blocks hash to."""
        self._parts, self._nursery, self._book = parts, nursery, book
        self._window_bytes = window_bytes
        self._window: OrderedDict[_Key, bytes] = OrderedDict()
        self._flights: dict[_Key, _Flight] = {}
        self._ahead_bytes = 0
        self.used_bytes = 0
        """Bytes in the window."""

    async def read(
        self, content: Hash, size: int, start: int, end: int, holders: Sequence[PeerLink]
    ) -> bytes:
        """Return the bytes from ``start`` on, at most up to ``end``, at least one.

        Raises:
            NoHolderError: no holder is connected, or none of them answers.
            ChangedError: those that answer do not have it any more.
            CorruptError: all that have it send something else.
        """
        step = block_bytes_for(size)
        first = start // step
        end = min(end, size, max((first + 1) * step, start + _ANSWER_BYTES))
        blocks = await self._blocks(content, size, first, -(-end // step), holders)
        data = b"".join(blocks) if len(blocks) > 1 else blocks[0]
        return data[start - first * step : end - first * step]

    def ahead(self, content: Hash, size: int, start: int, end: int, holders: Sequence[PeerLink]) -> None:
        """Start to fetch ``[start, end)`` in the background, as far as there is room; never fails."""
        step = block_bytes_for(size)
        end = min(end, size, start + min(_AHEAD_BYTES, self._window_bytes // 2) - self._ahead_bytes)
        first, last = start // step, -(-end // step)
        if start < end and not all(self._has(content, index) for index in range(first, last)):
            self._nursery.start_soon(self._ahead, content, size, first, last, holders)

    def forget(self, content: Hash) -> None:
        """Drop what is held of a content: nobody reads it any more."""
        for key in [key for key in self._window if key[0] == content]:
            self.used_bytes -= len(self._window.pop(key))

    def _has(self, content: Hash, index: int) -> bool:
        return (content, index) in self._window or (content, index) in self._flights

    async def _ahead(
        self, content: Hash, size: int, first: int, last: int, holders: Sequence[PeerLink]
    ) -> None:
        count = (last - first) * block_bytes_for(size)
        self._ahead_bytes += count
        try:
            await self._blocks(content, size, first, last, holders)
        except RealizeError as error:
            _log.debug("read-ahead of %s ended: %s", content.hex(), error)
        finally:
            self._ahead_bytes -= count

    async def _blocks(
        self, content: Hash, size: int, first: int, last: int, holders: Sequence[PeerLink]
    ) -> list[bytes]:
        """Return blocks ``[first, last)``: from the window, from flights under way, or fetched."""
        found: dict[int, bytes] = {}
        waiting: dict[_Flight, None] = {}
        missing: list[int] = []
        for index in range(first, last):
            block = self._window.get((content, index))
            if block is not None:
                self._window.move_to_end((content, index))
                found[index] = block
            elif (flight := self._flights.get((content, index))) is not None:
                waiting[flight] = None
            else:
                missing.append(index)
        for flight in self._start(content, size, missing, holders):
            waiting[flight] = None
        for flight in waiting:
            await flight.done.wait()
            if flight.error is not None:
                raise flight.error
            found |= flight.blocks
        if not waiting:
            await trio.lowlevel.checkpoint()
        return [found[index] for index in range(first, last)]

    def _start(
        self, content: Hash, size: int, missing: Sequence[int], holders: Sequence[PeerLink]
    ) -> list[_Flight]:
        most = max(1, BUFFER_BYTES // block_bytes_for(size))
        flights: list[_Flight] = []
        for index in missing:
            if not flights or flights[-1].last != index or index - flights[-1].first >= most:
                flights.append(_Flight(index, index))
            flights[-1].last = index + 1
        for flight in flights:
            for index in range(flight.first, flight.last):
                self._flights[content, index] = flight
            self._nursery.start_soon(self._fly, content, size, flight, list(holders))
        return flights

    async def _fly(self, content: Hash, size: int, flight: _Flight, holders: Sequence[PeerLink]) -> None:
        try:
            await self._bring(content, size, flight, holders)
        except RealizeError as error:
            flight.error = error
        finally:
            if not flight.blocks and flight.error is None:
                flight.error = NoHolderError("the fetch was cancelled")
            for index in range(flight.first, flight.last):
                del self._flights[content, index]
            flight.done.set()

    async def _bring(self, content: Hash, size: int, flight: _Flight, holders: Sequence[PeerLink]) -> None:
        parts, step = self._parts, block_bytes_for(size)
        start, end = flight.first * step, min(flight.last * step, size)
        failures: list[RealizeError] = []
        for link in parts.book.usable(content, holders):
            try:
                entries = await self._book.known(content, size, start, end, link)
                data = await self._receive(content, start, end, link)
            except (NetError, ChangedError) as error:
                failures.append(error)
                continue
            hashes = entries.of(start, end)
            blocks = await trio.to_thread.run_sync(_cut, data, step, hashes, limiter=parts.workers)
            if blocks is not None:
                flight.blocks = dict(zip(range(flight.first, flight.last), blocks, strict=True))
                self._keep(content, flight)
                return
            parts.book.accuse(content, link, entries.giver(start), "a wrong block")
            failures.append(CorruptError(f"{link.name} sent a wrong block"))
        raise nobody(content, failures, wrong=parts.book.any_wrong(content))

    async def _receive(self, content: Hash, start: int, end: int, link: PeerLink) -> bytearray:
        parts, started, data = self._parts, trio.current_time(), bytearray()
        async with open_stream(
            link, parts.arena, content, start, end, Priority.INTERACTIVE, parts.stall_s
        ) as stream:
            while len(data) < end - start:
                data += await stream.next()
        if len(data) >= BUFFER_BYTES:
            parts.book.measured(link.key, len(data), trio.current_time() - started)
        return data

    def _keep(self, content: Hash, flight: _Flight) -> None:
        """Put blocks into the window; the ones used least recently leave it."""
        for index, block in flight.blocks.items():
            self._window[content, index] = block
            self.used_bytes += len(block)
        while self.used_bytes > self._window_bytes and len(self._window) > 1:
            self.used_bytes -= len(self._window.popitem(last=False)[1])


def _cut(data: bytearray, step: int, hashes: Sequence[bytes]) -> list[bytes] | None:
    """Return the blocks of ``data`` if each has its hash, else None; worker thread."""
    blocks = [bytes(data[at : at + step]) for at in range(0, len(data), step)]
    right = all(blake3(block).digest() == digest for block, digest in zip(blocks, hashes, strict=True))
    return blocks if right else None
