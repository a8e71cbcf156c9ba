"""What to do about due nodes: each node's case, made from marks, entries and blobs, and groups of files.

Engine thread; reads the databases and changes nothing. The decision itself is in `core.rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.blobrows import Area
from core.choice import LOCAL_PEER, choose
from core.events import JobAction
from core.rules import Action, Case, decide
from core.types import Holding, Kind
from core.work import Work

if TYPE_CHECKING:
    from core.arena import Arena

GROUP_FILES = 512
_GROUP_BYTES = 16 * 1024 * 1024


def action_for(arena: Arena, work: Work) -> Action:
    """Return what is to be done next about a node."""
    if work.node == arena.cache.root:
        return Action.NOTHING  # it is the datadir
    entry = work.entry
    action = decide(
        Case(
            mark=arena.cache.marks.effective(work.node, work.parent),
            kind=work.kind,
            hashed=work.hash is not None,
            shown_local=work.local,
            local_holding=entry.holding if entry is not None else None,
            blob_verified=work.blob_verified,
            flags=work.flags,
            has_datadir=arena.datadir is not None and not arena.offline,
            same_meta=entry is None or _same_meta(work, entry.mode, entry.mtime_ns),
            implicit=_is_implicit(arena, work),
            protected=work.area == Area.PROTECTED,
            # This host's own hash must be known: another's is no proof of what is in the file here.
            elsewhere=work.elsewhere >= arena.copies_elsewhere
            and entry is not None
            and entry.hash == work.hash,
        )
    )
    if action is Action.REALIZE and _is_obstructed(arena, work.node):
        # A file is where its directory is to be, which is a conflict: the content is held beside.
        return Action.CACHE if work.kind is Kind.FILE and not work.local else Action.NOTHING
    return _unless_renamed(arena, work, action)


def _is_obstructed(arena: Arena, node: int) -> bool:
    obstacles = arena.cache.files_in_the_way()
    return bool(obstacles) and not obstacles.isdisjoint(arena.cache.tree.ancestors(node))


def _unless_renamed(arena: Arena, work: Work, action: Action) -> Action:
    """Rename a real file that a peer renamed, instead of deleting it and fetching it again."""
    cache = arena.cache
    if action is Action.DELETE:
        return Action.RENAME if cache.moving.target(work.node) is not None else action
    source = cache.moving.source(work.node)
    if source is None or cache.shown(source).kind != Kind.NONE:
        return action
    local = cache.local_entry(source)
    return Action.NOTHING if local is not None and local.holding == Holding.REAL else action


def word_for(action: Action) -> JobAction:
    """Return how users know an action; to release is to have others verify that they hold it."""
    match action:
        case Action.DELETE:
            return "delete"
        case Action.RENAME:
            return "rename"
        case Action.REALIZE | Action.ADJUST:
            return "realize"
        case Action.UNREALIZE:
            return "unrealize"
        case Action.RELEASE:
            return "verify"
        case _:
            return "download"


def _same_meta(work: Work, mode: int, mtime_ns: int) -> bool:
    if work.kind is Kind.SYMLINK or work.entry is None or work.entry.holding != Holding.REAL:
        return True
    if work.entry.peer != LOCAL_PEER:
        return True
    same_mode = (work.mode ^ mode) & 0o777 == 0
    return same_mode and (work.kind is Kind.DIR or work.mtime_ns == mtime_ns)


def _is_implicit(arena: Arena, work: Work) -> bool:
    """Say whether a directory is shown only because something in it is: nobody has it, or it was deleted.

    One that is needed for a file to become real is made with the file.
    """
    if work.kind is not Kind.DIR or work.local == Holding.REAL:
        return False
    entry = work.entry
    if entry is not None and entry.kind == Kind.DIR and entry.holding == Holding.REAL:
        return True
    return choose(arena.cache.entries(work.node)).kind == Kind.NONE


def groups_of(works: Sequence[Work]) -> list[list[Work]]:
    """Cut small files into groups of bounded number and bytes, in the order given."""
    groups: list[list[Work]] = []
    count = size = 0
    for work in works:
        if not groups or count >= GROUP_FILES or size + work.size > _GROUP_BYTES:
            groups.append([])
            count = size = 0
        groups[-1].append(work)
        count += 1
        size += work.size
    return groups
