"""What readers ask of one arena's database: nodes, listings, paths, marks, holders, held content.

Read-only; each thread has its own. Every statement is keyed (a test looks at the query plans), so
that the mount may run them inline: a few microseconds each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from core import sums
from core.api import Usage
from core.byteranges import ByteRanges
from core.choice import LOCAL_PEER, EntryRow, alternatives
from core.connected import ConnectedPeers
from core.db import Connection, connect_readonly
from core.states import Facts, state_of
from core.trashrows import TrashRows
from core.types import HELD, FileState, Hash, Holding, Inode, Kind, Mark, PeerKey, RelPath, Vector


class AttrRow(NamedTuple):
    """What ``stat`` and a listing need of a node. ``held``: bytes of its content on this host."""

    id: int
    name: bytes
    kind: int
    size: int
    mtime_ns: int
    mode: int
    held: int


class NodeRow(NamedTuple):
    """A row of table ``node``; see ``core/sql/arena.sql``."""

    id: int
    parent: int
    name: bytes
    kind: int
    size: int
    mtime_ns: int
    mode: int
    hash: Hash | None
    vector: Vector
    target: bytes | None
    local: int
    flags: int


class EntryOf(NamedTuple):
    """An entry of a node with the key of who holds it; ``key`` None: this host."""

    key: PeerKey | None
    holding: int
    kind: int
    hash: Hash | None
    vector: Vector
    target: bytes | None


class Alternative(NamedTuple):
    """One of the versions of a node in conflict, and who holds it; None: this host."""

    meta: EntryRow
    keys: tuple[PeerKey | None, ...]


class BlobInfo(NamedTuple):
    """What the blob store had recorded of a content."""

    size: int
    ranges: ByteRanges
    whole: bool


@dataclass(frozen=True, slots=True)
class EffectiveMark:
    """The mark in force; ``origin`` is the node it is set on, None for the arena's default."""

    mark: Mark
    origin: Inode | None


_HELD = (
    "CASE WHEN kind <> 1 THEN 0 WHEN local <> 0 THEN size WHEN hash IS NULL THEN 0"
    " ELSE coalesce((SELECT disk_bytes FROM blob WHERE blob.hash = node.hash), 0) END"
)
_ATTRS = f"id, name, kind, CASE kind WHEN 3 THEN length(target) ELSE size END, mtime_ns, mode, {_HELD}"
_NODE = "id, parent, name, kind, size, mtime_ns, mode, hash, vector, target, local, flags"

ATTR_BY_ID = f"SELECT {_ATTRS} FROM node WHERE id = ? AND kind <> 0"  # noqa: S608 - constants
ATTR_BY_NAME = f"SELECT {_ATTRS} FROM node WHERE parent = ? AND name = ? AND kind <> 0"  # noqa: S608
LISTING = (
    f"SELECT {_ATTRS} FROM node WHERE parent = ? AND name > ? AND kind <> 0"  # noqa: S608 - constants
    " ORDER BY name LIMIT ?"
)
NODE_BY_ID = f"SELECT {_NODE} FROM node WHERE id = ?"  # noqa: S608 - constants
NODE_BY_NAME = f"SELECT {_NODE} FROM node WHERE parent = ? AND name = ?"  # noqa: S608 - constants
NODES = (
    f"SELECT {_NODE} FROM node WHERE parent = ? AND name > ? AND kind <> 0"  # noqa: S608 - constants
    " ORDER BY name LIMIT ?"
)
NAME_BY_ID = "SELECT parent, name FROM node WHERE id = ?"
PATH = (
    "WITH RECURSIVE up (depth, parent, name) AS (SELECT 0, parent, name FROM node WHERE id = ?"
    " UNION ALL SELECT depth + 1, node.parent, node.name FROM up JOIN node ON node.id = up.parent)"
    " SELECT name FROM up WHERE parent <> 0 ORDER BY depth DESC"
)
CHAIN = (
    "WITH RECURSIVE up (depth, id, parent) AS (SELECT 0, id, parent FROM node WHERE id = ?"
    " UNION ALL SELECT depth + 1, node.id, node.parent FROM up JOIN node ON node.id = up.parent)"
    " SELECT id FROM up ORDER BY depth"
)
MARK = (
    "WITH RECURSIVE up (depth, id, parent) AS (SELECT 0, id, parent FROM node WHERE id = ?"
    " UNION ALL SELECT depth + 1, node.id, node.parent FROM up JOIN node ON node.id = up.parent)"
    # CROSS: of few marks the planner would make the outer loop, and an index of all parents for it.
    " SELECT mark.mark, up.id FROM up CROSS JOIN mark ON mark.node = up.id ORDER BY depth LIMIT 1"
)
EXPLICIT = "SELECT mark FROM mark WHERE node = ?"
ENTRIES = (
    "SELECT peer.key, e.holding, e.kind, e.hash, e.vector, e.target"
    " FROM entry AS e LEFT JOIN peer ON peer.id = e.peer WHERE e.node = ?"
)
FLAGGED = "SELECT id FROM node WHERE flags <> 0 AND flags & 1"
"""Not among `STATEMENTS`: it scans an index, but one that holds flagged nodes only."""
ALL_ENTRIES = (
    "SELECT peer, holding, kind, size, mtime_ns, mode, hash, vector, target FROM entry WHERE node = ?"
)
PEER = "SELECT key FROM peer WHERE id = ?"
BLOB = "SELECT size, ranges, verified FROM blob WHERE hash = ?"
NAMES_LIKE = (
    "SELECT id, name FROM node WHERE kind <> 0 AND parent <> 0"
    " AND CAST(name AS TEXT) LIKE ? ESCAPE '\\' LIMIT ?"
)
"""Not among `STATEMENTS`: a search looks at all names."""
ROOT = "SELECT value FROM meta WHERE key = 'root'"

STATEMENTS = (
    ATTR_BY_ID, ATTR_BY_NAME, LISTING, NODE_BY_ID, NODE_BY_NAME, NODES, NAME_BY_ID, PATH, CHAIN, MARK,
    EXPLICIT, ENTRIES, BLOB, ROOT, ALL_ENTRIES, PEER, *(sums.STATEMENTS),
)  # fmt: skip
"""All statements of this module, for the test that none of them scans a table."""


class ArenaReader:
    """Reads one arena. Use from the thread that made it."""

    def __init__(self, path: Path, default_mark: Mark, connected: ConnectedPeers, arena: str = "") -> None:
        """Open the arena database at ``path``; ``arena`` is its name.

        Raises:
            StoreError: it is not there or cannot be opened.
        """
        self._conn: Connection = connect_readonly(path)
        self._default_mark = default_mark
        self._connected = connected
        self._arena = arena
        self.trash = TrashRows(self._conn)
        """What is in the trash; to look only."""
        self._conflicts: tuple[int, dict[bytes, Inode]] = (-1, {})

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def _one(self, statement: str, *values: object) -> Any:  # noqa: ANN401 - a row, typed by the caller
        return self._conn.execute(statement, values).fetchone()

    def root(self) -> Inode | None:
        """Return the arena's root, None in a database that is still being made."""
        row = self._one(ROOT)
        return Inode(row[0]) if row else None

    def attrs(self, inode: int) -> AttrRow | None:
        """Return the attributes of a shown node."""
        row = self._one(ATTR_BY_ID, inode)
        return self._current(AttrRow._make(row)) if row else None

    def attrs_of_child(self, parent: int, name: bytes) -> AttrRow | None:
        """Return the attributes of a shown name in a directory."""
        row = self._one(ATTR_BY_NAME, parent, name)
        return self._current(AttrRow._make(row)) if row else None

    def _current(self, row: AttrRow) -> AttrRow:
        """Return the row with what is held at this moment, where its blob is open."""
        if row.kind != Kind.FILE or not self._connected.has_open(self._arena):
            return row
        node = self.node(row.id)
        if node is None or node.local or node.hash is None:
            return row
        ranges = self._connected.open_ranges(self._arena, node.hash)
        return row if ranges is None else row._replace(held=ranges.total())

    def listing(self, parent: int, after: bytes, limit: int) -> list[AttrRow]:
        """Return shown entries of a directory in the order of their names, those after ``after``."""
        return list(map(AttrRow._make, self._conn.execute(LISTING, (parent, after, limit))))

    def node(self, inode: int) -> NodeRow | None:
        """Return a node, shown or not."""
        row = self._one(NODE_BY_ID, inode)
        return NodeRow._make(row) if row else None

    def child(self, parent: int, name: bytes) -> NodeRow | None:
        """Return the node of a name in a directory, shown or not."""
        row = self._one(NODE_BY_NAME, parent, name)
        return NodeRow._make(row) if row else None

    def children(self, parent: int, after: bytes, limit: int) -> list[NodeRow]:
        """Return shown nodes of a directory in the order of their names, those after ``after``."""
        return list(map(NodeRow._make, self._conn.execute(NODES, (parent, after, limit))))

    def find(self, path: RelPath) -> NodeRow | None:
        """Return the node of a path, shown or not; ``b""`` is the root."""
        at = self.root()
        found = self.node(at) if at is not None else None
        for name in path.split(b"/") if path else ():
            if found is None:
                break
            found = self.child(found.id, name)
        return found

    def name_of(self, inode: int) -> tuple[int, bytes] | None:
        """Return parent and name of a node."""
        row = self._one(NAME_BY_ID, inode)
        return (row[0], row[1]) if row else None

    def path(self, inode: int) -> RelPath:
        """Return the path of a node, ``b""`` for the root and for what is no node."""
        return RelPath(b"/".join(row[0] for row in self._conn.execute(PATH, (inode,))))

    def chain(self, inode: int) -> list[Inode]:
        """Return the node and its parents up to the root."""
        return [Inode(row[0]) for row in self._conn.execute(CHAIN, (inode,))]

    def mark(self, inode: int) -> EffectiveMark:
        """Return the mark in force on a node and where it is set."""
        row = self._one(MARK, inode)
        if row is None:
            return EffectiveMark(self._default_mark, None)
        return EffectiveMark(Mark(row[0]), Inode(row[1]))

    def explicit_mark(self, inode: int) -> Mark | None:
        """Return the mark that is set on the node itself."""
        row = self._one(EXPLICIT, inode)
        return Mark(row[0]) if row else None

    def entries(self, inode: int) -> list[EntryOf]:
        """Return who holds which version of a node."""
        return list(map(EntryOf._make, self._conn.execute(ENTRIES, (inode,))))

    def conflicts(self) -> dict[bytes, Inode]:
        """Return the nodes in conflict by path; remembered until something is committed."""
        version = int(self._one("PRAGMA data_version")[0])
        if self._conflicts[0] != version:
            nodes = [Inode(row[0]) for row in self._conn.execute(FLAGGED)]
            self._conflicts = (version, {self.path(node): node for node in nodes})
        return self._conflicts[1]

    def alternatives(self, inode: int) -> list[Alternative]:
        """Return the versions of a node of which none descends from another; this host's first."""
        entries = [EntryRow(*row) for row in self._conn.execute(ALL_ENTRIES, (inode,))]
        node = self.node(inode)
        found = alternatives(entries, directory=node is not None and node.kind == Kind.DIR)
        return [Alternative(one.meta, tuple(map(self._key, one.peers))) for one in found]

    def _key(self, peer: int) -> PeerKey | None:
        row = self._one(PEER, peer) if peer != LOCAL_PEER else None
        return PeerKey(row[0]) if row else None

    def holders(self, node: NodeRow) -> list[PeerKey]:
        """Return the peers that hold the shown version of a node."""
        return [entry.key for entry in self.entries(node.id) if entry.key is not None and holds(entry, node)]

    def blob(self, content: Hash) -> BlobInfo | None:
        """Return what can be read of a content in the blob store."""
        row = self._one(BLOB, content)
        if row is None:
            return None
        ranges = self._connected.open_ranges(self._arena, content) or ByteRanges.decode(row[1])
        return BlobInfo(row[0], ranges, bool(row[2]) and ranges.covers(0, row[0]))

    def held_bytes(self, node: NodeRow) -> int:
        """Return how many bytes of a file's content are on this host."""
        if node.kind != Kind.FILE or node.local == Holding.REAL:
            return node.size if node.kind == Kind.FILE else 0
        blob = self.blob(node.hash) if node.hash is not None else None
        return min(node.size, blob.ranges.total()) if blob else 0

    def state(self, node: NodeRow) -> FileState:
        """Return the state of a shown node."""
        blob = self.blob(node.hash) if node.hash is not None else None
        holders = self.holders(node)
        facts = Facts(
            kind=Kind(node.kind),
            real=node.local == Holding.REAL,
            held_bytes=blob.ranges.total() if blob else 0,
            whole=blob is not None and blob.whole,
            mark=self.mark(node.id).mark,
            held_elsewhere=bool(holders),
            reachable=not self._connected.keys.isdisjoint(holders),
        )
        return state_of(facts)

    def names_like(self, word: str, limit: int) -> list[tuple[int, bytes]]:
        """Return nodes whose name has the characters of ``word`` in order, whatever their case.

        Looks at every name of the arena: for a search by a person, in a worker.
        """
        escaped = [f"\\{char}" if char in "%_\\" else char for char in word]
        pattern = "%" + "%".join(escaped) + "%"
        rows = self._conn.execute(NAMES_LIKE, (pattern, limit))
        return [(int(inode), bytes(name)) for inode, name in rows]

    def usage(self, inode: int) -> Usage:
        """Return sums over everything below a directory; milliseconds per thousand files."""
        return sums.usage(self._conn, inode)


def holds(entry: EntryOf, node: NodeRow) -> bool:
    """Say whether an entry is the version that the node shows."""
    if entry.holding not in HELD or entry.kind != node.kind:
        return False
    if node.kind == Kind.FILE:
        if node.hash is None or entry.hash is None:
            return entry.vector == node.vector
        return entry.hash == node.hash
    return node.kind == Kind.DIR or entry.target == node.target
