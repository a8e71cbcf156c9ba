"""BLAKE3 of contents and their block lists, in one pass over the data (spec 4 §Blobs).

Functions that block: they run in workers. They know neither the store nor the watcher. A file is never
mapped into memory: a mapping of a file that someone truncates ends in SIGBUS.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from core import markattr
from core.disk import READ_FLAGS, is_gone, open_beneath
from core.ports import Hashed, Marked, Unhashed
from core.types import BlockList, Hash, RelPath, block_bytes_for

PIECE_BYTES = 1024 * 1024
"""LIMIT: read at once; small enough that both hashes find it in the processor's cache."""

BATCH_FILES = 200
"""LIMIT: files hashed in one trip to a worker."""

BATCH_BYTES = 8 * 1024 * 1024
"""LIMIT: bytes hashed in one trip to a worker, unless a single file is larger."""

FRESH_NS = 20_000_000
"""LIMIT: two ticks of the slowest clock that kernels stamp files with, 100 Hz."""

_buffers = threading.local()


class TruncatedError(Exception):
    """The content ended before its size was reached; it is being changed."""


def _buffer() -> memoryview:
    buffer: memoryview | None = getattr(_buffers, "view", None)
    if buffer is None:
        buffer = _buffers.view = memoryview(bytearray(PIECE_BYTES))
    return buffer


def _read_piece(fd: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            raise TruncatedError
        done += count


def hash_descriptor(
    fd: int, size: int, on_bytes: Callable[[int], None] | None = None
) -> tuple[Hash, BlockList | None]:
    """Hash the first ``size`` bytes of an open file; ``on_bytes(count)`` after each piece may raise.

    Raises:
        OSError: reading failed.
        TruncatedError: the file is shorter than ``size``.
    """
    block_bytes = block_bytes_for(size)
    whole = blake3()
    blocks = BlockHasher(block_bytes) if size > block_bytes else None
    buffer = _buffer()
    offset = 0
    while offset < size:
        view = buffer[: min(PIECE_BYTES, size - offset)]
        _read_piece(fd, view, offset)
        whole.update(view)
        if blocks is not None:
            blocks.update(view)
        offset += len(view)
        if on_bytes is not None:
            on_bytes(len(view))
    return Hash(whole.digest()), blocks.finish() if blocks is not None else None


class BlockHasher:
    """The block list of a content that comes in pieces of `PIECE_BYTES`, the last one shorter.

    INVARIANT: piece and block sizes are powers of two, so one is a multiple of the other.
    """

    def __init__(self, block_bytes: int) -> None:
        """Begin an empty content."""
        self._block_bytes = block_bytes
        self._hashes = bytearray()
        self._open = blake3()
        self._open_bytes = 0

    def update(self, view: memoryview) -> None:
        """Add the next piece."""
        block_bytes = self._block_bytes
        if block_bytes <= PIECE_BYTES:
            for start in range(0, len(view), block_bytes):
                self._hashes += blake3(view[start : start + block_bytes]).digest()
            return
        self._open.update(view)
        self._open_bytes += len(view)
        if self._open_bytes == block_bytes:
            self._close_block()

    def _close_block(self) -> None:
        self._hashes += self._open.digest()
        self._open = blake3()
        self._open_bytes = 0

    def finish(self) -> BlockList:
        """Return the list; nothing may be added afterwards."""
        if self._open_bytes:
            self._close_block()
        return BlockList(self._block_bytes, bytes(self._hashes))


def hash_file(path: str | bytes | os.PathLike[str]) -> tuple[Hash, BlockList | None]:
    """Hash a file of ours (a blob) by its path.

    Raises:
        OSError: it cannot be opened or read.
        TruncatedError: it shrank meanwhile.
    """
    fd = os.open(path, READ_FLAGS)
    try:
        return hash_descriptor(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


@dataclass(slots=True)
class Outcome:
    """What became of a batch: every path is in exactly one of the lists.

    ``again``: changed, changing, too fresh, or gone: to be looked at again. ``marks``: attributes of hashed
    files that have one; here because they are open here, and a scan opens none.
    """

    hashed: list[Hashed] = field(default_factory=list)
    again: list[RelPath] = field(default_factory=list)
    unreadable: list[tuple[RelPath, OSError]] = field(default_factory=list)
    marks: list[Marked] = field(default_factory=list)


def hash_batch(
    root_fd: int,
    files: Sequence[Unhashed],
    on_bytes: Callable[[int], None],
    now_ns: Callable[[], int] = time.time_ns,
) -> Outcome:
    """Hash files of a datadir that are as the index saw them; in a worker.

    What ``on_bytes`` raises ends the batch: that is how a long one is cancelled.
    """
    outcome = Outcome()
    for file in files:
        try:
            result = _hash_one(root_fd, file, on_bytes, now_ns, outcome.marks)
        except TruncatedError:
            outcome.again.append(file.path)
        except OSError as error:
            # RACE: a descriptor limit passes; what vanished or was swapped is looked at again.
            if is_gone(error) or error.errno in (errno.EMFILE, errno.ENFILE, errno.EXDEV, errno.ENXIO):
                outcome.again.append(file.path)
            else:
                outcome.unreadable.append((file.path, error))
        else:
            if result is None:
                outcome.again.append(file.path)
            else:
                outcome.hashed.append(result)
    return outcome


def _hash_one(
    root_fd: int,
    file: Unhashed,
    on_bytes: Callable[[int], None],
    now_ns: Callable[[], int],
    marks: list[Marked],
) -> Hashed | None:
    path, size, mtime_ns, ino, _ = file
    # RACE: a write in the same clock tick as the last one leaves no trace in the mtime. A file is
    # hashed only once that tick is over: then any write from here on changes the mtime.
    if abs(now_ns() - mtime_ns) < FRESH_NS:
        return None
    fd = open_beneath(root_fd, path, one_device=True)
    try:
        if size <= 131072:
            data = os.read(fd, size + 1)
            if len(data) != size:
                return None
            digest, blocks = Hash(blake3(data).digest()), None
            on_bytes(size)
        else:
            digest, blocks = hash_descriptor(fd, size, on_bytes)
        # INVARIANT: the stat that the index recorded is the "before"; equal after the last read, so
        # nothing changed in between.
        after = os.fstat(fd)
        mark = markattr.read(fd)
    finally:
        os.close(fd)
    if after.st_size != size or after.st_mtime_ns != mtime_ns or after.st_ino != ino:
        return None
    if mark:
        marks.append(Marked(path, ino, mark))
    return Hashed(path, size, mtime_ns, ino, digest, blocks)
