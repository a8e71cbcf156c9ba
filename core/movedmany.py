"""Following a peer's renames of many files at once: what is only listed or cached here, in a few statements.

Does what `core.following` and `core.remote` do one by one, where nothing stands in the way: the file at the
old path is known from that peer alone, this host has at most a cached copy of it and wants no more, nothing
is at the new path or was, and the peer tells in the same batch that the old one is deleted. Everything else
is left to them. The node goes along, and another one stays at the old path with the deletion. Engine thread,
inside a transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from core.announce import Group, entries_of
from core.cache import ArenaCache
from core.choice import LOCAL_PEER, EntryRow, tombstone
from core.history import Op
from core.paths import join, split
from core.types import Holding, Kind, Mark, RelPath

_OLD = (
    "SELECT n.parent, n.name, n.id, n.size, n.mtime_ns, n.mode, n.local, e.kind, e.hash, e.target,"
    " l.holding, l.hash FROM node n JOIN entry e ON e.node = n.id AND e.peer = ?"
    " LEFT JOIN entry l ON l.node = n.id AND l.peer = 0"
    " WHERE n.parent = ? AND n.name = ? AND n.kind = e.kind AND n.flags = 0 AND e.holding <> 0"
    " AND (SELECT count(*) FROM entry o WHERE o.node = n.id) = 1 + (l.peer IS NOT NULL)"
    " AND NOT EXISTS (SELECT 1 FROM node c WHERE c.parent = n.id)"
)
_MOVE = "UPDATE node SET parent = ?, name = ?, size = ?, mtime_ns = ?, mode = ?, vector = ? WHERE id = ?"
_LEAVE = (
    "INSERT INTO node (id, parent, name, kind, size, mtime_ns, mode, hash, vector, target, local, flags)"
    " VALUES (?, ?, ?, 0, 0, 0, 0, NULL, ?, NULL, 0, 0)"
)
_PUT = (
    "INSERT OR REPLACE INTO entry (node, peer, holding, kind, size, mtime_ns, mode, hash, vector, target,"
    " ino, stamp) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"
)

_Place = tuple[int, bytes]
"""The node of a directory, and a name in it."""


class _Rename(NamedTuple):
    """A renamed file: its entry and that of its old path, each with where it stands in the batch."""

    entry: EntryRow
    deletion: EntryRow
    stands: tuple[int, int]
    old_stands: tuple[int, int]
    old: _Place
    new: _Place
    path: RelPath
    old_mark: Mark
    mark: Mark


class _Known(NamedTuple):
    """What is known of an old path: the columns of `_OLD` after its place."""

    node: int
    size: int
    mtime_ns: int
    mode: int
    local: int
    kind: int
    hash: bytes | None
    target: bytes | None
    held: int | None
    held_hash: bytes | None

    def is_moved_by(self, rename: _Rename) -> bool:
        """Say whether that very content was renamed, and is here as nothing more than a cached copy."""
        entry = rename.entry
        if self.kind != entry.kind:
            return False
        if self.held is None:
            unwanted = rename.old_mark is rename.mark is Mark.WATCH
            same = self.target == entry.target if self.kind == Kind.SYMLINK else self._is(entry.hash)
            return same and unwanted
        # What is to be real may be on its way into the datadir, to the old path.
        owned = Mark.OWN in (rename.old_mark, rename.mark)
        cached = self.held == self.local == Holding.CACHED and not owned
        return cached and self._is(entry.hash) and self._is(self.held_hash)

    def _is(self, content: bytes | None) -> bool:
        return self.hash == content is not None


@dataclass(slots=True)
class _Writer:
    """Gathers the statements of the renames that are carried out."""

    cache: ArenaCache
    stamp: int
    moves: list[tuple[object, ...]] = field(default_factory=list)
    left: list[tuple[object, ...]] = field(default_factory=list)
    entries: list[tuple[object, ...]] = field(default_factory=list)
    left_nodes: list[int] = field(default_factory=list)
    moved_nodes: list[int] = field(default_factory=list)
    dirty: list[int] = field(default_factory=list)

    def add(self, known: _Known, rename: _Rename) -> None:
        cache, node, entry, deletion = self.cache, known.node, rename.entry, rename.deletion
        left = cache.allocate()
        self.moves.append((*rename.new, entry.size, entry.mtime_ns, entry.mode, entry.vector, node))
        self.left.append((left, *rename.old, deletion.vector))
        self.entries.append((node, *entry, self.stamp))
        self.entries.append((left, *deletion, self.stamp))
        self.left_nodes.append(left)
        self.moved_nodes.append(node)
        if known.held is not None:
            held = entry._replace(peer=LOCAL_PEER, holding=int(Holding.CACHED))
            self.entries.append((node, *held, 0))
            cache.history.append(node, Op.AVAILABLE)
            cache.history.append(left, Op.DROP)
        if rename.old_mark is not rename.mark:
            self.dirty.append(node)
        cache.changes.gone.append(rename.old)
        if (known.size, known.mtime_ns, known.mode) != (entry.size, entry.mtime_ns, entry.mode):
            cache.changes.nodes.add(node)

    def write(self) -> None:
        cache = self.cache
        cache.conn.executemany(_MOVE, self.moves)
        cache.conn.executemany(_LEAVE, self.left)
        cache.conn.executemany(_PUT, self.entries)
        cache.departed.add(self.left_nodes)
        cache.mark_dirty(self.dirty)
        cache.tree.moved_if_known(*self.moved_nodes)


def follow_many(cache: ArenaCache, peer: int, stamp: int, groups: list[Group]) -> list[Group]:
    """Carry out the renames of a batch that nothing stands in the way of; returns the rest of the batch."""
    if not any(group.renamed_from for group in groups) or not _is_plain(groups):
        return groups
    done = _carry_out(cache, peer, stamp, list(_renames(cache, peer, groups)))
    taken: dict[int, set[int]] = {}
    for rename in done:
        for group, at in (rename.stands, rename.old_stands):
            taken.setdefault(group, set()).add(at)
    rest = (group.without(taken.get(number, set())) for number, group in enumerate(groups))
    return [group for group in rest if group.names]


def _is_plain(groups: list[Group]) -> bool:
    """Say whether every path is in the batch once, so that their order makes no difference."""
    return len({group.directory for group in groups}) == len(groups) and all(
        len(set(group.names)) == len(group.names) for group in groups
    )


def _renames(cache: ArenaCache, peer: int, groups: list[Group]) -> Iterator[_Rename]:
    """Yield the renamed files whose old path is deleted in the same batch."""
    deletions = {
        (group.directory, name): (number, at)
        for number, group in enumerate(groups)
        for at, (name, holding) in enumerate(zip(group.names, group.holdings, strict=True))
        if holding == Holding.TOMBSTONE
    }
    for number, group in enumerate(groups):
        if not group.renamed_from:
            continue
        parent = cache.tree.ensure_dir(group.directory)
        mark = cache.marks.of_directory(parent)
        for at, ((name, entry), origin) in enumerate(
            zip(entries_of(group, peer), group.renamed_from, strict=True)
        ):
            if not origin or entry.holding != Holding.REAL or entry.kind == Kind.DIR:
                continue
            directory, old_name = split(origin)
            stands = deletions.pop((directory, old_name), None)
            left = cache.tree.find_dir(directory) if stands is not None else None
            if stands is None or left is None:
                continue
            deletion = tombstone(groups[stands[0]].vectors[stands[1]])._replace(peer=peer)
            yield _Rename(
                entry, deletion, (number, at), stands, (left, old_name), (parent, name),
                join(group.directory, name), cache.marks.of_directory(left), mark,
            )  # fmt: skip


def _carry_out(cache: ArenaCache, peer: int, stamp: int, renames: list[_Rename]) -> list[_Rename]:
    """Move the nodes of what can be moved; returns that."""
    if not renames:
        return []
    conn = cache.conn
    rows: list[Any] = conn.executemany(_OLD, [(peer, *rename.old) for rename in renames]).fetchall()
    known = {(row[0], row[1]): _Known(*row[2:]) for row in rows}
    occupied: set[Any] = set(
        conn.executemany(
            "SELECT parent, name FROM node WHERE parent = ? AND name = ?", [rename.new for rename in renames]
        )
    )
    told = cache.history.tells_of(one.node for one in known.values() if one.held is None)
    writer = _Writer(cache, stamp)
    done = []
    for rename in renames:
        one = known.get(rename.old)
        if one is None or not one.is_moved_by(rename) or rename.new in occupied:
            continue
        if _is_special(cache, one.node) or one.node in told or cache.graves.get(rename.path) is not None:
            continue
        writer.add(one, rename)
        done.append(rename)
    writer.write()
    _note_directories(cache, done)
    return done


def _is_special(cache: ArenaCache, node: int) -> bool:
    """Say whether a node has a mark of its own, or a part in a rename of a real file."""
    moving = cache.moving
    return cache.marks.concerns(node) or moving.target(node) is not None or moving.source(node) is not None


def _note_directories(cache: ArenaCache, renames: list[_Rename]) -> None:
    came = {rename.new[0] for rename in renames}
    went = {rename.old[0] for rename in renames}
    cache.changes.listings |= came | went
    for directory in came:
        cache.show_directory(directory)
    for directory in went - came:
        cache.hide_directory(directory)
