"""The brake on mass deletions (spec 4 §Index): which deletions of a datadir go on, and when.

Pure: the caller passes the time in seconds. Few deletions go on at once. Many in a row wait until the
burst is over; if it would take more than half of an arena they are held until somebody confirms.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from core.types import RelPath

MANY_FILES = 100
"""LIMIT: deletions of up to this many files are never held (spec 4 §Index, Brake)."""

BURST_QUIET_S = 0.5
"""LIMIT: a burst is over after this long without a deletion."""

BURST_LIMIT_S = 30.0
"""LIMIT: a burst that never ends is judged after this long."""


class Verdict(enum.Enum):
    """What is to be done with deletions that wait."""

    WAIT = enum.auto()
    RELEASE = enum.auto()
    HOLD = enum.auto()


class DeleteBrake:
    """Deletions seen but not recorded: paths, each with the number of files that go with it."""

    def __init__(self) -> None:
        """Make an empty one."""
        self._waiting: dict[RelPath, int] = {}
        self._first = 0.0
        self._last = float("-inf")
        self._arena_files = 0
        self._released_files = 0
        self._held = False

    @property
    def held_files(self) -> int:
        """Return how many files are held for confirmation, 0 if none."""
        return self.waiting_files if self._held else 0

    @property
    def waiting_files(self) -> int:
        """Return how many files wait, held or not."""
        return sum(self._waiting.values())

    @property
    def undecided(self) -> bool:
        """Say whether deletions wait for the end of their burst."""
        return bool(self._waiting) and not self._held

    def burst_files(self) -> int:
        """Return how many files the burst under way has taken so far."""
        return self._released_files + self.waiting_files

    def new_burst(self, now: float) -> bool:
        """Say whether deletions offered now begin a burst: then the arena's size is asked for."""
        return not self._waiting and now - self._last > BURST_QUIET_S

    def offer(self, gone: Mapping[RelPath, int], now: float, arena_files: int | None = None) -> None:
        """Add deletions; ``arena_files`` is the number of files before them, needed for a new burst."""
        if self.new_burst(now):
            self._first = now
            self._released_files = 0
            self._arena_files = arena_files or 0
        self._last = now
        self._waiting.update(gone)

    def judge(self, now: float) -> Verdict:
        """Say what to do with what waits."""
        if self._held or not self._waiting:
            return Verdict.WAIT
        files = self.burst_files()
        if files <= MANY_FILES:
            return Verdict.RELEASE
        if now < self.due():
            return Verdict.WAIT
        if 2 * files > self._arena_files:
            self._held = True
            return Verdict.HOLD
        return Verdict.RELEASE

    def due(self) -> float:
        """Return when a burst that waits is judged."""
        return min(self._last + BURST_QUIET_S, self._first + BURST_LIMIT_S)

    def take(self) -> list[RelPath]:
        """Take what waits, to record it: released by `judge`, or confirmed."""
        taken = list(self._waiting)
        self._released_files += self.waiting_files
        self._waiting.clear()
        self._held = False
        return taken

    def came_back(self, paths: Iterable[RelPath]) -> bool:
        """Forget deletions of paths that are there (again); says whether any was."""
        if not self._waiting:
            return False
        back = [path for path in paths if self._waiting.pop(path, None) is not None]
        if not self._waiting:
            self._held = False
        return bool(back)

    def covers(self, path: RelPath) -> bool:
        """Say whether a deletion of the path, or of a directory above it, waits."""
        at: bytes = path
        while at:
            if at in self._waiting:
                return True
            at = at.rpartition(b"/")[0]
        return False

    def is_waiting(self, path: RelPath) -> bool:
        """Say whether the deletion of exactly this path waits."""
        return path in self._waiting
