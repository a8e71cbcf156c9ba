"""Content that was replaced or deleted: it goes to *pending removal* in the blob store, not to nothing."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio
from blake3 import blake3

from core.blobrows import Area
from core.blobs import BlobStore
from core.errors import ChangedError, StoreError
from core.types import Hash

_log = logging.getLogger("realize.core.trash")


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


async def adopt_displaced(blobs: BlobStore, path: Path, record: Callable[[Displaced], None]) -> bool:
    """Move a file that was taken out of the datadir into the trash; a link or a lost one just goes.

    The content is hashed again: it may have been unhashed, or changed by a writer that had it open.
    ``record`` writes the row of the trash. It is called first: a row without content counts for nothing,
    a content without row would never be found. Returns whether the content is in the trash now.
    """
    try:
        found = await trio.to_thread.run_sync(_examine, path)
    except OSError as error:
        _log.warning("%s stays in the work directory: %s", path, error.strerror)
        return False
    if found is None:
        return False
    record(found)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await blobs.adopt_file(parent, os.fsencode(path.name), found.hash, found.size, Area.PENDING)
    except (StoreError, ChangedError) as error:
        # Full, or still written to by a program that has it open; tried again at the next start.
        _log.warning("%s stays in the work directory: %s", path, error)
        return False
    finally:
        os.close(parent)
    return True


def _examine(path: Path) -> Displaced | None:
    """Return what a file is; a link, whose text is in the history of versions, is removed."""
    if path.is_symlink():
        path.unlink()
        return None
    if not path.is_file():
        return None
    found = path.stat()
    path.chmod(0o600)
    hasher = blake3()
    hasher.update_mmap(path)
    return Displaced(
        Hash(hasher.digest()), path.stat().st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode) & 0o777
    )
