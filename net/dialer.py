"""Dialling: one peer is tried again and again, with growing random pauses.

The pauses are *full jitter* (M. Brooker, *Exponential Backoff And Jitter*, 2015), so that hosts that
lost each other at the same moment do not meet each other's dials for ever.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from core.addresses import parse_address
from core.errors import DisconnectedError

FIRST_S = 0.5
"""LIMIT: bound of the first pause (spec 5 §Connections)."""
LAST_S = 60.0
"""LIMIT: bound of all pauses (spec 5 §Connections)."""


class Backoff:
    """How long to wait before the next try. Pure but for the random numbers it is given."""

    def __init__(self, rng: random.Random) -> None:
        """Start with the shortest pause."""
        self._rng = rng
        self._bound_s = FIRST_S

    def reset(self) -> None:
        """Note a success."""
        self._bound_s = FIRST_S

    def next_s(self) -> float:
        """Return the pause after a failure."""
        pause_s = self._rng.uniform(0.0, self._bound_s)
        self._bound_s = min(LAST_S, self._bound_s * 2)
        return pause_s


async def open_stream(address: str) -> trio.SocketStream:
    """Connect to ``host:port``, resolved now, whichever of its addresses answers first.

    Raises:
        DisconnectedError: none does, or the name does not resolve.
    """
    host, port = parse_address(address)
    try:
        return await trio.open_tcp_stream(host, port)
    except OSError as error:
        # trio raises one error for all addresses, with theirs as a group in its cause.
        raise DisconnectedError(f"cannot reach {address}: {_first_reason(error)}") from error


def _first_reason(error: OSError) -> str:
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    return found.strerror or str(found)


class Dialer:
    """Keeps one peer connected for as long as `run` lives."""

    def __init__(
        self,
        attempt: Callable[[], Awaitable[bool]],
        wanted: Callable[[], bool],
        backoff: Backoff,
    ) -> None:
        """Make the dialer.

        Args:
            attempt: dials once and stays for as long as the connection lives; says whether there was one.
            wanted: whether to dial at all now.
            backoff: how long to wait between.
        """
        self._attempt = attempt
        self._wanted = wanted
        self._backoff = backoff
        self._kicked = trio.Event()
        self._changed = trio.Event()
        self._scope: trio.CancelScope | None = None

    def kick(self) -> None:
        """Look again now, and start with short pauses."""
        self._backoff.reset()
        self._kicked.set()
        self._changed.set()

    def look(self) -> None:
        """Ask again whether to dial, after the usual pause."""
        self._changed.set()

    def abandon(self) -> None:
        """Give up an attempt (or the connection it led to)."""
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """Dial for ever."""
        while True:
            self._kicked, self._changed = trio.Event(), trio.Event()
            if self._wanted():
                with trio.CancelScope() as self._scope:
                    if await self._attempt():
                        self._backoff.reset()
            else:
                await self._changed.wait()
            with trio.move_on_after(self._backoff.next_s()):
                await self._kicked.wait()
