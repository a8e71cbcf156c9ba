"""Renames in the datadir as renames of nodes: inodes, explicit marks and children stay what they are.

Nodes move, versions do not: what is known of a path, by this host or by peers, stays with the path. So a
node that moves leaves another one at its old path, with a tombstone of this host and what peers say of
that path; and the moved one begins a new line of versions at the new path, unless there was one. Vectors
are never carried from one path to another: a counter means something only where it was counted.

Engine thread; `exchange` inside a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.cache import ArenaCache
from core.choice import LOCAL_PEER, EntryRow, Flag, tombstone
from core.events import FileChanged
from core.history import Op
from core.paths import join
from core.ports import Found
from core.types import Holding, Inode, Kind, RelPath, Vector
from core.versions import decode, descends, encode

_ASIDE = -1
"""Where rows are for a moment while two nodes change places; no node has such a number."""


def exchange(cache: ArenaCache, node: int, other: int) -> None:
    """Let two nodes change places, neither of them above the other; `refresh` both afterwards.

    The entries of peers stay where they were, by path; this host's own go along with the nodes.
    """
    swap_places(cache, node, other)
    swap_claims(cache, node, other)
    conn = cache.conn
    row = conn.execute("SELECT 1 FROM node WHERE parent IN (?, ?) LIMIT 1", (node, other)).fetchone()
    if row is not None:
        conn.execute("UPDATE node SET parent = ? WHERE parent = ?", (_ASIDE, node))
        conn.execute("UPDATE node SET parent = ? WHERE parent = ?", (node, other))
        conn.execute("UPDATE node SET parent = ? WHERE parent = ?", (other, _ASIDE))
        cache.tree.moved()


def swap_places(cache: ArenaCache, node: int, other: int) -> None:
    """Exchange parents and names of two nodes, children and all."""
    conn, changes = cache.conn, cache.changes
    here, there = cache.tree.parent_and_name(node), cache.tree.parent_and_name(other)
    conn.execute("UPDATE node SET parent = ? WHERE id = ?", (_ASIDE, node))
    conn.execute("UPDATE node SET parent = ?, name = ? WHERE id = ?", (*here, other))
    conn.execute("UPDATE node SET parent = ?, name = ? WHERE id = ?", (*there, node))
    changes.nodes |= {node, other}
    for place in (here, there):
        changes.listings.add(place[0])
        changes.touched.add(place[0])
        changes.gone.append(place)
    cache.tree.moved_if_known(node, other)
    cache.marks.moved()


def swap_claims(cache: ArenaCache, node: int, other: int) -> None:
    """Exchange what peers say of two nodes."""
    conn = cache.conn
    update = "UPDATE entry SET node = ? WHERE node = ? AND peer > 0"
    conn.execute(update, (_ASIDE, node))
    conn.execute(update, (node, other))
    conn.execute(update, (other, _ASIDE))


def move_marks(cache: ArenaCache, node: int, left: int) -> None:
    """After ``node`` came to the place of ``left``: its explicit mark holds, else the one of the place."""
    waiting = cache.marks.explicit(left)
    if waiting is not None:
        cache.marks.set(left, None)
        if cache.marks.explicit(node) is None:
            cache.marks.set(node, waiting)


@dataclass(slots=True)
class _Bulk:
    """Statements on the children of one directory that nobody else's node stands in the way of."""

    first_vector: Vector
    """Of what is at a path that nobody knows anything of."""
    nodes: list[tuple[object, ...]] = field(default_factory=list)
    shown: list[tuple[object, ...]] = field(default_factory=list)
    entries: list[tuple[object, ...]] = field(default_factory=list)
    vectors: list[tuple[object, ...]] = field(default_factory=list)
    claims: list[tuple[int, int]] = field(default_factory=list)
    refresh: list[int] = field(default_factory=list)

    def write(self, cache: ArenaCache) -> None:
        conn = cache.conn
        conn.executemany(
            "INSERT INTO node (id, parent, name, kind, size, mtime_ns, mode, hash, vector, target, local,"
            " flags) VALUES (?, ?, ?, 0, 0, 0, 0, NULL, ?, NULL, 0, 0)",
            self.nodes,
        )
        conn.executemany(
            "UPDATE node SET kind = ?, size = ?, mtime_ns = ?, mode = ?, hash = ?, vector = ?, target = ?,"
            " local = 1, flags = ? WHERE id = ?",
            self.shown,
        )
        conn.executemany(
            "INSERT INTO entry (node, peer, holding, kind, size, mtime_ns, mode, hash, vector, target, ino,"
            " stamp) VALUES (?, 0, 0, 0, 0, 0, 0, NULL, ?, NULL, 0, 0)",
            self.entries,
        )
        conn.executemany("UPDATE entry SET vector = ? WHERE node = ? AND peer = 0", self.vectors)
        conn.executemany("UPDATE entry SET node = ? WHERE node = ? AND peer > 0", self.claims)
        cache.departed.add(row[0] for row in self.nodes)  # type: ignore[misc]  # their first column is the node
        for node in self.refresh:
            cache.refresh(node)


class Renamer:
    """Carries out renames that the index found in the datadir."""

    def __init__(self, cache: ArenaCache) -> None:
        """Write into ``cache``."""
        self._cache = cache
        self._bumped: dict[tuple[bytes, int], Vector] = {}

    def rename(self, found: Found, *, listed: bool) -> bool:
        """See `LocalStore.renamed`."""
        cache = self._cache
        old = found.hash_from
        node = cache.tree.find(old) if old else None
        if old is None or node is None or not self._is_same(node, found):
            return False
        with cache.write():
            self._bumped.clear()
            parent = cache.tree.ensure_dir(found.directory)
            above = {parent, *cache.tree.ancestors(parent)}
            other = cache.tree.child(parent, found.name)
            if other == node:
                return True
            if node in above or (other is not None and other in cache.tree.ancestors(node)):
                return False
            if other is None:
                other = cache.tree.ensure_child(parent, found.name)
            self._move(node, other, found, old, listed=listed)
            cache.emit(
                FileChanged(
                    arena=cache.name,
                    path=join(found.directory, found.name),
                    what="renamed",
                    cause="user",
                    before=cache.shown(node).hash,
                    after=cache.shown(node).hash,
                    origin=old,
                )
            )
        return True

    def _is_same(self, node: int, found: Found) -> bool:
        row: Any = self._cache.conn.execute(
            "SELECT kind, ino, size, mtime_ns FROM entry WHERE node = ? AND peer = 0 AND holding = 1", (node,)
        ).fetchone()
        if row is None or row[:2] != (found.kind, found.ino):
            return False
        return found.kind == Kind.DIR or row[2:] == (found.size, found.mtime_ns)

    def _move(self, node: Inode, other: Inode, found: Found, old: RelPath, *, listed: bool) -> None:
        cache = self._cache
        entry = cache.local_entry(node)
        if entry is None:
            raise KeyError(node)
        old_parent = cache.tree.parent_and_name(node)[0]
        was, will = cache.next_vector(node), cache.next_vector(other)
        cache.cached.make_way(other)
        if found.kind == Kind.DIR:
            swap_places(cache, node, other)
            swap_claims(cache, node, other)
            cache.tree.moved()  # what is below it may be remembered though the directory itself is not
        else:
            exchange(cache, node, other)
        move_marks(cache, node, other)
        entry = entry._replace(vector=will, mode=found.mode, mtime_ns=found.mtime_ns)
        cache.put_entry(node, entry, ino=found.ino)
        cache.put_entry(other, tombstone(was))
        cache.history.append(node, Op.RENAME, old)
        shadows: list[int] = [other]
        if found.kind == Kind.DIR:
            shadows += self._move_all_below(node, other, old, listed=listed)
        cache.refresh(node)
        for shadow in reversed(shadows):
            cache.refresh(shadow)
        cache.show_directory(cache.tree.parent_and_name(node)[0])
        if old_parent != cache.root:
            cache.refresh(old_parent)
            cache.mark_left(old_parent)
        # What peers still hold at the old path has another mark now that the explicit one has gone along.
        cache.mark_dirty([node, other], subtree=found.kind == Kind.DIR)

    # -- directories

    def _move_all_below(self, node: int, other: int, old: RelPath, *, listed: bool) -> list[int]:
        """Deal with what is below a directory that has moved; returns the directories left behind."""
        shadows: list[int] = []
        todo = [(node, other, old)]
        while todo:
            here, there, path = todo.pop()
            for child, left, kind, name in self._children(here, there, path, listed=listed):
                if kind == Kind.DIR:
                    todo.append((child, left, join(path, name)))
                    shadows.append(left)
        return shadows

    def _children(
        self, node: int, other: int, old: RelPath, *, listed: bool
    ) -> list[tuple[int, int, int, bytes]]:
        """Sort the children of a directory that is at its new path: they are to be what is there.

        ``other`` is the node at the old path, whose children were at the new one. Returns what moved:
        ``(node, node left behind, kind, name)``.
        """
        cache = self._cache
        rows: list[Any] = cache.conn.execute(
            "SELECT n.id, n.name, n.vector, n.local, n.flags, e.kind, e.size, e.mtime_ns, e.mode, e.hash,"
            " e.vector, e.target, e.ino FROM node n LEFT JOIN entry e ON e.node = n.id AND e.peer = 0"
            " AND e.holding = 1 WHERE n.parent = ?",
            (node,),
        ).fetchall()
        waiting: dict[bytes, int] = dict(
            cache.conn.execute("SELECT name, id FROM node WHERE parent = ?", (other,))
        )
        if cache.graves:
            self._unearth(node, other, [row[1] for row in rows if row[5] is not None], waiting)
        claims = self._claims(node)
        bulk = _Bulk(cache.first_vector())
        moved: list[tuple[int, int, int, bytes]] = []
        staying: list[tuple[int, int | None]] = []
        for row in rows:
            child, name, kind = row[0], row[1], row[5]
            left = waiting.pop(name, None)
            if kind is None or (listed and (left is None or not self._is_same_real(left, row))):
                staying.append((child, left))
                continue
            if left is None:
                left = cache.allocate()
                self._leave(bulk, row, left, other, claims.get(child, ()))
            else:
                self._take_place(child, left, row, listed=listed)
                bulk.refresh += [child, left]
            cache.end_move(child)
            cache.history.append(child, Op.RENAME, join(old, name))
            moved.append((child, left, kind, name))
        self._stay(node, other, staying, waiting.values())
        bulk.write(cache)
        cache.changes.listings |= {node, other}
        return moved

    def _unearth(self, node: int, other: int, names: Iterable[bytes], waiting: dict[bytes, int]) -> None:
        """Put the nodes of paths that were deleted back to where those of the new paths are waiting."""
        cache = self._cache
        path = cache.tree.path(node)
        for name in names:
            at = join(path, name)
            if name not in waiting and cache.graves.get(at) is not None:
                waiting[name] = left = cache.allocate()
                cache.tree.insert_bare(left, other, name)
                cache.unearth(left, at)

    def _claims(self, directory: int) -> dict[int, list[Vector]]:
        claims: dict[int, list[Vector]] = {}
        for child, vector in self._cache.conn.execute(
            "SELECT e.node, e.vector FROM node n JOIN entry e ON e.node = n.id AND e.peer > 0"
            " WHERE n.parent = ?",
            (directory,),
        ):
            claims.setdefault(child, []).append(Vector(vector))
        return claims

    def _is_same_real(self, left: int, row: Any) -> bool:  # noqa: ANN401 - a row of SQLite
        found: Any = self._cache.conn.execute(
            "SELECT kind, ino, size, mtime_ns FROM entry WHERE node = ? AND peer = 0 AND holding = 1", (left,)
        ).fetchone()
        if found is None or found[:2] != (row[5], row[12]):
            return False
        return bool(row[5] == Kind.DIR or found[2:] == (row[6], row[7]))

    def _leave(self, bulk: _Bulk, row: Any, left: int, parent: int, claims: Sequence[Vector]) -> None:  # noqa: ANN401
        """Leave a new node behind a child whose new path nobody knows anything of."""
        child, name, shown_vector, local, flags, kind, size, mtime_ns, mode, content, vector, target, _ = row
        vectors = list(claims)
        was = self._next(shown_vector if local else vector, [Vector(vector), *vectors])
        bulk.nodes.append((left, parent, name, was))
        bulk.entries.append((left, was))
        keep = flags & int(Flag.UNREADABLE | Flag.DAMAGED)
        first = bulk.first_vector
        bulk.shown.append((kind, size, mtime_ns, mode, content, first, target, keep, child))
        bulk.vectors.append((first, child))
        if vectors:
            bulk.claims.append((left, child))
            if not all(descends(was, known) for known in vectors):
                bulk.refresh.append(left)

    def _next(self, base: bytes, known: list[Vector]) -> Vector:
        """As `ArenaCache.next_vector`, of vectors that are at hand; many are the same."""
        key = self._cache.self_key
        count = max(decode(vector).get(key, 0) for vector in known)
        bumped = self._bumped.get((base, count))
        if bumped is None:
            counters = decode(Vector(base))
            counters[key] = self._cache.counters.after(max(counters.get(key, 0), count))
            bumped = self._bumped[base, count] = encode(counters)
        return bumped

    def _take_place(self, child: int, left: int, row: Any, *, listed: bool) -> None:  # noqa: ANN401 - a row of SQLite
        """Give a child, whose place is right already, the claims on its new path, and ``left`` the others.

        ``listed``: what ``left`` has was seen at the new path, of another mode maybe than at the old one.
        """
        cache = self._cache
        was, will = cache.next_vector(child), cache.next_vector(left)
        cache.cached.make_way(left, cache.tree.parent_and_name(child))
        kind, size, mtime_ns, mode, content, _, target, ino = row[5:]
        seen = cache.local_entry(left) if listed else None
        if seen is not None:
            mode, mtime_ns = seen.mode, seen.mtime_ns
        swap_claims(cache, child, left)
        move_marks(cache, child, left)
        entry = EntryRow(LOCAL_PEER, int(Holding.REAL), kind, size, mtime_ns, mode, content, will, target)
        cache.put_entry(child, entry, ino=ino)
        cache.put_entry(left, tombstone(was))

    def _stay(
        self, node: int, other: int, staying: list[tuple[int, int | None]], remaining: Iterable[int]
    ) -> None:
        """Bring what was not in the renamed directory on disk back to its path."""
        conn = self._cache.conn
        set_parent = "UPDATE node SET parent = ? WHERE id = ?"
        for child, left in staying:
            conn.execute(set_parent, (_ASIDE, child))
            if left is not None:
                conn.execute(set_parent, (node, left))
            conn.execute(set_parent, (other, child))
        conn.executemany(set_parent, [(node, left) for left in remaining])
        if staying:
            self._cache.tree.moved()
            self._cache.marks.moved()
