"""Setting and listing marks, and what a change of marks would do."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from core import sums
from core.api import ArenaPath, MarkChange, MarkEffect, MarkInfo, MarkRow
from core.cache import ArenaCache
from core.db import Connection
from core.errors import NotADirError
from core.events import MarkChanged, TreeChanged
from core.paths import display, split
from core.types import Kind, Mark, RelPath

if TYPE_CHECKING:
    from core.arena import Arena


def find(arena: Arena, path: bytes) -> int | None:
    """Return the node of a path that exists, or has a mark of its own."""
    node = arena.cache.tree.find(path)
    if node is None or (not exists(arena, node) and arena.cache.marks.explicit(node) is None):
        return None
    return node


def exists(arena: Arena, node: int) -> bool:
    """Say whether anything is shown at a node."""
    return arena.cache.shown(node).kind != Kind.NONE


def require_directory_above(arena: Arena, path: bytes) -> None:
    """Make sure that there could be something at a path that does not exist.

    Raises:
        NotADirError: it is below a file.
    """
    above = split(path)[0]
    while above:
        node = arena.cache.tree.find(above)
        if node is not None and arena.cache.shown(node).kind in (Kind.FILE, Kind.SYMLINK):
            raise NotADirError(f"{display(arena.name)}/{display(above)} is not a directory")
        above = split(above)[0]


def apply(arena: Arena, changes: Sequence[MarkChange]) -> list[MarkChange]:
    """Set marks on paths of one arena, all or none; returns what undoes it.

    A path that does not exist gets a node that shows nothing, which stays as long as its mark.
    """
    undo = []
    with arena.cache.write():
        for change in changes:
            path, tree = RelPath(change.at.path), arena.cache.tree
            node = tree.find(path)
            if node is None:
                node = tree.ensure_child(tree.ensure_dir(split(path)[0]), split(path)[1])
            before = arena.cache.marks.explicit(node)
            if set_mark(arena.cache, node, path, change.mark):
                undo.append(MarkChange(change.at, before))
        arena.cache.emit(TreeChanged(arena=arena.name))
    return undo


def set_mark(cache: ArenaCache, node: int, path: bytes, mark: Mark | None) -> bool:
    """Set or remove the explicit mark of a node; inside `ArenaCache.write`. Says whether it is another."""
    if cache.marks.set(node, mark) == mark:
        return False
    kind = cache.shown(node).kind
    cache.mark_dirty([node], subtree=kind == Kind.DIR)
    if kind == Kind.NONE:
        cache.departed.look_at(node)
    cache.changes.nodes.add(node)
    cache.emit(MarkChanged(arena=cache.name, path=path, mark=mark.value if mark else None))
    return True


def info(arena: Arena, at: ArenaPath, node: int) -> MarkInfo:
    """Return the effective mark of a node and where it comes from."""
    marks = arena.cache.marks
    parent = arena.cache.tree.parent_and_name(node)[0]
    origin = marks.origin(node)
    return MarkInfo(
        mark=marks.effective(node, parent),
        explicit=origin == node,
        origin=ArenaPath(at.arena, arena.cache.tree.path(origin)) if origin is not None else None,
        exists=exists(arena, node),
    )


def rows(
    arena: Arena, conn: Connection, explicit: dict[int, Mark], paths: dict[int, bytes], shown: Set[int]
) -> list[MarkRow]:
    """Return the explicit marks of an arena with what each covers; in a worker, ``conn`` is read-only."""
    out = []
    for node, path in sorted(paths.items(), key=lambda item: item[1]):
        use = sums.usage(conn, node)
        out.append(
            MarkRow(
                at=ArenaPath(arena.name, path),
                mark=explicit[node],
                files=use.files,
                bytes_held=use.held,
                bytes_wanted=use.bytes if explicit[node] is not Mark.WATCH else 0,
                exists=node in shown,
            )
        )
    return out


def effect(conn: Connection, changes: Sequence[tuple[int, Mark]]) -> MarkEffect:
    """Return what it would mean for nodes to have these marks; in a worker, ``conn`` is read-only."""
    files = fetch = free = 0
    for node, mark in changes:
        use = sums.usage(conn, node)
        files += use.files
        if mark is Mark.WATCH:
            free += sums.cached_bytes(conn, node)
        else:
            fetch += use.bytes - use.held
    return MarkEffect(files=files, bytes_to_fetch=fetch, bytes_to_free=free)
