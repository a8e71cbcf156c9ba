"""Fetching a whole content from several holders at once (spec 5 §Transfer).

Network, checking and writing overlap: a slot fills a buffer from one holder, a worker checks its blocks,
writes them and follows the hash of the whole, a recorder flushes behind them. Engine thread but for the
workers. Cancelling it keeps what was written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from core.blob import RECORD_BYTES, Blob
from core.blobcheck import WholeHash, absorb, bad_blocks, right_blocks
from core.blobrows import Area, entries_of, fits
from core.blobs import BlobStore
from core.buffers import BUFFER_BYTES, BufferPool
from core.byteranges import ByteRanges
from core.errors import ChangedError, CorruptError, NetError, RealizeError, StoreError
from core.holders import HolderBook
from core.pieces import Piece, PieceQueue
from core.ports import PeerLink
from core.streams import ask_blocks, nobody, open_stream
from core.types import HASH_BYTES, BlockList, Hash, PeerKey, Priority, block_bytes_for

_log = logging.getLogger("realize.core.download")

PIECE_BYTES = 4 * 1024 * 1024
_MIN_SLOTS = 2
_MAX_SLOTS = 16
"""LIMIT: requests in flight for one content: with pieces of 4 MiB at most 64 MiB (spec 5)."""

Progress = Callable[[int], None]
"""Told how many bytes more are here and checked; negative when they turned out wrong."""


@dataclass(frozen=True, slots=True)
class FetchParts:
    """What every fetch of one arena uses."""

    arena: str
    store: BlobStore
    book: HolderBook
    buffers: BufferPool
    workers: trio.CapacityLimiter
    stall_s: float


@dataclass(frozen=True, slots=True)
class Expected:
    """The hashes that blocks are checked against, and who gave them (None: ourselves, or the hash)."""

    block_bytes: int
    hashes: bytes
    giver: PeerKey | None

    def whole(self) -> BlockList:
        """Return them as a block list."""
        return BlockList(self.block_bytes, self.hashes)

    def of(self, start: int, end: int) -> list[bytes]:
        """Return the hashes of the blocks of ``[start, end)``; ``start`` is where a block begins."""
        first, last = start // self.block_bytes, -(-end // self.block_bytes)
        return [self.hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(first, last)]


async def expected_of(
    parts: FetchParts,
    content: Hash,
    size: int,
    holders: Sequence[PeerLink],
    failures: dict[PeerKey, RealizeError],
) -> Expected | None:
    """Return the whole block list of a content, from the database or a holder; None if nobody gives it.

    Holders that fail are noted in ``failures``.
    """
    block_bytes, count = block_bytes_for(size), entries_of(size)
    if not count:
        return Expected(block_bytes, content, None)
    known = parts.store.get_blocks(content)
    if known is not None and fits(known, size, count):
        return Expected(block_bytes, known.hashes, None)
    for link in holders:
        try:
            blocks = await ask_blocks(link, parts.arena, content, size, 0, count, parts.stall_s)
        except (NetError, ChangedError) as error:
            failures[link.key] = error
            continue
        return Expected(block_bytes, blocks.hashes, link.key)
    return None


class Download:
    """Brings in the missing ranges of one blob, once. Use `download`."""

    def __init__(
        self, parts: FetchParts, blob: Blob, expected: Expected, priority: Priority, progress: Progress
    ) -> None:
        """Prepare to fill ``blob``."""
        self._parts, self._blob, self._expected = parts, blob, expected
        self._priority, self._progress = priority, progress
        block = expected.block_bytes
        self._buffer_bytes = max(BUFFER_BYTES, block)
        self._missing = ByteRanges.whole(blob.size).difference(blob.ranges).aligned(block, blob.size)
        self._whole = WholeHash(parts.store.disk, blob.fd, blob.size, blob.ranges)
        self.missing_bytes = self._missing.total()
        self.failures: dict[PeerKey, RealizeError] = {}
        self._slots: dict[PeerKey, int] = {}
        self._absorbing = 0
        self._changed = trio.Event()
        self._error: RealizeError | None = None

    async def run(self, holders: Sequence[PeerLink]) -> bool:
        """Fetch from ``holders`` until all is here or none of them is left; says whether all is here.

        Raises:
            NoSpaceError: the disk is full.
            StoreError: the disk failed.
        """
        self._most_slots = max(_MIN_SLOTS, _MAX_SLOTS // max(1, len(holders)))
        self._queue = PieceQueue(self._missing, self._expected.block_bytes, self._piece_bytes(len(holders)))
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._record)
            self._slots = {link.key: 0 for link in holders}
            for link in _MIN_SLOTS * list(holders):  # everyone gets a piece before anyone gets two
                self._start_slot(link)
            while self._busy():
                await self._wait()
            nursery.cancel_scope.cancel()
        if self._error is not None:
            raise self._error
        return self._queue.done

    def _piece_bytes(self, holders: int) -> int:
        """Return the size of a piece: whole buffers, small enough that every holder has some to do."""
        fair = self.missing_bytes // (_MIN_SLOTS * max(1, holders))
        buffer = self._buffer_bytes
        return max(buffer, min(PIECE_BYTES, fair) // buffer * buffer)

    async def digest(self) -> Hash:
        """Return the hash of the whole, when all is here."""
        return await trio.to_thread.run_sync(self._whole.finish, limiter=self._parts.workers)

    def _busy(self) -> bool:
        return self._error is None and (self._absorbing > 0 or any(self._slots.values()))

    async def _wait(self) -> None:
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _record(self) -> None:
        while True:
            await self._wait()
            while self._blob.unrecorded_bytes >= RECORD_BYTES:
                try:
                    await self._blob.record()
                except StoreError as error:
                    self._fail(error)
                    return

    def _fail(self, error: RealizeError) -> None:
        self._error = self._error or error
        self._notify()

    # Network

    def _start_slot(self, link: PeerLink) -> None:
        self._slots[link.key] += 1
        self._nursery.start_soon(self._slot, link)

    async def _slot(self, link: PeerLink) -> None:
        try:
            while (piece := await self._next(link)) is not None:
                try:
                    await self._fetch(link, piece)
                finally:
                    self._queue.finish(piece)
                    self._notify()
        except (NetError, ChangedError) as error:
            _log.debug("%s failed for %s: %s", link.name, self._blob.hash.hex(), error)
            self.failures[link.key] = error
        finally:
            self._slots[link.key] -= 1
            self._notify()

    async def _next(self, link: PeerLink) -> Piece | None:
        while link.key not in self.failures:
            piece = self._queue.take(link.key) or self._queue.steal(link.key, self._parts.book.rate)
            if piece is not None:
                return piece
            if self._queue.done and not self._absorbing:
                return None
            await self._wait()
        return None

    async def _fetch(self, link: PeerLink, piece: Piece) -> None:
        parts, started, begun = self._parts, trio.current_time(), piece.at
        async with open_stream(
            link, parts.arena, self._blob.hash, piece.start, piece.end, self._priority, parts.stall_s
        ) as stream:
            data = memoryview(b"")
            while piece.at < piece.end:
                buffer = await parts.buffers.get(self._buffer_bytes)
                at, filled = piece.at, 0
                try:
                    while filled < len(buffer) and piece.at < piece.end:
                        data = data or await stream.next()
                        count = min(len(data), len(buffer) - filled, piece.end - piece.at)
                        buffer[filled : filled + count] = data[:count]
                        data = data[count:]
                        filled += count
                        piece.at += count
                finally:
                    self._hand_over(link, buffer, at, filled)
        self._measure(link, piece.at - begun, trio.current_time() - started)

    def _measure(self, link: PeerLink, count: int, seconds: float) -> None:
        slots = self._slots[link.key]
        self._parts.book.measured(link.key, count * slots, seconds)
        rtt_s = link.stats().rtt_s or 0.0
        wanted = int(2 * self._parts.book.rate(link.key) * rtt_s / PIECE_BYTES) + _MIN_SLOTS
        if slots < min(wanted, self._most_slots) and self._queue.waiting:
            self._start_slot(link)

    # Content

    def _hand_over(self, link: PeerLink, buffer: bytearray, at: int, filled: int) -> None:
        """Give the whole blocks of a buffer to a worker; the rest of a broken-off one is dropped."""
        block = self._expected.block_bytes
        if at + filled != self._blob.size:
            filled -= filled % block
        if filled and self._error is None:
            self._absorbing += 1
            self._nursery.start_soon(self._absorb, link, buffer, at, filled)
        else:
            self._parts.buffers.put(buffer)

    async def _absorb(self, link: PeerLink, buffer: bytearray, at: int, filled: int) -> None:
        expected = self._expected
        try:
            with trio.CancelScope(shield=True):  # what has arrived is kept when the download is cancelled
                done = await trio.to_thread.run_sync(
                    absorb,
                    self._parts.store.disk,
                    self._blob.fd,
                    at,
                    memoryview(buffer)[:filled],
                    expected.block_bytes,
                    expected.of(at, at + filled),
                    self._whole,
                    limiter=self._parts.workers,
                )
        except StoreError as error:
            self._fail(error)
            return
        finally:
            self._parts.buffers.put(buffer)
            self._absorbing -= 1
            self._notify()
        for start, end in done.good:
            self._blob.add(start, end)
            self._progress(end - start)
        for start, end in done.bad:
            self._queue.again(start, end)
        if done.bad:
            self._parts.book.accuse(self._blob.hash, link, expected.giver, "a wrong block")
            self.failures[link.key] = CorruptError(f"{link.name} sent a wrong block")
        self._notify()


async def download(
    parts: FetchParts,
    content: Hash,
    size: int,
    holders: Sequence[PeerLink],
    priority: Priority,
    progress: Progress,
    area: Area = Area.WORKING,
) -> None:
    """Fetch what is missing of a content and check the whole; see `core.fetch.Fetcher.download`."""
    blob = await parts.store.create(content, size, area)
    if area is not Area.WORKING:
        parts.store.set_area([content], area)  # it may have been there, in another one
    failures: dict[PeerKey, RealizeError] = {}
    giver: PeerKey | None = None
    try:
        if blob.complete and await parts.store.verify(content):
            return
        while not blob.held:
            if blob.removed:
                raise ChangedError(f"content {content.hex()[:12]} was given up here meanwhile")
            usable = [link for link in parts.book.usable(content, holders) if link.key not in failures]
            usable.sort(key=lambda link: link.key != giver)
            expected = await expected_of(parts, content, size, usable, failures)
            usable = [link for link in usable if link.key not in failures]
            if expected is None or not (usable or blob.complete):
                raise nobody(content, list(failures.values()), wrong=parts.book.any_wrong(content))
            giver = expected.giver
            await _round(parts, blob, expected, usable, priority, progress, failures)
    finally:
        await parts.store.release(blob)


async def _round(
    parts: FetchParts,
    blob: Blob,
    expected: Expected,
    usable: Sequence[PeerLink],
    priority: Priority,
    progress: Progress,
    failures: dict[PeerKey, RealizeError],
) -> None:
    """Fetch with one block list; if that fails for good, decide who is to blame.

    Every round that does not complete the blob takes a holder out, by failure, accusation or
    conviction, or makes the blob fit the list of one that is then convicted.
    """
    if blob.doubted:
        progress((await vouched(parts, blob, blob.doubted, expected.block_bytes, expected.of)).total())
    work = Download(parts, blob, expected, priority, progress)
    need = parts.store.quota.blocks(work.missing_bytes)
    await parts.store.reserve(need)
    blob.charge(need)
    here = await work.run(usable)
    failures.update(
        (key, error) for key, error in work.failures.items() if not isinstance(error, CorruptError)
    )
    if not here:
        if expected.giver is not None:
            parts.book.forgive(blob.hash, expected.giver)
    elif not await parts.store.complete(blob, await work.digest()):
        await _mismatch(parts, blob, expected, progress)
    elif entries_of(blob.size):
        parts.store.block_lists.put_many([(blob.hash, expected.whole())])


async def vouched(
    parts: FetchParts,
    blob: Blob,
    doubted: ByteRanges,
    block_bytes: int,
    hashes_of: Callable[[int, int], list[bytes]],
) -> ByteRanges:
    """Compare what was fetched before a crash with its block list; what is right counts again."""
    right = await trio.to_thread.run_sync(
        right_blocks,
        parts.store.disk,
        blob.fd,
        doubted,
        blob.size,
        block_bytes,
        hashes_of,
        limiter=parts.workers,
    )
    await blob.vouch(doubted, right)
    return right


async def _mismatch(parts: FetchParts, blob: Blob, expected: Expected, progress: Progress) -> None:
    """Undo what is wrong in a blob whose bytes are all there and do not have its hash."""
    if blob.removed:
        return
    if not entries_of(blob.size):
        raise CorruptError(f"content {blob.hash.hex()[:12]} of {blob.size} bytes cannot exist")
    _log.warning("content %s does not match its hash; fetching it again", blob.hash.hex())
    wrong = await trio.to_thread.run_sync(
        bad_blocks, parts.store.disk, blob.fd, blob.size, expected.whole(), limiter=parts.workers
    )
    if not wrong:
        # Blocks that all fit a list make a content that does not fit its hash: the list is wrong.
        wrong = ByteRanges.whole(blob.size)
        if expected.giver is None:
            parts.store.block_lists.delete(blob.hash)
        else:
            parts.book.convict(blob.hash, expected.giver)
    progress(-wrong.total())
    await blob.forget(wrong)
