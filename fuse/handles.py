"""Open files by the number that the kernel has for them. Mount thread."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import trio

from core.errors import PathInvalidError
from core.types import Hash
from fuse.sources import Source

USE_S = 60.0
"""LIMIT: a file that is read for hours counts as used this often."""


@dataclass(slots=True)
class Handle:
    """An open file. ``content``: the whole blob it reads, of whose use the engine hears (see `tell_use`)."""

    arena: str
    inode: int
    source: Source
    direct: bool
    content: Hash | None = None
    told_s: float = float("-inf")

    def tell_use(self, now_s: float) -> bool:
        """Say whether the engine is to hear of a read now: of the first one, and of one in a while."""
        if self.content is None or now_s - self.told_s < USE_S:
            return False
        self.told_s = now_s
        return True


class Handles:
    """All open files, and the reads that wait."""

    def __init__(self) -> None:
        """Start with none."""
        self._numbers = itertools.count(1)
        self._open: dict[int, Handle] = {}
        self._waiting: set[trio.CancelScope] = set()
        self.ending = False
        """The mount is going: reads that would wait fail."""

    def add(self, handle: Handle) -> int:
        """Return a number for an open file."""
        number = next(self._numbers)
        self._open[number] = handle
        return number

    def get(self, number: int) -> Handle:
        """Return an open file.

        Raises:
            PathInvalidError: there is none of that number.
        """
        handle = self._open.get(number)
        if handle is None:
            raise PathInvalidError("no such open file")
        return handle

    def pop(self, number: int) -> Handle | None:
        """Forget an open file and return it."""
        return self._open.pop(number, None)

    def waiting(self, scope: trio.CancelScope) -> None:
        """A read waits in ``scope``; cancelled at once when the mount is going."""
        if self.ending:
            scope.cancel()
        self._waiting.add(scope)

    def done(self, scope: trio.CancelScope) -> None:
        """It does not any more."""
        self._waiting.discard(scope)

    def interrupt_all(self) -> None:
        """Let every read that waits, or would wait, fail: the mount is going."""
        self.ending = True
        for scope in self._waiting:
            scope.cancel()

    def close_all(self) -> None:
        """Close what is still open when the mount is gone."""
        while self._open:
            self._open.popitem()[1].source.close()
