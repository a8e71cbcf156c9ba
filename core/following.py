"""Following renames of peers: what is held of the old path is held of the new one, and nothing is fetched.

A cached copy goes along with its node at once. A real file is noted in table ``moving`` and renamed by
churten, together with its node. Where the old path is not what the peer renamed, nothing is followed: the
new path is added and the old one deleted, as versions say. Engine thread, inside a transaction.
"""

from __future__ import annotations

from typing import Any

from core.cache import ArenaCache
from core.choice import LOCAL_PEER, EntryRow, tombstone
from core.history import Op
from core.renames import exchange, move_marks
from core.types import Holding, Inode, Kind, RelPath, Vector
from core.versions import merge


def follow(cache: ArenaCache, directory: RelPath, name: bytes, entry: EntryRow, old: RelPath) -> None:
    """Follow a peer's rename of ``old`` to a name; before ``entry``, which is at the new path, is written."""
    node = cache.tree.find(old)
    if node is None:
        return
    if entry.kind == Kind.DIR:
        _move_mark(cache, node, cache.tree.ensure_child(cache.tree.ensure_dir(directory), name))
        return
    local = cache.local_entry(node)
    if not _claims(cache, node, entry) or (local is not None and not _is_same(local, entry)):
        return
    parent = cache.tree.ensure_dir(directory)
    other = cache.tree.ensure_child(parent, name)
    if (
        other == node
        or node in (parent, *cache.tree.ancestors(parent))
        or other in cache.tree.ancestors(node)
    ):
        return
    there = cache.local_entry(other)
    if there is not None and there.holding != Holding.TOMBSTONE:
        return
    if local is not None and local.holding == Holding.REAL:
        cache.end_move(node)
        if (another := cache.moving.source(other)) is not None:
            cache.end_move(another)
        cache.moving.add(node, other)
        cache.mark_dirty([node])
        return
    _go_along(cache, node, other, local, entry)


def _claims(cache: ArenaCache, node: int, entry: EntryRow) -> bool:
    """Say whether the peer held that very content at the node."""
    row: Any = cache.conn.execute(
        "SELECT peer, holding, kind, size, mtime_ns, mode, hash, vector, target"
        " FROM entry WHERE node = ? AND peer = ?",
        (node, entry.peer),
    ).fetchone()
    return row is not None and _is_same(EntryRow(*row), entry)


def _is_same(held: EntryRow, entry: EntryRow) -> bool:
    if held.holding == Holding.TOMBSTONE or held.kind != entry.kind:
        return False
    return held.target == entry.target if held.kind == Kind.SYMLINK else held.hash == entry.hash is not None


def _move_mark(cache: ArenaCache, node: int, other: int) -> None:
    mark = cache.marks.explicit(node)
    if mark is None or node == other:
        return
    cache.marks.set(node, None)
    if cache.marks.explicit(other) is None:
        cache.marks.set(other, mark)
    cache.mark_dirty([node, other], subtree=True)  # the mark is another one at both paths
    cache.changes.nodes |= {node, other}


def _go_along(cache: ArenaCache, node: Inode, other: Inode, local: EntryRow | None, entry: EntryRow) -> None:
    """Bring a node that is not real here, with its cached copy and its mark, to the new path."""
    left = cache.local_entry(other)
    places = [cache.tree.parent_and_name(one)[0] for one in (node, other)]
    exchange(cache, node, other)
    move_marks(cache, node, other)
    if left is not None:  # a deletion of ours at the new path: it stays known there
        cache.remove_entry(other, LOCAL_PEER)
    if local is not None:
        vectors = [Vector(entry.vector), *([Vector(left.vector)] if left is not None else [])]
        held = local._replace(mtime_ns=entry.mtime_ns, mode=entry.mode, vector=merge(vectors))
        cache.put_entry(node, held)
        cache.history.append(node, Op.AVAILABLE)
        cache.history.append(other, Op.DROP)
    else:
        if left is not None:
            cache.put_entry(node, left)
        if left is not None or cache.history.has_any():
            # What history still has to tell of these nodes was of the paths that they had then: a peer who is
            # told of the other path only would believe for ever that this host holds what it dropped there.
            cache.history.append(node, Op.REMOVE if left is not None else Op.DROP)
            cache.history.append(other, Op.DROP)
    cache.refresh(node)
    cache.refresh(other)
    for place in places:
        cache.show_or_hide(place)
    cache.mark_dirty([node])


def can_move(cache: ArenaCache, node: int, other: int) -> bool:
    """Say whether the real file of ``node`` still is what ``other`` is to be."""
    local, shown, there = cache.local_entry(node), cache.shown(other), cache.local_entry(other)
    if local is None or local.holding != Holding.REAL or shown.kind != local.kind or shown.local:
        return False
    if there is not None and there.holding != Holding.TOMBSTONE:
        return False
    return (
        shown.target == local.target if local.kind == Kind.SYMLINK else shown.hash == local.hash is not None
    )


def moved(cache: ArenaCache, node: int, other: int, ino: int) -> None:
    """Record that the real file of ``node`` was renamed to the path of ``other``: the nodes follow.

    Nothing new has happened: the versions of both paths are the ones that the peer made.
    """
    local, shown, gone, left = (
        cache.local_entry(node), cache.shown(other), cache.shown(node), cache.local_entry(other)
    )  # fmt: skip
    if local is None:
        raise KeyError(node)
    old = cache.tree.path(node)
    old_parent = cache.tree.parent_and_name(node)[0]
    cache.moving.remove(node)
    exchange(cache, node, other)
    move_marks(cache, node, other)
    vectors = [Vector(shown.vector), *([Vector(left.vector)] if left is not None else [])]
    entry = local._replace(mtime_ns=shown.mtime_ns, mode=shown.mode, vector=merge(vectors))
    cache.put_entry(node, entry, ino=ino)
    cache.put_entry(other, tombstone(merge((Vector(local.vector), Vector(gone.vector)))))
    cache.history.append(node, Op.RENAME, old)
    cache.refresh(node)
    cache.refresh(other)
    cache.mark_dirty([node])
    cache.mark_left(old_parent)
