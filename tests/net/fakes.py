"""A household and a content provider over a plain directory, for tests of the network alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio
from blake3 import blake3

from core.announce import Batch
from core.errors import ChangedError
from core.ports import PeerLink
from core.types import BlockList, Hash, PeerKey, RelPath, Vector, block_bytes_for


class FileContent:
    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        self._before = os.fstat(self.fd)
        self.size = self._before.st_size
        self.closed = False

    def check(self) -> None:
        now = os.fstat(self.fd)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise ChangedError("the file changed while it was read")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self.fd)


@dataclass
class DirectoryContent:
    """Serves the files of one directory per arena, by hash."""

    paths: dict[tuple[str, Hash], Path] = field(default_factory=dict)
    versions: dict[tuple[str, RelPath, Vector], Path] = field(default_factory=dict)
    opened: list[FileContent] = field(default_factory=list)
    lent: set[tuple[PeerKey, RelPath, Hash]] = field(default_factory=set)

    def add(self, arena: str, path: Path, data: bytes) -> Hash:
        path.write_bytes(data)
        content = Hash(blake3(data).digest())
        self.paths[arena, content] = path
        return content

    def open_content(self, arena: str, content: Hash) -> FileContent:
        return self._open(self.paths.get((arena, content)))

    def open_version(self, arena: str, path: RelPath, vector: Vector) -> FileContent:
        return self._open(self.versions.get((arena, path, vector)))

    def _open(self, path: Path | None) -> FileContent:
        if path is None:
            raise ChangedError("this version is not held any more")
        content = FileContent(path)
        self.opened.append(content)
        return content

    async def read_small(self, arena: str, contents: Sequence[Hash]) -> list[bytes | None]:
        paths = [self.paths.get((arena, content)) for content in contents]
        return await trio.to_thread.run_sync(_read_all, paths)

    async def blocks(self, arena: str, content: Hash) -> BlockList:
        opened = self.open_content(arena, content)
        try:
            size = block_bytes_for(opened.size)
            hashes = [blake3(os.pread(opened.fd, size, at)).digest() for at in range(0, opened.size, size)]
        finally:
            opened.close()
        return BlockList(size, b"".join(hashes))

    def have(self, arena: str, content: Hash) -> bool:
        return (arena, content) in self.paths

    async def lease(
        self, peer: PeerKey, arena: str, paths: Sequence[RelPath], contents: Sequence[Hash]
    ) -> list[bool]:
        await trio.lowlevel.checkpoint()
        return [(peer, *one) in self.lent for one in zip(paths, contents, strict=True)]


def _read_all(paths: list[Path | None]) -> list[bytes | None]:
    return [None if path is None else path.read_bytes() for path in paths]


@dataclass
class MemoryHousehold:
    """Announces what it was given, then waits; notes what it is told."""

    batches: dict[str, list[Batch]] = field(default_factory=dict)
    acknowledgements: list[tuple[PeerKey, str, bytes, int]] = field(default_factory=list)
    subscribers: list[tuple[PeerKey, str, bytes, int]] = field(default_factory=list)
    links: list[PeerLink] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    def _note(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, count: int) -> None:
        """Wait until so many links are up."""
        while len(self.links) != count:
            await self.changed.wait()

    def link_up(self, link: PeerLink) -> None:
        self.links.append(link)
        self.log.append(f"up {link.name}")
        self._note()

    def link_down(self, link: PeerLink, reason: str) -> None:
        self.links.remove(link)
        self.log.append(f"down {link.name}")
        self._note()

    async def announcements(self, peer: PeerKey, arena: str, uuid: bytes, seq: int) -> AsyncIterator[Batch]:
        self.subscribers.append((peer, arena, uuid, seq))
        try:
            for batch in self.batches.get(arena, []):
                yield batch
            await trio.sleep_forever()
        finally:
            self.subscribers.remove((peer, arena, uuid, seq))
            self._note()

    def acknowledged(self, peer: PeerKey, arena: str, uuid: bytes, seq: int) -> None:
        self.acknowledgements.append((peer, arena, uuid, seq))
        self._note()
