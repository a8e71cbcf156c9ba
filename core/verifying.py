"""Reading local content again and comparing it with its version (`Api.verify`). Engine thread.

A real file whose size, time and inode number are those of the index but whose content is another was
changed by nobody: it is damaged. It stays, is marked, and if a peer gives the right content it is
replaced by it; the damaged bytes go to the trash.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from core.api import ArenaPath, VerifyOutcome, VerifyStep
from core.choice import Flag
from core.disk import opened
from core.errors import ChangedError, RealizeError
from core.events import FileChange, FileChanged
from core.hashing import TruncatedError, hash_descriptor
from core.jobs import EndIfCancelled
from core.paths import display
from core.placing import Identity
from core.ports import PeerLink
from core.putting import Cause, NewVersion, put_real
from core.trashrows import Reason
from core.types import Hash, Kind, RelPath, Vector

if TYPE_CHECKING:
    from core.arena import Arena
    from core.engine import Engine

_BELOW = (
    "WITH RECURSIVE below (id) AS (SELECT ? UNION ALL"
    " SELECT n.id FROM below b JOIN node n ON n.parent = b.id)"
)
_REAL = (
    _BELOW  # noqa: S608 - constants
    + " SELECT e.node, e.size, e.hash FROM below JOIN entry e ON e.node = below.id AND e.peer = 0"
    " WHERE e.holding = 1 AND e.kind = 1 AND e.hash IS NOT NULL"
)
_CACHED = (
    _BELOW  # noqa: S608 - constants
    + " SELECT min(n.id), n.size, n.hash FROM below JOIN node n ON n.id = below.id"
    " JOIN blob b ON b.hash = n.hash WHERE n.kind = 1 AND b.verified = 1 GROUP BY n.hash"
)
_ALL_BLOBS = "SELECT 0, size, hash FROM blob WHERE verified = 1"


class _Item(NamedTuple):
    node: int
    size: int
    hash: Hash
    real: bool


class Verifier:
    """One run over what is held at and below a node."""

    def __init__(self, engine: Engine, arena: Arena, node: int, *, repair: bool) -> None:
        """Verify what ``arena`` holds at and below ``node``."""
        self._engine, self._arena, self._repair = engine, arena, repair
        self.at = ArenaPath(arena.name, arena.cache.tree.path(node))
        self._items = self._find(node)
        self.files = len(self._items)
        self.bytes = sum(item.size for item in self._items)

    def _find(self, node: int) -> list[_Item]:
        conn = self._arena.cache.conn
        real: list[Any] = conn.execute(_REAL, (node,)).fetchall()
        cached: list[Any] = conn.execute(_CACHED, (node,)).fetchall()
        if node == self._arena.cache.root:
            known = {row[2] for row in cached}
            cached += [row for row in conn.execute(_ALL_BLOBS).fetchall() if row[2] not in known]
        items = [_Item(row[0], row[1], Hash(row[2]), True) for row in real]
        return items + [_Item(row[0], row[1], Hash(row[2]), False) for row in cached]

    async def run(self) -> AsyncGenerator[tuple[ArenaPath, VerifyOutcome, int, str], None]:
        """Yield ``(path, outcome, bytes, detail)`` of each; an async generator."""
        for item in self._items:
            outcome, detail = await (self._real(item) if item.real else self._blob(item))
            path = self._arena.cache.tree.path(item.node) if item.node else RelPath(b"")
            yield ArenaPath(self._arena.name, path), outcome, item.size, detail

    # -- real files

    async def _real(self, item: _Item) -> tuple[VerifyOutcome, str]:
        arena = self._arena
        identity = self._identity(item)
        if arena.datadir is None or arena.offline or identity is None:
            return "changed", arena.offline or "it was changed meanwhile"
        path = arena.cache.tree.path(item.node)
        try:
            digest = await trio.to_thread.run_sync(_hash_real, os.fsencode(arena.datadir), path, identity)
        except (ChangedError, TruncatedError, FileNotFoundError):
            return "changed", "it is being changed; it is hashed as soon as that is over"
        except OSError as error:
            return "unreadable", error.strerror or str(error)
        if digest == item.hash:
            self._flag(item, damaged=False)
            return "ok", ""
        if self._identity(item) != identity:
            return "changed", "it was changed meanwhile"
        self._flag(item, damaged=True)
        self._record(path, "damaged", "disk", item.hash, digest)
        text = "the content changed on the disk without anybody writing it"
        arena.warn(
            f"{display(path)} is damaged: {text}", f"realize verify {display(arena.name)}/{display(path)}"
        )
        if not self._repair:
            return "damaged", text
        try:
            await self._repair_real(item, path)
        except RealizeError as error:
            return "damaged", f"{text}; not repaired: {error}"
        self._record(path, "repaired", "user", digest, item.hash)
        return "repaired", f"{text}; the damaged bytes are in the trash"

    def _record_lost(self, paths: Sequence[RelPath], content: Hash) -> None:
        for path in paths:
            self._arena.events.emit(
                FileChanged(arena=self._arena.name, path=path, what="damaged", cause="disk", before=content)
            )

    def _record(self, path: bytes, what: FileChange, cause: str, before: Hash, after: Hash) -> None:
        self._arena.events.emit(
            FileChanged(arena=self._arena.name, path=path, what=what, cause=cause, before=before, after=after)
        )

    def _identity(self, item: _Item) -> Identity | None:
        row: Any = self._arena.cache.conn.execute(
            "SELECT size, mtime_ns, ino FROM entry WHERE node = ? AND peer = 0 AND holding = 1 AND hash = ?",
            (item.node, item.hash),
        ).fetchone()
        return Identity(*row) if row else None

    def _flag(self, item: _Item, *, damaged: bool) -> None:
        cache, flag = self._arena.cache, int(Flag.DAMAGED)
        flags = cache.shown(item.node).flags
        if bool(flags & flag) == damaged:
            return
        with cache.write() as changes:
            cache.conn.execute("UPDATE node SET flags = ? WHERE id = ?", (flags ^ flag, item.node))
            changes.touched.add(cache.tree.parent_and_name(item.node)[0])

    async def _repair_real(self, item: _Item, path: RelPath) -> None:
        """Fetch the right content and put it in the place of the damaged file, as the same version."""
        arena, cache = self._arena, self._arena.cache
        await self._fetch(item.node, item.hash, item.size)
        local = cache.local_entry(item.node)
        if local is None or local.hash != item.hash:
            raise ChangedError("it was changed meanwhile")
        version = NewVersion(Kind.FILE, local.size, local.mtime_ns, local.mode, item.hash)
        same = Vector(local.vector)
        await put_real(arena, path, version, lambda _: same, Cause(Reason.DAMAGED, cache.self_key))
        self._flag(item, damaged=False)

    async def _fetch(self, node: int, content: Hash, size: int) -> None:
        if self._arena.blobs.held(content):
            return
        await self._arena.fetcher.download(content, size, self._links(node, content))

    def _links(self, node: int, content: Hash) -> list[PeerLink]:
        return self._engine.holders(self._arena, node, content) if node else []

    # -- blobs

    async def _blob(self, item: _Item) -> tuple[VerifyOutcome, str]:
        arena = self._arena
        text = "the cached content was damaged"
        try:
            if await arena.blobs.verify(item.hash):
                return "ok", ""
        except ChangedError:
            if not arena.cache.cached.nodes(item.hash):
                return "changed", "it was given up meanwhile"
            text = "the file of the cached content was gone"
        except RealizeError as error:
            if not self._repair or not self._links(item.node, item.hash):
                return "unreadable", str(error)
            text = f"the cached content could not be read ({error})"
            await arena.blobs.remove([item.hash])
        nodes = arena.cache.cached.drop(item.hash)
        paths = [arena.cache.tree.path(node) for node in nodes]
        what = ", ".join(map(display, paths[:3])) or "content that no path needs any more"
        how = f"realize verify {display(arena.name)}"
        arena.warn(f"{text}: {what}", "" if self._repair else f"{how} fetches it again")
        self._record_lost(paths, item.hash)
        with arena.cache.write():
            arena.cache.mark_dirty(nodes)
        if not self._repair:
            return "damaged", f"{text} and is forgotten; it is fetched again when it is needed"
        try:
            await self._fetch(item.node, item.hash, item.size)
        except RealizeError as error:
            if not arena.blobs.held(item.hash):
                arena.cache.trash.forget([item.hash])
            return "damaged", f"{text}; not fetched again: {error}"
        with suppress(RealizeError):
            arena.record_cached([n for n in nodes if arena.cache.shown(n).hash == item.hash])
        return "repaired", f"{text} and was fetched again"


def _hash_real(datadir: bytes, path: RelPath, identity: Identity) -> Hash:
    """Return the hash of a real file; it is the indexed one before and after it is read."""
    root_fd = os.open(datadir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with opened(root_fd, path, one_device=True) as fd:
            # What the disk gives is wanted, not what memory remembers of it.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if not identity.matches(os.fstat(fd)):
                raise ChangedError("it was changed")
            digest, _ = hash_descriptor(fd, identity.size)
            if not identity.matches(os.fstat(fd)):
                raise ChangedError("it was changed")
    finally:
        os.close(root_fd)
    return digest


async def verify(
    engine: Engine, places: list[tuple[Arena, int]], *, repair: bool
) -> AsyncGenerator[VerifyStep, None]:
    """Verify what is held at and below these nodes; see `Api.verify`. An async generator.

    Each place is a job as any other, for whoever looks at what this host does; it does not wait for churten.
    """
    runs = [Verifier(engine, arena, node, repair=repair) for arena, node in places]
    files_total, bytes_total = sum(run.files for run in runs), sum(run.bytes for run in runs)
    files_done = bytes_done = 0
    board = engine.churten.board
    for run in runs:
        if not run.files:
            continue
        job = board.begin(run.at, "verify", run.files, run.bytes)
        bad = 0
        with EndIfCancelled(board, job):
            async for at, outcome, count, detail in run.run():
                files_done += 1
                bytes_done += count
                bad += outcome in ("damaged", "unreadable")
                board.advance(job, job.bytes_done + count)
                yield VerifyStep(at, outcome, count, detail, files_done, files_total, bytes_done, bytes_total)
        reason = f"{bad} file{'' if bad == 1 else 's'} could not be repaired" if bad else ""
        board.end(job, "failed" if bad else "finished", reason)
