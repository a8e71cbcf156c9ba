"""One arena of this host: its databases, directories and the objects that work on them, together.

Composition only: what each part does is in its own module. Engine thread.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from core import db, unrealizer
from core.announcer import Announcer
from core.api import HashingRow
from core.audit import AuditLog
from core.blobrows import Area, entries_of
from core.blobs import BlobStore
from core.cache import ArenaCache
from core.cached import CachedNode
from core.choice import Flag
from core.config import ArenaConfig
from core.copies import Copies
from core.db import Connection
from core.displaced import DisplacedFiles
from core.errors import StoreError
from core.events import (
    ArenaChanged,
    EventBus,
    Evicted,
    FilesChanged,
    HashingProgress,
    Warned,
)
from core.fetch import Fetcher
from core.index import Index, IndexCalls
from core.inodes import ArenaInodes, allocate_range, ranges_of, restore_ranges
from core.leases import GivingUp, Lender
from core.local import LocalEntries
from core.locks import DirectoryLock
from core.markfiles import MarkWriter
from core.paths import display, join
from core.remote import RemoteEntries
from core.room import Room
from core.trouble import Trouble
from core.types import Hash, Holding, Mark, PeerKey
from core.work import WorkQueue

_log = logging.getLogger("realize.core.arena")

_TELL_PATHS = 5


class Arena:
    """An arena and everything that belongs to it."""

    def __init__(
        self,
        config: ArenaConfig,
        global_conn: Connection,
        self_key: PeerKey,
        events: EventBus,
        now_ns: Callable[[], int],
    ) -> None:
        """Open the arena's directories and database; `start` makes it usable.

        Raises:
            StoreLockedError: another daemon uses the workdir.
            StoreError: a directory or the database cannot be used.
        """
        self.config = config
        self.name = config.name
        self.datadir = config.datadir
        self.events = events
        self._now_ns = now_ns
        self.peer_names: Mapping[PeerKey, str] = {}
        """Names of the configured peers, for events; set by the engine."""
        self.offline = ""
        """Why the datadir is not used; "" when it is."""
        self.trouble = Trouble(self._trouble_changed)
        """Whether anything can be recorded."""
        self.looked_at = trio.Event()
        """Set once it is known whether the datadir is in its place; nothing is put there before."""
        self._make_directories()
        self.lock = DirectoryLock(config.workdir / "lock")
        self.db_path = config.workdir / "arena.db"
        self._conn = db.open_arena(self.db_path)
        restore_ranges(global_conn, config.name, ranges_of(self._conn))
        inodes = ArenaInodes(self._conn, lambda end: allocate_range(global_conn, config.name, end))
        self.cache = ArenaCache(
            config.name, self._conn, inodes, self_key, config.mark, lambda: now_ns() // 1_000_000
        )
        with self.cache.write():
            self.cache.tree.set_root_real(config.datadir is not None)
        self.local = LocalEntries(self.cache)
        self.remote = RemoteEntries(self.cache)
        self.announcer = Announcer(self.cache)
        self.work = WorkQueue(self.cache)
        self.copies = Copies(self.cache)
        self.blobs = BlobStore(
            config.workdir / "blobs",
            self._conn,
            usage=config.disk_usage,
            now_ns=now_ns,
            may_evict=self.copies.may_evict,
            evicted=self._on_evicted,
        )
        self.audit = AuditLog(config.workdir / "audit", config.name)
        events.tap(self.audit.on_event)
        self.blobs.on_verified = self._on_verified
        self.mark_writer = MarkWriter(self)
        self._wanted_by: dict[Hash, set[int]] = {}
        self.room = Room(self)
        self.giving_up = GivingUp()
        self.lender = Lender(self, self_key)
        self.in_transit: dict[Hash, Path] = {}
        """Where contents are for the moment that they are neither in the datadir nor in the blob store."""
        self.displaced = DisplacedFiles(self, now_ns)
        self._fetcher: Fetcher | None = None
        self.index: Index | None = None
        if config.datadir is not None:
            self.index = Index(config, self.local, self._index_calls())
        else:
            self.looked_at.set()

    def _make_directories(self) -> None:
        try:
            self.work_path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(
                f"workdir {self.config.workdir} cannot be made: {error.strerror}",
                hint="check `workdir` in the config and its permissions",
            ) from error

    @property
    def work_path(self) -> Path:
        """Directory for files on their way in or out; on the filesystem of the datadir."""
        return self.config.workdir / "work"

    def _index_calls(self) -> IndexCalls:
        def offline(reason: str) -> None:
            self.offline = reason
            self.looked_at.set()
            self.events.emit(ArenaChanged(arena=self.name, online=False, reason=reason))

        def online() -> None:
            was_offline, self.offline = self.offline, ""
            self.looked_at.set()
            self.mark_writer.wake()
            with self.cache.write():
                if self.work.take_left_undone() or was_offline:
                    self.cache.mark_dirty([self.cache.root], subtree=True)
            self.events.emit(ArenaChanged(arena=self.name, online=True))

        def progress(row: HashingRow) -> None:
            self.events.emit(
                HashingProgress(
                    arena=row.arena,
                    files_done=row.files_done,
                    files_total=row.files_total,
                    bytes_done=row.bytes_done,
                    bytes_total=row.bytes_total,
                    eta_s=row.eta_s,
                )
            )

        def held(files: int) -> None:
            if files:
                text = f"{files} files would be deleted everywhere; nothing is until you confirm"
                self.warn(text, f"if you deleted them: realize arena confirm-deletes {self.name}")

        async def prepare() -> None:
            await unrealizer.restore(self)

        async def unwritable(error: BaseException) -> None:
            self.trouble.found(error)
            await self.trouble.wait()

        return IndexCalls(progress, offline, online, held, self.warn, prepare, unwritable)

    def warn(self, text: str, hint: str) -> None:
        """Tell the user of something that needs attention."""
        self.events.emit(Warned(arena=self.name, text=text, hint=hint))

    def _trouble_changed(self, error: StoreError | None) -> None:
        if error is None:
            _log.info("%s: what is done can be recorded again", self.name)
            return
        _log.warning("%s: nothing can be recorded, so nothing is done: %s", self.name, self.trouble.reason)
        self.warn(f"nothing can be recorded, so nothing is done: {error}", error.hint)

    async def keep(self) -> None:
        """Flush, and make room where others fill the disk; every few seconds."""
        try:
            await self.blobs.flush()
            if self.trouble.reason:
                self.blobs.try_to_write()
        except StoreError as error:
            self.trouble.found(error)
            return
        self.trouble.over()
        await self.room.relieve()

    @property
    def copies_elsewhere(self) -> int:
        """How many peers have to hold a version durably before this host gives its durable copy up."""
        return max(1, self.config.min_copies)

    @property
    def fetcher(self) -> Fetcher:
        """What fetches content; there while `run` runs."""
        if self._fetcher is None:
            raise RuntimeError(f"arena {self.name} does not run")
        return self._fetcher

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the datadir and fetch what is asked for, for ever."""
        async with trio.open_nursery() as nursery:
            self._fetcher = Fetcher(self.name, self.blobs, nursery)
            if self.index is not None:
                nursery.start_soon(self.index.run)
                nursery.start_soon(self.mark_writer.run)
            nursery.start_soon(self.room.run)
            nursery.start_soon(self.displaced.run)
            task_status.started()
            await trio.sleep_forever()

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Keep the index from looking while the datadir and its entries are changed together."""
        if self.index is None:
            yield
            return
        async with self.index.exclusive():
            yield

    def link_up(self, key: PeerKey) -> None:
        """Give a peer that connects again the benefit of the doubt as a source of content."""
        if self._fetcher is not None:
            self._fetcher.book.forget(key)

    def wanted_by(self, content: Hash, node: int) -> None:
        """Note for which node a content is being fetched, to record it when it is whole and verified."""
        if not self.blobs.held(content):
            self._wanted_by.setdefault(content, set()).add(node)
        elif self.cache.shown(node).hash == content and not self.cache.shown(node).local:
            self.record_cached([node])

    def _on_verified(self, content: Hash) -> None:
        nodes = self._wanted_by.pop(content, set())
        self.record_cached([node for node in nodes if self.cache.shown(node).hash == content])

    def record_cached(self, nodes: Sequence[int]) -> None:
        """Record that the shown content of these nodes is whole and verified in the blob store."""
        with self.cache.write():
            cached = self.cache.cached.add(nodes)
            marks = self.cache.marks
            kept = [item.hash for item in cached if marks.effective(item.node, item.parent) is not Mark.WATCH]
            self.blobs.set_area(kept, Area.PROTECTED)
            self.blobs.rescue([item.hash for item in cached])
            if cached:
                self._tell_cached(cached)

    def _tell_cached(self, cached: Sequence[CachedNode]) -> None:
        """Tell what is cached now: because it is marked, or because somebody read it or asked for it."""
        directory, marks = self.cache.tree.directory_path, self.cache.marks
        by_cause: dict[str, list[CachedNode]] = {}
        for item in cached:
            marked = marks.effective(item.node, item.parent) is not Mark.WATCH
            by_cause.setdefault("mark" if marked else "user", []).append(item)
        for cause, items in by_cause.items():
            self.cache.emit(
                FilesChanged(
                    arena=self.name,
                    what="available",
                    paths=tuple(join(directory(item.parent), item.name) for item in items),
                    contents=tuple(item.hash for item in items),
                    cause=cause,
                )
            )

    async def start(self) -> None:
        """Make rows and files agree after whatever happened; before anything else uses the arena."""
        unrealizer.carry_on(self)
        found = await self.blobs.start()
        self._tell_damage([*found.damaged, *found.missing])
        await self.displaced.adopt_leftovers()
        await self._forget_lost_blobs()
        self.release_unwanted()

    def _tell_damage(self, contents: Sequence[Hash]) -> None:
        """Say which cached contents somebody changed or removed while this was not running."""
        if not contents:
            return
        paths: list[str] = []
        for content in contents:
            nodes: list[Any] = self._conn.execute(
                "SELECT node FROM entry WHERE peer = 0 AND hash = ? AND hash IS NOT NULL", (content,)
            ).fetchall()
            text = ", ".join(display(self.cache.tree.path(node)) for (node,) in nodes)
            last = "" if self.copies.held_elsewhere(content) else " (no other peer is known to hold it)"
            paths.append(f"{text or content.hex()[:16]}{last}")
        more = f" and {len(paths) - _TELL_PATHS} more" if len(paths) > _TELL_PATHS else ""
        text = (
            f"{len(paths)} cached contents were changed or removed in {self.config.workdir / 'blobs'}"
            f" while Realize was not running: {', '.join(paths[:_TELL_PATHS])}{more};"
            " they are fetched again when needed"
        )
        hint = f"realize verify {self.name}"
        _log.warning("%s: %s; %s", self.name, text, hint)
        self.warn(text, hint)

    def no_longer_needed(self, content: Hash) -> None:
        """A content is a real file now: unless its blob is cached as well, it is the first to go."""
        if not self.cache.cached.has(content, 0):
            self.cache.trash.put_aside(content)

    async def _forget_lost_blobs(self) -> None:
        """Drop the cached state of paths whose blob is not whole any more."""
        # One pass over the table; the `+` keeps SQLite from the index of hashes, by which it is a search for
        # each real file as well: 5 s of the start with a million of them instead of 0.1.
        rows: list[Any] = self._conn.execute(
            "SELECT DISTINCT e.hash FROM entry e LEFT JOIN blob b ON b.hash = e.hash WHERE e.peer = 0"
            " AND +e.hash IS NOT NULL AND e.holding = ? AND (b.verified IS NULL OR b.verified = 0)",
            (int(Holding.CACHED),),
        ).fetchall()
        for (content,) in rows:
            nodes = self.cache.cached.drop(content)
            with self.cache.write():
                self.cache.mark_dirty(nodes)
        self.cache.trash.forget_lost()
        await trio.lowlevel.checkpoint()

    def _on_evicted(self, victims: Sequence[tuple[Hash, int]]) -> None:
        with self.cache.write():
            for content, freed in victims:
                reason = "room was needed for other content"
                for path in self.cache.trash.paths_of(content):
                    self._tell_evicted(path, content, freed, f"{reason}; it was in the trash")
                for node in self.cache.cached.drop(content):
                    self._tell_evicted(self.cache.tree.path(node), content, freed, reason)
            self.cache.trash.forget(content for content, _ in victims)

    def _tell_evicted(self, path: bytes, content: Hash, freed: int, reason: str) -> None:
        self.cache.emit(
            Evicted(arena=self.name, path=path, bytes_freed=freed, reason=reason, content=content)
        )

    def release_unwanted(self) -> None:
        """Let go of protected blobs that nothing is held by and that no job is about."""
        rows: list[Any] = self._conn.execute(
            "SELECT b.hash FROM blob b WHERE b.area = ? AND NOT EXISTS (SELECT 1 FROM entry e"
            " WHERE e.peer = 0 AND e.hash = b.hash AND e.hash IS NOT NULL)",
            (int(Area.PROTECTED),),
        ).fetchall()
        if not rows:
            return
        wanted = {
            content
            for (content,) in self._conn.execute("SELECT n.hash FROM dirty d JOIN node n ON n.id = d.node")
        }
        self.blobs.unprotect([Hash(content) for (content,) in rows if content not in wanted])

    def can_copy(self, content: Hash, size: int, self_key: PeerKey) -> bool:
        """Say whether a real file is indexed with a content, and what is read of it can be checked."""
        if self.datadir is None or self.offline or self.fetcher.book.is_wrong(content, self_key):
            return False
        row: Any = self._conn.execute(
            "SELECT 1 FROM entry e WHERE e.peer = 0 AND e.hash = ? AND e.hash IS NOT NULL AND e.holding = ?"
            " AND EXISTS (SELECT 1 FROM node n WHERE n.id = e.node AND n.flags & ? = 0) LIMIT 1",
            (content, int(Holding.REAL), int(Flag.UNREADABLE | Flag.DAMAGED)),
        ).fetchone()
        return row is not None and (not entries_of(size) or self.blobs.get_blocks(content) is not None)

    async def aclose(self) -> None:
        """Flush and close; the lock is released last."""
        try:
            await self.blobs.aclose()
            db.close(self._conn)
        except StoreError as error:
            # A full disk: what is recorded is safe, the rest is looked at again at the next start.
            _log.warning("%s: the last things done were not recorded: %s", self.name, error)
        finally:
            self.audit.close()
            self.lock.release()
