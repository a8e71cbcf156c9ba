"""How much to fetch ahead of a reader. Pure."""

from __future__ import annotations

FIRST_BYTES = 128 * 1024
MAX_BYTES = 16 * 1024 * 1024
_GROWTH = 4
_SLACK_BYTES = 2 * 1024 * 1024
"""LIMIT: the kernel sends the requests of one sequential reader several at once, in any order."""


class ReadAhead:
    """The read-ahead of one open file: grows while it is read in order, none while it is not."""

    def __init__(self) -> None:
        """Expect the first read at the start."""
        self._next = 0
        self._window = 0

    def note(self, offset: int, end: int) -> int:
        """Take in a read of ``[offset, end)``; return the bytes to fetch ahead of ``end``."""
        if offset <= self._next <= end + _SLACK_BYTES or 0 <= offset - self._next <= _SLACK_BYTES:
            started = self._next > 0
            self._next = max(self._next, end)
            if started:
                self._window = min(MAX_BYTES, self._window * _GROWTH or FIRST_BYTES)
        else:
            self._next, self._window = end, 0
        return self._window
