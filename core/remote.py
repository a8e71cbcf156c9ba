"""Applying what peers announce: batches of entries into the cache of an arena.

Idempotent and independent of order per path: the last word of a peer about a path replaces its
entry, and the shown version follows from the vectors. One transaction for a batch together with the
position, so that nothing is applied twice or lost (spec 4 §Announcing). Engine thread.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from core.announce import Batch, Group, Phase, entries_of
from core.cache import ArenaCache
from core.choice import LOCAL_PEER, EntryRow, Flag, Shown, show_single
from core.events import ConflictChanged, FileChanged
from core.following import follow
from core.movedmany import follow_many
from core.paths import join, split
from core.trashrows import Reason
from core.types import Holding, Inode, Kind, Mark, PeerKey, RelPath, Vector
from core.versions import advanced, decode, descends, merge

_log = logging.getLogger("realize.core.remote")

_EVENTS_PER_BATCH = 100
"""LIMIT: changes of single files that are worth an event each; more are one `TreeChanged`."""

_SELECT = (
    "SELECT n.name, n.id, n.kind, n.hash, n.vector, e.peer FROM node n LEFT JOIN entry e ON e.node = n.id"
    " WHERE n.parent = ? AND n.name = ?"
)
_RENAMES_PER_BATCH = 20
"""LIMIT: renames that are worth an event each in a batch of more than that."""

_INSERT_NODE = (
    "INSERT INTO node (id, parent, name, kind, size, mtime_ns, mode, hash, vector, target, local, flags)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)"
)
_INSERT_ENTRY = (
    "INSERT OR REPLACE INTO entry (node, peer, holding, kind, size, mtime_ns, mode, hash, vector,"
    " target, ino, stamp) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"
)
_UPDATE_SINGLE = (
    "UPDATE node SET kind = ?, size = ?, mtime_ns = ?, mode = ?, hash = ?, vector = ?, target = ?,"
    " local = 0, flags = 0 WHERE id = ?"
)


class _Known(NamedTuple):
    """What a node shows before an entry of it is applied."""

    kind: int
    hash: bytes | None
    vector: bytes


class RemoteEntries:
    """The writing side of a subscription to one arena of any peer."""

    def __init__(self, cache: ArenaCache) -> None:
        """Write into ``cache``."""
        self._cache = cache
        self._given_out = cache.counters.highest

    def apply(self, key: PeerKey, peer_name: str, batch: Batch) -> None:
        """Apply one batch of a peer and its position, durably with respect to a crash of the process."""
        cache = self._cache
        with cache.write() as changes:
            peer = cache.peer_id(key)
            if batch.phase is Phase.CATCHUP_START:
                cache.conn.execute("UPDATE peer SET stamp = stamp + 1 WHERE id = ?", (peer,))
            stamp = self._stamp(peer)
            listing = batch.phase is not Phase.FOLLOW
            is_first = not cache.position(key)[0]
            quiet = batch.phase is not Phase.FOLLOW or batch.count() > _EVENTS_PER_BATCH
            renamed = {} if listing else _renames(batch)
            self._tell_renames(renamed, peer_name, quiet=quiet)
            groups = batch.groups
            if quiet and not listing:
                groups = follow_many(cache, peer, stamp, groups)
            for group in groups:
                if group.renamed_from:
                    self._follow_renames(peer, group)
            for group in groups:
                writer = _GroupWriter(cache, peer, peer_name, stamp, group, quiet=quiet, listing=listing)
                writer.told = {"added": renamed.keys(), "removed": set(renamed.values())}
                if is_first:
                    writer.given_out = self._given_out
                writer.write()
            if batch.phase is Phase.CATCHUP_COMPLETE:
                self._drop_unlisted(peer, stamp, anew=cache.position(key)[0] not in (b"", batch.uuid))
            if batch.phase in (Phase.FOLLOW, Phase.CATCHUP_COMPLETE):
                cache.conn.execute(
                    "UPDATE peer SET uuid = ?, seq = ? WHERE id = ?", (batch.uuid, batch.seq, peer)
                )
            changes.touched |= changes.listings

    def _follow_renames(self, peer: int, group: Group) -> None:
        """Let what is held here go along, before the old paths are deleted by other entries of the batch."""
        for (name, entry), old in zip(entries_of(group, peer), group.renamed_from, strict=True):
            if old and entry.holding == Holding.REAL:
                follow(self._cache, group.directory, name, entry, RelPath(old))

    def _tell_renames(self, renamed: Mapping[bytes, bytes], peer_name: str, *, quiet: bool) -> None:
        """Tell what the peer renamed; not what was in a directory that it renamed."""
        told = []
        for new, old in renamed.items():
            (parent, name), (old_parent, old_name) = split(new), split(old)
            if name != old_name or renamed.get(parent) != old_parent:
                told.append((new, old))
        if quiet and len(told) > _RENAMES_PER_BATCH:
            return
        for new, old in told:
            self._cache.emit(
                FileChanged(arena=self._cache.name, path=new, what="renamed", peer=peer_name, origin=old)
            )

    def _stamp(self, peer: int) -> int:
        row = self._cache.conn.execute("SELECT stamp FROM peer WHERE id = ?", (peer,)).fetchone()
        return int(row[0]) if row else 0

    def _drop_unlisted(self, peer: int, stamp: int, *, anew: bool) -> None:
        """Drop what a full listing did not mention: not held there any more, but not deleted either.

        A deletion that is not listed any more was trimmed there; it stays one. Unless the peer lost its
        database and begins ``anew``: then others may never hear of it from there, only from us.
        """
        cache = self._cache
        if anew:
            cache.adopt_deletions(peer, before=stamp)
        gone = "DELETE FROM entry WHERE peer = ? AND stamp < ? AND (holding <> 0 OR ?) RETURNING node"
        nodes = [row[0] for row in cache.conn.execute(gone, (peer, stamp, anew))]
        for node in nodes:
            cache.refresh(node)


def _renames(batch: Batch) -> dict[bytes, bytes]:
    """Return the old paths of what a peer renamed, by the new ones."""
    return {
        join(group.directory, name): old
        for group in batch.groups
        for name, holding, old in zip(group.names, group.holdings, group.renamed_from, strict=False)
        if old and holding == Holding.REAL
    }


class _GroupWriter:
    """Writes the entries of one directory; new names in bulk, known ones one by one."""

    def __init__(
        self,
        cache: ArenaCache,
        peer: int,
        peer_name: str,
        stamp: int,
        group: Group,
        *,
        quiet: bool,
        listing: bool,
    ) -> None:
        self._cache = cache
        self._peer = peer
        self._peer_name = peer_name
        self._event_peer = "" if quiet else peer_name
        self._stamp = stamp
        self._listing = listing
        self.given_out: int | None = None
        """The highest counter of ours before this process began; None if the peer was heard before."""
        self.told: dict[str, Set[bytes]] = {}
        """Paths of which it was told that they were renamed, instead of what it looks like."""
        self._group = group
        self._parent = cache.tree.ensure_dir(group.directory)
        self._wanted = cache.marks.of_directory(self._parent) is not Mark.WATCH
        self._new_nodes: list[tuple[object, ...]] = []
        self._new_entries: list[tuple[object, ...]] = []
        self._new_deleted: list[int] = []
        self._new_names: set[bytes] = set()
        self._dirty: list[int] = []

    def write(self) -> None:
        cache, parent, names = self._cache, self._parent, self._group.names
        found = self._known(names)
        once = len(set(names)) == len(names)
        appeared: set[bytes] = set()
        for name, entry in entries_of(self._group, self._peer):
            live = entry.holding != Holding.TOMBSTONE
            if name in self._new_names:
                self._flush_new()
            known = found.get(name, []) if once else self._known([name]).get(name, [])
            if not known and cache.graves.matter() and self._was_deleted(name, entry):
                known = self._known([name]).get(name, [])
                if not known:
                    continue
            if not known:
                if entry.holding != Holding.DROPPED:
                    self._add(name, entry)
                    if live:
                        appeared.add(name)
                continue
            if not live or entry.holding == Holding.DROPPED:
                appeared.discard(name)
            _, node, *was, _ = known[0]
            self._update(Inode(node), _Known(*was), [row[-1] for row in known], name, entry)
        self._flush_new()
        if appeared:
            cache.changes.listings.add(parent)
            cache.show_directory(parent)
        if self._dirty:
            cache.mark_dirty(self._dirty)

    def _known(self, names: Sequence[bytes]) -> dict[bytes, list[Any]]:
        """Return what is known of names in the directory: a row of node and entry for each who holds one."""
        rows: dict[bytes, list[Any]] = {}
        for row in self._cache.conn.executemany(_SELECT, [(self._parent, name) for name in names]):
            rows.setdefault(row[0], []).append(row)
        return rows

    def _was_deleted(self, name: bytes, entry: EntryRow) -> bool:
        """Say whether a path without a node is known to be deleted, for all that this entry knows.

        Then it has a node with that deletion again, unless the entry is another deletion of it.
        """
        cache, vector = self._cache, Vector(entry.vector)
        live = entry.holding in (Holding.REAL, Holding.CACHED)
        path = join(self._group.directory, name)
        deletion = cache.graves.get(path)
        if deletion is None:
            if not (live and self._listing and cache.graves.may_be_deleted(vector)):
                return False
            # Not known for sure: a deletion that the version does not know, and that does not know it.
            cache.put_tombstone(cache.tree.ensure_child(self._parent, name), cache.first_vector())
        elif not live:
            cache.graves.widen(path, merge((deletion, vector)))
        elif descends(vector, deletion):
            cache.graves.remove(path)
            return False
        else:
            cache.tree.ensure_child(self._parent, name)
        return True

    def _add(self, name: bytes, entry: EntryRow) -> None:
        node = self._cache.allocate()
        shown = show_single(entry)
        self._new_names.add(name)
        self._new_nodes.append((node, self._parent, name, *shown[:7]))
        self._new_entries.append((node, *entry, self._stamp))
        if self._wanted and shown.kind != Kind.NONE:
            self._dirty.append(node)
        if entry.holding == Holding.TOMBSTONE:
            self._new_deleted.append(node)
        if entry.kind == Kind.DIR:
            # A directory may be listed before or after what is in it; its own node must be there now.
            self._flush_new()
        if self._event_peer and shown.kind == Kind.FILE:
            self._event(name, "added")

    def _flush_new(self) -> None:
        if self._new_nodes:
            self._cache.conn.executemany(_INSERT_NODE, self._new_nodes)
            self._cache.conn.executemany(_INSERT_ENTRY, self._new_entries)
            self._cache.departed.add(self._new_deleted)
            self._new_deleted.clear()
            self._new_nodes.clear()
            self._new_entries.clear()
            self._new_names.clear()

    def _update(
        self, node: Inode, before: _Known, peers: list[int | None], name: bytes, entry: EntryRow
    ) -> None:
        cache = self._cache
        alone = all(peer in (None, self._peer) for peer in peers)
        if LOCAL_PEER in peers:
            self._reclaim(node, entry)
        if entry.holding == Holding.DROPPED:
            cache.remove_entry(node, self._peer)
            cache.refresh(node)
        else:
            cache.conn.execute(_INSERT_ENTRY, (node, *entry, self._stamp))
            if alone and entry.holding != Holding.TOMBSTONE and Kind.DIR not in (entry.kind, before):
                cache.conn.execute(_UPDATE_SINGLE, (*show_single(entry)[:7], node))
                cache.note_change(node, self._parent, name, before.kind, entry.kind)
            else:
                self._refresh_shared(node, name)
        held = LOCAL_PEER in peers
        if self._wanted or held or cache.marks.explicit(node) is not None:
            self._dirty.append(node)
        if self._event_peer:
            self._tell(node, before, name, entry)

    def _tell(self, node: Inode, before: _Known, name: bytes, entry: EntryRow) -> None:
        """Tell what the peer did, if it changed what is shown; the first hash of a version is no change."""
        if entry.holding == Holding.TOMBSTONE:
            if before.kind:
                self._event(name, "removed")
            return
        if entry.kind != Kind.FILE:
            return
        if entry.holding == Holding.CACHED:
            self._event(name, "available")
            return
        now = self._cache.shown(node)
        if now.kind != Kind.FILE or now.hash == before.hash:
            return
        if before.hash is None and before.kind == Kind.FILE and now.vector == before.vector:
            return
        self._event(name, "replaced" if before.kind == Kind.FILE else "added")

    def _reclaim(self, node: Inode, entry: EntryRow) -> None:
        """Keep what is real here from being replaced by an older version of our own that we know nothing of.

        That is so where the database was deleted and the clock has gone back since: the file that was found
        here may be a change of that version, and its vector is too low.
        """
        cache = self._cache
        count = decode(Vector(entry.vector)).get(cache.self_key, 0)
        if self.given_out is None or count <= self.given_out:
            return
        cache.counters.stay_above(count)
        local = cache.local_entry(node)
        if local is None or local.holding != Holding.REAL or local.hash == entry.hash is not None:
            return
        if descends(Vector(entry.vector), Vector(local.vector)):
            cache.revalue(node, cache.vector_over(node, [Vector(local.vector)]))

    def _refresh_shared(self, node: Inode, name: bytes) -> None:
        cache = self._cache
        was = cache.shown(node)
        cache.refresh(node)
        now = cache.shown(node)
        if (was.flags ^ now.flags) & (Flag.CONFLICT | Flag.REVIVED):
            cache.emit(
                ConflictChanged(
                    arena=cache.name,
                    path=join(self._group.directory, name),
                    peers=(self._peer_name,),
                    resolved=not now.flags & (Flag.CONFLICT | Flag.REVIVED),
                    revived=now.flags & (Flag.CONFLICT | Flag.REVIVED) == Flag.REVIVED,
                )
            )
        self._drop_superseded(node, was, now)

    def _drop_superseded(self, node: Inode, was: Shown, now: Shown) -> None:
        """A cached copy of an outdated version is nothing we hold of this path any more."""
        if was.local != Holding.CACHED or now.local:
            return
        by = advanced(Vector(was.vector), Vector(now.vector))
        why = Reason.DELETED if now.kind == Kind.NONE else Reason.REPLACED
        self._cache.cached.give_up(node, by[0] if by else None, why)
        self._cache.emit(
            FileChanged(
                arena=self._cache.name,
                path=self._cache.tree.path(node),
                what="dropped",
                peer=self._peer_name,
                cause="peer",
                before=was.hash,
            )
        )

    def _event(self, name: bytes, what: str) -> None:
        path = join(self._group.directory, name)
        if path in self.told.get(what, ()):
            return
        self._cache.emit(
            FileChanged(
                arena=self._cache.name,
                path=path,
                what=what,  # type: ignore[arg-type]  # one of the literals, from the calls above
                peer=self._event_peer,
            )
        )
