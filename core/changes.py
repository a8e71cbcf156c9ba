"""What one transaction changed, gathered for those who must know after it has committed.

Values only: the mount invalidates the kernel's caches from it, history wakes subscribers, events go
to the dashboard, churten looks for work.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from core.events import AnyEvent


@dataclass(slots=True)
class Changes:
    """Changes of one arena in one transaction; inodes and names as in table ``node``."""

    arena: str
    listings: set[int] = field(default_factory=set)
    """Directories whose listing changed (names came or went)."""
    nodes: set[int] = field(default_factory=set)
    """Nodes whose attributes or content changed."""
    gone: list[tuple[int, bytes]] = field(default_factory=list)
    """``(directory, name)`` of entries that vanished or changed their kind."""
    touched: set[int] = field(default_factory=set)
    """Directories in which the state or mark of an entry changed, for the dashboard."""
    events: list[AnyEvent] = field(default_factory=list)
    """Events to emit once committed."""
    history: bool = False
    """History got entries."""
    dirty: bool = False
    """Churten has something new to look at."""

    def __bool__(self) -> bool:
        """Say whether anything changed."""
        return any(
            (
                self.listings,
                self.nodes,
                self.gone,
                self.touched,
                self.events,
                self.history,
                self.dirty,
            )
        )
