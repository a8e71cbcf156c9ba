"""From the dashboard's asyncio loop to the engine's trio loop (spec 2 §Threads).

Owns no state but the subscriptions it was asked for. The dashboard holds no `Api` itself: whatever
it asks is a function that gets one, in the trio thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from core.api import Api
from core.errors import EngineStoppedError
from core.events import AnyEvent
from core.loops import TrioThread

_log = logging.getLogger("realize.app.bridge")

T = TypeVar("T")


def _ignore(_: BaseException) -> None:
    """Do nothing with a failure that has been logged."""


class Bridge:
    """Calls an `Api` that lives in ``loop``; asyncio side only, except where said."""

    def __init__(self, loop: TrioThread, api: Api) -> None:
        """Make a bridge to ``api``, which is only ever touched in ``loop``'s thread."""
        self._loop = loop
        self._api = api
        self.pending = 0
        """Calls that have not returned."""

    async def call(self, fn: Callable[[Api], Awaitable[T]]) -> T:
        """Run ``fn(api)`` in the trio thread and return its result; cancelling cancels it there.

        Raises:
            EngineStoppedError: the loop has ended or ends before the result.
        """
        self.pending += 1
        try:
            return await asyncio.wrap_future(self._loop.submit(fn, self._api))
        finally:
            self.pending -= 1

    def follow(
        self,
        on_batch: Callable[[list[AnyEvent]], None],
        on_failure: Callable[[BaseException], None] = _ignore,
    ) -> Callable[[], None]:
        """Give every batch of events to ``on_batch``, in the trio thread; returns what stops it.

        ``on_failure`` is called once, in any thread, if the stream ends by itself.
        """

        async def run(api: Api) -> None:
            async with aclosing(api.events()) as batches:  # type: ignore[type-var]  # an async generator
                async for batch in batches:
                    on_batch(batch)
            raise EngineStoppedError("the event stream has ended", hint="start the daemon again")

        future = self._loop.submit(run, self._api)

        def ended(done: concurrent.futures.Future[None]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is not None:
                _log.warning("event stream ended: %s", error)
                on_failure(error)

        future.add_done_callback(ended)
        return lambda: (future.cancel(), None)[1]
