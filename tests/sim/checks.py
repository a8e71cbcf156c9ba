"""What must be true of a household at rest (spec 8 §Invariants); each check returns what is wrong."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from blake3 import blake3

from core.blobrows import Area
from core.choice import Flag, choose
from core.types import Hash, Holding, Kind, Mark
from tests.sim.disks import Disks
from tests.sim.hosts import Host, files_below
from tests.sim.ledger import Ledger

_HOLDINGS = "SELECT holding FROM entry WHERE peer = 0 AND hash = ? AND hash IS NOT NULL"
_SHARED = 64
"""Contents up to this length may be written more than once."""


_Found = Sequence[tuple[bytes, os.stat_result]]
"""Paths below a directory."""


class Node(NamedTuple):
    id: int
    parent: int
    path: bytes
    kind: int
    size: int
    mtime_ns: int
    mode: int
    hash: bytes | None
    vector: bytes
    target: bytes | None
    local: int
    flags: int


def nodes(host: Host) -> list[Node]:
    """Return all that a host shows but the root, by path."""
    cache = host.arena.cache
    rows: list[Any] = cache.conn.execute(
        "SELECT id, parent, kind, size, mtime_ns, mode, hash, vector, target, local, flags FROM node"
        " WHERE kind <> 0 AND parent <> 0"
    ).fetchall()
    found = [Node(row[0], row[1], cache.tree.path(row[0]), *row[2:]) for row in rows]
    return sorted(found, key=lambda node: node.path)


def problems(hosts: Sequence[Host], ledger: Ledger, disks: Disks) -> list[str]:
    """Return everything that is wrong."""
    shown = {host.name: nodes(host) for host in hosts}
    found = list(_trees_differ(hosts, shown))
    for host in hosts:
        found += [f"{host.name}: {text}" for text in _datadir_differs(host)]
        found += [f"{host.name}: {text}" for text in _marks_unsatisfied(host, shown[host.name])]
        blobs = list(files_below(host.workdir / "blobs"))
        found += [f"{host.name}: {text}" for text in _blobs_wrong(host, blobs)]
        found += [f"{host.name}: {text}" for text in _left_over(host)]
        found += [f"{host.name}: {text}" for text in _over_quota(host, blobs)]
        found += [f"{host.name}: {text}" for text in _foreign_contents(host, shown[host.name], ledger)]
    found += _without_durable_copy(hosts, shown[hosts[0].name], ledger)
    return found + list(_renames_wrong(hosts[0], shown[hosts[0].name], ledger)) + list(lost(ledger, disks))


def _common(host: Host, node: Node) -> tuple[object, ...]:
    """Return what must be equal everywhere of a shown path."""
    if node.flags & Flag.CONFLICT:
        live = {
            (entry.kind, entry.hash, entry.target)
            for entry in host.arena.cache.entries(node.id)
            if entry.holding != Holding.TOMBSTONE
        }
        return ("conflict", tuple(sorted(live, key=repr)))
    if node.kind == Kind.DIR:
        return (node.kind, node.mode & 0o777)
    return (node.kind, node.size, node.mtime_ns, node.mode, node.hash, node.target, node.vector)


def _trees_differ(hosts: Sequence[Host], shown: dict[str, list[Node]]) -> Iterator[str]:
    first, *others = ({node.path: _common(host, node) for node in shown[host.name]} for host in hosts)
    for host, other in zip(hosts[1:], others, strict=True):
        for path in sorted(first.keys() | other.keys()):
            if first.get(path) != other.get(path):
                yield f"I1 {path!r}: {hosts[0].name} {first.get(path)} and {host.name} {other.get(path)}"


def _foreign_contents(host: Host, shown: list[Node], ledger: Ledger) -> Iterator[str]:
    """I3: what is shown was written there."""
    for node in shown:
        if node.kind == Kind.FILE and node.hash is not None and not ledger.belongs(node.hash, node.path):
            yield f"I3 {node.path!r} shows what nobody wrote there: {ledger.origins(node.hash)}"


def _renames_wrong(host: Host, shown: list[Node], ledger: Ledger) -> Iterator[str]:
    """I8: what was renamed, and nothing else, is at one place."""
    places: dict[bytes, list[bytes]] = {}
    for node in shown:
        versions = {entry.hash for entry in host.arena.cache.entries(node.id)} if node.flags else {node.hash}
        for content in versions - {None}:
            places.setdefault(content or b"", []).append(node.path)
    for content, (old, new) in ledger.renamed.items():
        if ledger.uses[content] == 1 and content in ledger.wanted and len(ledger.data[content]) > _SHARED:
            found = places.get(content, [])
            # It may have been elsewhere before: restored to another path, or kept beside one in a conflict.
            if not found or (old in found and new in found):
                yield f"I8 {content.hex()[:16]} was renamed from {old!r} to {new!r}, and is at {found}"


def _durable(host: Host, content: bytes) -> bool:
    """Say whether a host has a copy of a content that it does not give up without asking (`core.leases`).

    At whatever path: what is the only copy goes to another one where a user makes a file of that name.
    """
    holdings = [row[0] for row in host.query(_HOLDINGS, (content,))]
    if Holding.REAL in holdings:
        return True
    blob = host.arena.blobs.info(Hash(content)) if Holding.CACHED in holdings else None
    return blob is not None and blob.held and blob.area is Area.PROTECTED


def _without_durable_copy(hosts: Sequence[Host], shown: list[Node], ledger: Ledger) -> Iterator[str]:
    """I5: of what is shown, and no user who saw it gave up, somebody has a copy that stays.

    What was deleted on one host and lives on, for it was changed on another that merely has it in its cache,
    stays there, for nothing else has it: it is not evicted.
    """
    for node in shown:
        if node.kind != Kind.FILE or node.hash is None or node.flags & Flag.CONFLICT:
            continue
        if node.hash in ledger.unsure or node.hash not in ledger.wanted:
            continue
        if not any(_durable(host, node.hash) for host in hosts):
            held = {host.name: host.arena.blobs.info(Hash(node.hash)) for host in hosts}
            yield f"I5 nobody has a durable copy of {node.path!r}, {node.hash.hex()[:16]}: {held}"


def _datadir_differs(host: Host) -> Iterator[str]:
    """Compare the datadir with what the database says is real."""
    if host.datadir is None:
        return
    cache = host.arena.cache
    rows: list[Any] = cache.conn.execute(
        "SELECT node, kind, size, mtime_ns, mode, hash, target FROM entry WHERE peer = 0 AND holding = 1"
    ).fetchall()
    known: dict[bytes, tuple[Any, ...]] = {cache.tree.path(row[0]): row[1:] for row in rows}
    seen: set[bytes] = set()
    for path, found in files_below(host.datadir):
        seen.add(path)
        if path not in known:
            yield f"{path!r} is in the datadir and not indexed"
            continue
        kind, size, mtime_ns, mode, content, target = known[path]
        at = os.path.join(os.fsencode(host.datadir), path)
        if stat.S_ISLNK(found.st_mode):
            if (kind, target) != (Kind.SYMLINK, os.readlink(at)):
                yield f"{path!r} is a link to {os.readlink(at)!r}, indexed as {kind} {target!r}"
        elif stat.S_ISDIR(found.st_mode):
            if kind != Kind.DIR or (mode ^ found.st_mode) & 0o777:
                yield f"directory {path!r} of mode {found.st_mode:o} is indexed as {kind} {mode:o}"
        elif (kind, size, mtime_ns, content) != (Kind.FILE, found.st_size, found.st_mtime_ns, _hash(at)):
            yield f"file {path!r} is not as indexed: {found} {known[path]}"
        elif (mode ^ found.st_mode) & 0o777:
            yield f"file {path!r} has mode {found.st_mode:o}, indexed {mode:o}"
    for path in known.keys() - seen:
        yield f"{path!r} is indexed and not in the datadir"


def _marks_unsatisfied(host: Host, shown: list[Node]) -> Iterator[str]:
    cache = host.arena.cache
    obstacles = cache.files_in_the_way()
    reasons = {node: reason for node, _, reason, _ in host.arena.work.waiting(10_000)}
    waiting = {node for node, reason in reasons.items() if excused(host, reason)}
    for node in shown:
        if node.flags & Flag.CONFLICT or node.id in waiting:
            continue
        if not obstacles.isdisjoint(cache.tree.ancestors(node.id)):
            continue
        mark = cache.marks.effective(node.id, node.parent)
        if mark is Mark.OWN and host.datadir is not None:
            # A directory that was deleted is shown while something is in it: it neither goes nor comes
            # back for that. One that something real is in was made with it.
            implicit = node.kind == Kind.DIR and choose(cache.entries(node.id)).kind == Kind.NONE
            if node.local != Holding.REAL and not implicit:
                yield f"{node.path!r} is marked own and not real: {_why(host, node, reasons)}"
        elif mark is not Mark.WATCH and node.kind == Kind.FILE and not node.local:
            yield f"{node.path!r} is marked {mark} and not held: {_why(host, node, reasons)}"
        if node.local == Holding.CACHED and node.hash is not None:
            row = host.arena.blobs.info(node.hash)  # type: ignore[arg-type]  # a hash, from the database
            if row is None or not row.verified:
                yield f"{node.path!r} is shown as cached and its blob is not whole"
        if node.local != Holding.REAL:
            entry = cache.local_entry(node.id)
            if entry is not None and entry.holding == Holding.REAL and entry.kind != Kind.DIR:
                yield f"{node.path!r} is real here in an outdated version: {_why(host, node, reasons)}"


def _why(host: Host, node: Node, reasons: dict[int, str]) -> str:
    """Return what is known of a node that is not as it should be."""
    blob = host.arena.blobs.info(Hash(node.hash)) if node.hash is not None else None
    return (
        f"{Kind(node.kind).name} queued: {reasons.get(node.id)!r}, blob: {blob},"
        f" entries: {host.arena.cache.entries(node.id)}"
    )


def _blobs_wrong(host: Host, blobs: _Found) -> Iterator[str]:
    rows: list[Any] = host.arena.cache.conn.execute("SELECT hash, size, verified FROM blob").fetchall()
    known = {row[0].hex(): row for row in rows}
    for path, found in blobs:
        if stat.S_ISDIR(found.st_mode):
            continue
        name = os.path.basename(path).decode()
        if name not in known:
            yield f"blob file {name} has no row"
        elif known[name][2] and _hash(host.workdir / "blobs" / os.fsdecode(path)).hex() != name:
            yield f"blob file {name} has another content"
        known.pop(name, None)
    for name in known:
        yield f"blob {name} has no file"


def _left_over(host: Host) -> Iterator[str]:
    for path, _ in files_below(host.workdir / "work"):
        if path.startswith(b"old-") and host.profile.quota is not None:
            continue  # no room in the trash: tried again at the next start
        if path in {os.fsencode(at.name) for at in host.arena.displaced.waiting}:
            continue  # a program had it open until a moment ago: looked at every few seconds
        yield f"{path!r} is left in the work directory"


def excused(host: Host, reason: str) -> bool:
    """Say whether a node may wait for this reason at rest: its content has no room within the quota."""
    return host.profile.quota is not None and reason.startswith("no room in the cache")


def _over_quota(host: Host, blobs: _Found) -> Iterator[str]:
    """I7: what is used on the disk is what is counted, and within the quota."""
    used = sum(found.st_blocks * 512 for _, found in blobs if stat.S_ISREG(found.st_mode))
    quota = host.arena.blobs.quota
    if host.profile.quota is not None and used > host.profile.quota:
        yield f"I7 {used} bytes are in use on the disk, {host.profile.quota} may be"
    if used != quota.used_bytes:
        yield f"I7 {used} bytes are in use on the disk, {quota.used_bytes} are counted"


def lost(ledger: Ledger, disks: Disks) -> Iterator[str]:
    """I2, I5: what a user wrote, and no user who saw it gave up, is on some disk."""
    for content, where in ledger.wanted.items():
        if not disks.holds(content):
            yield f"I2 {content.hex()[:16]}, written to {where}, is nowhere"


def _hash(path: object) -> bytes:
    with open(path, "rb") as file:  # type: ignore[call-overload]  # a path of text or bytes
        return blake3(file.read()).digest()
