"""How often contents are used, of late: what is worth keeping when room is needed (pure).

After TinyLFU (Einziger, Friedman, Manes, *TinyLFU: A Highly Efficient Cache Admission Policy*, 2017), with
exact counts instead of a sketch, since a household uses few contents. Uses are counted over a window; at
its end, a *generation*, all counts are halved, so that what was used long ago is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.types import Hash

GENERATION_USES = 10_000
"""LIMIT: uses in a generation; at most so many contents are remembered, 100 bytes each."""

_LEAST_WINDOW = 1000
"""LIMIT: with fewer uses seen, everything would look frequent."""

_LEAST_COUNT = 2
"""A content that was used once is not used often, however small it is."""


class Frequency:
    """Counts of uses by content."""

    def __init__(self, generation: int = 0, counts: Iterable[tuple[Hash, int, int]] = ()) -> None:
        """Start in ``generation`` with ``(content, count, generation of the count)``."""
        self.generation = generation
        self._counts: dict[Hash, int] = {}
        for content, count, counted in counts:
            left = count >> min(63, max(0, generation - counted))
            if left:
                self._counts[content] = left
        self._window = sum(self._counts.values())
        self._changed: set[Hash] = set()

    def use(self, content: Hash) -> bool:
        """Count a use; says whether a generation ended with it."""
        self._counts[content] = self._counts.get(content, 0) + 1
        self._changed.add(content)
        self._window += 1
        if self._window < GENERATION_USES:
            return False
        self.generation += 1
        self._counts = {known: count >> 1 for known, count in self._counts.items() if count > 1}
        self._window = sum(self._counts.values())
        return True

    def count(self, content: Hash) -> int:
        """Return the uses counted for a content."""
        return self._counts.get(content, 0)

    def worth_keeping(self, content: Hash, disk_bytes: int, capacity_bytes: int) -> bool:
        """Say whether a content has at least its share of the uses: count ≥ bytes · window / capacity.

        INVARIANT: what is worth keeping fits together into the capacity, since counts sum to the window.
        """
        count = self.count(content)
        window = max(self._window, _LEAST_WINDOW)
        return count >= _LEAST_COUNT and count * capacity_bytes >= disk_bytes * window

    def take_changed(self) -> list[tuple[Hash, int]]:
        """Return the counts that changed since the last call, in this generation."""
        changed, self._changed = self._changed, set()
        return [(content, self._counts.get(content, 0)) for content in changed]
