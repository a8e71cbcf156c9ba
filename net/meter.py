"""Rates over the last seconds. Pure: times are given."""

from __future__ import annotations

from collections import deque

WINDOW_S = 5.0


class Meter:
    """Counts bytes; `rate` is over the last `WINDOW_S` seconds, in slices of half a second."""

    _SLICE_S = 0.5

    def __init__(self) -> None:
        """Start at zero."""
        self.total = 0
        self._slices: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, count: int) -> None:
        """Count bytes that moved at ``now_s``."""
        self.total += count
        start = now_s - now_s % self._SLICE_S
        if self._slices and self._slices[-1][0] == start:
            count += self._slices.pop()[1]
        self._slices.append((start, count))
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        while self._slices and self._slices[0][0] < now_s - WINDOW_S:
            self._slices.popleft()

    def rate(self, now_s: float) -> float:
        """Return bytes/s over the window that ends at ``now_s``."""
        self._forget(now_s)
        if not self._slices:
            return 0.0
        span = max(now_s - self._slices[0][0], self._SLICE_S)
        return sum(count for _, count in self._slices) / span
