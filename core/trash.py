"""Content that was replaced or deleted: it goes to *pending removal* in the blob store, not to nothing."""

from __future__ import annotations

import logging
import os
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


async def adopt_displaced(blobs: BlobStore, path: Path) -> None:
    """Move a file that was taken out of the datadir into the trash; a link or a lost one just goes.

    The content is hashed again: it may have been unhashed, or changed by a writer that had it open.
    """
    try:
        found = await trio.to_thread.run_sync(_hash, path)
    except OSError as error:
        _log.warning("%s stays in the work directory: %s", path, error.strerror)
        return
    if found is None:
        return
    content, size = found
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await blobs.adopt_file(parent, os.fsencode(path.name), content, size, Area.PENDING)
    except (StoreError, ChangedError) as error:
        # Full, or still written to by a program that has it open; tried again at the next start.
        _log.warning("%s stays in the work directory: %s", path, error)
    finally:
        os.close(parent)


def _hash(path: Path) -> tuple[Hash, int] | None:
    """Return hash and size of a file; a link, whose text is in the history of versions, is removed."""
    if path.is_symlink():
        path.unlink()
        return None
    if not path.is_file():
        return None
    path.chmod(0o600)
    hasher = blake3()
    hasher.update_mmap(path)
    return Hash(hasher.digest()), path.stat().st_size
