"""Where the bytes of an open file come from: a file on disk, a blob that is being filled, a peer, memory.

A source first tries without waiting (`read_now`, inline in the mount thread), and waits only if it must.
What `read_now` returns may be a buffer that the next `read_now` writes over: pyfuse3 copies it before
any other handler runs.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import trio

from core.byteranges import ByteRanges
from core.errors import ChangedError, NoHolderError
from core.loops import TrioThread
from core.ports import Fetched, MountBackend
from core.types import Hash, Inode, Vector
from fuse.readahead import ReadAhead

_log = logging.getLogger("realize.fuse.sources")

Buffer = bytes | memoryview

MAX_READ_BYTES = 1024 * 1024
"""LIMIT: the largest read that the kernel sends (256 pages)."""
_DISK_AHEAD_BYTES = 8 * 1024 * 1024
"""LIMIT: read ahead of sequential readers from the disk, whose own read-ahead is 128 KiB as a rule."""
_STALL_REMEMBERED_S = 0.25

_shared = memoryview(bytearray(MAX_READ_BYTES))
_NOT_NOW = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Source(Protocol):
    """The bytes of one open file. Mount thread."""

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """Return what is asked for, short only at the end; None when it cannot be had without waiting."""
        ...

    async def read(self, offset: int, length: int) -> Buffer:
        """Return what is asked for, short only at the end."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class BytesSource:
    """A content that is all in memory."""

    def __init__(self, data: bytes) -> None:
        """Serve ``data``."""
        self._data = data

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """See `Source`."""
        return self._data[offset : offset + length]

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Source`."""
        await trio.lowlevel.checkpoint()
        return self._data[offset : offset + length]

    def close(self) -> None:
        """See `Source`."""


class FileSource:
    """A file on disk: real, or a whole blob. ``size``: where it ends, None: wherever it ends now."""

    def __init__(self, fd: int, size: int | None) -> None:
        """Serve ``fd``, which it owns from now on."""
        self._fd = fd
        self._size = size
        self._read_ahead = ReadAhead()
        self._advised = 0

    def _cut(self, offset: int, length: int) -> int:
        return min(length, MAX_READ_BYTES) if self._size is None else max(0, min(length, self._size - offset))

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """See `Source`; only from the page cache."""
        length = self._cut(offset, length)
        if length > MAX_READ_BYTES:
            return None
        try:
            count = os.preadv(self._fd, [_shared[:length]], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return None
            raise
        if count != length and count != 0:
            return None
        self._advise(offset, offset + length)
        return _shared[:count]

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Source`; a worker waits for the disk."""
        length = self._cut(offset, length)
        self._advise(offset, offset + length)
        return await trio.to_thread.run_sync(os.pread, self._fd, length, offset)

    def _advise(self, offset: int, end: int) -> None:
        """Have the disk read ahead of a sequential reader, so that the next reads need not wait."""
        ahead = min(self._read_ahead.note(offset, end), _DISK_AHEAD_BYTES)
        if not ahead:
            self._advised = 0
        elif self._advised < end + ahead // 2:
            start = max(end, self._advised)
            self._advised = end + ahead
            os.posix_fadvise(self._fd, start, self._advised - start, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """See `Source`."""
        os.close(self._fd)


class BlobSource:
    """A content that is not whole here: what is missing is fetched by the engine as it is read.

    The blob file is opened after the first fetch, when the engine knows that it is in use. ``ranges``
    can be read from it until this is closed.
    """

    def __init__(
        self,
        backend: MountBackend,
        engine: TrioThread,
        arena: str,
        inode: Inode,
        content: Hash,
        size: int,
        open_blob: Callable[[], int],
        timeout_s: float,
    ) -> None:
        """Tell the engine that the content is open; ``open_blob`` opens its file."""
        self._backend, self._engine = backend, engine
        self._arena, self._inode, self._content, self._size = arena, inode, content, size
        self._open_blob = open_blob
        self._timeout_s = timeout_s
        self._file: FileSource | None = None
        self._ranges = ByteRanges()
        self._read_ahead = ReadAhead()
        self._prefetch: Future[Fetched] | None = None
        self._stalled_until = 0.0
        engine.post(backend.opened, arena, content, size)

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """See `Source`."""
        end = min(offset + length, self._size)
        if offset >= end:
            return b""
        if self._file is None or not self._ranges.covers(offset, end):
            return None
        ahead = self._read_ahead.note(offset, end)
        if ahead:
            self._start_prefetch(end, min(self._size, end + ahead))
        return self._file.read_now(offset, end - offset)

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Source`.

        Raises:
            NoHolderError: nobody gives it, or nothing came for the time-out.
        """
        end = min(offset + length, self._size)
        ahead = self._read_ahead.note(offset, end)
        parts: list[Buffer] = []
        at = offset
        while at < end:
            reached = _covered_up_to(self._ranges, at, end)
            if reached > at:
                try:
                    parts.append(await self._read_file(at, reached, last=reached == end))
                except FileNotFoundError:
                    # RACE: the user evicted it after the fetch and before the file was opened here.
                    self._ranges = ByteRanges()
                    continue
                at = reached
                continue
            fetched = await self._fetch(at, end, ahead)
            if fetched.data:  # it is not stored, or not any more
                parts.append(fetched.data[: end - at])
                at += len(parts[-1])
            elif _covered_up_to(fetched.ranges, at, end) == at:
                raise ChangedError("the engine fetched nothing")
            else:
                self._ranges = fetched.ranges
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_file(self, start: int, end: int, *, last: bool) -> Buffer:
        if self._file is None:
            self._file = FileSource(self._open_blob(), self._size)
        data = self._file.read_now(start, end - start)
        if data is None:
            return await self._file.read(start, end - start)
        return data if last else bytes(data)  # the buffer is written over while the rest is waited for

    async def _fetch(self, start: int, end: int, ahead: int) -> Fetched:
        # The kernel asks for a page again at once when its read-ahead failed: that must not wait twice.
        if trio.current_time() < self._stalled_until:
            raise NoHolderError("nothing came", hint="see `realize peer list`")
        try:
            with trio.fail_after(self._timeout_s):
                return await self._engine.call(
                    self._backend.fetch,
                    self._arena,
                    self._inode,
                    self._content,
                    self._size,
                    start,
                    end,
                    ahead,
                )
        except trio.TooSlowError:
            self._stalled_until = trio.current_time() + _STALL_REMEMBERED_S
            raise NoHolderError(
                f"nothing came for {self._timeout_s:g} s", hint="see `realize peer list`"
            ) from None

    def _start_prefetch(self, start: int, end: int) -> None:
        """Fetch on in the background, so that a sequential reader never waits."""
        if self._prefetch is not None and not self._prefetch.done():
            return
        if self._prefetch is not None and self._prefetch.exception() is None:
            self._ranges = self._ranges.union(self._prefetch.result().ranges)
            self._prefetch = None
        at = _covered_up_to(self._ranges, start, end)
        if end - at <= (end - start) // 2:
            return
        self._prefetch = self._engine.submit(
            self._backend.fetch, self._arena, self._inode, self._content, self._size, at, at + 1, end - at - 1
        )

    def close(self) -> None:
        """See `Source`."""
        if self._prefetch is not None:
            self._prefetch.cancel()
        if self._file is not None:
            self._file.close()
        self._engine.post(self._backend.closed, self._arena, self._content)


class UnhashedSource:
    """A file of a peer that has no hash yet: read through, never stored."""

    def __init__(
        self,
        backend: MountBackend,
        engine: TrioThread,
        arena: str,
        inode: Inode,
        vector: Vector,
        size: int,
        timeout_s: float,
    ) -> None:
        """Serve that version of the file."""
        self._backend, self._engine = backend, engine
        self._arena, self._inode, self._vector, self._size = arena, inode, vector, size
        self._timeout_s = timeout_s

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """See `Source`."""
        return b"" if offset >= self._size else None

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Source`.

        Raises:
            NoHolderError: nobody gives it, or nothing came for the time-out.
            ChangedError: the file changed.
        """
        length = min(length, self._size - offset, MAX_READ_BYTES)
        try:
            with trio.fail_after(self._timeout_s):
                data = await self._engine.call(
                    self._backend.read_unhashed, self._arena, self._inode, self._vector, offset, length
                )
        except trio.TooSlowError:
            raise NoHolderError(f"nothing came for {self._timeout_s:g} s") from None
        if len(data) != length:
            raise ChangedError("the file changed while it was read")
        return data

    def close(self) -> None:
        """See `Source`."""


def _covered_up_to(ranges: ByteRanges, start: int, end: int) -> int:
    """Return how far the bytes from ``start`` on are held, at most ``end``."""
    for first, last in ranges:
        if first <= start < last:
            return min(last, end)
        if first > start:
            break
    return start
