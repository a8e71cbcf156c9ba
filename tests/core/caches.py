"""Caches of arenas in memory, and announcements for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core import db
from core.announce import Batch, Group, Phase
from core.cache import ArenaCache
from core.choice import EntryRow
from core.inodes import ArenaInodes, allocate_range
from core.paths import split
from core.remote import RemoteEntries
from core.types import Holding, Kind, Mark, PeerKey, RelPath, Vector
from core.versions import encode

SELF = PeerKey(b"self----")
A, B, C = (PeerKey(letter * 8) for letter in (b"a", b"b", b"c"))
H1, H2, H3 = b"1" * 32, b"2" * 32, b"3" * 32
UUID = b"u" * 16

Item = tuple[bytes, EntryRow]
"""A path and what a peer holds there; ``peer`` of the row is not looked at."""


@contextmanager
def memory_cache(mark: Mark = Mark.WATCH) -> Iterator[ArenaCache]:
    """Give an empty cache."""
    global_conn = db.open_global(Path(":memory:"))
    conn = db.open_arena(Path(":memory:"))
    inodes = ArenaInodes(conn, lambda end: allocate_range(global_conn, "arena", end))
    yield ArenaCache("arena", conn, inodes, SELF, mark, lambda: 0)
    conn.close()
    global_conn.close()


def vector(**counters: int) -> Vector:
    """Return a vector of the peers a, b, c and ``me``."""
    keys = {"a": A, "b": B, "c": C, "me": SELF}
    return encode({keys[name]: count for name, count in counters.items()})


def file(
    path: bytes,
    content: bytes | None = H1,
    *,
    mtime_ns: int = 1,
    held: Holding = Holding.REAL,
    **counters: int,
) -> Item:
    row = EntryRow(0, held, Kind.FILE, 7, mtime_ns, 0o644, content, vector(**counters), None)
    return path, row


def folder(path: bytes, **counters: int) -> Item:
    return path, EntryRow(0, Holding.REAL, Kind.DIR, 0, 1, 0o755, None, vector(**counters), None)


def link(path: bytes, target: bytes, **counters: int) -> Item:
    return path, EntryRow(0, Holding.REAL, Kind.SYMLINK, 0, 1, 0o777, None, vector(**counters), target)


def deleted(path: bytes, **counters: int) -> Item:
    return path, EntryRow(0, Holding.TOMBSTONE, Kind.NONE, 0, 0, 0, None, vector(**counters), None)


def dropped(path: bytes) -> Item:
    return path, EntryRow(0, Holding.DROPPED, Kind.NONE, 0, 0, 0, None, b"", None)


def batch(items: Iterable[Item], *, seq: int = 1, phase: Phase = Phase.FOLLOW, uuid: bytes = UUID) -> Batch:
    """Return a batch with these entries, in their order."""
    groups: list[Group] = []
    for path, row in items:
        directory, name = split(path)
        if not groups or groups[-1].directory != directory:
            groups.append(Group(RelPath(directory)))
        group = groups[-1]
        group.names.append(name)
        group.holdings.append(row.holding)
        group.kinds.append(row.kind)
        group.sizes.append(row.size)
        group.mtimes_ns.append(row.mtime_ns)
        group.modes.append(row.mode)
        group.hashes.append(row.hash or b"")
        group.vectors.append(row.vector)
        group.targets.append(row.target or b"")
    return Batch(uuid, seq, phase, groups)


def items_of(batches: Iterable[Batch]) -> list[Item]:
    """Return the entries of batches, in their order."""
    found: list[Item] = []
    for one in batches:
        for group in one.groups:
            targets = group.targets or [b""] * len(group.names)
            for index, name in enumerate(group.names):
                path = group.directory + b"/" + name if group.directory else name
                row = EntryRow(
                    0, group.holdings[index], group.kinds[index], group.sizes[index], group.mtimes_ns[index],
                    group.modes[index], group.hashes[index] or None, group.vectors[index],
                    targets[index] or None,
                )  # fmt: skip
                found.append((path, row))
    return found


def hear(cache: ArenaCache, peer: PeerKey, *items: Item, **batch_fields: Any) -> None:  # noqa: ANN401
    """Apply one batch of a peer."""
    RemoteEntries(cache).apply(peer, peer.decode(), batch(items, **batch_fields))


def tree(cache: ArenaCache) -> dict[bytes, tuple[object, ...]]:
    """Return what is shown, by path: kind, size, time (0: a directory), mode, hash, vector, link, flags."""
    rows: list[Any] = cache.conn.execute(
        "SELECT id, kind, size, iif(kind = 2, 0, mtime_ns), mode, hash, vector, target, flags FROM node"
        " WHERE kind <> 0"
    ).fetchall()
    return {cache.tree.path(row[0]): row[1:] for row in rows if row[0] != cache.root}


def kinds(cache: ArenaCache) -> dict[bytes, Kind]:
    """Return the kind of everything that is shown."""
    return {path: Kind(row[0]) for path, row in tree(cache).items()}  # type: ignore[arg-type]


def node(cache: ArenaCache, path: bytes) -> int:
    """Return the node of a path that was heard of."""
    found = cache.tree.find(path)
    assert found is not None
    return found


def dirty(cache: ArenaCache) -> set[bytes]:
    """Return the paths that churten is to look at."""
    rows: list[Any] = cache.conn.execute("SELECT node FROM dirty").fetchall()
    return {cache.tree.path(row[0]) for row in rows}
