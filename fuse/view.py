"""What the tree of the mount looks like: arenas below their directories, and ``.realize`` beside them.

Knows nothing of FUSE. Everything is an `AttrRow`, also what no database holds. Mount thread.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeVar

from core.arena_reader import ArenaReader, AttrRow, NodeRow
from core.errors import NameTooLongError, NotADirError, PathNotFoundError
from core.paths import NAME_MAX
from core.reader import ROOT_INODE, TreeReader
from core.types import Kind
from fuse.generated import CONFLICTS_INODE, TRASH_INODE, Generated, GeneratedTree

REALIZE_NAME = b".realize"
REALIZE_INODE = 2
STATUS_NAME = b"status.json"
STATUS_INODE = 3
_RESERVED_LAST = 99
"""Inodes up to here are ours (`core.inodes.RESERVED_LAST`)."""

_DIR_MODE = 0o755
_GENERATED_DIR_MODE = 0o555
_GENERATED_FILE_MODE = 0o444

_PAGES = 64
"""LIMIT: listed pages whose names are remembered, for a listing that goes on where an entry was renamed."""


T = TypeVar("T")


def _there(found: T | None, inode: int) -> T:
    if found is None:
        raise PathNotFoundError(f"no inode {inode}")
    return found


class Place(NamedTuple):
    """A node and where it is read."""

    arena: str
    reader: ArenaReader
    node: NodeRow


class _Page(NamedTuple):
    directory: int
    rows: list[AttrRow]


class View:
    """The tree of the mount."""

    def __init__(self, tree: TreeReader, made_ns: int) -> None:
        """Show ``tree``; ``made_ns`` is the time that directories above arenas carry."""
        self._tree = tree
        self._made_ns = made_ns
        self._generated = GeneratedTree(tree)
        self._pages: deque[_Page] = deque(maxlen=_PAGES)

    def attrs(self, inode: int) -> AttrRow:
        """Return the attributes of what is shown under an inode.

        Raises:
            PathNotFoundError: nothing is.
        """
        if self._generated.owns(inode):
            return _there(self._generated.attrs(inode), inode)
        if inode <= _RESERVED_LAST:
            return self._reserved(inode)
        arena = self._tree.arena_of(inode)
        if not arena:
            return self._above(inode)
        row = self._tree.arena(arena).attrs(inode)
        if row is None:
            raise PathNotFoundError(f"no inode {inode}")
        return row

    def child(self, parent: int, name: bytes) -> AttrRow:
        """Return the attributes of a name in a directory.

        Raises:
            PathNotFoundError: there is no such name.
            NameTooLongError: it is longer than 255 bytes.
        """
        if len(name) > NAME_MAX:
            raise NameTooLongError(f"name of {len(name)} bytes is longer than {NAME_MAX}")
        arena = self._arena_of(parent)
        row: AttrRow | None
        if self._generated.owns(parent):
            row = self._generated.child(parent, name)
        elif arena:
            row = self._tree.arena(arena).attrs_of_child(parent, name)
        else:
            row = next((row for row in self._small(parent) if row.name == name), None)
        if row is None:
            raise PathNotFoundError("no such name")
        return row

    def listing(self, directory: int, offset: int, limit: int) -> list[AttrRow]:
        """Return entries of a directory in order, those after the one with inode ``offset`` (0: all).

        Entries that come, go or are renamed meanwhile make no other entry missed or seen twice.

        Raises:
            NotADirError: it is none.
        """
        after = self._name_of(directory, offset) if offset else b""
        arena = self._arena_of(directory)
        if arena:
            rows = self._tree.arena(arena).listing(directory, after, limit)
        else:
            small = self._small(directory, again=bool(offset))
            rows = [row for row in small if row.name > after][:limit]
        if rows:
            self._pages.append(_Page(directory, rows))
        return rows

    def _name_of(self, directory: int, inode: int) -> bytes:
        """Return the name under which an entry was listed; its name now if that is forgotten."""
        for page in reversed(self._pages):
            if page.directory == directory:
                for row in reversed(page.rows):
                    if row.id == inode:
                        return row.name
        arena = self._arena_of(inode)
        found = self._tree.arena(arena).name_of(inode) if arena else None
        return found[1] if found else b""

    def place(self, inode: int) -> Place | None:
        """Return the node of an inode and its arena; None for what belongs to no arena.

        Raises:
            PathNotFoundError: nothing is shown under the inode.
        """
        arena = self._arena_of(inode)
        if not arena:
            return None
        reader = self._tree.arena(arena)
        node = reader.node(inode)
        if node is None or node.kind == Kind.NONE:
            raise PathNotFoundError(f"no inode {inode}")
        return Place(arena, reader, node)

    def _arena_of(self, inode: int) -> str:
        """Return the arena that an inode belongs to, "" if to none."""
        if inode <= _RESERVED_LAST or self._generated.owns(inode):
            return ""
        return self._tree.arena_of(inode)

    def generated(self, inode: int) -> Generated | None:
        """Return what is in ``.realize/conflicts`` or ``.realize/trash`` under an inode; None elsewhere.

        Raises:
            PathNotFoundError: it is not there any more.
        """
        return _there(self._generated.version(inode), inode) if self._generated.owns(inode) else None

    def _reserved(self, inode: int) -> AttrRow:
        if inode == ROOT_INODE:
            return self._directory(inode, b"", _DIR_MODE)
        if inode == REALIZE_INODE:
            return self._directory(inode, REALIZE_NAME, _GENERATED_DIR_MODE)
        if inode == STATUS_INODE:
            return AttrRow(inode, STATUS_NAME, Kind.FILE, 0, self._made_ns, _GENERATED_FILE_MODE, 0)
        raise PathNotFoundError(f"no inode {inode}")

    def _above(self, inode: int) -> AttrRow:
        row = self._tree.directory(inode)
        if row is None:
            raise PathNotFoundError(f"no inode {inode}")
        return self._directory(inode, row.name, _DIR_MODE)

    def _directory(self, inode: int, name: bytes, mode: int) -> AttrRow:
        return AttrRow(inode, name, Kind.DIR, 0, self._made_ns, mode, 0)

    def _small(self, directory: int, *, again: bool = False) -> list[AttrRow]:
        """Return all entries of a directory that belongs to no arena, sorted by name."""
        if directory == REALIZE_INODE:
            return [self.attrs(inode) for inode in (CONFLICTS_INODE, STATUS_INODE, TRASH_INODE)]
        if self._generated.owns(directory):
            generated = self._generated.listing(directory, again=again)
            if generated is None:
                raise NotADirError("not a directory")
            return generated
        if directory == STATUS_INODE:
            raise NotADirError("not a directory")
        rows = [
            (self._arena_root(row.arena, row.id) if row.arena else self._above(row.id))._replace(
                name=row.name
            )
            for row in self._tree.directories_in(directory)
        ]
        if directory == ROOT_INODE:
            rows.append(self._reserved(REALIZE_INODE))
        return sorted(rows, key=lambda row: row.name)

    def _arena_root(self, arena: str, inode: int) -> AttrRow:
        row = self._tree.arena(arena).attrs(inode)
        return row if row is not None else self._directory(inode, b"", _DIR_MODE)
