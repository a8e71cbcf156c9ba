"""Opening a file: which source serves it, and whether the kernel may keep its pages. Mount thread."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from core.arena_reader import ArenaReader
from core.blobshelf import blob_name
from core.disk import READ_FLAGS, open_beneath, open_root
from core.errors import ChangedError
from core.loops import TrioThread
from core.ports import MountBackend
from core.reader import TreeReader
from core.types import Hash, Holding, Inode
from fuse.generated import Generated
from fuse.sources import BlobSource, FileSource, Source, UnhashedSource
from fuse.view import Place

_log = logging.getLogger("realize.fuse.content")

_REMEMBERED = 65_536
"""LIMIT: inodes of which is known what the kernel may have cached."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A source and how the kernel may cache it. ``version`` None: never."""

    source: Source
    version: Hashable | None
    content: Hash | None = None
    """The blob it is read from, if it is one that is whole."""


class ContentOpener:
    """Opens the content of nodes."""

    def __init__(self, tree: TreeReader, backend: MountBackend, engine: TrioThread, timeout_s: float) -> None:
        """Open what ``tree`` shows; ``timeout_s`` bounds how long a read waits without progress."""
        self._tree, self._backend, self._engine, self._timeout_s = tree, backend, engine, timeout_s
        self._roots: dict[Path, int] = {}

    def close(self) -> None:
        """Close the directories."""
        for fd in self._roots.values():
            os.close(fd)
        self._roots.clear()

    def open(self, place: Place) -> Opened:
        """Open the shown version of a file.

        Raises:
            ChangedError: it is not there as it is shown.
            OSError: it cannot be opened.
        """
        node = place.node
        if node.local == Holding.REAL:
            return self._open_real(place)
        inode = Inode(node.id)
        if node.hash is None:
            source = UnhashedSource(
                self._backend, self._engine, place.arena, inode, node.vector, node.size, self._timeout_s
            )
            return Opened(source, None)
        whole = self._open_whole(place.arena, place.reader, node.hash, node.size)
        return whole or self._open_part(place.arena, inode, node.hash, node.size)

    def open_missing(self, place: Place) -> Opened | None:
        """Open from other holders what is shown as a real file and not in the datadir; None if nobody has it.

        So it is while a deletion waits for the user's word, or while the datadir itself is away.
        """
        node = place.node
        if node.local != Holding.REAL or node.hash is None or not place.reader.holders(node):
            return None
        whole = self._open_whole(place.arena, place.reader, node.hash, node.size)
        return whole or self._open_part(place.arena, Inode(node.id), node.hash, node.size)

    def _open_part(self, arena: str, inode: Inode, content: Hash, size: int) -> Opened:
        blobs = self._tree.config(arena).workdir / "blobs"
        source = BlobSource(
            self._backend, self._engine, arena, inode, content, size,
            lambda: self._open_blob(blobs, content), self._timeout_s,
        )  # fmt: skip
        return Opened(source, content)

    def open_version(self, version: Generated) -> Opened:
        """Open a version in conflict, or a content in the trash.

        Raises:
            ChangedError: it is not there any more.
            OSError: it cannot be opened.
        """
        content = version.hash
        if content is None:
            raise ChangedError("the version is not hashed yet")
        reader = self._tree.arena(version.arena)
        whole = self._open_whole(version.arena, reader, content, version.size)
        if whole is not None:
            return whole
        if not version.node:
            raise ChangedError("it is not in the trash any more")
        node = reader.node(version.node)
        if node is not None and node.local == Holding.REAL and node.hash == content:
            return self._open_real(Place(version.arena, reader, node))
        return self._open_part(version.arena, Inode(version.node), content, version.size)

    def _open_real(self, place: Place) -> Opened:
        datadir = self._tree.config(place.arena).datadir
        if datadir is None:
            raise ChangedError("the arena has no datadir any more")
        fd = self._open_beneath(datadir, place.reader.path(place.node.id))
        found, node = os.fstat(fd), place.node
        if (found.st_size, found.st_mtime_ns) != (node.size, node.mtime_ns):
            # Changed on disk and not indexed yet: served as it is, and no page of it is kept.
            return Opened(FileSource(fd, None), None)
        version = node.hash or (found.st_ino, found.st_size, found.st_mtime_ns)
        return Opened(FileSource(fd, None), version)

    def _open_whole(self, arena: str, reader: ArenaReader, content: Hash, size: int) -> Opened | None:
        blob = reader.blob(content)
        if blob is None or not blob.whole or blob.size != size:
            return None
        try:
            fd = self._open_blob(self._tree.config(arena).workdir / "blobs", content)
        except FileNotFoundError:
            # RACE: evicted since; once open it would stay readable.
            return None
        return Opened(FileSource(fd, blob.size), content, content)

    def _open_blob(self, blobs: Path, content: Hash) -> int:
        return self._open_beneath(blobs, blob_name(content).encode())

    def _open_beneath(self, root: Path, path: bytes) -> int:
        fd = self._roots.get(root)
        if fd is None:
            fd = self._roots[root] = open_root(root)
        try:
            return open_beneath(fd, path, READ_FLAGS)
        except FileNotFoundError:
            # The directory itself may have been replaced since it was opened.
            os.close(self._roots.pop(root))
            fd = self._roots[root] = open_root(root)
            return open_beneath(fd, path, READ_FLAGS)


class KernelCache:
    """What the kernel may have in its page cache of each inode.

    INVARIANT: pages of an inode belong to one version. The kernel has one cache for an inode, whoever
    opened it: while a handle of one version may fill it, handles of another go past it (direct).
    """

    def __init__(self) -> None:
        """Know nothing, as after mounting."""
        self._cached: OrderedDict[int, Hashable] = OrderedDict()
        self._filling: dict[int, tuple[Hashable, int]] = {}

    def opened(self, inode: int, version: Hashable | None) -> tuple[bool, bool]:
        """Take in an open; return whether it is ``(direct, keep_cache)``."""
        filling = self._filling.get(inode)
        if version is None or (filling is not None and filling[0] != version):
            return True, True
        self._filling[inode] = (version, filling[1] + 1 if filling else 1)
        keep = self._cached.get(inode) == version
        self._cached[inode] = version
        self._cached.move_to_end(inode)
        if len(self._cached) > _REMEMBERED:
            self._cached.popitem(last=False)
        return False, keep

    def has_open(self, inode: int) -> bool:
        """Say whether a handle may be filling the cache now; any thread."""
        return inode in self._filling

    def forget(self, inode: int) -> None:
        """The pages of an inode are about to be dropped; any thread."""
        self._cached.pop(inode, None)

    def closed(self, inode: int, *, direct: bool) -> None:
        """Take in a close of what `opened` said."""
        filling = self._filling.get(inode)
        if direct or filling is None:
            return
        if filling[1] > 1:
            self._filling[inode] = (filling[0], filling[1] - 1)
        else:
            del self._filling[inode]
