"""The seam to the files of the blob store: every system call on content goes through a `Disk`.

`LocalDisk` is the real one; tests put one in its place that fails, tears or corrupts. Methods block
and are called in workers, except where the caller knows better. ``OSError`` becomes `NoSpaceError` or
`StoreError` here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from core.byteranges import ByteRanges
from core.errors import NoSpaceError, StoreError

Buffer = bytes | bytearray | memoryview

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_FICLONE = 0x40049409
_COPY_BYTES = 8 * 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.syncfs.argtypes = (ctypes.c_int,)


class FileFacts(NamedTuple):
    """What ``stat`` says of a file; ``disk_bytes`` are its blocks in use, ``ctime_ns`` its last change.

    A tuple: a start makes one of each blob.
    """

    size: int
    disk_bytes: int
    regular: bool
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Size of a filesystem and what is free for us, bytes."""

    total_bytes: int
    free_bytes: int
    block_bytes: int


class Disk(Protocol):
    """System calls on content files. Names are relative to the directory ``dir_fd``."""

    def create(self, dir_fd: int, name: str, size: int) -> int:
        """Create an empty sparse file of ``size`` bytes, or cut an existing one; return its descriptor."""
        ...

    def open(self, dir_fd: int, name: str) -> int:
        """Open a regular file for reading and writing, no symlink followed; ``FileNotFoundError`` as is."""
        ...

    def put(self, dir_fd: int, name: str, data: Buffer, *, cut: bool) -> int:
        """Write a whole small file, over an existing one, which is emptied first if ``cut``; not flushed.

        Returns its change time, in ns.
        """
        ...

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from the file; `StoreError` when it ends early."""
        ...

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        """Write all of ``data``."""
        ...

    def sync(self, fd: int) -> None:
        """Flush the data of a file (or the names in a directory) to the disk."""
        ...

    def sync_all(self, fd: int) -> None:
        """Flush the whole filesystem that ``fd`` is on."""
        ...

    def facts(self, fd: int) -> FileFacts:
        """Return the facts of an open file."""
        ...

    def facts_at(self, dir_fd: int, name: str) -> FileFacts:
        """Return the facts of a name, no symlink followed; ``FileNotFoundError`` as is."""
        ...

    def look(self, dir_fd: int, name: str) -> dict[str, FileFacts]:
        """Return the names in a directory and the facts of each, no symlink followed."""
        ...

    def truncate(self, fd: int, size: int) -> None:
        """Set the size of a file."""
        ...

    def punch(self, fd: int, start: int, end: int) -> None:
        """Give the blocks of ``[start, end)`` back; the bytes read as zeros then."""
        ...

    def written(self, fd: int, size: int) -> ByteRanges:
        """Return what of the first ``size`` bytes was ever written, as far as the filesystem knows."""
        ...

    def unlink(self, dir_fd: int, name: str) -> None:
        """Remove a name; one that is gone already is fine."""
        ...

    def rename(self, from_fd: int, source: str | bytes, to_fd: int, target: str | bytes) -> None:
        """Rename between two directories, replacing the target; ``FileNotFoundError`` as is."""
        ...

    def copy(self, fd: int, size: int, to_fd: int, target: str | bytes) -> None:
        """Copy an open file to a new name, sharing blocks where the filesystem can; flushed."""
        ...

    def space(self, fd: int) -> DiskSpace:
        """Return the size and the free space of the filesystem."""
        ...


def _ours(error: OSError, what: str) -> StoreError:
    text = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return NoSpaceError(text, hint="free space on that disk, or lower `leave`")
    return StoreError(text, hint="run `realize doctor`")


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _ours(error, what) from error


_NEW = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PUT = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PUT_CUT = _PUT | os.O_TRUNC


class LocalDisk:
    """The real `Disk`."""

    def create(self, dir_fd: int, name: str, size: int) -> int:
        """See `Disk`."""
        with _translated(f"cannot create {name}"):
            fd = os.open(name, _NEW, 0o600, dir_fd=dir_fd)
            try:
                os.ftruncate(fd, size)
            except OSError:
                os.close(fd)
                raise
        return fd

    def open(self, dir_fd: int, name: str) -> int:
        """See `Disk`."""
        with _translated(f"cannot open {name}"):
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise StoreError(f"{name} is not a regular file", hint="remove it from the blob directory")
        return fd

    def put(self, dir_fd: int, name: str, data: Buffer, *, cut: bool) -> int:
        """See `Disk`."""
        # No context manager here: this runs once for each of many thousand small files.
        try:
            fd = os.open(name, _PUT_CUT if cut else _PUT, 0o600, dir_fd=dir_fd)
            try:
                done = os.write(fd, data)
                if done != len(data):
                    _write_rest(fd, data, done)
                return os.fstat(fd).st_ctime_ns
            finally:
                os.close(fd)
        except OSError as error:
            raise _ours(error, f"cannot write {name}") from error

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> None:
        """See `Disk`."""
        done = 0
        with _translated("cannot read content"):
            while done < len(buffer):
                count = os.preadv(fd, [buffer[done:]], offset + done)
                if count == 0:
                    raise StoreError("a content file is shorter than it was", hint="run `realize verify`")
                done += count

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        """See `Disk`."""
        with _translated("cannot write content"):
            done = os.pwrite(fd, data, offset)
            while done < len(data):
                done += os.pwrite(fd, memoryview(data)[done:], offset + done)

    def sync(self, fd: int) -> None:
        """See `Disk`."""
        with _translated("cannot flush content"):
            os.fdatasync(fd)

    def sync_all(self, fd: int) -> None:
        """See `Disk`."""
        with _translated("cannot flush the filesystem"):
            if _libc.syncfs(fd):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

    def facts(self, fd: int) -> FileFacts:
        """See `Disk`."""
        return _facts(os.fstat(fd))

    def facts_at(self, dir_fd: int, name: str) -> FileFacts:
        """See `Disk`."""
        with _translated(f"cannot look at {name}"):
            return _facts(os.stat(name, dir_fd=dir_fd, follow_symlinks=False))

    def look(self, dir_fd: int, name: str) -> dict[str, FileFacts]:
        """See `Disk`."""
        with _translated(f"cannot list {name}"):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            try:
                with os.scandir(fd) as entries:
                    return {entry.name: _facts(entry.stat(follow_symlinks=False)) for entry in entries}
            finally:
                os.close(fd)

    def truncate(self, fd: int, size: int) -> None:
        """See `Disk`."""
        with _translated("cannot set the size of a content file"):
            os.ftruncate(fd, size)

    def punch(self, fd: int, start: int, end: int) -> None:
        """See `Disk`."""
        with _translated("cannot give blocks back"):
            if _libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, start, end - start):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

    def written(self, fd: int, size: int) -> ByteRanges:
        """See `Disk`; where holes are not told apart, it is all of the file."""
        ranges: list[tuple[int, int]] = []
        with _translated("cannot look for what was written"):
            at = 0
            while at < size and (at := _seek_data(fd, at)) < size:
                end = os.lseek(fd, at, os.SEEK_HOLE)
                ranges.append((at, min(end, size)))
                at = end
        return ByteRanges(ranges)

    def unlink(self, dir_fd: int, name: str) -> None:
        """See `Disk`."""
        with _translated(f"cannot remove {name}"), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=dir_fd)

    def rename(self, from_fd: int, source: str | bytes, to_fd: int, target: str | bytes) -> None:
        """See `Disk`."""
        with _translated(f"cannot rename {source!r}"):
            os.rename(source, target, src_dir_fd=from_fd, dst_dir_fd=to_fd)

    def copy(self, fd: int, size: int, to_fd: int, target: str | bytes) -> None:
        """See `Disk`."""
        with _translated(f"cannot copy to {target!r}"):
            out = os.open(target, _NEW | os.O_EXCL, 0o600, dir_fd=to_fd)
            try:
                if not _cloned(fd, out):
                    _copy_range(fd, out, size)
                os.fdatasync(out)
            except OSError:
                os.unlink(target, dir_fd=to_fd)
                raise
            finally:
                os.close(out)

    def space(self, fd: int) -> DiskSpace:
        """See `Disk`."""
        with _translated("cannot measure the disk"):
            facts = os.fstatvfs(fd)
        return DiskSpace(facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize, facts.f_frsize)


def _write_rest(fd: int, data: Buffer, done: int) -> None:
    view = memoryview(data)
    while done < len(view):
        done += os.write(fd, view[done:])


def _seek_data(fd: int, at: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return sys.maxsize  # nothing but a hole up to the end


def _facts(result: os.stat_result) -> FileFacts:
    return FileFacts(result.st_size, result.st_blocks * 512, stat.S_ISREG(result.st_mode), result.st_ctime_ns)


def _cloned(fd: int, out: int) -> bool:
    try:
        fcntl.ioctl(out, _FICLONE, fd)
    except OSError:
        return False  # not every filesystem shares blocks; then the bytes are copied
    return True


def _copy_range(fd: int, out: int, size: int) -> None:
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(fd, out, min(_COPY_BYTES, size - done), done, done)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            data = os.pread(fd, _COPY_BYTES, done)
            count = os.pwrite(out, data, done)
        if count == 0:
            raise OSError(errno.EIO, "the source ended early")
        done += count
