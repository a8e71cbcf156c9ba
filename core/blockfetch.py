"""Fetching the blocks a reader waits for, and those it will want next (spec 5 §Transfer).

A *flight* is one request for a short run of neighbouring blocks. Readers that want a block in flight
wait for that flight; it goes on when a reader gives up, since others may wait and it is short. Engine
thread but for checking and writing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from core.blob import RECORD_BYTES, Blob
from core.blobcheck import absorb
from core.buffers import BUFFER_BYTES
from core.byteranges import ByteRanges
from core.download import FetchParts, vouched
from core.entrybook import Entries, EntryBook
from core.errors import ChangedError, CorruptError, NetError, NoHolderError, RealizeError, StoreError
from core.ports import PeerLink
from core.streams import nobody, open_stream
from core.types import Hash, Priority, block_bytes_for

_log = logging.getLogger("realize.core.blockfetch")

_AHEAD_BYTES = 64 * 1024 * 1024
"""LIMIT: bytes of read-ahead on their way at once (spec 4 §Streaming reads)."""


class _Flight:
    """A run of blocks ``[start, end)`` on its way."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.ranges = ByteRanges([(start, end)])
        self.done = trio.Event()
        self.error: RealizeError | None = None


class BlockFetch:
    """The flights of one arena."""

    def __init__(self, parts: FetchParts, nursery: trio.Nursery, book: EntryBook) -> None:
        """Run flights in ``nursery``; ``book`` knows what blocks hash to."""
        self._parts, self._nursery, self._book = parts, nursery, book
        self._flights: dict[Hash, list[_Flight]] = {}
        self._verifying: set[Hash] = set()
        self._ahead_bytes = 0

    async def fetch(
        self, content: Hash, size: int, start: int, end: int, holders: Sequence[PeerLink], priority: Priority
    ) -> ByteRanges:
        """See `core.fetch.Fetcher.fetch_range`."""
        if not holders and self._parts.store.info(content) is None:
            raise nobody(content, (), wrong=False)
        blob = await self._parts.store.create(content, size)
        try:
            while not blob.ranges.covers(start, end):
                flights = self._wanted(blob, start, end, holders, priority)
                for flight in flights:
                    await flight.done.wait()
                    if flight.error is not None:
                        raise flight.error
            return blob.ranges
        finally:
            await self._parts.store.release(blob)

    def prefetch(self, content: Hash, size: int, start: int, end: int, holders: Sequence[PeerLink]) -> int:
        """See `core.fetch.Fetcher.prefetch`."""
        row = self._parts.store.info(content)
        if start >= end or row is None or not holders:
            return start
        end = min(end, start + max(0, _AHEAD_BYTES - self._ahead_bytes))
        if start < end and not row.ranges.covers(start, end):
            self._nursery.start_soon(self._ahead, content, size, start, end, holders)
        return end

    async def _ahead(
        self, content: Hash, size: int, start: int, end: int, holders: Sequence[PeerLink]
    ) -> None:
        self._ahead_bytes += end - start
        try:
            await self.fetch(content, size, start, end, holders, Priority.INTERACTIVE)
        except RealizeError as error:
            _log.debug("read-ahead of %s ended: %s", content.hex(), error)
        finally:
            self._ahead_bytes -= end - start

    def _wanted(
        self, blob: Blob, start: int, end: int, holders: Sequence[PeerLink], priority: Priority
    ) -> list[_Flight]:
        """Return the flights that bring ``[start, end)``: those under way, and new ones for the rest."""
        running = self._flights.setdefault(blob.hash, [])
        block = block_bytes_for(blob.size)
        need = ByteRanges([(start, end)]).difference(blob.ranges).aligned(block, blob.size)
        need = need.difference(blob.ranges)
        under_way = ByteRanges(run for flight in running for run in flight.ranges)
        flights = [
            flight for flight in running if need.intersection(ByteRanges([(flight.start, flight.end)]))
        ]
        step = max(BUFFER_BYTES, block)
        for first, last in need.difference(under_way).aligned(block, blob.size):
            for at in range(first, last, step):
                flight = _Flight(at, min(at + step, last))
                running.append(flight)
                flights.append(flight)
                self._nursery.start_soon(self._fly, blob.share(), flight, list(holders), priority)
        return flights

    async def _fly(
        self, blob: Blob, flight: _Flight, holders: Sequence[PeerLink], priority: Priority
    ) -> None:
        try:
            await self._bring(blob, flight, holders, priority)
        except RealizeError as error:
            flight.error = error
        finally:
            running = self._flights[blob.hash]
            running.remove(flight)
            if not running:
                del self._flights[blob.hash]
            if flight.error is None and not blob.ranges.covers(flight.start, flight.end):
                flight.error = NoHolderError("the fetch was cancelled")
            flight.done.set()
            self._settle(blob)
            await self._parts.store.release(blob)

    async def _bring(
        self, blob: Blob, flight: _Flight, holders: Sequence[PeerLink], priority: Priority
    ) -> None:
        parts, content = self._parts, blob.hash
        need = parts.store.quota.blocks(flight.end - flight.start)
        failures: list[RealizeError] = []
        buffer: bytearray | None = None
        for link in parts.book.usable(content, holders):
            try:
                known = await self._book.known(blob.hash, blob.size, flight.start, flight.end, link)
                if doubted := blob.doubted.intersection(flight.ranges):
                    await vouched(parts, blob, doubted, known.block_bytes, known.of)
                if blob.ranges.covers(flight.start, flight.end):
                    return
                if buffer is None:
                    await parts.store.reserve(need)
                    blob.charge(need)
                    buffer = bytearray(flight.end - flight.start)
                await self._receive(link, content, flight, buffer, priority)
            except (NetError, ChangedError) as error:
                failures.append(error)
                continue
            if await self._absorb(blob, flight, memoryview(buffer), known, link):
                return
            failures.append(CorruptError(f"{link.name} sent a wrong block"))
        raise nobody(content, failures, wrong=parts.book.any_wrong(content))

    async def _receive(
        self, link: PeerLink, content: Hash, flight: _Flight, buffer: bytearray, priority: Priority
    ) -> None:
        started, filled = trio.current_time(), 0
        async with open_stream(
            link, self._parts.arena, content, flight.start, flight.end, priority, self._parts.stall_s
        ) as stream:
            while filled < len(buffer):
                data = await stream.next()
                buffer[filled : filled + len(data)] = data
                filled += len(data)
        if filled >= BUFFER_BYTES:  # shorter ones measure the delay, not the throughput
            self._parts.book.measured(link.key, filled, trio.current_time() - started)

    async def _absorb(
        self, blob: Blob, flight: _Flight, data: memoryview, known: Entries, link: PeerLink
    ) -> bool:
        done = await trio.to_thread.run_sync(
            absorb,
            self._parts.store.disk,
            blob.fd,
            flight.start,
            data,
            known.block_bytes,
            known.of(flight.start, flight.end),
            None,
            limiter=self._parts.workers,
        )
        for start, end in done.good:
            blob.add(start, end)
        if not done.bad:
            return True
        self._parts.book.accuse(blob.hash, link, known.giver(flight.start), "a wrong block")
        return False

    # After a flight

    def _settle(self, blob: Blob) -> None:
        """Record or verify what has become of a blob, in the background."""
        if blob.removed:
            return
        if blob.complete and not blob.verified:
            if blob.hash not in self._verifying:
                self._verifying.add(blob.hash)
                self._nursery.start_soon(self._verify, blob.hash)
        elif blob.unrecorded_bytes >= RECORD_BYTES:
            self._nursery.start_soon(self._record, blob.share())

    async def _record(self, blob: Blob) -> None:
        try:
            if blob.unrecorded_bytes >= RECORD_BYTES:
                await blob.record()
        except StoreError as error:
            _log.warning("blob %s: %s; fetching that part again later", blob.hash.hex(), error)
        finally:
            await self._parts.store.release(blob)

    async def _verify(self, content: Hash) -> None:
        try:
            if not await self._parts.store.verify(content):
                self._book.distrust(content)
        except (StoreError, ChangedError) as error:
            _log.warning("blob %s could not be checked: %s", content.hex(), error)
        finally:
            self._verifying.discard(content)
