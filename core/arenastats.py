"""Figures of an arena for ``status``: counted in a worker on a connection of its own, and remembered.

The counts scan tables, so they are made at most once for each state of the cache, never in the
engine thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.choice import Flag
from core.db import Connection, connect_readonly

_FILES = (
    "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(local = 1), 0), coalesce(sum(local = 2), 0)"
    " FROM node WHERE kind = 1"
)
_CONFLICTS = "SELECT count(*) FROM node WHERE flags <> 0 AND flags & ?"
"""As many as `core.conflicts` lists: directories too, and deletions that lost against a change."""
_ONLY_HERE = (
    "SELECT count(*) FROM entry e JOIN node n ON n.id = e.node WHERE e.peer = 0 AND e.holding = 1"
    " AND e.kind = 1 AND n.local = 1 AND NOT EXISTS (SELECT 1 FROM entry o WHERE o.node = e.node"
    " AND o.peer > 0 AND o.holding IN (1, 2, 4)"
    " AND (o.hash = e.hash OR e.hash IS NULL AND o.vector = e.vector))"
)
_HASHING = "SELECT count(*) FROM entry WHERE peer = 0 AND holding = 1 AND kind = 1 AND hash IS NULL"


@dataclass(frozen=True, slots=True)
class ArenaCounts:
    """Numbers of files, and the sum of their sizes in bytes."""

    files: int = 0
    bytes: int = 0
    real: int = 0
    cached: int = 0
    conflicts: int = 0
    only_here: int = 0
    unhashed: int = 0

    @property
    def online(self) -> int:
        """Files whose content is not whole here."""
        return self.files - self.real - self.cached


class ArenaCounter:
    """Counts one arena. Use from one worker at a time."""

    def __init__(self, path: Path) -> None:
        """Count the arena database at ``path``; opened at the first use."""
        self._path = path
        self._conn: Connection | None = None

    def count(self) -> ArenaCounts:
        """Count now; blocks for milliseconds to a second."""
        if self._conn is None:
            self._conn = connect_readonly(self._path)
        files: Any = self._conn.execute(_FILES).fetchone()
        only_here: Any = self._conn.execute(_ONLY_HERE).fetchone()
        conflicts: Any = self._conn.execute(_CONFLICTS, (int(Flag.CONFLICT | Flag.REVIVED),)).fetchone()
        hashing: Any = self._conn.execute(_HASHING).fetchone()
        return ArenaCounts(*files, *conflicts, *only_here, *hashing)

    def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None
