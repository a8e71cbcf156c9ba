"""Whether what an arena records can be written now, and who waits until it can again.

A full or read-only workdir is no bug: work stops where it is, says why, and goes on when there is room.
Engine thread.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from core.errors import StoreError


class Trouble:
    """The trouble of one arena with its workdir."""

    def __init__(self, changed: Callable[[StoreError | None], None]) -> None:
        """Have none; ``changed`` is told when it begins, with its error, and when it is over, with None."""
        self._changed = changed
        self._over = trio.Event()
        self._over.set()
        self.reason = ""
        """Why nothing can be written; "" while it can."""

    def found(self, error: BaseException) -> None:
        """Note that something could not be written: a `StoreError`, or a group of them."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, StoreError)
        if not self.reason:
            self.reason = f"{error} ({error.hint})" if error.hint else str(error)
            self._over = trio.Event()
            self._changed(error)

    def over(self) -> None:
        """Note that something was written."""
        if self.reason:
            self.reason = ""
            self._over.set()
            self._changed(None)

    async def wait(self) -> None:
        """Wait until it is over; return at once if there is none."""
        await self._over.wait()
