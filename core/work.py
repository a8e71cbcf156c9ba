"""The queue of dirty nodes of an arena: what is due, with everything a decision needs.

Owns the reading of table ``dirty``; `core.cache` puts nodes in. A node leaves the queue only if it
was not marked dirty again meanwhile (spec 4 §Jobs). Engine thread.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from core.cache import ArenaCache
from core.choice import EntryRow
from core.db import transaction
from core.errors import NO_ROOM
from core.filelease import OPEN, WRITTEN
from core.types import Hash, Kind, Mark

RETRY_S = (1, 5, 30, 300, 1800)
"""Seconds before the n-th retry; the last one repeats (spec 4 §Jobs)."""

_JITTER = 0.2
_LONGEST_NS = int(RETRY_S[-1] * (1 + _JITTER) * 1e9)
"""LIMIT: nothing waits longer for a time to come: the clock has been set back if it would."""

NO_HOLDER = "no connected peer holds it"
"""Reason of a node that waits for a peer; such nodes are due again when one connects."""

UNCONFIRMED = "waits for a peer that confirms its copy"
"""Reason of a node whose copy stays until a peer connects that holds one as well."""

UNQUIET = "it was changed a moment ago"
"""Reason of a real file that is given up once nobody has changed it for a while."""

NOT_EMPTY = "it was deleted elsewhere, but something is in it here"
"""Reason of a directory that goes once what is in it has gone, or was moved away (ignored files, say)."""

PEER_REASONS = (NO_HOLDER, UNCONFIRMED)

_OPEN_REASONS = (OPEN, WRITTEN)
_OPEN_S = 5
"""LIMIT: seconds at most before a file that a program had open is looked at again; nothing tells of the close
of one that was only read."""


def is_waiting(reason: str) -> bool:
    """Say whether a node with this reason waits for something rather than failed."""
    return reason in (*PEER_REASONS, *_OPEN_REASONS, UNQUIET, NOT_EMPTY) or reason.startswith(NO_ROOM)


_NEVER_NS = (1 << 63) - 1


class Work(NamedTuple):
    """A due node; ``entry`` and ``ino`` are of this host's own entry, ``blob_verified``: it is whole.

    ``area`` of the blob, -1 without one; ``elsewhere``: peers that said they hold it durably.
    """

    node: int
    counter: int
    subtree: bool
    attempts: int
    parent: int
    name: bytes
    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    hash: Hash | None
    vector: bytes
    target: bytes | None
    local: int
    flags: int
    entry: EntryRow | None
    ino: int
    blob_verified: bool
    area: int
    elsewhere: int


_DUE = (
    "SELECT d.node, d.counter, d.subtree, d.attempts, n.parent, n.name, n.kind, n.size, n.mtime_ns, n.mode,"
    " n.hash, n.vector, n.target, n.local, n.flags, b.verified, coalesce(b.area, -1),"
    " (SELECT count(*) FROM entry o WHERE o.node = d.node AND o.peer > 0 AND o.hash = n.hash"
    " AND o.holding IN (1, 4)), e.ino, e.peer, e.holding, e.kind, e.size,"
    " e.mtime_ns, e.mode, e.hash, e.vector, e.target"
    # CROSS: the queue is the outer loop, whatever SQLite knew of its size some time ago.
    " FROM dirty d CROSS JOIN node n ON n.id = d.node LEFT JOIN entry e ON e.node = d.node AND e.peer = 0"
    " LEFT JOIN blob b ON b.hash = n.hash"
    " WHERE d.counter > ? AND d.due_ns <= ? ORDER BY d.counter LIMIT ?"
)
_UNCHANGED = (
    "SELECT b.verified FROM dirty d LEFT JOIN blob b ON b.hash = ? WHERE d.node = ? AND d.counter = ?"
)


class WorkQueue:
    """Dirty nodes of one arena."""

    def __init__(self, cache: ArenaCache) -> None:
        """Read the queue that is in the database of ``cache``."""
        self._cache = cache

    def due(self, after: int, now_ns: int, limit: int) -> list[Work]:
        """Return due nodes with a counter above ``after``, in the order of the queue."""
        rows: list[Any] = self._cache.conn.execute(_DUE, (after, now_ns, limit)).fetchall()
        return [_work(row) for row in rows]

    def one(self, node: int) -> Work | None:
        """Return a node of the queue as it is now, due or not."""
        row: Any = self._cache.conn.execute(
            _DUE.replace("d.counter > ? AND d.due_ns <= ?", "d.node = ? AND ? >= 0"), (node, 0, 1)
        ).fetchone()
        return _work(row) if row else None

    def unchanged(self, works: Iterable[Work]) -> Iterator[Work]:
        """Yield the works that were not marked dirty again, with what is held of their content now."""
        execute = self._cache.conn.execute
        for work in works:
            row: Any = execute(_UNCHANGED, (work.hash, work.node, work.counter)).fetchone()
            if row is not None:
                verified = bool(row[0])
                yield work if verified is work.blob_verified else work._replace(blob_verified=verified)

    def finish(self, works: Iterable[Work]) -> None:
        """Take nodes out, except those marked dirty again since they were read."""
        self._cache.conn.executemany(
            "DELETE FROM dirty WHERE node = ? AND counter = ?", [(w.node, w.counter) for w in works]
        )

    def leave_undone(self) -> None:
        """Remember that nodes were finished without the datadir they may be wanted in; inside `write`.

        In the database: it may be another life of the daemon that finds the datadir.
        """
        self._cache.conn.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('left_undone', 1)")

    def take_left_undone(self) -> bool:
        """Say whether nodes were finished without the datadir since the last call; inside `write`."""
        row: Any = self._cache.conn.execute(
            "DELETE FROM meta WHERE key = 'left_undone' RETURNING value"
        ).fetchone()
        return row is not None

    def fail(self, work: Work, reason: str, now_ns: int, *, wait_for_peer: bool = False) -> float | None:
        """Put a failed node off; returns the seconds until it is tried again, None: when a peer connects."""
        delay_s: float | None = None
        if not wait_for_peer:
            longest_s = _OPEN_S if reason in _OPEN_REASONS else RETRY_S[-1]
            base_s = min(RETRY_S[min(work.attempts, len(RETRY_S) - 1)], longest_s)
            delay_s = base_s * random.uniform(1 - _JITTER, 1 + _JITTER)
        due_ns = _NEVER_NS if delay_s is None else now_ns + int(delay_s * 1e9)
        with transaction(self._cache.conn):
            self._cache.conn.execute(
                "UPDATE dirty SET attempts = attempts + 1, due_ns = ?, reason = ?"
                " WHERE node = ? AND counter = ?",
                (due_ns, reason, work.node, work.counter),
            )
        return delay_s

    def postpone(self, works: Iterable[tuple[Work, int]], reason: str) -> None:
        """Have nodes looked at again at a time (wall clock, ns), without counting that as a failure."""
        self._cache.conn.executemany(
            "UPDATE dirty SET due_ns = ?, reason = ? WHERE node = ? AND counter = ?",
            [(due_ns, reason, work.node, work.counter) for work, due_ns in works],
        )

    def unquiet(self, now_ns: int) -> int:
        """Return how many nodes wait only for a short time to pass."""
        row: Any = self._cache.conn.execute(
            "SELECT count(*) FROM dirty WHERE due_ns > ? AND reason = ?", (now_ns, UNQUIET)
        ).fetchone()
        return int(row[0])

    def retry(self, node: int | None = None, *, reason: str | None = None) -> None:
        """Make waiting nodes due now: one node, those that wait for a reason, or all."""
        with transaction(self._cache.conn):
            if node is not None:
                self._cache.conn.execute("UPDATE dirty SET due_ns = 0 WHERE node = ?", (node,))
            elif reason is not None:
                self._cache.conn.execute(
                    "UPDATE dirty SET due_ns = 0, attempts = 0 WHERE reason = ? AND due_ns <> 0", (reason,)
                )
            else:
                self._cache.conn.execute("UPDATE dirty SET due_ns = 0 WHERE due_ns <> 0")

    def retry_for_room(self) -> None:
        """Make nodes due now that wait for room in the cache."""
        with transaction(self._cache.conn):
            self._cache.conn.execute(
                "UPDATE dirty SET due_ns = 0, attempts = 0 WHERE due_ns <> 0 AND reason >= ? AND reason < ?",
                (NO_ROOM, NO_ROOM + "\x7f"),
            )

    def waiting_for_room(self) -> int:
        """Return how many nodes wait for room in the cache."""
        row: Any = self._cache.conn.execute(
            "SELECT count(*) FROM dirty WHERE due_ns <> 0 AND reason >= ? AND reason < ?",
            (NO_ROOM, NO_ROOM + "\x7f"),
        ).fetchone()
        return int(row[0])

    def next_due_ns(self, now_ns: int) -> int | None:
        """Return when the next waiting node is due; None when none is going to be."""
        row: Any = self._cache.conn.execute(
            "SELECT min(due_ns), max(due_ns) FROM dirty WHERE due_ns > ? AND due_ns < ?", (now_ns, _NEVER_NS)
        ).fetchone()
        first, last = row
        if last is None or last <= now_ns + _LONGEST_NS:
            return first  # type: ignore[no-any-return]  # a column
        with transaction(self._cache.conn):
            self._cache.conn.execute(
                "UPDATE dirty SET due_ns = ?1 WHERE due_ns > ?1 AND due_ns < ?2",
                (now_ns + _LONGEST_NS, _NEVER_NS),
            )
        return min(first, now_ns + _LONGEST_NS)  # type: ignore[no-any-return]  # a column

    def counts(self, now_ns: int) -> tuple[int, int, int]:
        """Return how many nodes are due, how many wait for something, and how many failed."""
        reasons: list[Any] = self._cache.conn.execute(
            "SELECT due_ns > ?, iif(due_ns > ? AND attempts > 0, reason, ''), count(*) FROM dirty"
            " GROUP BY 1, 2",
            (now_ns, now_ns),
        ).fetchall()
        due = sum(count for later, _, count in reasons if not later)
        failed = sum(count for later, reason, count in reasons if later and reason and not is_waiting(reason))
        return due, sum(count for _, _, count in reasons) - due - failed, failed

    def waiting(self, limit: int) -> list[tuple[int, int, str, int]]:
        """Return queued nodes: ``(node, due_ns, reason, attempts)``, failed ones first."""
        rows: list[Any] = self._cache.conn.execute(
            "SELECT node, due_ns, reason, attempts FROM dirty WHERE due_ns > 0 ORDER BY counter LIMIT ?",
            (limit,),
        ).fetchall()
        if len(rows) < limit:
            rows += self._cache.conn.execute(
                "SELECT node, due_ns, reason, attempts FROM dirty WHERE due_ns = 0 ORDER BY counter LIMIT ?",
                (limit - len(rows),),
            ).fetchall()
        return [(node, due_ns, reason, attempts) for node, due_ns, reason, attempts in rows]

    def expand(self, work: Work) -> None:
        """Replace a subtree by what is directly in it; inside `ArenaCache.write`.

        Files that nothing wants and of which nothing is held are left out.
        """
        cache = self._cache
        rows: list[Any] = cache.conn.execute(
            "SELECT n.id, n.kind, n.local, e.peer, e.kind,"
            " EXISTS (SELECT 1 FROM blob b WHERE b.hash = n.hash)"
            " FROM node n LEFT JOIN entry e ON e.node = n.id AND e.peer = 0 WHERE n.parent = ?",
            (work.node,),
        ).fetchall()
        files: list[int] = []
        directories: list[int] = []
        for node, kind, local, own, own_kind, blob in rows:
            # What is a directory only here was deleted or replaced elsewhere, as is what is in it.
            if Kind.DIR in (kind, own_kind):
                directories.append(node)
            elif local or own is not None or blob or cache.marks.effective(node, work.node) is not Mark.WATCH:
                files.append(node)
        cache.mark_dirty(files)
        cache.mark_dirty(directories, subtree=True)


def _work(row: Any) -> Work:  # noqa: ANN401 - a row of SQLite
    return Work(
        row[0],
        row[1],
        bool(row[2]),
        row[3],
        row[4],
        row[5],
        Kind(row[6]),
        row[7],
        row[8],
        row[9],
        row[10],
        row[11],
        row[12],
        row[13],
        row[14],
        EntryRow(*row[19:]) if row[19] is not None else None,
        row[18] or 0,
        bool(row[15]),
        row[16],
        row[17],
    )
