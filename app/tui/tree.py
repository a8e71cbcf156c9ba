"""The tree of the arenas pane: what is loaded, what is open, and in which order it is shown.

Pure: it is given pages of entries and never asks for them itself; `wanted` says what is missing.
Directories are loaded page by page as they come into view, and after a change only the part that is
looked at is read again.

Invariants: the children of a `Listing` are in the order of their names, as `Api.listdir` gives them;
``rows`` is the flattening of what is open, in the order of the sort key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.api import ArenaPath, Entry, Usage
from core.paths import split
from core.types import Kind

SORTS = ("name", "size", "held", "state", "mark")


@dataclass(slots=True, eq=False)
class Listing:
    """The loaded children of a directory. ``more``: there are more after the last of them."""

    children: list[Node] = field(default_factory=list)
    more: bool = True
    generation: int = 0
    """Raised by a change; children with a lower ``seen`` are to be read again."""
    failed: str = ""


@dataclass(slots=True, eq=False)
class Node:
    """An arena, directory, file or link in the tree. ``entry`` is None for an arena."""

    at: ArenaPath
    depth: int
    entry: Entry | None = None
    listing: Listing | None = None
    expanded: bool = False
    seen: int = 0
    usage: Usage | None = None
    usage_stale: bool = True

    @property
    def is_dir(self) -> bool:
        """Whether it can be opened."""
        return self.entry is None or self.entry.kind == Kind.DIR

    @property
    def size(self) -> int:
        """Bytes of the content, for a directory of all below it (0 while unknown)."""
        if self.is_dir:
            return self.usage.bytes if self.usage else 0
        return self.entry.size if self.entry else 0

    @property
    def held(self) -> int:
        """Bytes of it that are here."""
        if self.is_dir:
            return self.usage.held if self.usage else 0
        return self.entry.held if self.entry else 0


@dataclass(slots=True, eq=False)
class Notice:
    """A row that is no path: more is being loaded, a directory is empty or failed."""

    parent: Node
    depth: int
    text: str
    loads: bool = False


TreeRow = Node | Notice


class Tree:
    """Arenas, directories and files, loaded lazily."""

    def __init__(self) -> None:
        """Make an empty tree sorted by name."""
        self.roots: list[Node] = []
        self.rows: list[TreeRow] = []
        self.sort = "name"
        self.reverse = False
        self._nodes: dict[ArenaPath, Node] = {}
        self._partial: list[Node] = []

    def node(self, at: ArenaPath) -> Node | None:
        """Return the loaded node of a path."""
        return self._nodes.get(at)

    def set_arenas(self, names: Sequence[str]) -> None:
        """Show these arenas, keeping what is loaded of those that were there."""
        if [root.at.arena for root in self.roots] == list(names):
            return
        old = {root.at.arena: root for root in self.roots}
        for arena in old.keys() - set(names):
            self._forget(old[arena])
        self.roots = [old.get(arena) or self._make(ArenaPath(arena), 0, None) for arena in names]
        self.flatten()

    def _make(self, at: ArenaPath, depth: int, entry: Entry | None) -> Node:
        node = self._nodes[at] = Node(at, depth, entry)
        return node

    def _forget(self, node: Node) -> None:
        self._nodes.pop(node.at, None)
        for child in node.listing.children if node.listing else ():
            self._forget(child)

    def expand(self, node: Node) -> None:
        """Open a directory."""
        if node.is_dir and not node.expanded:
            node.expanded = True
            node.listing = node.listing or Listing()
            self.flatten()

    def collapse(self, node: Node) -> None:
        """Close a directory; what is loaded of it stays."""
        if node.expanded:
            node.expanded = False
            self.flatten()

    def collapse_all(self) -> None:
        """Close everything."""
        for node in self._nodes.values():
            node.expanded = False
        self.flatten()

    def parent(self, node: Node) -> Node | None:
        """Return the directory that a node is in."""
        if not node.at.path:
            return None
        return self._nodes.get(ArenaPath(node.at.arena, split(node.at.path)[0]))

    # Loading

    def put(self, node: Node, after: bytes, entries: Sequence[Entry], more: bool) -> None:
        """Take what `Api.listdir` gave for the names after ``after``.

        With ``more`` it speaks for the names up to its last, else for all after ``after``: children there
        that it does not name are gone.
        """
        listing = node.listing = node.listing or Listing()
        children = listing.children
        more = more and bool(entries)
        low = _bisect(children, after)
        high = _bisect(children, split(entries[-1].path)[1]) if more else len(children)
        if not more or high == len(children):
            listing.more = more
        children[low:high] = self._renewed(node, entries, children[low:high])
        listing.failed = ""
        if node.expanded:
            self.flatten()

    def _renewed(self, node: Node, entries: Sequence[Entry], old: list[Node]) -> list[Node]:
        before = {child.at.path: child for child in old}
        generation = node.listing.generation if node.listing else 0
        fresh: list[Node] = []
        for entry in entries:
            child = before.pop(entry.path, None)
            if child is not None and child.is_dir != (entry.kind == Kind.DIR):
                self._forget(child)
                child = None
            if child is None:
                child = self._make(ArenaPath(node.at.arena, entry.path), node.depth + 1, entry)
            child.entry, child.seen = entry, generation
            fresh.append(child)
        for gone in before.values():
            self._forget(gone)
        return fresh

    def fail(self, node: Node, reason: str) -> None:
        """Show that a directory could not be read."""
        listing = node.listing = node.listing or Listing()
        listing.failed, listing.more = reason, False
        self.flatten()

    def touch(self, at: ArenaPath) -> None:
        """A directory changed: what is loaded of it, and the sums of it and above, are old."""
        node = self._nodes.get(at)
        if node is not None and self._touch_listing(node):
            self.flatten()
        path = at.path
        while True:
            above = self._nodes.get(ArenaPath(at.arena, path))
            if above is not None:
                above.usage_stale = True
            if not path:
                return
            path = split(path)[0]

    def touch_arena(self, arena: str) -> None:
        """Anything in an arena may have changed."""
        for node in self._nodes.values():
            if node.at.arena == arena:
                node.usage_stale = True
                self._touch_listing(node)
        self.flatten()

    def _touch_listing(self, node: Node) -> bool:
        """Make what is loaded of a directory old; says whether its rows change."""
        if node.listing is None:
            return False
        node.listing.generation += 1
        if node.listing.children and not node.listing.failed:
            return False
        node.listing.failed, node.listing.more = "", True
        return True

    def wanted(self, rows: range) -> list[tuple[Node, bytes]]:
        """Say what to list for these rows to be right: directories, and the name to list after."""
        stale: dict[ArenaPath, bytes] = {}
        for index in rows:
            row = self.rows[index]
            if isinstance(row, Notice):
                if row.loads:
                    stale.setdefault(row.parent.at, last_name(row.parent))
                continue
            above = self.parent(row)
            if above is not None and above.listing is not None and row.seen < above.listing.generation:
                name = split(row.at.path)[1]
                stale[above.at] = min(name, stale.get(above.at, name))
        if self.sort != "name":
            # Another order than by name needs all of a directory.
            for node in self._partial:
                stale.setdefault(node.at, last_name(node))
        return [(self._nodes[at], self._before(self._nodes[at], name)) for at, name in stale.items()]

    def _before(self, node: Node, name: bytes) -> bytes:
        """Return the name some children before ``name``, to see what is new there too."""
        children = node.listing.children if node.listing else []
        low = _bisect(children, name)
        if low == len(children) and node.listing is not None and node.listing.more:
            return last_name(node)
        low -= 1 + WINDOW
        return split(children[low].at.path)[1] if low >= 0 else b""

    def set_sums(self, sums: Iterable[tuple[Node, Usage | None]]) -> None:
        """Take the sums over directories; None: not known any better."""
        for node, usage in sums:
            node.usage = usage or node.usage
        if self.sort in ("size", "held"):
            self.flatten()

    def index(self, at: ArenaPath) -> int | None:
        """Return the row of a path, None if it is not shown."""
        node = self._nodes.get(at)
        try:
            return None if node is None else self.rows.index(node)
        except ValueError:
            return None

    # The flattening

    def sort_by(self, key: str, reverse: bool) -> None:
        """Show in another order."""
        self.sort, self.reverse = key, reverse
        self.flatten()

    def flatten(self) -> None:
        """Compute ``rows`` again."""
        rows: list[TreeRow] = []
        partial: list[Node] = []
        # A stack instead of recursion: trees are up to thousands of levels deep.
        stack: list[Iterator[TreeRow]] = [iter(self.roots)]
        while stack:
            for row in stack[-1]:
                rows.append(row)
                if isinstance(row, Node) and row.expanded:
                    if row.listing is not None and row.listing.more:
                        partial.append(row)
                    stack.append(iter(self._shown_children(row)))
                    break
            else:
                stack.pop()
        self.rows, self._partial = rows, partial

    def _shown_children(self, node: Node) -> list[TreeRow]:
        listing = node.listing
        if listing is None:
            return []
        children: list[TreeRow] = list(self._ordered(listing.children))
        if listing.failed:
            children.append(Notice(node, node.depth + 1, listing.failed))
        elif listing.more:
            children.append(Notice(node, node.depth + 1, "loading …", loads=True))
        elif not children:
            children.append(Notice(node, node.depth + 1, "empty"))
        return children

    def _ordered(self, children: list[Node]) -> list[Node]:
        if self.sort == "name":
            return children[::-1] if self.reverse else children
        return sorted(children, key=_KEYS[self.sort], reverse=self.reverse != (self.sort in ("size", "held")))


WINDOW = 100
"""LIMIT: names read again before the first visible one; a page reaches far enough after it."""


def last_name(node: Node) -> bytes:
    """Return the name of the last loaded child of a directory, b"" for none."""
    children = node.listing.children if node.listing else []
    return split(children[-1].at.path)[1] if children else b""


def _bisect(children: list[Node], name: bytes) -> int:
    """Return how many children have a name of at most ``name``; none for ``b""``."""
    low, high = 0, len(children)
    while low < high:
        middle = (low + high) // 2
        if split(children[middle].at.path)[1] <= name:
            low = middle + 1
        else:
            high = middle
    return low


def _state_key(node: Node) -> str:
    return node.entry.state if node.entry else ""


def _mark_key(node: Node) -> tuple[bool, str]:
    return (not node.entry.mark_explicit, node.entry.mark) if node.entry else (True, "")


_KEYS: dict[str, Callable[[Node], Any]] = {
    "size": lambda node: node.size,
    "held": lambda node: node.held,
    "state": _state_key,
    "mark": _mark_key,
}
