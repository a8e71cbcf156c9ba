"""The counters that this host puts into vectors: never one that it has given to a path before.

A counter is the wall clock in milliseconds, or one above the highest that is known of the path, whichever
is greater (a hybrid logical clock: Kulkarni et al., *Logical Physical Clocks*, 2014). So it stays new where
nothing is known any more: the database was deleted, or put back from a backup, or what was known of the
path was forgotten. Order follows from the vectors alone; a wrong clock costs nothing while the database is
there. Engine thread; see docs/decisions/0060-trimming.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.db import Connection

_KEYS = ("counter_highest", "counter_floor")


class Counters:
    """Counters of this host in one arena. Methods that change something run inside a transaction."""

    def __init__(self, conn: Connection, now_ms: Callable[[], int]) -> None:
        """Load what was given out; `ensure` writes the beginning of a new database."""
        self._conn = conn
        self._now_ms = now_ms
        self.highest = 0
        """No counter above it was given out by this database."""
        self._floor = 0
        self._saved = (-1, -1)
        self.rolled_back()

    def rolled_back(self) -> None:
        """Read again what is written."""
        rows: dict[Any, Any] = dict(
            self._conn.execute("SELECT key, value FROM meta WHERE key IN (?, ?)", _KEYS)
        )
        self._saved = int(rows.get(_KEYS[0], -1)), int(rows.get(_KEYS[1], 0))
        self.highest, self._floor = max(0, self._saved[0]), self._saved[1]

    def ensure(self) -> None:
        """Begin a new database at the present."""
        if self._saved[0] < 0:
            self.highest = self._now_ms()
            self.save()

    def after(self, known: int) -> int:
        """Return a counter for a path of which ``known`` is the highest known one (0: none)."""
        counter = max(known + 1, self._floor + 1, self._now_ms())
        self.highest = max(self.highest, counter)
        return counter

    def stay_above(self, counter: int) -> None:
        """Give out no counter up to this one any more: it may have been given to any path."""
        self._floor = max(self._floor, counter)
        self.highest = max(self.highest, counter)

    def save(self) -> None:
        """Write what has changed; before the commit."""
        now = (self.highest, self._floor)
        if now != self._saved:
            self._conn.executemany(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                zip(_KEYS, now, strict=True),
            )
            self._saved = now
