"""Explicit marks of an arena, and the effective mark that every path inherits.

Explicit marks are few, so they are held in memory beside their table; effective marks of
directories are remembered until a mark or a directory changes.
"""

from __future__ import annotations

from core.db import Connection
from core.tree import NO_PARENT, Tree
from core.types import Mark

_MEMORY = 50_000
"""LIMIT: directories whose effective mark is remembered."""


class Marks:
    """Marks of one arena. Engine thread; writing methods are called inside a transaction."""

    def __init__(self, conn: Connection, tree: Tree, default: Mark) -> None:
        """Load the explicit marks; ``default`` is the arena's from the config."""
        self._conn = conn
        self._tree = tree
        self.default = default
        self._explicit = {node: Mark(mark) for node, mark in conn.execute("SELECT node, mark FROM mark")}
        self._effective: dict[int, Mark] = {}

    def explicit(self, node: int) -> Mark | None:
        """Return the mark set on the node itself."""
        return self._explicit.get(node)

    def all_explicit(self) -> dict[int, Mark]:
        """Return a copy of all explicit marks by node."""
        return dict(self._explicit)

    def effective(self, node: int, parent: int) -> Mark:
        """Return the mark in force on a node whose parent is known."""
        own = self._explicit.get(node)
        return own if own is not None else self.of_directory(parent)

    def of_directory(self, node: int) -> Mark:
        """Return the mark in force on a directory, which its entries inherit."""
        known = self._effective.get(node)
        if known is not None:
            return known
        mark = self._explicit.get(node)
        if mark is None:
            if node in (self._tree.root, NO_PARENT):
                mark = self.default
            else:
                mark = self.of_directory(self._tree.parent_and_name(node)[0])
        if len(self._effective) >= _MEMORY:
            self._effective.clear()
        self._effective[node] = mark
        return mark

    def origin(self, node: int) -> int | None:
        """Return the node whose explicit mark is in force; None for the arena's default."""
        for at in (node, *self._tree.ancestors(node)):
            if at in self._explicit:
                return at
        return None

    def set(self, node: int, mark: Mark | None) -> Mark | None:
        """Set the explicit mark of a node, or remove it (None); returns the one before."""
        before = self._explicit.get(node)
        if mark is None:
            self._conn.execute("DELETE FROM mark WHERE node = ?", (node,))
            self._explicit.pop(node, None)
        else:
            self._conn.execute("INSERT OR REPLACE INTO mark (node, mark) VALUES (?, ?)", (node, mark.value))
            self._explicit[node] = mark
        self._effective.clear()
        return before

    def changed(self) -> None:
        """Read everything again: a transaction was rolled back or a directory moved."""
        self._explicit = {n: Mark(m) for n, m in self._conn.execute("SELECT node, mark FROM mark")}
        self._effective.clear()
