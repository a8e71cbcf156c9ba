"""What the mount asks of the engine: content that is missing, marks, and figures.

Implements `core.ports.MountBackend`. Engine thread.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from core.api import ArenaPath, MarkChange
from core.blob import Blob
from core.byteranges import ByteRanges
from core.errors import ChangedError, NetError, NoHolderError, NoSpaceError, RemoteError
from core.ports import Fetched, PeerLink
from core.types import Hash, Inode, Mark, Priority, RelPath, Vector

if TYPE_CHECKING:
    from core.arena import Arena
    from core.engine import Engine

_log = logging.getLogger("realize.core.mounting")

_NO_HOLDER_HINT = "connect a peer that holds it; `realize why` names them"


class _Use:
    """A content that the mount has open; the blob is held open too, so that it is not closed each read."""

    def __init__(self) -> None:
        self.users = 0
        self.blob: Blob | None = None
        self.fetched: set[Inode] = set()
        self.streams: bool | None = None
        """It is too large to be stored; None: not known yet."""


class MountService:
    """Answers the mount."""

    def __init__(
        self,
        engine: Engine,
        apply_marks: Callable[[list[MarkChange]], Awaitable[object]],
        status_json: Callable[[], Awaitable[bytes]],
    ) -> None:
        """Answer from ``engine``; marks are set, and the status made, by the service for users."""
        self._engine = engine
        self._apply_marks = apply_marks
        self._status_json = status_json
        self._uses: dict[tuple[str, Hash], _Use] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what outlives a call, for ever."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def opened(self, arena: str, content: Hash, size: int) -> None:
        """See `MountBackend.opened`."""
        use = self._uses.setdefault((arena, content), _Use())
        use.users += 1
        blobs = self._engine.arena(arena).blobs
        if use.blob is None and blobs.info(content) is not None:
            try:
                use.blob = blobs.open(content)
            except ChangedError as error:
                _log.debug("blob to be read is gone: %s", error)

    def closed(self, arena: str, content: Hash) -> None:
        """See `MountBackend.closed`."""
        use = self._uses.get((arena, content))
        if use is None:
            return
        use.users -= 1
        if use.users <= 0:
            del self._uses[arena, content]
            if use.streams:
                self._engine.arena(arena).fetcher.streams.forget(content)
            if use.blob is not None and self._nursery is not None:
                self._nursery.start_soon(self._release, self._engine.arena(arena), use.blob, use.fetched)

    async def _release(self, at: Arena, blob: Blob, fetched: set[Inode]) -> None:
        self._held_changed(at, fetched)
        await at.blobs.release(blob)
        self._held_changed(at, fetched)

    @staticmethod
    def _held_changed(at: Arena, nodes: set[Inode]) -> None:
        """Tell of what is held now, and with it of the state and of the blocks that `du` shows."""
        if nodes:
            with at.cache.write() as changes:
                changes.nodes |= nodes
                for node in nodes:
                    with contextlib.suppress(KeyError):  # it was deleted, and removed, while it was open
                        changes.touched.add(at.cache.tree.parent_and_name(node)[0])

    def used(self, arena: str, inode: Inode, content: Hash) -> None:
        """See `MountBackend.used`."""
        self._engine.arena(arena).blobs.used(content)

    async def fetch(
        self, arena: str, inode: Inode, content: Hash, size: int, start: int, end: int, readahead_bytes: int
    ) -> Fetched:
        """See `MountBackend.fetch`."""
        at = self._engine.arena(arena)
        links = self._engine.sources(at, inode, content, size)
        if not links and not self._covered(at, content, start, end):
            raise NoHolderError("no connected peer holds the content", hint=_NO_HOLDER_HINT)
        ahead = end, end + readahead_bytes
        if not self._streams(at, content, size, start, end):
            at.wanted_by(content, inode)
            await self._keep_open(at, inode, content, size)
            try:
                ranges = await at.fetcher.fetch_range(content, size, start, end, links, Priority.INTERACTIVE)
            except NoSpaceError as error:
                _log.info("%s: a file is streamed: %s", arena, error)
                self._note_streaming(at, content)
            else:
                if readahead_bytes and links:
                    at.fetcher.prefetch(content, size, *ahead, links)
                return Fetched(ranges)
        data = await at.fetcher.streams.read(content, size, start, end, links)
        if readahead_bytes:
            at.fetcher.streams.ahead(content, size, *ahead, links)
        return Fetched(ByteRanges(), data)

    def _streams(self, at: Arena, content: Hash, size: int, start: int, end: int) -> bool:
        """Say whether a part is to be streamed: the content could not be stored, and the part is not here."""
        use = self._uses.get((at.name, content))
        if use is not None and use.streams is None:
            use.streams = not at.blobs.could_hold(size)
        streams = use.streams if use is not None else not at.blobs.could_hold(size)
        return bool(streams) and not self._covered(at, content, start, end)

    def _note_streaming(self, at: Arena, content: Hash) -> None:
        use = self._uses.get((at.name, content))
        if use is not None:
            use.streams = True

    def _covered(self, at: Arena, content: Hash, start: int, end: int) -> bool:
        blob = at.blobs.info(content)
        return blob is not None and blob.ranges.covers(start, end)

    async def _keep_open(self, at: Arena, inode: Inode, content: Hash, size: int) -> None:
        use = self._uses.get((at.name, content))
        if use is None:
            return
        use.fetched.add(inode)
        if use.blob is not None:
            return
        try:
            blob = await at.blobs.create(content, size)
        except NoSpaceError:
            return
        # RACE: the file may have been closed, or another read have opened the blob, meanwhile.
        if use.blob is None and use.users > 0:
            use.blob = blob
        else:
            await at.blobs.release(blob)

    async def read_unhashed(
        self, arena: str, inode: Inode, vector: Vector, offset: int, length: int
    ) -> bytes:
        """See `MountBackend.read_unhashed`."""
        at = self._engine.arena(arena)
        try:
            path = at.cache.tree.path(inode)
        except KeyError:
            raise NoHolderError("the file was deleted everywhere") from None
        links = self._engine.holders_of_version(at, inode, vector)
        problem: Exception | None = None
        for link in links:
            try:
                return await self._read_from(link, at.name, path, vector, offset, length)
            except NetError as error:
                problem = error
        if isinstance(problem, RemoteError):
            raise ChangedError("the file is being changed by its peer", hint="read it again") from problem
        raise NoHolderError("no connected peer holds the file", hint=_NO_HOLDER_HINT) from problem

    @staticmethod
    async def _read_from(
        link: PeerLink, arena: str, path: RelPath, vector: Vector, offset: int, length: int
    ) -> bytes:
        return await link.read_version(arena, path, vector, offset, length)

    async def set_mark(self, arena: str, path: RelPath, mark: Mark | None) -> None:
        """See `MountBackend.set_mark`."""
        await self._apply_marks([MarkChange(ArenaPath(arena, path), mark)])

    async def status_json(self) -> bytes:
        """See `MountBackend.status_json`."""
        return await self._status_json()

    def degraded(self, reason: str) -> None:
        """See `MountBackend.degraded`."""
        if reason not in self._engine.health:
            self._engine.health.append(reason)
