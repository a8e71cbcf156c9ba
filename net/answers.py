"""Answering a request: credit, order and errors, as a served request sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from core.errors import WIRE_CODES, RealizeError, chain, lookup
from core.types import Priority
from net.frames import FLAG_COMPRESSED
from net.messages import ITEM_COST, Failure, Item
from net.session import Session


class ItemSink(Protocol):
    """Where items go: the connection."""

    async def send_item(
        self, request_id: int, item: Item, payload: bytes | memoryview, priority: Priority, flags: int
    ) -> None:
        """Queue an item once there is room."""
        ...


class Answers:
    """The answer to one request of the other side; used by one task."""

    def __init__(self, sink: ItemSink, session: Session, request_id: int, priority: Priority) -> None:
        """Make the answer to request ``request_id`` of ``session``."""
        self.priority = priority
        self._sink = sink
        self._session = session
        self._id = request_id
        self._more_credit = trio.Event()

    def credited(self) -> None:
        """Wake who waits for credit."""
        self._more_credit.set()

    async def credit(self) -> int:
        """Wait until there is credit; returns how much, at least one byte."""
        while (credit := self._session.credit(self._id)) <= 0:
            self._more_credit = trio.Event()
            await self._more_credit.wait()
        return credit

    def reserve(self, payload_lengths: Sequence[int]) -> None:
        """Take credit for items that `send_reserved` sends: nobody waits for credit with data in memory.

        There must be credit left for each of them when those before it are paid; the last may overdraw it.
        """
        self._session.spend(self._id, sum(payload_lengths) + ITEM_COST * len(payload_lengths))

    async def send_reserved(self, item: Item, payload: bytes | memoryview) -> None:
        """Send an item whose credit was taken by `reserve`."""
        await self._sink.send_item(self._id, item, payload, self.priority, 0)

    async def send(self, item: Item, payload: bytes | memoryview = b"", *, compressed: bool = False) -> None:
        """Send an item when there is credit for it."""
        await self.credit()
        self._session.spend(self._id, ITEM_COST + len(payload))
        flags = FLAG_COMPRESSED if compressed else 0
        await self._sink.send_item(self._id, item, payload, self.priority, flags)


def failure_of(error: RealizeError) -> Failure:
    """Return what is sent for an error."""
    message, *causes = chain(error)
    return Failure(lookup(WIRE_CODES, type(error)), message, tuple(causes), error.hint)
