"""Trimming: history that every peer has, tombstones nobody has to be told of, nodes with nothing left.

In steps of one short transaction each, so that neither the mount nor a peer waits; nothing scans a table. A
tombstone that goes leaves a grave (`core.graves`): what turns up at its path later is treated as if it were
still there. Engine thread; see docs/decisions/0060-trimming.md.
"""

from __future__ import annotations

from typing import Any

import trio

from core.cache import ArenaCache
from core.types import Kind, Vector
from core.versions import decode, merge

_NODES = 300
"""LIMIT: nodes looked at in a step: about 10 ms."""
_PAUSE_S = 0.005

_NEEDED = (
    "SELECT EXISTS (SELECT 1 FROM entry WHERE node = ?1 AND holding <> 0)"
    " OR EXISTS (SELECT 1 FROM node WHERE parent = ?1)"
    " OR EXISTS (SELECT 1 FROM mark WHERE node = ?1)"
    " OR EXISTS (SELECT 1 FROM dirty WHERE node = ?1)"
    " OR EXISTS (SELECT 1 FROM moving WHERE node = ?1)"
    " OR EXISTS (SELECT 1 FROM moving WHERE target = ?1)"
)


async def trim(cache: ArenaCache, acknowledged: int, now_s: int) -> None:
    """Trim all that may go, given what every configured peer has ``acknowledged`` of our history."""
    more = True
    while more:
        more = trim_step(cache, acknowledged, now_s)
        await trio.sleep(_PAUSE_S)
    with cache.write():
        forgotten = cache.graves.sweep(now_s)
        cache.counters.stay_above(decode(forgotten).get(cache.self_key, 0))


def trim_step(cache: ArenaCache, acknowledged: int, now_s: int) -> bool:
    """Trim a little, in one transaction; says whether there may be more."""
    history, departed = cache.history, cache.departed
    with cache.write():
        if history.trim(acknowledged):
            return True
        # INVARIANT: a node goes only after the entries of history that name it, for a peer that follows
        # would miss what became of it.
        last = history.first() - 1
        numbered = departed.number(history.last, now_s, _NODES)
        due = departed.due(min(acknowledged, last), last, now_s, _NODES)
        for node in due:
            _look_at(cache, node, now_s)
    return bool(numbered or due)


def _look_at(cache: ArenaCache, node: int, now_s: int) -> None:
    row: Any = cache.conn.execute("SELECT parent, kind FROM node WHERE id = ?", (node,)).fetchone()
    if row is None or row[1] != Kind.NONE:
        cache.departed.remove(node)
        return
    needed: Any = cache.conn.execute(_NEEDED, (node,)).fetchone()
    if needed[0]:
        cache.departed.keep(node, now_s)
        return
    _bury(cache, node, row[0], now_s)


def _bury(cache: ArenaCache, node: int, parent: int, now_s: int) -> None:
    conn = cache.conn
    path = cache.tree.path(node)
    deletions = [Vector(row[0]) for row in conn.execute("SELECT vector FROM entry WHERE node = ?", (node,))]
    if deletions:
        cache.graves.put(path, merge(deletions), now_s)
    conn.execute("DELETE FROM entry WHERE node = ?", (node,))
    conn.execute("DELETE FROM node WHERE id = ?", (node,))
    cache.departed.remove(node)
    cache.tree.forget(node)
    above: Any = conn.execute("SELECT kind FROM node WHERE id = ?", (parent,)).fetchone()
    if above is not None and above[0] == Kind.NONE:
        cache.departed.look_at(parent)
