"""Serving content to peers: by hash from real files and verified blobs, or an unhashed file by version.

Implements `core.ports.ContentProvider`. A real file is opened beneath its datadir without following
symlinks and must be the indexed file before and after it is read; else the peer is told *changed*.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from core.disk import READ_FLAGS, open_beneath
from core.errors import ChangedError
from core.placing import Identity
from core.types import BlockList, Hash, PeerKey, RelPath, Vector

if TYPE_CHECKING:
    from core.arena import Arena

SMALL_BYTES = 1024 * 1024
"""LIMIT: a content that is read whole for `read_small` (spec 5 §Transfer)."""
SMALL_TOTAL_BYTES = 4 * 1024 * 1024
"""LIMIT: what one `read_small` reads in all, so that no peer can fill the memory."""


class OpenFile:
    """A real file or blob opened for serving; a `core.ports.OpenContent`."""

    def __init__(self, fd: int, size: int, identity: Identity | None) -> None:
        """Take over the descriptor; ``identity`` None: the content cannot change (a blob)."""
        self.fd = fd
        self.size = size
        self._identity = identity

    def check(self) -> None:
        """See `OpenContent.check`."""
        if self._identity is not None and not self._identity.matches(os.fstat(self.fd)):
            raise ChangedError("the file was changed while it was read")

    def close(self) -> None:
        """See `OpenContent.close`."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Provider:
    """Finds and opens what peers ask for. Engine thread; reading happens in workers."""

    def __init__(self, arenas: Mapping[str, Arena]) -> None:
        """Serve from ``arenas``."""
        self._arenas = arenas
        self._limiter = trio.CapacityLimiter(2)

    def _arena(self, name: str) -> Arena:
        arena = self._arenas.get(name)
        if arena is None:
            raise ChangedError(f"no arena {name!r}")
        return arena

    def open_content(self, arena: str, content: Hash) -> OpenFile:
        """See `ContentProvider.open_content`."""
        at = self._arena(arena)
        for path, identity in at.copies.real_files(content):
            try:
                return self._open_real(at, path, identity)
            except (OSError, ChangedError):  # the next copy may be good; without one the blob decides
                continue
        moving = at.in_transit.get(content)
        if moving is not None:
            with suppress(FileNotFoundError):  # it was not taken out, or is in its place by now
                fd = os.open(moving, READ_FLAGS)
                return OpenFile(fd, os.fstat(fd).st_size, None)
        blob = at.blobs.info(content)
        if blob is None or not blob.held:
            raise ChangedError("the content is not held any more")
        return OpenFile(os.open(at.blobs.file_path(content), READ_FLAGS), blob.size, None)

    def _open_real(self, at: Arena, path: RelPath, identity: Identity) -> OpenFile:
        if at.datadir is None:
            raise ChangedError("the arena holds no real files")
        fd = _open_in(os.fsencode(at.datadir), path)
        opened = OpenFile(fd, identity.size, identity)
        try:
            opened.check()
        except ChangedError:
            opened.close()
            raise
        return opened

    def open_version(self, arena: str, path: RelPath, vector: Vector) -> OpenFile:
        """See `ContentProvider.open_version`."""
        at = self._arena(arena)
        identity = at.copies.real_version(path, vector)
        if identity is None:
            raise ChangedError("the file is not held at that version")
        try:
            return self._open_real(at, path, identity)
        except OSError as error:
            raise ChangedError(f"the file cannot be opened: {error.strerror}") from error

    async def read_small(self, arena: str, contents: Sequence[Hash]) -> list[bytes | None]:
        """See `ContentProvider.read_small`."""
        at = self._arena(arena)
        places: list[_Place | None] = []
        room = SMALL_TOTAL_BYTES
        for content in contents:
            place = self._small_place(at, content)
            size = place.identity.size if place is not None else 0
            # A peer may name anything as small: what is too much is not read, and it may ask again.
            fits = size <= min(room, SMALL_BYTES)
            places.append(place if fits else None)
            room -= size if fits else 0
        datadir = os.fsencode(at.datadir) if at.datadir is not None else b""
        read: Callable[[], list[bytes | None]] = lambda: _read_all(datadir, places)  # noqa: E731 - typed closure
        return await trio.to_thread.run_sync(read, limiter=self._limiter)

    def _small_place(self, at: Arena, content: Hash) -> _Place | None:
        blob = at.blobs.info(content)
        beside = os.fsencode(at.blobs.file_path(content)) if blob is not None and blob.held else None
        for path, identity in at.copies.real_files(content):
            moving = at.in_transit.get(content)
            return _Place(path, os.fsencode(moving) if moving is not None else beside, identity)
        if blob is not None and beside is not None:
            return _Place(None, beside, Identity(blob.size, 0, 0))
        return None

    async def blocks(self, arena: str, content: Hash) -> BlockList:
        """See `ContentProvider.blocks`."""
        at = self._arena(arena)
        known = at.blobs.block_lists.get(content)
        if known is not None:
            return known
        raise ChangedError("the content is not held any more")

    def have(self, arena: str, content: Hash) -> bool:
        """See `ContentProvider.have`."""
        at = self._arena(arena)
        blob = at.blobs.info(content)
        return (blob is not None and blob.held) or any(True for _ in at.copies.real_files(content))

    async def lease(
        self, peer: PeerKey, arena: str, paths: Sequence[RelPath], contents: Sequence[Hash]
    ) -> list[bool]:
        """See `ContentProvider.lease`."""
        at = self._arenas.get(arena)
        return await at.lender.grant(peer, paths, contents) if at is not None else [False] * len(paths)


class _Place:
    """Where a small content lies: a real file by path, or (if that is not to be had) a blob by its file."""

    __slots__ = ("blob", "identity", "path")

    def __init__(self, path: RelPath | None, blob: bytes | None, identity: Identity) -> None:
        self.path = path
        self.blob = blob
        self.identity = identity


def _open_in(datadir: bytes, path: RelPath) -> int:
    root_fd = os.open(datadir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(root_fd, path, READ_FLAGS)
    finally:
        os.close(root_fd)


def _read_all(datadir: bytes, places: list[_Place | None]) -> list[bytes | None]:
    root_fd = -1
    if datadir:
        with suppress(OSError):  # it may be away: what lies in blobs is held all the same
            root_fd = os.open(datadir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return [_read_place(root_fd, place) if place is not None else None for place in places]
    finally:
        if root_fd >= 0:
            os.close(root_fd)


def _read_place(root_fd: int, place: _Place) -> bytes | None:
    """Return the whole content, or None when it is not that version (the receiver asks elsewhere)."""
    data = None
    if place.path is not None and root_fd >= 0:
        with suppress(OSError):
            data = _read_whole(open_beneath(root_fd, place.path, READ_FLAGS), place.identity, real=True)
    if data is None and place.blob is not None:
        with suppress(OSError):
            data = _read_whole(os.open(place.blob, READ_FLAGS), place.identity, real=False)
    return data


def _read_whole(fd: int, identity: Identity, *, real: bool) -> bytes | None:
    """Read from a descriptor and close it; None: it is not that content. A blob cannot change."""
    try:
        data: Any = os.read(fd, identity.size + 1)
        if len(data) != identity.size or (real and not identity.matches(os.fstat(fd))):
            return None
        return bytes(data)
    finally:
        os.close(fd)
