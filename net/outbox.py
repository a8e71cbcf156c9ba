"""Frames that wait to be sent, in the order in which they may leave.

Engine thread; does no I/O. What is not an item of a batch answer leaves before items of batch answers, frame
by frame; our hello leaves before anything.
"""

from __future__ import annotations

from collections import deque

import trio

from core.types import Priority
from net import codec
from net.frames import encode_prefix
from net.messages import Body, Pong

_QUEUED_BYTES = 512 * 1024
"""LIMIT: bytes of one priority that wait for the stream; more would only delay what overtakes."""
GATHERED_BYTES = 256 * 1024
"""LIMIT: bytes handed to the stream at once: what an interactive frame may have to wait for."""

Buffer = bytes | memoryview


class Outbox:
    """Two queues of frames, one for each `Priority`."""

    def __init__(self) -> None:
        """Start empty."""
        self._queues: tuple[deque[tuple[bytes, Buffer]], ...] = tuple(deque() for _ in Priority)
        self._bytes = [0 for _ in Priority]
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.Event()
        self._started = False
        self._pong: int | None = None

    def waiting_bytes(self, priority: Priority) -> int:
        """Return how many bytes of a priority wait."""
        return self._bytes[priority]

    def put(
        self,
        request_id: int,
        body: Body,
        payload: Buffer = b"",
        *,
        flags: int = 0,
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        """Queue a message.

        Raises:
            LocalProtocolError: it cannot be encoded within the limits.
        """
        prefix = encode_prefix(codec.encode(request_id, body), len(payload), flags)
        self._queues[priority].append((prefix, payload))
        self._bytes[priority] += len(prefix) + len(payload)
        self._work.set()

    def put_pong(self, token: int) -> None:
        """Answer a ping; of several that wait only the last is answered, so that pings cost no memory."""
        self._pong = token
        self._work.set()

    async def room(self, priority: Priority) -> None:
        """Wait until more may be queued for an answer."""
        while self._bytes[priority] >= _QUEUED_BYTES:
            await self._room.park()

    async def take(self) -> list[Buffer]:
        """Return what is to be sent next, at most `GATHERED_BYTES` unless a single frame is longer."""
        while not (parts := self._gather()):
            self._work = trio.Event()
            await self._work.wait()
        self._room.unpark_all()
        return parts

    def _gather(self) -> list[Buffer]:
        parts: list[Buffer] = []
        size = 0
        # RACE: the other side's ping may come before our hello has left, which goes first of all.
        if self._pong is not None and self._started:
            parts.append(encode_prefix(codec.encode(0, Pong(self._pong)), 0))
            self._pong = None
        for priority, queue in enumerate(self._queues):
            while queue and (not parts or size + len(queue[0][0]) + len(queue[0][1]) <= GATHERED_BYTES):
                prefix, payload = queue.popleft()
                parts.append(prefix)
                if payload:
                    parts.append(payload)
                size += len(prefix) + len(payload)
                self._bytes[priority] -= len(prefix) + len(payload)
        self._started = self._started or bool(parts)
        return parts
