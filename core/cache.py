"""The cache of one arena: entries of every host, and the shown version of every node.

Owns the tables ``node``, ``entry``, ``peer`` and ``dirty``. All writing happens in `write`, one
transaction with its `Changes`; listeners hear of them after the commit. Engine thread only.

INVARIANT: a node's shown columns are `core.choice.choose` of its entries, except that a directory
with something visible in it is shown although nobody announces it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from core.cached import CachedContent
from core.changes import Changes
from core.choice import (
    IMPLICIT_MODE,
    LOCAL_PEER,
    NOTHING,
    EntryRow,
    Flag,
    Shown,
    choose,
    show_directory,
    tombstone,
)
from core.counters import Counters
from core.db import Connection, transaction
from core.events import AnyEvent, ConflictChanged
from core.graves import Departed, Graves
from core.history import History, Op
from core.inodes import ArenaInodes
from core.marks import Marks
from core.moving import MovingRows
from core.paths import join
from core.trashrows import TrashRows
from core.tree import NO_PARENT, Tree
from core.types import Holding, Inode, Kind, Mark, PeerKey, Vector
from core.versions import EMPTY, decode, encode, merge

_log = logging.getLogger("realize.core.cache")


class ArenaCache:
    """Entries and shown versions of one arena."""

    def __init__(
        self,
        name: str,
        conn: Connection,
        inodes: ArenaInodes,
        self_key: PeerKey,
        default_mark: Mark,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Open the cache on its database; makes root and history when the database is new."""
        self.name = name
        self.host_name = "this-host"
        """Name of this host, for copies of files that are told apart by it; set by the engine."""
        self.conn = conn
        self.self_key = self_key
        self._inodes = inodes
        self.tree = Tree(conn, inodes)
        self.history = History(conn)
        self.trash = TrashRows(conn)
        self.counters = Counters(conn, now_ms)
        self.departed = Departed(conn)
        self.graves = Graves(conn)
        self.tree.made = self._on_made
        with transaction(conn):
            self.root = self.tree.ensure_root()
            self.history.ensure_uuid()
            self.counters.ensure()
            inodes.save()
        self.marks = Marks(conn, self.tree, default_mark)
        self.moving = MovingRows(conn)
        self.cached = CachedContent(self)
        self._peer_ids = self._load_peers()
        row = conn.execute("SELECT coalesce(max(counter), 0) FROM dirty").fetchone()
        self._counter = int(row[0]) if row else 0
        self._changes: Changes | None = None
        self._listeners: list[Callable[[Changes], None]] = []
        self.version = 0
        """Goes up with every transaction that changed something; for callers that remember figures."""

    def listen(self, listener: Callable[[Changes], None]) -> None:
        """Call ``listener`` after every transaction that changed something; it must be quick."""
        self._listeners.append(listener)

    @contextmanager
    def write(self) -> Iterator[Changes]:
        """Run one transaction; nested uses join it. No ``await`` inside."""
        if self._changes is not None:
            yield self._changes
            return
        self._changes = changes = Changes(self.name)
        try:
            with transaction(self.conn):
                yield changes
                self._inodes.save()
                self.counters.save()
                changes.history = self.history.flush()
        except BaseException:
            self._inodes.rolled_back()
            self.history.rolled_back()
            self.counters.rolled_back()
            self.graves.rolled_back()
            self.tree.moved()
            self.marks.changed()
            self.moving.changed()
            self._peer_ids = self._load_peers()
            raise
        finally:
            self._changes = None
        if changes:
            self.version += 1
            for listener in self._listeners:
                listener(changes)

    def emit(self, event: AnyEvent) -> None:
        """Add an event to the running transaction."""
        self.changes.events.append(event)

    @property
    def changes(self) -> Changes:
        """The changes of the running transaction."""
        if self._changes is None:
            raise RuntimeError("not inside ArenaCache.write")
        return self._changes

    def allocate(self) -> Inode:
        """Return a new inode; inside `write`."""
        return self._inodes.allocate()

    # -- peers

    def _load_peers(self) -> dict[PeerKey, int]:
        return {PeerKey(key): id_ for id_, key in self.conn.execute("SELECT id, key FROM peer")}

    def peer_id(self, key: PeerKey) -> int:
        """Return the number of a peer, made on first use (inside `write` then)."""
        known = self._peer_ids.get(key)
        if known is not None:
            return known
        with self.write():
            self.conn.execute(
                "INSERT INTO peer (key, uuid, seq, stamp, acked_seq) VALUES (?, ?, 0, 0, 0)", (key, b"")
            )
            row = self.conn.execute("SELECT id FROM peer WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        self._peer_ids[key] = int(row[0])
        return int(row[0])

    def peer_key(self, peer_id: int) -> PeerKey | None:
        """Return the key of a numbered peer."""
        return next((key for key, id_ in self._peer_ids.items() if id_ == peer_id), None)

    def position(self, key: PeerKey) -> tuple[bytes, int]:
        """Return the history and number up to which the peer's announcements are applied."""
        row = self.conn.execute("SELECT uuid, seq FROM peer WHERE key = ?", (key,)).fetchone()
        return (bytes(row[0]), int(row[1])) if row else (b"", 0)

    def acknowledged(self, key: PeerKey) -> int:
        """Return how far the peer has applied our history."""
        row = self.conn.execute("SELECT acked_seq FROM peer WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else 0

    def set_acknowledged(self, key: PeerKey, seq: int) -> None:
        """Record how far the peer has applied our history."""
        with transaction(self.conn):
            self.conn.execute(
                "UPDATE peer SET acked_seq = ? WHERE id = ?", (min(seq, self.history.last), self.peer_id(key))
            )

    def forget_peers(self, keep: Iterable[PeerKey]) -> None:
        """Drop the entries of peers that are not configured any more."""
        kept = set(keep)
        for key in [key for key in self._peer_ids if key not in kept]:
            peer = self._peer_ids[key]
            with self.write():
                self.adopt_deletions(peer)
                nodes = [
                    row[0] for row in self.conn.execute("SELECT node FROM entry WHERE peer = ?", (peer,))
                ]
                self.conn.execute("DELETE FROM entry WHERE peer = ?", (peer,))
                for node in nodes:
                    self.refresh(node)
                self.conn.execute("DELETE FROM peer WHERE id = ?", (peer,))
                del self._peer_ids[key]

    def adopt_deletions(self, peer: int, *, before: int | None = None) -> None:
        """Know of ourselves what a peer deleted that is being forgotten, or has forgotten it itself.

        ``before``: only what it listed last before that catch-up.

        What others still claim of those paths would come back silently otherwise.
        """
        rows: list[Any] = self.conn.execute(
            "SELECT e.node, e.vector, o.vector FROM entry e"
            " LEFT JOIN entry o ON o.node = e.node AND o.peer = 0"
            " WHERE e.peer = ? AND e.holding = 0 AND (o.holding IS NULL OR o.holding = 0) AND e.stamp < ?",
            (peer, before if before is not None else 1 << 62),
        ).fetchall()
        for node, vector, own in rows:
            self.put_tombstone(node, merge((Vector(vector), Vector(own or EMPTY))))

    # -- entries

    def entries(self, node: int) -> list[EntryRow]:
        """Return all entries of a node."""
        return [
            EntryRow(*row)
            for row in self.conn.execute(
                "SELECT peer, holding, kind, size, mtime_ns, mode, hash, vector, target"
                " FROM entry WHERE node = ?",
                (node,),
            )
        ]

    def local_entry(self, node: int) -> EntryRow | None:
        """Return this host's entry of a node."""
        row = self.conn.execute(
            "SELECT peer, holding, kind, size, mtime_ns, mode, hash, vector, target"
            " FROM entry WHERE node = ? AND peer = 0",
            (node,),
        ).fetchone()
        return EntryRow(*row) if row else None

    def local_ino(self, node: int) -> int:
        """Return the inode number in the datadir of what is, or was before it was unrealized, real here."""
        row = self.conn.execute("SELECT ino FROM entry WHERE node = ? AND peer = 0", (node,)).fetchone()
        return int(row[0]) if row else 0

    def shown(self, node: int) -> Shown:
        """Return the shown version of a node; nothing for one that was removed (`core.trimming`)."""
        row = self.conn.execute(
            "SELECT kind, size, mtime_ns, mode, hash, vector, target, local, flags FROM node WHERE id = ?",
            (node,),
        ).fetchone()
        return Shown(*row) if row is not None else NOTHING

    def put_entry(self, node: int, entry: EntryRow, *, ino: int = 0, stamp: int = 0) -> None:
        """Write an entry of a node; call `refresh` afterwards."""
        self.conn.execute(
            "INSERT OR REPLACE INTO entry (node, peer, holding, kind, size, mtime_ns, mode, hash, vector,"
            " target, ino, stamp) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (node, *entry, ino, stamp),
        )
        if entry.peer == LOCAL_PEER:
            self._local_changed(node, real=entry.holding == Holding.REAL)
            if entry.holding == Holding.TOMBSTONE:
                self.departed.add([node])

    def end_move(self, node: int) -> None:
        """Decide anew about a real file that was to be renamed as a peer did, and about its new path."""
        target = self.moving.target(node)
        if target is not None:
            self.moving.remove(node)
            self.mark_dirty([node, target])

    def _local_changed(self, node: int, *, real: bool) -> None:
        self.end_move(node)
        if real:
            self.marks.became_real(node)
        else:
            self.marks.forget_file(node)

    def remove_entry(self, node: int, peer: int) -> None:
        """Remove an entry of a node; call `refresh` afterwards."""
        if peer == LOCAL_PEER:
            self._local_changed(node, real=False)
        self.conn.execute("DELETE FROM entry WHERE node = ? AND peer = ?", (node, peer))

    def next_vector(self, node: int, *, over_deletions: bool = False) -> Vector:
        """Return the vector of a change made here, based on the version this host holds.

        ``over_deletions``: where everybody is known to have deleted it, that is what was seen.
        What is cached here and never was in the datadir was not seen there: a file made at its path is
        another one, and stands beside it. What was real and became cached was seen.
        The own counter is higher than any that the node's entries know, so that it was never used.
        """
        entries = self.entries(node)
        local = next((entry for entry in entries if entry.peer == LOCAL_PEER), None)
        base = EMPTY
        if over_deletions and all(entry.holding == Holding.TOMBSTONE for entry in entries):
            base = merge(Vector(entry.vector) for entry in entries)
        elif local is not None and (local.holding != Holding.CACHED or self.local_ino(node)):
            shown = self.shown(node)
            base = Vector(shown.vector if shown.local else local.vector)
        return self.vector_over(node, [base])

    def vector_over(self, node: int, vectors: Iterable[Vector]) -> Vector:
        """Return the vector of a change made here that descends from ``vectors``; never used before."""
        counters = decode(merge(vectors))
        known = [Vector(entry.vector) for entry in self.entries(node)]
        counters[self.self_key] = self.counters.after(
            max(decode(vector).get(self.self_key, 0) for vector in (encode(counters), *known))
        )
        return encode(counters)

    def first_vector(self) -> Vector:
        """Return the vector of what appears here at a path that nobody knows anything of."""
        return encode({self.self_key: self.counters.after(0)})

    def revalue(self, node: int, vector: Vector) -> None:
        """Give this host's version of a node another vector; `refresh` afterwards, inside `write`."""
        self.conn.execute("UPDATE entry SET vector = ? WHERE node = ? AND peer = 0", (vector, node))
        self.history.append(node, Op.META)

    # -- deletions that are remembered without a node

    def _on_made(self, node: Inode, parent: int, name: bytes) -> None:
        if self.graves:
            self.unearth(node, join(self.tree.directory_path(parent), name))

    def unearth(self, node: int, path: bytes) -> None:
        """Give a node that was just made for a path the tombstone that its path had; inside `write`."""
        vector = self.graves.get(path)
        if vector is not None:
            self.graves.remove(path)
            self.put_tombstone(node, vector)

    def put_tombstone(self, node: int, vector: Vector) -> None:
        """Record, and tell the peers, that the path of a node is known here to be deleted; inside `write`."""
        self.put_entry(node, tombstone(vector))
        self.history.append(node, Op.REMOVE)
        self.refresh(node)

    # -- shown versions

    def refresh(self, node: int) -> None:
        """Choose the shown version of a node again and note what changed; inside `write`."""
        row = self.conn.execute(
            "SELECT parent, name, kind, size, mtime_ns, mode, hash, vector, target, local, flags"
            " FROM node WHERE id = ?",
            (node,),
        ).fetchone()
        if row is None:
            raise KeyError(node)
        parent, name, before = row[0], row[1], Shown(*row[2:])
        entries = self.entries(node)
        after = choose(entries)
        if after.kind != Kind.DIR and (node == self.root or self._has_visible_child(node)):
            after = show_directory(entries, after)
        self._take_merged(node, entries, after)
        if after.local == Holding.REAL:
            stay = Flag.UNREADABLE | (Flag.DAMAGED if after.hash == before.hash else Flag.NONE)
            after = after._replace(flags=after.flags | before.flags & stay)
        if after == before:
            return
        if after.kind == Kind.NONE and before.kind != Kind.NONE:
            self.departed.add([node])
        elif after.kind != Kind.NONE and before.kind == Kind.NONE:
            self.end_move(node)  # there is something at its old path again
        self.conn.execute(
            "UPDATE node SET kind = ?, size = ?, mtime_ns = ?, mode = ?, hash = ?, vector = ?, target = ?,"
            " local = ?, flags = ? WHERE id = ?",
            (*after, node),
        )
        self.note_change(node, parent, name, before.kind, after.kind)
        if before.kind == Kind.DIR and before.flags & ~after.flags & Flag.CONFLICT:
            self.mark_dirty([node], subtree=True)  # what is in it could not be put where a file was
        if not after.local and any(entry.peer == LOCAL_PEER for entry in entries):
            self.mark_dirty([node])  # superseded here: it is to be replaced, to go, or to come back

    def _take_merged(self, node: int, entries: Sequence[EntryRow], shown: Shown) -> None:
        """Let this host's entry take the vector of the shown version, which is its own (spec 4 §Versions).

        Equal content is one version whatever the vectors. Without this, what was learned from a peer, that
        a conflict is resolved say, would be forgotten with that peer's entry. A real file whose mode or
        time differ is adjusted first.
        """
        if not shown.local or len(entries) == 1:
            return
        local = next(entry for entry in entries if entry.peer == LOCAL_PEER)
        same_mode = local.kind == Kind.SYMLINK or not (local.mode ^ shown.mode) & 0o777
        same_time = local.kind == Kind.DIR or local.mtime_ns == shown.mtime_ns
        if local.vector == shown.vector or not (local.holding == Holding.CACHED or (same_mode and same_time)):
            return
        self.conn.execute(
            "UPDATE entry SET vector = ?, mtime_ns = ?, mode = ? WHERE node = ? AND peer = 0",
            (
                shown.vector,
                local.mtime_ns if local.holding == Holding.REAL else shown.mtime_ns,
                local.mode if local.holding == Holding.REAL else shown.mode,
                node,
            ),
        )
        self.history.append(node, Op.META)

    def note_change(self, node: int, parent: int, name: bytes, before: int, after: int) -> None:
        """Record in the running `Changes` that a node was rewritten; keeps directories visible."""
        changes = self.changes
        changes.nodes.add(node)
        changes.touched.add(parent)
        if before != after:
            changes.listings.add(parent)
            if before != Kind.NONE:
                changes.gone.append((parent, name))
            self._parent_visibility(parent, appeared=after != Kind.NONE)

    def show_directory(self, node: int) -> None:
        """Make a directory visible, with those above it, because something in it is; inside `write`."""
        self._parent_visibility(node, appeared=True)

    def show_or_hide(self, directory: int) -> None:
        """Show a directory, or not any more, after something came into it or left it; inside `write`."""
        self._parent_visibility(directory, appeared=self._has_visible_child(directory))

    def hide_directory(self, node: int) -> None:
        """Show a directory no more from which things went, if nothing else keeps it; inside `write`."""
        self._parent_visibility(node, appeared=False)

    def _parent_visibility(self, parent: int, *, appeared: bool) -> None:
        if parent in (NO_PARENT, self.root):
            return
        row = self.conn.execute("SELECT kind, flags FROM node WHERE id = ?", (parent,)).fetchone()
        if row is None:
            return
        kind, flags = row
        if appeared and kind == Kind.NONE:
            self._show_implicit(parent)
        elif (kind != Kind.DIR) if appeared else (kind == Kind.DIR and not self._has_visible_child(parent)):
            self.refresh(parent)
            self._tell_conflict(parent, flags)

    def _tell_conflict(self, node: int, before: int) -> None:
        now = self.shown(node).flags
        if (before ^ now) & Flag.CONFLICT:
            path, resolved = self.tree.path(node), not now & Flag.CONFLICT
            self.emit(ConflictChanged(arena=self.name, path=path, peers=(), resolved=resolved))

    def _show_implicit(self, node: int) -> None:
        """Show a directory of which nothing is known but that something is in it."""
        parent, name = self.tree.parent_and_name(node)
        self.conn.execute(
            "UPDATE node SET kind = ?, mode = ?, mtime_ns = ? WHERE id = ?",
            (int(Kind.DIR), IMPLICIT_MODE, time.time_ns(), node),
        )
        self.note_change(node, parent, name, Kind.NONE, Kind.DIR)

    def _has_visible_child(self, node: int) -> bool:
        # From the end: where everything in a directory goes, the first names go first.
        row = self.conn.execute(
            "SELECT 1 FROM node WHERE parent = ? AND kind <> 0 ORDER BY name DESC LIMIT 1", (node,)
        ).fetchone()
        return row is not None

    def visible_below(self, node: int) -> list[int]:
        """Return what is shown below a node, the deepest first."""
        rows: list[Any] = self.conn.execute(
            "WITH RECURSIVE below (id, depth) AS (SELECT ?, 0 UNION ALL"
            " SELECT n.id, b.depth + 1 FROM below b JOIN node n ON n.parent = b.id AND n.kind <> 0)"
            " SELECT id FROM below WHERE depth > 0 ORDER BY depth DESC",
            (node,),
        ).fetchall()
        return [row[0] for row in rows]

    def files_in_the_way(self) -> set[int]:
        """Return the paths that are shown as directories and are real files or links here."""
        rows: list[Any] = self.conn.execute(
            "SELECT n.id FROM node n JOIN entry e ON e.node = n.id AND e.peer = 0 AND e.holding = 1"
            " WHERE n.flags <> 0 AND n.flags & ? AND n.kind = 2 AND e.kind <> 2",
            (int(Flag.CONFLICT),),
        ).fetchall()
        return {row[0] for row in rows}

    # -- what this host holds

    def set_real(self, node: int, entry: EntryRow, ino: int) -> None:
        """Record that a version became a real file, directory or link in the datadir; keeps its vector."""
        with self.write():
            before = self.local_entry(node)
            if before is not None and before.holding == Holding.TOMBSTONE:
                # The change that outlives our deletion comes after what we deleted.
                entry = entry._replace(vector=merge((Vector(entry.vector), Vector(before.vector))))
            self.put_entry(node, entry, ino=ino)
            known = before is not None and before.holding == Holding.REAL
            self.history.append(node, Op.REPLACE if known else Op.ADD)
            self.refresh(node)

    # -- work for churten

    def mark_dirty(self, nodes: Iterable[int], *, subtree: bool = False) -> None:
        """Put nodes at the end of churten's queue, due now; inside `write`.

        A node of which the whole subtree is to be looked at stays one.
        """
        rows = []
        for node in nodes:
            self._counter += 1
            rows.append((node, self._counter, int(subtree)))
        if rows:
            self.conn.executemany(
                "INSERT INTO dirty (node, counter, subtree, attempts, due_ns, reason)"
                " VALUES (?, ?, ?, 0, 0, '') ON CONFLICT (node) DO UPDATE SET counter = excluded.counter,"
                " subtree = max(subtree, excluded.subtree), attempts = 0, due_ns = 0, reason = ''",
                rows,
            )
            self.changes.dirty = True

    def mark_left(self, directory: int) -> None:
        """Have a directory looked at that something left: if deleted elsewhere, it goes once it is empty."""
        local = self.local_entry(directory)
        if local is not None and local.holding == Holding.REAL and not self.shown(directory).local:
            self.mark_dirty([directory])

    def is_of_interest(self, node: int, parent: int) -> bool:
        """Say whether churten may have work on a node: it is marked, or held here in some form."""
        if self.marks.effective(node, parent) is not Mark.WATCH:
            return True
        return self.local_entry(node) is not None
