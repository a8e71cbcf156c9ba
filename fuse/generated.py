"""What is in ``.realize/conflicts`` and ``.realize/trash``: made from the databases at each look.

``conflicts/ARENA/PATH/PEER`` is the content of each version of a path in conflict, ``local`` that of this
host. ``trash/ARENA/PATH`` is the newest content that was replaced or deleted there, older ones are
``NAME~YYYYMMDD-HHMMSS.EXT`` beside it, by the time of the version (UTC). Knows nothing of FUSE. Mount
thread.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from core.arena_reader import ArenaReader, AttrRow
from core.paths import join, split, to_bytes
from core.reader import TreeReader
from core.trashrows import Trashed
from core.types import Hash, Kind

CONFLICTS_INODE, TRASH_INODE = 4, 5
FIRST_INODE = 1 << 48
"""Inodes from here on are ours; no arena ever gets so far."""
_SECTIONS = {CONFLICTS_INODE: b"conflicts", TRASH_INODE: b"trash"}
_LOCAL = b"local"
_DIR_MODE, _FILE_MODE = 0o555, 0o444


class Generated(NamedTuple):
    """A path in one of the directories. ``kind`` DIR, or that of a version of node ``node``."""

    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    arena: str = ""
    node: int = 0
    hash: Hash | None = None
    target: bytes = b""


_DIRECTORY = Generated(Kind.DIR)


class GeneratedTree:
    """Both directories and everything below them, each path with an inode for the life of the mount.

    LIMIT: an inode is remembered for each path that was ever looked at: about 200 bytes each.
    """

    def __init__(self, tree: TreeReader) -> None:
        """Make it from ``tree``."""
        self._tree = tree
        self._numbers = itertools.count(FIRST_INODE)
        self._inodes: dict[bytes, int] = {name: inode for inode, name in _SECTIONS.items()}
        self._paths: dict[int, bytes] = dict(_SECTIONS)
        self._listed: tuple[int, list[AttrRow]] = (0, [])

    def owns(self, inode: int) -> bool:
        """Say whether an inode is one of these."""
        return inode in self._paths

    def attrs(self, inode: int) -> AttrRow | None:
        """Return the attributes of what is at an inode now; None if nothing is."""
        return self._row(self._paths[inode])

    def child(self, directory: int, name: bytes) -> AttrRow | None:
        """Return the attributes of a name; None if there is none."""
        return self._row(join(self._paths[directory], name))

    def listing(self, directory: int, *, again: bool = False) -> list[AttrRow] | None:
        """Return everything in a directory, sorted by name; None if it is none.

        ``again``: what the last listing gave will do, for one that goes on.
        """
        if again and self._listed[0] == directory:
            return self._listed[1]
        path = self._paths[directory]
        found = self.find(path)
        if found is None or found.kind is not Kind.DIR:
            return None
        names = sorted(set(self._names(path)))
        rows = (self._row(join(path, name)) for name in names)
        self._listed = (directory, [row for row in rows if row is not None])
        return self._listed[1]

    def version(self, inode: int) -> Generated | None:
        """Return what is at an inode now; None if nothing is."""
        return self.find(self._paths[inode])

    def _row(self, path: bytes) -> AttrRow | None:
        found = self.find(path)
        if found is None:
            return None
        inode = self._inodes.get(path)
        if inode is None:
            inode = self._inodes[path] = next(self._numbers)
            self._paths[inode] = path
        is_dir = found.kind is Kind.DIR
        # A new time at each look makes the kernel drop what it remembers of a listing.
        mtime_ns = time.time_ns() if is_dir else found.mtime_ns
        mode = _DIR_MODE if is_dir else _FILE_MODE
        size = len(found.target) if found.kind is Kind.SYMLINK else found.size
        return AttrRow(inode, split(path)[1], found.kind, size, mtime_ns, mode, 0)

    # -- what is where

    def find(self, path: bytes) -> Generated | None:
        """Return what is at a path below ``.realize``; None if nothing is."""
        section, _, below = path.partition(b"/")
        if not below:
            return _DIRECTORY
        arena, inside = self._arena_of(below)
        if not arena:
            above = below + b"/"
            return _DIRECTORY if any(to_bytes(n).startswith(above) for n in self._arenas()) else None
        if not inside:
            return _DIRECTORY
        reader = self._tree.arena(arena)
        if section == b"trash":
            return _trashed(reader, arena, inside)
        return self._conflicting(reader, arena, inside)

    def _names(self, path: bytes) -> Iterator[bytes]:
        """Yield the names in a directory, in any order, some perhaps twice or gone."""
        section, _, below = path.partition(b"/")
        arena, inside = self._arena_of(below)
        if not arena:
            above = below + b"/" if below else b""
            for name in map(to_bytes, self._arenas()):
                if name.startswith(above):
                    yield name[len(above) :].split(b"/")[0]
            return
        reader = self._tree.arena(arena)
        if section == b"trash":
            for name, is_file, is_dir in reader.trash.names_in(inside):
                if is_dir:
                    yield name
                if is_file:
                    yield from _trash_names(name, reader.trash.at(join(inside, name)), is_dir)
            return
        start = inside + b"/" if inside else b""
        flagged = reader.conflicts()
        yield from (other[len(start) :].split(b"/")[0] for other in flagged if other.startswith(start))
        if inside in flagged:
            yield from self._versions(reader, arena, flagged[inside])

    def _arenas(self) -> list[str]:
        return [arena.name for arena in self._tree.arenas]

    def _arena_of(self, below: bytes) -> tuple[str, bytes]:
        """Return the arena that a path is in, and the path in it; "" for what is above arenas."""
        for name in self._arenas():
            start = to_bytes(name)
            if below == start or below.startswith(start + b"/"):
                return name, below[len(start) + 1 :]
        return "", b""

    def _conflicting(self, reader: ArenaReader, arena: str, path: bytes) -> Generated | None:
        flagged = reader.conflicts()
        parent, name = split(path)
        if parent in flagged:
            version = self._versions(reader, arena, flagged[parent]).get(name)
            if version is not None:
                return version
        if path in flagged or any(other.startswith(path + b"/") for other in flagged):
            return _DIRECTORY
        return None

    def _versions(self, reader: ArenaReader, arena: str, node: int) -> dict[bytes, Generated]:
        """Return the versions of a node in conflict by the names of their holders."""
        found: dict[bytes, Generated] = {}
        for one in reader.alternatives(node):
            if one.meta.holding == 0:
                continue
            meta = one.meta
            content = Hash(meta.hash) if meta.hash is not None else None
            version = Generated(
                Kind(meta.kind), meta.size, meta.mtime_ns, arena, node, content, meta.target or b""
            )
            if version.kind is Kind.DIR:
                version = _DIRECTORY
            for key in one.keys:
                name = to_bytes(self._tree.peer_name(key)).replace(b"/", b"_") if key else _LOCAL
                found[name] = version
        return found


def _trashed(reader: ArenaReader, arena: str, path: bytes) -> Generated | None:
    if reader.trash.any_below(path):
        return _DIRECTORY
    rows = reader.trash.at(path)
    row = rows[0] if rows else _older(reader, path)
    if row is None:
        return None
    return Generated(Kind.FILE, row.size, row.mtime_ns, arena, 0, row.hash)


def _older(reader: ArenaReader, path: bytes) -> Trashed | None:
    """Return what a name with a time stands for."""
    parent, name = split(path)
    stem, mark, _ = name.rpartition(b"~")
    if not mark:
        return None
    candidates = {stem + os.path.splitext(name)[1], stem}
    for original in candidates:
        at = join(parent, original)
        found = _trash_names(original, reader.trash.at(at), reader.trash.any_below(at)).get(name)
        if found is not None:
            return found
    return None


def _trash_names(name: bytes, rows: list[Trashed], is_dir: bool) -> dict[bytes, Trashed]:
    """Return the names that the contents of one path have, given the newest first."""
    found: dict[bytes, Trashed] = {}
    stem, extension = os.path.splitext(name)
    for row in rows:
        if not found and not is_dir:
            found[name] = row
            continue
        when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(max(0, row.mtime_ns) // 1_000_000_000))
        for number in itertools.count(1):
            more = f"{when}-{number}" if number > 1 else when
            stamped = stem + b"~" + more.encode() + extension
            if stamped not in found:
                found[stamped] = row
                break
    return found
