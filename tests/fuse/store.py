"""A host with arenas on disk, written row by row, and a backend that serves content from memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import trio
from blake3 import blake3

from core import db
from core.blobshelf import blob_name
from core.byteranges import ByteRanges
from core.changes import Changes
from core.config import ArenaConfig
from core.connected import ConnectedPeers
from core.errors import NoHolderError
from core.inodes import allocate_global, allocate_range
from core.ports import Fetched
from core.types import Hash, Holding, Inode, Kind, Mark, PeerKey, RelPath, Vector
from core.versions import bump

SELF, OTHER, THIRD = PeerKey(b"selfself"), PeerKey(b"otheroth"), PeerKey(b"thirdthi")
PEERS = {OTHER: "other", THIRD: "third"}
MTIME_NS = 1_700_000_000_123_456_789
BLOCK = 128 * 1024
VECTOR = bump(Vector(b""), SELF)


def hash_of(data: bytes) -> Hash:
    return Hash(blake3(data).digest())


def errno_of(call: Callable[[], object]) -> int:
    """Return the errno that a call fails with, 0 if it does not."""
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


class ArenaOnDisk:
    """One arena: its directories and rows."""

    def __init__(self, base: Path, global_conn: db.Connection, name: str, *, datadir: bool = True) -> None:
        self.config = ArenaConfig(
            name=name,
            workdir=base / "work" / name.replace("/", "_"),
            datadir=base / "data" / name.replace("/", "_") if datadir else None,
        )
        self.config.workdir.mkdir(parents=True)
        (self.config.workdir / "blobs").mkdir()
        if self.config.datadir is not None:
            self.config.datadir.mkdir(parents=True)
        self.conn = db.open_arena(self.config.workdir / "arena.db")
        self._global = global_conn
        self._next = self._end = 0
        self.root = self.allocate()
        self.nodes: dict[bytes, Inode] = {b"": self.root}
        self._insert(self.root, 0, b"", Kind.DIR, 0, 0o755, None, None, 1)
        self.conn.execute("INSERT INTO meta (key, value) VALUES ('root', ?)", (self.root,))
        for number, key in enumerate(PEERS, start=1):
            self.conn.execute("INSERT INTO peer VALUES (?, ?, x'', 0, 0, 0)", (number, key))

    def allocate(self) -> Inode:
        if self._next >= self._end:
            got = allocate_range(self._global, self.config.name, self._end)
            self._next, self._end = got.start, got.end
        self._next += 1
        return Inode(self._next - 1)

    def _insert(
        self,
        node: int,
        parent: int,
        name: bytes,
        kind: Kind,
        size: int,
        mode: int,
        content: Hash | None,
        target: bytes | None,
        local: int,
        mtime_ns: int = MTIME_NS,
    ) -> None:
        self.conn.execute(
            "INSERT OR REPLACE INTO node (id, parent, name, kind, size, mtime_ns, mode, hash, vector, target,"
            " local, flags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (
                node,
                parent,
                name,
                int(kind),
                size,
                mtime_ns,
                mode,
                content,
                bump(Vector(b""), SELF),
                target,
                local,
            ),
        )

    def put(
        self,
        path: bytes,
        kind: Kind = Kind.FILE,
        *,
        size: int = 0,
        mode: int = 0o644,
        content: Hash | None = None,
        target: bytes | None = None,
        local: int = 0,
        holders: Iterable[PeerKey] = (),
        mtime_ns: int = MTIME_NS,
    ) -> Inode:
        """Insert or replace a node; parents are made as directories."""
        parent_path, _, name = path.rpartition(b"/")
        if parent_path not in self.nodes:
            self.put(parent_path, Kind.DIR, mode=0o755, holders=holders)
        node = self.nodes.get(path) or self.allocate()
        self.nodes[path] = node
        parent = self.nodes[parent_path]
        self._insert(node, parent, name, kind, size, mode, content, target, local, mtime_ns)
        self.conn.execute("DELETE FROM entry WHERE node = ?", (node,))
        numbers = {key: number for number, key in enumerate(PEERS, start=1)}
        held = [(numbers[key], Holding.REAL) for key in holders]
        if local:
            held.append((0, Holding(local)))
        for peer, holding in held:
            self.conn.execute(
                "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
                (
                    node,
                    peer,
                    int(holding),
                    int(kind),
                    size,
                    mtime_ns,
                    mode,
                    content,
                    bump(Vector(b""), SELF),
                    target,
                ),
            )
        return node

    def remove(self, path: bytes) -> None:
        self.conn.execute("UPDATE node SET kind = 0 WHERE id = ?", (self.nodes[path],))

    def real(self, path: bytes, data: bytes, holders: Iterable[PeerKey] = (OTHER,)) -> Inode:
        assert self.config.datadir is not None
        on_disk = os.path.join(os.fsencode(self.config.datadir), path)
        os.makedirs(os.path.dirname(on_disk), exist_ok=True)
        with open(on_disk, "wb") as file:
            file.write(data)
        os.utime(on_disk, ns=(MTIME_NS, MTIME_NS))
        return self.put(path, size=len(data), content=hash_of(data), local=Holding.REAL, holders=holders)

    def online(self, path: bytes, data: bytes, holders: Iterable[PeerKey] = (OTHER,)) -> Inode:
        return self.put(path, size=len(data), content=hash_of(data), holders=holders)

    def unhashed(self, path: bytes, size: int, holders: Iterable[PeerKey] = (OTHER,)) -> Inode:
        return self.put(path, size=size, holders=holders)

    def cached(self, path: bytes, data: bytes, holders: Iterable[PeerKey] = (OTHER,)) -> Inode:
        self.write_blob(data, ByteRanges.whole(len(data)), verified=True)
        return self.put(path, size=len(data), content=hash_of(data), local=Holding.CACHED, holders=holders)

    def partial(self, path: bytes, data: bytes, ranges: ByteRanges) -> Inode:
        self.write_blob(data, ranges, verified=False)
        return self.online(path, data)

    def blob_path(self, content: Hash) -> Path:
        return self.config.workdir / "blobs" / blob_name(content)

    def write_blob(self, data: bytes, ranges: ByteRanges, *, verified: bool) -> None:
        content = hash_of(data)
        path = self.blob_path(content)
        path.parent.mkdir(exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(len(data))
            for start, end in ranges:
                file.seek(start)
                file.write(data[start:end])
        self.conn.execute(
            "INSERT OR REPLACE INTO blob (hash, size, ranges, verified, area, disk_bytes, last_use_ns,"
            " frequency, generation) VALUES (?, ?, ?, ?, 0, ?, 0, 0, 0)",
            (content, len(data), ranges.encode(), int(verified), ranges.total()),
        )

    def mark(self, path: bytes, mark: Mark) -> None:
        self.conn.execute("INSERT OR REPLACE INTO mark VALUES (?, ?)", (self.nodes[path], mark.value))


class HostOnDisk:
    """The global database and the arenas of a host."""

    def __init__(self, base: Path, names: Iterable[str] = ("docs",)) -> None:
        base.mkdir(parents=True, exist_ok=True)
        self.global_db = base / "cache.db"
        self.conn = db.open_global(self.global_db)
        self.connected = ConnectedPeers([OTHER])
        self.arenas = {name: ArenaOnDisk(base, self.conn, name) for name in names}
        for key, name in PEERS.items():
            self.conn.execute("INSERT INTO peer VALUES (?, ?, '', NULL, 0)", (name, key))
        for name, arena in self.arenas.items():
            *above, last = name.encode().split(b"/")
            parent = 1
            for component in above:
                parent = self._directory(parent, component)
            self.conn.execute("INSERT INTO directory VALUES (?, ?, ?, ?)", (arena.root, parent, last, name))

    def _directory(self, parent: int, name: bytes) -> int:
        row = self.conn.execute(
            "SELECT id FROM directory WHERE parent = ? AND name = ?", (parent, name)
        ).fetchone()
        if row is not None:
            return int(row[0])
        inode = allocate_global(self.conn)
        self.conn.execute("INSERT INTO directory VALUES (?, ?, ?, NULL)", (inode, parent, name))
        return inode

    @property
    def configs(self) -> list[ArenaConfig]:
        return [arena.config for arena in self.arenas.values()]


@dataclass
class MemoryBackend:
    """Gives the contents it knows, writing them to the blob file as the engine does."""

    host: HostOnDisk
    contents: dict[Hash, bytes] = field(default_factory=dict)
    versions: dict[Inode, bytes] = field(default_factory=dict)
    held: dict[Hash, ByteRanges] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    fetched_bytes: int = 0
    streams: bool = False
    hang: bool = False
    open_count: int = 0
    reasons: list[str] = field(default_factory=list)
    on_mark: Callable[[str, RelPath, Mark | None], None] | None = None
    hung: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released for each request that hangs now."""

    async def _maybe_hang(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.hang:
            self.hung.release()
            await trio.sleep_forever()

    def opened(self, arena: str, content: Hash, size: int) -> None:
        self.open_count += 1

    def closed(self, arena: str, content: Hash) -> None:
        self.open_count -= 1

    def used(self, arena: str, inode: Inode, content: Hash) -> None:
        self.calls.append(("used", arena))

    async def fetch(
        self, arena: str, inode: Inode, content: Hash, size: int, start: int, end: int, readahead_bytes: int
    ) -> Fetched:
        await self._maybe_hang()
        data = self.contents.get(content)
        if data is None:
            raise NoHolderError("nobody holds it")
        if self.streams:
            return Fetched(ByteRanges(), data[start : min(end, start + BLOCK)])
        wanted = ByteRanges([(start, min(size, end + readahead_bytes))]).aligned(BLOCK, size)
        held = self.held.get(content, ByteRanges())
        self.fetched_bytes += wanted.difference(held).total()
        self.held[content] = held = held.union(wanted)
        path = self.host.arenas[arena].blob_path(content)
        path.parent.mkdir(exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(size)
            for first, last in wanted:
                file.seek(first)
                file.write(data[first:last])
        await trio.lowlevel.checkpoint()
        return Fetched(held)

    async def read_unhashed(
        self, arena: str, inode: Inode, vector: Vector, offset: int, length: int
    ) -> bytes:
        await self._maybe_hang()
        if inode not in self.versions:
            raise NoHolderError("nobody holds it")
        return self.versions[inode][offset : offset + length]

    async def set_mark(self, arena: str, path: RelPath, mark: Mark | None) -> None:
        await trio.lowlevel.checkpoint()
        if self.on_mark is not None:
            self.on_mark(arena, path, mark)

    async def status_json(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b'{"schema":1}'

    def degraded(self, reason: str) -> None:
        self.reasons.append(reason)


def changes(
    arena: str,
    *,
    listings: Iterable[int] = (),
    nodes: Iterable[int] = (),
    gone: Iterable[tuple[int, bytes]] = (),
) -> Changes:
    return Changes(arena, listings=set(listings), nodes=set(nodes), gone=list(gone))
