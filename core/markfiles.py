"""Writing explicit marks to the attribute ``user.realize.mark`` of what is real in a datadir.

Reading happens where the index looks at a path anyway; `LocalStore.marked` takes over what was read.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from core.disk import DIR_FLAGS, open_beneath
from core.errors import StoreError
from core.markattr import ATTRIBUTE, parse
from core.types import Holding, RelPath

if TYPE_CHECKING:
    from core.arena import Arena

_log = logging.getLogger("realize.core.markfiles")

_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class MarkFile(NamedTuple):
    """An attribute to write: ``known`` is what it was last, ``wanted`` what it should be; ``b""``: none.

    ``ino`` is 0 for the root, which the index keeps an eye on.
    """

    node: int
    path: RelPath
    ino: int
    known: bytes
    wanted: bytes


def write(datadir: Path, items: Sequence[MarkFile]) -> list[bool]:
    """Write attributes; in a worker. Says of each whether it is as wanted now.

    What is not the file that was meant, or has another mark than it was known to have, is left alone:
    the index is about to see it.

    Raises:
        OSError: the datadir cannot be opened.
    """
    root_fd = os.open(datadir, DIR_FLAGS)
    try:
        return [_write_one(root_fd, item) for item in items]
    finally:
        os.close(root_fd)


def _write_one(root_fd: int, item: MarkFile) -> bool:
    try:
        fd = open_beneath(root_fd, item.path, _PATH_FLAGS)
    except OSError as error:
        _log.debug("%r: mark not written: %s", item.path, error)
        return False
    at = b"/proc/self/fd/%d" % fd
    try:
        if item.path and os.fstat(fd).st_ino != item.ino:
            return False
        current = _current(at)
        if current not in (item.known, item.wanted) and parse(current) is not None:
            return False
        if item.wanted:
            os.setxattr(at, ATTRIBUTE, item.wanted)
        elif current:
            os.removexattr(at, ATTRIBUTE)
    except OSError as error:
        _log.debug("%r: mark not written: %s", item.path, error)
        return False
    else:
        return True
    finally:
        os.close(fd)


def _current(at: bytes) -> bytes:
    # Through the magic link of an O_PATH descriptor, which must be followed.
    try:
        return os.getxattr(at, ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return b""


class MarkWriter:
    """Keeps the attributes of an arena's real paths what its explicit marks are."""

    def __init__(self, arena: Arena) -> None:
        """Write for ``arena``; nothing happens before `run`."""
        self._arena = arena
        self._wake = trio.Event()
        arena.cache.listen(lambda _: self.wake())

    def wake(self) -> None:
        """Look for attributes to be written."""
        if self._arena.cache.marks.unwritten:
            self._wake.set()

    async def run(self) -> None:
        """Write for ever what is to be written, while the datadir is in its place."""
        datadir, marks = self._arena.datadir, self._arena.cache.marks
        if datadir is None:
            return
        await self._arena.looked_at.wait()
        while True:
            if marks.unwritten and not self._arena.offline:
                try:
                    await self._write(datadir)
                except StoreError as error:
                    self._arena.trouble.found(error)
                    await self._arena.trouble.wait()
                    continue
            await self._wake.wait()
            self._wake = trio.Event()

    async def _write(self, datadir: Path) -> None:
        # The index must not read between the attribute and what is remembered of it.
        async with self._arena.exclusive():
            items = self._items()
            if not items:
                return
            try:
                with trio.CancelScope(shield=True):
                    written = await trio.to_thread.run_sync(write, datadir, items)
            except OSError as error:
                _log.debug("marks of %s are not written: %s", self._arena.name, error)
                return
            cache = self._arena.cache
            with cache.write():
                for item, done in zip(items, written, strict=True):
                    if done:
                        cache.marks.set_file(item.node, item.ino, item.wanted)

    def _items(self) -> list[MarkFile]:
        """Return what is to be written of the real ones among the unwritten; the others are forgotten."""
        cache = self._arena.cache
        items = []
        for node in cache.marks.take_unwritten():
            ino = 0
            if node != cache.root:
                row: Any = cache.conn.execute(
                    "SELECT ino FROM entry WHERE node = ? AND peer = 0 AND holding = ? AND kind <> 3",
                    (node, int(Holding.REAL)),
                ).fetchone()
                if row is None:
                    continue
                ino = int(row[0])
            mark = cache.marks.explicit(node)
            wanted = mark.value.encode() if mark is not None else b""
            known = cache.marks.file_value(node, ino)
            if wanted != known:
                items.append(MarkFile(node, cache.tree.path(node), ino, known, wanted))
        return items
