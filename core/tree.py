"""The tree of one arena: nodes by parent and name, and paths in both directions.

Paths are never stored; they are walked and remembered in a bounded memory. Only the engine thread
uses a `Tree`; readers have their own in `core.reader`. A remembered id stays right until a directory moves
(`moved`) or a node that shows nothing is removed (`forget`, by `core.trimming`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from core.db import Connection
from core.inodes import ArenaInodes
from core.paths import join, split
from core.types import Inode, Kind, RelPath
from core.versions import EMPTY

_MEMORY = 20_000
"""LIMIT: directories whose path is remembered; forgotten all at once beyond it."""

NO_PARENT = 0
"""Value of ``node.parent`` for the arena root."""


class Tree:
    """Nodes of one arena. Writing methods are called inside a transaction."""

    def __init__(self, conn: Connection, inodes: ArenaInodes) -> None:
        """Open the tree; `ensure_root` makes the root in a new database."""
        self._conn = conn
        self._inodes = inodes
        self._ids: dict[bytes, Inode] = {}
        self._paths: dict[int, RelPath] = {}
        self.root = Inode(0)
        self.made: Callable[[Inode, int, bytes], None] | None = None
        """Called with each node that `ensure_child` makes, its parent and name."""

    def ensure_root(self) -> Inode:
        """Return the inode of the arena root, made when it is not there yet."""
        row = self._conn.execute("SELECT value FROM meta WHERE key = 'root'").fetchone()
        if row is None:
            self.root = self._inodes.allocate()
            self.insert_bare(self.root, NO_PARENT, b"", Kind.DIR)
            self._conn.execute("INSERT INTO meta (key, value) VALUES ('root', ?)", (self.root,))
        else:
            self.root = Inode(row[0])
        return self.root

    def insert_bare(self, node: int, parent: int, name: bytes, kind: Kind = Kind.NONE) -> None:
        """Insert a node that shows nothing of its own yet."""
        mode, mtime_ns = (0o755, time.time_ns()) if kind == Kind.DIR else (0, 0)
        self._conn.execute(
            "INSERT INTO node (id, parent, name, kind, size, mtime_ns, mode, hash, vector, target,"
            " local, flags) VALUES (?, ?, ?, ?, 0, ?, ?, NULL, ?, NULL, 0, 0)",
            (node, parent, name, int(kind), mtime_ns, mode, EMPTY),
        )

    def set_root_real(self, real: bool) -> None:
        """Say whether the root is a directory of this host's disk, or only known from peers."""
        self._conn.execute("UPDATE node SET local = ? WHERE id = ?", (int(real), self.root))

    def child(self, parent: int, name: bytes) -> Inode | None:
        """Return the node of a name, shown or not; None if there never was one."""
        row = self._conn.execute(
            "SELECT id FROM node WHERE parent = ? AND name = ?", (parent, name)
        ).fetchone()
        return Inode(row[0]) if row else None

    def ensure_child(self, parent: int, name: bytes) -> Inode:
        """Return the node of a name, made bare when it is not there yet."""
        node = self.child(parent, name)
        if node is None:
            node = self._inodes.allocate()
            self.insert_bare(node, parent, name)
            if self.made is not None:
                self.made(node, parent, name)
        return node

    def find(self, path: bytes) -> Inode | None:
        """Return the node of a path, shown or not; None if there never was one."""
        if not path:
            return self.root
        known = self._ids.get(path)
        if known is not None:
            return known
        parent_path, name = split(path)
        parent = self._ids.get(parent_path) if parent_path else self.root
        if parent is None:
            parent = self._walk(parent_path)
            if parent is None:
                return None
            self.remember(RelPath(parent_path), parent)  # mostly there is more to be found in it
        return self.child(parent, name)

    def find_dir(self, path: RelPath) -> Inode | None:
        """As `find`, and remember it: cheap for many entries of one directory."""
        known = self._ids.get(path)
        if known is not None:
            return known
        node = self.find(path)
        if node is not None and path:
            self.remember(path, node)
        return node

    def _walk(self, path: bytes) -> Inode | None:
        node: Inode | None = self.root
        for component in path.split(b"/"):
            node = self.child(node, component) if node is not None else None
        return node

    def ensure_dir(self, path: RelPath) -> Inode:
        """Return the node of a directory path, made bare with its parents when it is not there."""
        known = self.root if not path else self._ids.get(path)
        if known is not None:
            return known
        node = self.root
        at = b""
        for name in path.split(b"/"):
            at = join(at, name)
            node = self._ids.get(at) or self.ensure_child(node, name)
        self.remember(RelPath(path), node)
        return node

    def remember(self, path: RelPath, node: Inode) -> None:
        """Keep the path of a directory in memory."""
        if len(self._ids) >= _MEMORY:
            self._ids.clear()
            self._paths.clear()
        self._ids[path] = node
        self._paths[node] = path

    def moved(self) -> None:
        """Forget all remembered paths: a directory has moved, or a transaction was rolled back."""
        self._ids.clear()
        self._paths.clear()

    def forget(self, node: int) -> None:
        """Forget the path of a node that is being removed."""
        path = self._paths.pop(node, None)
        if path is not None:
            del self._ids[path]

    def moved_if_known(self, *nodes: int) -> None:
        """Forget all remembered paths if one of these nodes, which have moved, is among them."""
        if any(node in self._paths for node in nodes):
            self.moved()

    def parent_and_name(self, node: int) -> tuple[int, bytes]:
        """Return the parent and name of an existing node.

        Raises:
            KeyError: no such node.
        """
        row = self._conn.execute("SELECT parent, name FROM node WHERE id = ?", (node,)).fetchone()
        if row is None:
            raise KeyError(node)
        return row[0], row[1]

    def path(self, node: int) -> RelPath:
        """Return the path of an existing node; ``b""`` for the root.

        Raises:
            KeyError: no such node.
        """
        names: list[bytes] = []
        at = node
        while at not in (self.root, NO_PARENT):
            known = self._paths.get(at)
            if known is not None:
                return RelPath(b"/".join([known, *reversed(names)]))
            at, name = self.parent_and_name(at)
            names.append(name)
        return RelPath(b"/".join(reversed(names)))

    def directory_path(self, node: int) -> RelPath:
        """Return the path of a directory and remember it: cheap for many entries of one directory."""
        if node == self.root:
            return RelPath(b"")
        known = self._paths.get(node)
        if known is None:
            known = self.path(node)
            self.remember(known, Inode(node))
        return known

    def ancestors(self, node: int) -> list[int]:
        """Return the node's parents from the nearest to the arena root."""
        out: list[int] = []
        while node not in (self.root, NO_PARENT):
            node, _ = self.parent_and_name(node)
            out.append(node)
        return out
