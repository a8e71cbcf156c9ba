"""Which version of a path is shown, out of what this host and each peer holds.

Pure: rows in, a row out; the same choice on every peer (spec 4 §Versions, §Cache).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.types import Holding, Kind, Vector
from core.versions import EMPTY, Order, compare, merge

LOCAL_PEER = 0
"""Number of this host in the column ``entry.peer``."""

IMPLICIT_MODE = 0o755
"""Mode of a directory that is there only because something is in it."""


class Flag(enum.IntFlag):
    """Bits of ``node.flags``."""

    NONE = 0
    CONFLICT = 1
    """Several versions, none of which descends from the others."""
    UNREADABLE = 2
    """The local file cannot be read any more; its entry is kept."""
    REVIVED = 4
    """Deleted by one peer, changed by another: the change won."""
    DAMAGED = 8
    """The real file does not have the content of its version, though nobody changed it (`core.verifying`)."""


class EntryRow(NamedTuple):
    """A row of table ``entry`` without the node; see ``core/sql/arena.sql``."""

    peer: int
    holding: int
    kind: int
    size: int
    mtime_ns: int
    mode: int
    hash: bytes | None
    vector: bytes
    target: bytes | None


class Shown(NamedTuple):
    """The shown version of a node: the columns of table ``node`` from ``kind`` on, in order."""

    kind: int
    size: int
    mtime_ns: int
    mode: int
    hash: bytes | None
    vector: bytes
    target: bytes | None
    local: int
    flags: int


def tombstone(vector: bytes) -> EntryRow:
    """Return this host's entry of a path that is gone."""
    return EntryRow(LOCAL_PEER, int(Holding.TOMBSTONE), int(Kind.NONE), 0, 0, 0, None, vector, None)


NOTHING = Shown(Kind.NONE, 0, 0, 0, None, EMPTY, None, 0, 0)


@dataclass(slots=True)
class _Version:
    vector: Vector
    entries: list[EntryRow]

    @property
    def deleted(self) -> bool:
        return self.entries[0].holding == Holding.TOMBSTONE


def choose(entries: Sequence[EntryRow]) -> Shown:
    """Return what a node shows, given every entry of it."""
    if not entries:
        return NOTHING
    if len(entries) == 1:
        return show_single(entries[0])
    if _is_one_content(entries):
        best, local = max(entries, key=_rank), max(map(_local, entries))
        return show_single(best)._replace(local=local)
    versions = _maximal(group_versions(entries))
    live = [version for version in versions if not version.deleted]
    if not live:
        return NOTHING._replace(vector=merge(version.vector for version in versions))
    flags = Flag.REVIVED if len(live) < len(versions) else Flag.NONE
    if len(live) > 1 and not any(_is_unhashed(version) for version in live):
        flags |= Flag.CONFLICT
    chosen = _preferred(live)
    meta = _representative(chosen)
    local = max((_local(entry) for entry in chosen.entries), default=0)
    return Shown(
        meta.kind,
        meta.size,
        meta.mtime_ns,
        meta.mode,
        meta.hash,
        chosen.vector,
        meta.target,
        local,
        int(flags),
    )


def _is_one_content(entries: Sequence[EntryRow]) -> bool:
    """Say whether all hold the same file with the same vector, as mostly: there is nothing to choose then."""
    first = entries[0]
    return first.hash is not None and all(
        entry.hash == first.hash
        and entry.vector == first.vector
        and entry.kind == Kind.FILE
        and entry.holding != Holding.TOMBSTONE
        for entry in entries
    )


def show_directory(entries: Sequence[EntryRow], shown: Shown) -> Shown:
    """Return what a path shows that has something visible in it, given what its entries alone show.

    It is a directory then, or what is in it could not be reached. A file or link that took its place is a
    conflict: it changed nothing of what is in it, or that would be deleted.
    """
    if shown.kind == Kind.DIR:
        return shown
    if shown.kind == Kind.NONE:
        return shown._replace(kind=int(Kind.DIR), mode=IMPLICIT_MODE)
    flags = shown.flags | int(Flag.CONFLICT)
    found = _directory(entries)
    if found is None:
        mtime_ns = shown.mtime_ns
        return NOTHING._replace(kind=int(Kind.DIR), mode=IMPLICIT_MODE, mtime_ns=mtime_ns, flags=flags)
    meta = _representative(found)
    local = max((_local(entry) for entry in found.entries), default=0)
    return Shown(Kind.DIR, meta.size, meta.mtime_ns, meta.mode, None, found.vector, None, local, flags)


def _directory(entries: Sequence[EntryRow]) -> _Version | None:
    """Return the version of a path that is a directory, outdated or not."""
    versions = group_versions(entries)
    return next((one for one in versions if not one.deleted and one.entries[0].kind == Kind.DIR), None)


def show_single(entry: EntryRow) -> Shown:
    """Return what a node with this one entry shows."""
    if entry.holding == Holding.TOMBSTONE:
        return NOTHING._replace(vector=entry.vector)
    return Shown(
        entry.kind,
        entry.size,
        entry.mtime_ns,
        entry.mode,
        entry.hash,
        entry.vector,
        entry.target,
        _local(entry),
        0,
    )


def _local(entry: EntryRow) -> int:
    return entry.holding if entry.peer == LOCAL_PEER else 0


def same_version(left: EntryRow, right: EntryRow) -> bool:
    """Say whether two entries are one version: equal vectors, or equal content whatever the vectors."""
    if left.holding == Holding.TOMBSTONE or right.holding == Holding.TOMBSTONE:
        return left.holding == right.holding
    if left.kind != right.kind:
        return False
    if left.kind == Kind.FILE:
        if left.hash is None or right.hash is None:
            return left.vector == right.vector
        return left.hash == right.hash
    return left.kind == Kind.DIR or left.target == right.target


def group_versions(entries: Sequence[EntryRow]) -> list[_Version]:
    """Return the versions that the entries hold, each with its merged vector.

    An entry may join versions: one with a hash agrees by content with some, by vector with others.
    """
    versions: list[_Version] = []
    for entry in entries:
        joined = _Version(Vector(entry.vector), [entry])
        apart = []
        for version in versions:
            if any(same_version(entry, other) for other in version.entries):
                joined.vector = merge((version.vector, joined.vector))
                joined.entries = [*version.entries, *joined.entries]
            else:
                apart.append(version)
        versions = [*apart, joined]
    return versions


class Alternative(NamedTuple):
    """One of several versions of a path; ``meta`` speaks for it, a tombstone where it is a deletion."""

    meta: EntryRow
    vector: Vector
    peers: tuple[int, ...]
    """Who holds it, as in ``entry.peer``, sorted."""

    @property
    def deleted(self) -> bool:
        """Whether it is a deletion."""
        return self.meta.holding == Holding.TOMBSTONE


def alternatives(entries: Sequence[EntryRow], *, directory: bool = False) -> list[Alternative]:
    """Return the versions that none of the others descends from, that of this host first.

    With the ``directory`` that the path is shown as for what is in it, if it is not among them; held by
    nobody where it is there for that alone.
    """
    versions = _maximal(group_versions(entries))
    found = [_alternative(version) for version in versions]
    if directory and not any(one.meta.kind == Kind.DIR and not one.deleted for one in found):
        outdated = _directory(entries)
        found.append(_alternative(outdated) if outdated is not None else _IMPLICIT)
    return sorted(found, key=lambda one: (not one.peers, one.peers, one.meta.hash or b""))


def _alternative(version: _Version) -> Alternative:
    peers = tuple(sorted(entry.peer for entry in version.entries))
    return Alternative(_representative(version), version.vector, peers)


_IMPLICIT = Alternative(
    EntryRow(LOCAL_PEER, int(Holding.REAL), int(Kind.DIR), 0, 0, IMPLICIT_MODE, None, EMPTY, None), EMPTY, ()
)


def _maximal(versions: list[_Version]) -> list[_Version]:
    return [
        version
        for version in versions
        if not any(
            compare(version.vector, other.vector) is Order.PRECEDES
            for other in versions
            if other is not version
        )
    ]


def _is_unhashed(version: _Version) -> bool:
    return all(entry.kind == Kind.FILE and entry.hash is None for entry in version.entries)


def _preferred(live: list[_Version]) -> _Version:
    for version in live:
        if any(_local(entry) == Holding.REAL for entry in version.entries):
            return version
    for version in live:
        if any(_local(entry) for entry in version.entries):
            return version
    return max(live, key=_latest)


def _latest(version: _Version) -> tuple[int, bytes, bytes]:
    """Return what versions are ranked by: time, then hash or target; the vector where nothing else tells."""
    return (
        max(entry.mtime_ns for entry in version.entries),
        max(entry.hash or entry.target or b"" for entry in version.entries),
        version.vector,
    )


def _representative(version: _Version) -> EntryRow:
    """Return the entry whose metadata is shown: of the newest vectors the hashed one, then the latest."""
    newest = [
        entry
        for entry in version.entries
        if not any(
            compare(Vector(entry.vector), Vector(other.vector)) is Order.PRECEDES for other in version.entries
        )
    ]
    best = max(newest, key=_rank)
    if best.kind == Kind.FILE and best.hash is None:
        known = next((entry.hash for entry in version.entries if entry.hash is not None), None)
        best = best._replace(hash=known)
    return best


def _rank(entry: EntryRow) -> tuple[bool, int, int, int]:
    return (entry.hash is not None, entry.mtime_ns, entry.mode, entry.holding)
