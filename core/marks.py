"""Explicit marks of an arena, and the effective mark that every path inherits.

Explicit marks are few, so they are held in memory beside their table; effective marks of
directories are remembered until a mark or a directory changes. Beside each mark stands what the real
file's own attribute says (`core.markfiles`).
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
        self._explicit: dict[int, Mark] = {}
        self._files: dict[int, tuple[int, bytes]] = {}
        self._effective: dict[int, Mark] = {}
        self.unwritten: set[int] = set()
        """Nodes whose attribute may not be what the explicit mark is."""
        self.changed()

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
        self.unwritten.add(node)
        return before

    def moved(self) -> None:
        """Forget what was inherited: a directory has moved."""
        self._effective.clear()

    def changed(self) -> None:
        """Read everything again: a transaction was rolled back."""
        self._explicit = {n: Mark(m) for n, m in self._conn.execute("SELECT node, mark FROM mark")}
        rows = self._conn.execute("SELECT node, ino, value FROM mark_file")
        self._files = {node: (ino, value.encode()) for node, ino, value in rows}
        self._effective.clear()
        self.unwritten = set(self._explicit) | set(self._files)

    # -- attributes of real files

    def any_files(self) -> bool:
        """Say whether any real file is known to have the attribute, or ought to have it."""
        return bool(self._files or self._explicit)

    def concerns(self, node: int) -> bool:
        """Say whether a node has an explicit mark, or its file is known to have the attribute."""
        return node in self._explicit or node in self._files

    def file_value(self, node: int, ino: int) -> bytes:
        """Return the attribute that the real file with that inode number is known to have."""
        known_ino, value = self._files.get(node, (0, b""))
        return value if known_ino == ino else b""

    def set_file(self, node: int, ino: int, value: bytes) -> None:
        """Remember what the attribute is, ``b""``: there is none."""
        if value:
            self._conn.execute(
                "INSERT OR REPLACE INTO mark_file (node, ino, value) VALUES (?, ?, ?)",
                (node, ino, value.decode()),
            )
            self._files[node] = (ino, value)
        else:
            self.forget_file(node)

    def forget_file(self, node: int) -> None:
        """The node is not real here any more, or its file has no attribute."""
        if self._files.pop(node, None) is not None:
            self._conn.execute("DELETE FROM mark_file WHERE node = ?", (node,))

    def became_real(self, node: int) -> None:
        """A file was put, or found, at a node."""
        if self.concerns(node):
            self.unwritten.add(node)

    def take_unwritten(self) -> list[int]:
        """Take the nodes whose attribute is to be compared."""
        nodes, self.unwritten = sorted(self.unwritten), set()
        return nodes
