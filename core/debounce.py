"""When a changed path is looked at: quiet time per path, restarted by each event, bounded in all.

Pure: the caller passes the time, in seconds of any monotonic clock. A path is *due* once it was quiet
for the time that its latest change asks for, or ten debounce times after its first change.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from core.types import RelPath


class Change(enum.Enum):
    """What happened to a path, as far as it decides how long to wait."""

    WRITTEN = enum.auto()
    """A file that the index knows was closed after writing or replaced: look at once."""
    ADDED = enum.auto()
    """A path that the index does not know; editors' temporary files come and go in this time."""
    MODIFIED = enum.auto()
    """Data was written and the writer goes on; or the wait before hashing."""
    GONE = enum.auto()
    """Deleted or moved away; what comes back in this time was changed, not deleted."""
    ATTRIBUTES = enum.auto()
    """Mode or times were set."""


COALESCE_S = 0.003
"""LIMIT: events of one save (truncate, write, close, rename) come within this time."""

IMMEDIATE_GAP_S = 0.020
"""LIMIT: a file saved in a loop is announced at most this often."""

ADDED_QUIET_S = 0.100
"""LIMIT: most quiet time before a new path is shown; a peer should list it 0.5 s after its close."""

LIMIT_FACTOR = 10
"""A path that is never quiet is due after this many debounce times (spec 4 §Index)."""

_GRID_S = 0.010
"""LIMIT: deadlines that are not immediate fall on this grid, so that a burst comes in batches."""


@dataclass(slots=True)
class _Waiting:
    first: float
    at: float


class Debouncer:
    """Paths that changed, until they are due. Not thread-safe."""

    def __init__(self, debounce_s: float) -> None:
        """Make an empty one; ``debounce_s`` is the configured quiet time."""
        added = min(debounce_s, ADDED_QUIET_S)
        self._limit_s = LIMIT_FACTOR * debounce_s
        self._quiet_s = {
            Change.WRITTEN: COALESCE_S,
            Change.ADDED: added,
            Change.MODIFIED: debounce_s,
            Change.GONE: debounce_s,
            Change.ATTRIBUTES: added,
        }
        self._waiting: dict[RelPath, _Waiting] = {}
        self._heap: list[tuple[float, RelPath]] = []
        self._last: dict[RelPath, float] = {}

    def __len__(self) -> int:
        """Return how many paths wait."""
        return len(self._waiting)

    def __contains__(self, path: RelPath) -> bool:
        """Say whether the path waits."""
        return path in self._waiting

    def push(self, path: RelPath, change: Change, now: float) -> None:
        """Note a change of ``path`` at ``now``; its quiet time starts again."""
        waiting = self._waiting.get(path)
        if waiting is not None and change is Change.ATTRIBUTES:
            return  # it will be looked at anyway; a chmod after a write does not delay that
        at = now + self._quiet_s[change]
        if change is not Change.WRITTEN:
            at = (at // _GRID_S + 1) * _GRID_S
        elif path in self._last:
            at = max(at, self._last[path] + IMMEDIATE_GAP_S)
        if waiting is None:
            self._waiting[path] = _Waiting(now, at)
            heapq.heappush(self._heap, (at, path))
            return
        at = min(at, max(waiting.first + self._limit_s, now))
        if at < waiting.at:
            heapq.heappush(self._heap, (at, path))
        waiting.at = at

    def due(self, now: float, limit: int | None = None) -> list[RelPath]:
        """Take the paths that are due, at most ``limit``, in the order of their times."""
        out: list[RelPath] = []
        while self._heap and self._heap[0][0] <= now and (limit is None or len(out) < limit):
            _, path = heapq.heappop(self._heap)
            waiting = self._waiting.get(path)
            if waiting is None:
                continue  # taken by an earlier entry of the heap, or discarded
            if waiting.at > now:
                heapq.heappush(self._heap, (waiting.at, path))
                continue
            del self._waiting[path]
            self._last[path] = now
            out.append(path)
        self._forget(now)
        return out

    def next_due(self) -> float | None:
        """Return when to call `due` next; it may then give nothing. None: nothing waits."""
        while self._heap:
            at, path = self._heap[0]
            waiting = self._waiting.get(path)
            if waiting is not None and waiting.at <= at:
                return at
            heapq.heappop(self._heap)
            if waiting is not None:
                heapq.heappush(self._heap, (waiting.at, path))
        return None

    def discard(self, paths: Iterable[RelPath]) -> None:
        """Forget paths that were dealt with otherwise."""
        for path in paths:
            self._waiting.pop(path, None)

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._heap.clear()
        self._last.clear()

    def _forget(self, now: float) -> None:
        # ``_last`` only matters for a moment; it is emptied when it has grown past its use.
        if len(self._last) > 1000:
            self._last = {path: at for path, at in self._last.items() if now - at < IMMEDIATE_GAP_S}
