"""Setting and listing marks, and what a change of marks would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from core import sums
from core.api import ArenaPath, MarkChange, MarkEffect, MarkInfo, MarkRow
from core.cache import ArenaCache
from core.db import Connection
from core.errors import PathNotFoundError
from core.events import MarkChanged, TreeChanged
from core.types import Kind, Mark

if TYPE_CHECKING:
    from core.arena import Arena


def apply(arena: Arena, changes: Sequence[tuple[int, MarkChange]]) -> list[MarkChange]:
    """Set marks on nodes of one arena, all or none; returns what undoes it."""
    undo = []
    with arena.cache.write():
        for node, change in changes:
            before = arena.cache.marks.explicit(node)
            if set_mark(arena.cache, node, change.at.path, change.mark):
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
    )


def rows(arena: Arena, conn: Connection, explicit: dict[int, Mark], paths: dict[int, bytes]) -> list[MarkRow]:
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


def find_nodes(
    arena_of: Callable[[str], Arena], not_found: Callable[[ArenaPath], PathNotFoundError], at: ArenaPath
) -> int:
    """Return the node of a path that is shown.

    Raises:
        PathNotFoundError: there is nothing at the path.
    """
    arena = arena_of(at.arena)
    node = arena.cache.tree.find(at.path)
    if node is None or arena.cache.shown(node).kind == Kind.NONE:
        raise not_found(at)
    return node
