"""Making the batches that tell a peer what this host holds of an arena.

The mirror of `core.remote`: a subscriber that can be served from history gets what followed its
position, any other a catch-up, the full listing (spec 4 §Announcing). Every subscription begins with
at least one batch, so that the subscriber knows when it is up to date. Engine thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import trio

from core.announce import Batch, Group, Phase
from core.cache import ArenaCache
from core.changes import Changes
from core.history import HistoryRow, Op
from core.paths import split
from core.types import Holding

_BATCH = 500
"""LIMIT: entries in a batch: about 6 ms of work in the engine thread of the receiver."""


_HOLDING = (
    "CASE WHEN e.holding = 2 AND EXISTS (SELECT 1 FROM blob b WHERE b.hash = e.hash AND b.area = 1)"
    " THEN 4 ELSE e.holding END"
)
"""`Holding` as peers hear it: what is cached and out of reach of eviction is `Holding.KEPT`."""

_STATE = (
    f"SELECT n.id, n.parent, n.name, {_HOLDING}, e.kind, e.size, e.mtime_ns, e.mode, e.hash, e.vector,"  # noqa: S608
    " e.target FROM node n LEFT JOIN entry e ON e.node = n.id AND e.peer = 0"
)
"""What is told of a node."""

_RENAMES = 100
"""LIMIT: renamed paths in a batch, two entries each: about 3 ms of work, 30 where they are real there."""


class Announcer:
    """What one arena of this host announces, to any number of subscribers."""

    def __init__(self, cache: ArenaCache) -> None:
        """Announce the local entries of ``cache``."""
        self._cache = cache
        self._more = trio.Event()
        cache.listen(self._on_changes)

    def _on_changes(self, changes: Changes) -> None:
        if changes.history:
            self._more.set()
            self._more = trio.Event()

    async def batches(self, uuid: bytes, seq: int) -> AsyncIterator[Batch]:
        """Yield what a subscriber at ``seq`` of history ``uuid`` has to know, for ever."""
        history = self._cache.history
        if history.can_follow(uuid, seq):
            yield Batch(history.uuid, seq, Phase.FOLLOW, [])
        else:
            seq = history.last
            async for batch in self._catchup(seq):
                yield batch
        while True:
            more = self._more
            rows = _up_to_renames(history.after(seq, _BATCH))
            if not rows:
                await more.wait()
                continue
            seq = rows[-1].seq
            yield Batch(history.uuid, seq, Phase.FOLLOW, self._groups_of_history(rows))
            await trio.lowlevel.checkpoint()

    async def _catchup(self, seq: int) -> AsyncIterator[Batch]:
        uuid = self._cache.history.uuid
        yield Batch(uuid, seq, Phase.CATCHUP_START, [])
        last = 0
        while True:
            rows: list[Any] = self._cache.conn.execute(
                f"SELECT n.id, n.parent, n.name, {_HOLDING}, e.kind, e.size, e.mtime_ns, e.mode, e.hash,"  # noqa: S608
                " e.vector, e.target FROM entry e JOIN node n ON n.id = e.node"
                " WHERE e.node > ? AND e.peer = 0 ORDER BY e.node LIMIT ?",
                (last, _BATCH),
            ).fetchall()
            if not rows:
                break
            last = rows[-1][0]
            yield Batch(uuid, seq, Phase.CATCHUP, self._groups((row[1], row[2], row[3:]) for row in rows))
            await trio.lowlevel.checkpoint()
        yield Batch(uuid, seq, Phase.CATCHUP_COMPLETE, [])

    def _groups_of_history(self, rows: list[HistoryRow]) -> list[Group]:
        """Return the present state of what entries of history name, and of the paths that were left.

        A node that was renamed is told with the first path that the subscriber may know it by.
        """
        conn = self._cache.conn
        places = {row.moved_from: self._place(row.moved_from) for row in rows if row.moved_from is not None}
        known = [place for place in places.values() if place is not None]
        left: dict[Any, Any] = {
            (row[1], row[2]): row
            for row in conn.executemany(f"{_STATE} WHERE n.parent = ? AND n.name = ?", known)
        }
        nodes = [(node,) for node in {row.node for row in rows}]
        states: dict[Any, Any] = {row[0]: row for row in conn.executemany(f"{_STATE} WHERE n.id = ?", nodes)}
        origins: dict[int, bytes] = {}
        told: dict[int, Any] = {}
        for row in rows:
            told[row.node] = states.get(row.node)
            if row.moved_from is not None:
                origins.setdefault(row.node, row.moved_from)
                there = left.get(places[row.moved_from])
                if there is not None:
                    told.setdefault(there[0], there)
        found = [state for state in told.values() if state is not None]
        paths = [origins.get(state[0], b"") if state[3] == Holding.REAL else b"" for state in found]
        return self._groups(((state[1], state[2], state[3:]) for state in found), paths if any(paths) else ())

    def _place(self, path: bytes) -> tuple[int, bytes] | None:
        directory, name = split(path)
        parent = self._cache.tree.find_dir(directory)
        return (parent, name) if parent is not None else None

    def _groups(
        self, entries: Iterable[tuple[int, bytes, tuple[Any, ...]]], origins: Sequence[bytes] = ()
    ) -> list[Group]:
        """Return groups in the order of first appearance, so that directories come before what is in them.

        ``origins`` is empty or parallel: where an entry was renamed from.
        """
        groups: dict[int, Group] = {}
        for at, (parent, name, fields) in enumerate(entries):
            holding, kind, size, mtime_ns, mode, content, vector, target = fields
            group = groups.get(parent)
            if group is None:
                group = groups[parent] = Group(self._cache.tree.directory_path(parent))
            group.names.append(name)
            if holding is None:
                holding, kind, size, mtime_ns, mode, vector = int(Holding.DROPPED), 0, 0, 0, 0, b""
            group.holdings.append(holding)
            group.kinds.append(kind)
            group.sizes.append(size)
            group.mtimes_ns.append(mtime_ns)
            group.modes.append(mode)
            group.hashes.append(content or b"")
            group.vectors.append(vector)
            if origins:
                group.renamed_from.append(origins[at])
            if target is not None and not group.targets:
                group.targets.extend([b""] * (len(group.names) - 1))
            if group.targets or target is not None:
                group.targets.append(target or b"")
        return list(groups.values())


def _up_to_renames(rows: list[HistoryRow]) -> list[HistoryRow]:
    """Return the first of these records: as many as have no more renames than belong in a batch."""
    renames = 0
    for at, row in enumerate(rows):
        renames += row.op == Op.RENAME
        if renames > _RENAMES:
            return rows[:at]
    return rows
