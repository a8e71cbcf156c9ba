"""Why a path is as it is, rule by rule (``realize why``): facts as lines of words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.choice import LOCAL_PEER, EntryRow, Flag
from core.paths import display
from core.types import Hash, Holding, Kind, Mark, Vector
from core.versions import Order, compare

if TYPE_CHECKING:
    from core.arena import Arena
    from core.engine import Engine


def explain(engine: Engine, arena: Arena, node: int) -> Iterator[tuple[str, str]]:
    """Yield ``(rule, finding)`` for a node, from its mark to the next action. Engine thread."""
    yield "mark", _mark(arena, node)
    shown = arena.cache.shown(node)
    entries = arena.cache.entries(node)
    if shown.kind == Kind.NONE:
        yield "shown", "nothing: it was deleted" if entries else "nothing: no peer holds it"
    elif shown.kind == Kind.FILE:
        content = shown.hash.hex()[:16] if shown.hash else "not hashed yet"
        yield "shown", f"{shown.size} bytes, content {content}"
    if shown.flags & Flag.CONFLICT:
        yield "conflict", "several versions, none of which descends from the others"
    if shown.flags & Flag.UNREADABLE:
        yield "unreadable", "the file in the datadir cannot be read; its last known version is kept"
    if shown.flags & Flag.REVIVED:
        yield "revived", "one peer deleted it, another changed it: the change won; `realize conflicts list`"
    if shown.flags & Flag.DAMAGED:
        yield "damaged", "the file on the disk does not have this content; `realize verify` repairs it"
    for entry in entries:
        yield "held by", _entry(engine, arena, entry, Vector(shown.vector))
    path = arena.cache.tree.path(node)
    if arena.index is not None and arena.index.holds_deletion(path):
        count = arena.index.held_files
        how = f"realize arena confirm-deletes {display(arena.name)}"
        yield "deletion held", f"it is gone from the datadir with {count} files in all; `{how}` deletes them"
    for row in arena.cache.trash.at(path):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.at_ns // 1_000_000_000))
        yield "in the trash", f"{row.size} bytes, {row.why} {when}; `realize trash restore` brings it back"
    if arena.offline:
        yield "offline", f"the datadir is not used: {arena.offline}"
    if shown.kind == Kind.FILE:
        yield "a read now", _read(engine, arena, node, shown.local, shown.hash)
    yield "next", _next(engine, arena, node)


def _mark(arena: Arena, node: int) -> str:
    marks = arena.cache.marks
    parent = arena.cache.tree.parent_and_name(node)[0]
    mark = marks.effective(node, parent)
    origin = marks.origin(node)
    if origin is None:
        return f"{mark}, the default of the arena"
    if origin == node:
        return f"{mark}, set here"
    return f"{mark}, inherited from {display(arena.cache.tree.path(origin)) or 'the arena'}"


def _entry(engine: Engine, arena: Arena, entry: EntryRow, shown: Vector) -> str:
    if entry.peer == LOCAL_PEER:
        who = "this host"
    else:
        key = arena.cache.peer_key(entry.peer)
        link = engine.subscriptions.links.get(key) if key is not None else None
        names = [name for name, known in engine.peer_keys.items() if known == key]
        who = f"{names[0] if names else 'a former peer'}{'' if link else ' (not connected)'}"
    how = {
        Holding.TOMBSTONE: "deleted it",
        Holding.REAL: "a real file",
        Holding.CACHED: "cached whole",
        Holding.KEPT: "kept, it is not evicted",
    }[Holding(entry.holding)]
    order = compare(Vector(entry.vector), shown)
    age = {Order.PRECEDES: ", an older version", Order.CONCURRENT: ", another version"}.get(order, "")
    return f"{who}: {how}{age}"


def _read(engine: Engine, arena: Arena, node: int, local: int, content: bytes | None) -> str:
    if local == Holding.REAL:
        return "comes from the datadir"
    if content is None:
        keys = engine.holders_of_version(arena, node, Vector(arena.cache.shown(node).vector))
        if not keys:
            return "fails: no peer that holds it is connected"
        return f"comes from {keys[0].name}, unchecked until it is hashed"
    blob = arena.blobs.info(Hash(content))
    if blob is not None and blob.held:
        return "comes from the cache"
    links = engine.holders(arena, node, Hash(content))
    held = f"{blob.ranges.total()} bytes from the cache, the rest " if blob is not None else ""
    if not links:
        return f"{held}fails: no peer that holds it is connected"
    return f"{held}comes from {', '.join(link.name for link in links)}"


def _next(engine: Engine, arena: Arena, node: int) -> str:
    work = arena.work.one(node)
    if work is not None:
        for queued, _, reason, attempts in arena.work.waiting(10_000):
            if queued == node and reason:
                return f"waits: {reason} (tried {attempts} times)"
        return "in churten's queue" + ("" if engine.churten.running else ", which is stopped")
    mark = arena.cache.marks.effective(node, arena.cache.tree.parent_and_name(node)[0])
    shown = arena.cache.shown(node)
    if mark is not Mark.WATCH and shown.kind == Kind.FILE and not shown.local and shown.hash is None:
        return "fetched once its holder has hashed it"
    return "nothing to do"
