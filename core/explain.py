"""Why a path is as it is, rule by rule (``realize why``): facts as lines of words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.blobrows import Area
from core.choice import LOCAL_PEER, EntryRow, Flag
from core.paths import display
from core.types import DURABLE, Hash, Holding, Kind, Mark, Vector
from core.units import human_bytes
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
        yield "shown", "nothing: it was deleted" if entries else "nothing: no peer is known to hold it"
    elif shown.kind == Kind.FILE:
        content = shown.hash.hex()[:16] if shown.hash else "not hashed yet"
        yield "shown", f"{_size(shown.size)}, content {content}"
    if shown.flags & Flag.CONFLICT:
        yield "conflict", "several versions, none of which descends from the others"
    if shown.flags & Flag.UNREADABLE:
        yield "unreadable", "the file in the datadir cannot be read; what is known of it stays as it is"
    if shown.flags & Flag.REVIVED:
        yield "revived", "one peer deleted it, another changed it: the change won; `realize conflicts list`"
    if shown.flags & Flag.DAMAGED:
        yield "damaged", "the file on the disk does not have this content; `realize verify` repairs it"
    for entry in entries:
        yield "held by", _entry(engine, arena, entry, Vector(shown.vector))
    path = arena.cache.tree.path(node)
    whole = node == arena.cache.root
    count = arena.index.held_files if arena.index is not None else 0
    if arena.index is not None and count and (whole or arena.index.holds_deletion(path)):
        how = f"realize arena confirm-deletes {display(arena.name)}"
        files = f"{count} file{'' if count == 1 else 's'}"
        what = "" if whole else "this and others, "
        yield "deletion held", f"gone from the datadir: {what}{files} in all; `{how}` deletes them everywhere"
    for row in arena.cache.trash.at(path):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.at_ns // 1_000_000_000))
        how = f"realize trash restore {display(arena.name)}/{display(path)}"
        yield "in the trash", f"{_size(row.size)}, {row.why} {when}; `{how}` brings it back"
    if whole:
        yield "cache", _cache(arena)
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
    path = arena.cache.tree.path(origin)
    return f"{mark}, inherited from {display(arena.name)}{'/' if path else ''}{display(path)}"


def _size(count: int) -> str:
    exact = f"{count} byte{'' if count == 1 else 's'}"
    return exact if count < 1000 else f"{human_bytes(count)} ({exact})"


def _cache(arena: Arena) -> str:
    quota = arena.blobs.quota
    most = f" of {human_bytes(quota.max_bytes)}" if quota.max_bytes is not None else ""
    return f"{human_bytes(quota.disk_bytes)}{most} used"


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
    if local == Holding.REAL and not _is_away(arena, node):
        if arena.cache.shown(node).flags & Flag.UNREADABLE:
            return "fails: the file in the datadir cannot be read"
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
    held = f"{human_bytes(blob.ranges.total())} from the cache, the rest " if blob is not None else ""
    if not links:
        return f"{held}fails: no peer that holds it is connected"
    return f"{held}comes from {', '.join(link.name for link in links)}"


def _is_away(arena: Arena, node: int) -> bool:
    """Say whether a real file is known not to be in the datadir now."""
    held = arena.index is not None and arena.index.holds_deletion(arena.cache.tree.path(node))
    return held or bool(arena.offline)


def _next(engine: Engine, arena: Arena, node: int) -> str:
    work = arena.work.one(node)
    if work is not None:
        for queued, _, reason, attempts in arena.work.waiting(10_000):
            if queued == node and reason:
                return f"waits: {reason} (tried {'once' if attempts == 1 else f'{attempts} times'})"
        return "in churten's queue" + ("" if engine.churten.running else ", which is stopped")
    mark = arena.cache.marks.effective(node, arena.cache.tree.parent_and_name(node)[0])
    shown = arena.cache.shown(node)
    if shown.kind == Kind.NONE and arena.cache.marks.explicit(node) is not None:
        return f"nothing to do; it is held as `{mark}` says as soon as there is something"
    if mark is not Mark.WATCH and shown.kind == Kind.FILE and not shown.local and shown.hash is None:
        return "fetched once its holder has hashed it"
    if mark is Mark.OWN and shown.kind == Kind.FILE and arena.offline and shown.local != Holding.REAL:
        return "it becomes a real file when the datadir is back"
    return _stays(engine, arena, node, mark) or "nothing to do"


def _stays(engine: Engine, arena: Arena, node: int, mark: Mark) -> str:
    """Say why a durable copy stays that nothing here wants; "" if that is not so."""
    shown = arena.cache.shown(node)
    if shown.kind != Kind.FILE or shown.hash is None or mark is Mark.OWN:
        return ""
    blob = arena.blobs.info(Hash(shown.hash))
    kept = mark is Mark.WATCH and blob is not None and blob.held and blob.area is Area.PROTECTED
    if shown.local != Holding.REAL and not (shown.local == Holding.CACHED and kept):
        return ""
    if shown.local == Holding.REAL and shown.flags & (Flag.CONFLICT | Flag.UNREADABLE | Flag.DAMAGED):
        return ""
    keys = arena.copies.holder_keys(node, shown.hash, DURABLE)
    needed = arena.copies_elsewhere
    if len(keys) >= needed:
        return ""
    what = "it stays a real file" if shown.local == Holding.REAL else "it is not evicted"
    has = (
        "no other peer keeps"
        if not keys
        else f"only {len(keys)} other peer{'s keep' if len(keys) > 1 else ' keeps'}"
    )
    return f"{what}: {has} a copy of its own, {needed} ha{'s' if needed == 1 else 've'} to"
