"""The rows of the arenas pane: of the tree, or of what a search found."""

from __future__ import annotations

from app.tui import rows
from app.tui.cells import Row
from app.tui.tree import Node, Tree
from core.api import ArenaPath, ArenaStatus, Entry


class TreeSource:
    """Rows of the tree, or of what a search found."""

    def __init__(self) -> None:
        """Make it empty."""
        self.tree = Tree()
        self.found: tuple[Entry, ...] | None = None
        self.selected: set[ArenaPath] = set()
        self.progress: rows.Progress = {}
        self.arenas: dict[str, ArenaStatus] = {}

    def count(self) -> int:
        """Return the number of rows."""
        return len(self.tree.rows) if self.found is None else len(self.found)

    def row(self, index: int) -> Row:
        """Return a row."""
        if self.found is not None:
            entry = self.found[index]
            marked = ArenaPath(entry.arena, entry.path) in self.selected
            return rows.found_row(entry, marked=marked, progress=self.progress)
        shown = self.tree.rows[index]
        arena, marked = None, False
        if isinstance(shown, Node):
            marked = shown.at in self.selected
            arena = self.arenas.get(shown.at.arena) if shown.entry is None else None
        return rows.tree_row(shown, marked=marked, progress=self.progress, arena=arena)

    def find(self, key: object) -> int | None:
        """Return the index of the row of a path."""
        if not isinstance(key, ArenaPath):
            return None
        if self.found is None:
            return self.tree.index(key)
        paths = (ArenaPath(entry.arena, entry.path) for entry in self.found)
        return next((index for index, at in enumerate(paths) if at == key), None)
