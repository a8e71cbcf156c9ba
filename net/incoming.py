"""The answer to a request of ours, as the one who asked takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from core.errors import RealizeError
from net.messages import Item


class Incoming:
    """The answer to a request of ours. One task takes from it."""

    def __init__(self, consumed: Callable[[int], None]) -> None:
        """Make an empty answer; ``consumed`` is called with the length of each payload taken."""
        self._consumed = consumed
        self._items: deque[tuple[Item, memoryview]] = deque()
        self._wake = trio.Event()
        self._ended = False
        self._error: RealizeError | None = None

    def put(self, item: Item, payload: memoryview) -> None:
        """Add an item that came."""
        self._items.append((item, payload))
        self._wake.set()

    def end(self, error: RealizeError | None) -> None:
        """Note that nothing more comes; ``error`` says why, None that the answer is complete."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake.set()

    async def take(self) -> tuple[Item, memoryview] | None:
        """Return the next item and its payload, None at the end.

        Raises:
            RealizeError: the request failed or the connection is gone.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._wake = trio.Event()
            await self._wake.wait()
        item, payload = self._items.popleft()
        self._consumed(len(payload))
        return item, payload
