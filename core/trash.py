"""Content that was replaced or deleted: it goes to *pending removal* in the blob store, not to nothing."""

from __future__ import annotations

import enum
import logging
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import trio
from blake3 import blake3

from core import filelease
from core.blobdisk import LocalDisk
from core.blobrows import Area
from core.blobs import BlobStore
from core.disk import DIR_FLAGS, READ_FLAGS
from core.errors import ChangedError, StoreError
from core.types import HASH_BYTES, Hash

_log = logging.getLogger("realize.core.trash")

_BLOB_MODE = 0o600


def displaced_name(content: bytes | None, node: int, counter: int) -> str:
    """Return the name under which a file taken out of the datadir waits in the work directory.

    ``counter`` makes it one that was never used: what lies there must not be replaced.
    """
    return f"old-{content.hex() if content else 'unhashed'}-{node}-{counter}"


@dataclass(frozen=True, slots=True)
class Displaced:
    """A file that was taken out of the datadir, as it was there."""

    hash: Hash
    size: int
    mtime_ns: int
    mode: int


def displaced_node(path: Path) -> int:
    """Return the node whose file waits under a `displaced_name`; 0 if the name does not tell."""
    parts = path.name.split("-")
    return int(parts[2]) if len(parts) == 4 and parts[2].isdigit() else 0


def displaced_hash(path: Path) -> Hash | None:
    """Return the content that a displaced file was indexed with; None if its name does not tell."""
    parts = path.name.split("-")
    try:
        content = bytes.fromhex(parts[1])
    except (IndexError, ValueError):
        return None
    return Hash(content) if len(content) == HASH_BYTES else None


class Adoption(enum.Enum):
    """What became of a file that was taken out of the datadir."""

    DONE = "its content is in the trash"
    NOTHING = "there was no content to keep"
    IN_USE = "a program has it open for writing; to be tried again"
    STAYS = "it waits in the work directory, to be tried again"
    NEWS = "it was written to since it was displaced"


@dataclass(frozen=True, slots=True)
class _Examined:
    """A file that can go; ``fd`` holds the lease on it if ``leased``."""

    found: Displaced
    fd: int
    leased: bool

    @property
    def unwritten(self) -> bool:
        return not self.leased or filelease.kept(self.fd, filelease.UNWRITTEN)


async def adopt_displaced(
    blobs: BlobStore, path: Path, record: Callable[[Displaced], None], is_news: Callable[[Displaced], bool]
) -> tuple[Adoption, Displaced | None]:
    """Move a file that was taken out of the datadir into the trash; a link or a lost one just goes.

    One that ``is_news`` is left where it is, for the caller to put elsewhere. Returned as well: what
    the file is, if that is known.

    INVARIANT: a blob never changes, and nothing that is written is lost: while a program has the file open
    for writing it stays where it is, and gets hashed, again if it was before, once that is closed.
    ``record`` writes the row of the trash. It is called first: a row without content counts for nothing,
    a content without row would never be found.
    """
    try:
        examined = await trio.to_thread.run_sync(_examine, path)
    except (OSError, StoreError) as error:
        _log.debug("%s stays in the work directory: %s", path, error)
        return Adoption.STAYS, None
    if isinstance(examined, Adoption):
        return examined, None
    try:
        if is_news(examined.found):
            return Adoption.NEWS, examined.found
        return await _adopt(blobs, path, examined, record), examined.found
    finally:
        os.close(examined.fd)  # and with it the lease


async def _adopt(
    blobs: BlobStore, path: Path, examined: _Examined, record: Callable[[Displaced], None]
) -> Adoption:
    found = examined.found
    record(found)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await blobs.adopt_file(parent, os.fsencode(path.name), found.hash, found.size, Area.PENDING)
        if not examined.unwritten and _is_file(blobs.file_path(found.hash), examined.fd):
            # RACE: who looked its name up while it was in the datadir may only now get to open it.
            await blobs.take_file(found.hash, parent, os.fsencode(path.name))
            return Adoption.IN_USE
    except (StoreError, ChangedError) as error:
        _log.debug("%s stays in the work directory: %s", path, error)  # full, say
        return Adoption.STAYS
    finally:
        os.close(parent)
    return Adoption.DONE


def _is_file(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _examine(path: Path, *, ours: bool = False) -> _Examined | Adoption:
    """Hash a file that nobody writes to; a link, whose text is in the history of versions, is removed.

    ``ours``: nobody else can have it open or knows another name of it.
    """
    if path.is_symlink():
        path.unlink()
        return Adoption.NOTHING
    if not path.is_file():
        return Adoption.NOTHING
    with ExitStack() as stack:
        fd = _open(path)
        stack.callback(os.close, fd)
        found = os.fstat(fd)
        leased = False
        with suppress(OSError):  # LIMIT: not every filesystem can tell, nor tells others than the owner
            leased = filelease.lease(fd, filelease.UNWRITTEN)
            if not leased:
                return Adoption.IN_USE
        if not ours and (found.st_nlink > 1 or not leased):
            if leased:
                filelease.give_back(fd)  # who writes to its other names need not wait for the copy
            return _examine(path, ours=True) if _made_ours(path, fd) else Adoption.IN_USE
        os.fchmod(fd, _BLOB_MODE)
        hasher = blake3()
        hasher.update_mmap(path)
        mode = stat.S_IMODE(found.st_mode) & 0o777
        examined = _Examined(
            Displaced(Hash(hasher.digest()), found.st_size, found.st_mtime_ns, mode), fd, leased
        )
        if not examined.unwritten:
            return Adoption.IN_USE
        stack.pop_all()  # the caller closes it
        return examined


def _open(path: Path) -> int:
    try:
        return os.open(path, READ_FLAGS)
    except PermissionError:
        path.chmod(_BLOB_MODE)  # its own owner may not read it
        return os.open(path, READ_FLAGS)


def _made_ours(path: Path, fd: int) -> bool:
    """Put a copy in the place of a file that others may write to; False: it changed meanwhile."""
    copy = path.with_name(f"new-{path.name}")  # such names are removed at the start
    copy.unlink(missing_ok=True)
    before = os.fstat(fd)
    parent = os.open(path.parent, DIR_FLAGS)
    try:
        LocalDisk().copy(fd, before.st_size, parent, copy.name)
    finally:
        os.close(parent)
    after = os.fstat(fd)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        copy.unlink()
        return False
    copy.chmod(stat.S_IMODE(before.st_mode) & 0o777)
    os.utime(copy, ns=(before.st_mtime_ns, before.st_mtime_ns))
    copy.replace(path)
    return True
