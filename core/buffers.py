"""A bounded pool of reusable buffers for content on its way from the network to the disk."""

from __future__ import annotations

import trio

BUFFER_BYTES = 1024 * 1024
_BUFFERS = 16
"""LIMIT: buffers in use at once by one fetcher: 16 MiB of memory for ordinary contents."""


class BufferPool:
    """Buffers of `BUFFER_BYTES`, or of one block where blocks are larger. Engine thread.

    Who holds a buffer never waits for another one, so the pool cannot lock up.
    """

    def __init__(self) -> None:
        """Make an empty pool; buffers are made when first needed."""
        self._free: list[bytearray] = []
        self._slots = trio.Semaphore(_BUFFERS)

    async def get(self, size: int) -> bytearray:
        """Wait for a buffer of ``size`` bytes, at least `BUFFER_BYTES`."""
        await self._slots.acquire()
        if size == BUFFER_BYTES and self._free:
            return self._free.pop()
        return bytearray(size)

    def put(self, buffer: bytearray) -> None:
        """Give a buffer back; nobody looks at it any more."""
        if len(buffer) == BUFFER_BYTES:
            self._free.append(buffer)
        self._slots.release()

    def trim(self) -> None:
        """Free the memory of buffers that nobody uses."""
        self._free.clear()
