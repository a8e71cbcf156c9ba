"""Putting a version into the datadir because the user asked: restored, chosen in a conflict, or repaired.

What is at the path goes to the trash; nothing is ever overwritten. Engine thread.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from core.choice import LOCAL_PEER, EntryRow
from core.displaced import Why
from core.errors import ChangedError, CorruptError, PathExistsError, PathReadOnlyError, StoreError
from core.hashing import TruncatedError, hash_file
from core.paths import display, split
from core.placing import Identity, Placed, Placement, place
from core.trash import displaced_name
from core.trashrows import Reason
from core.types import Hash, Holding, Kind, PeerKey, RelPath, Vector

if TYPE_CHECKING:
    from core.arena import Arena


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What is to be at a path; ``kind`` `Kind.NONE`: nothing. ``hash`` names a blob that is held whole."""

    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    hash: Hash | None = None
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why what was at the path goes to the trash, and whose change that is."""

    why: Reason
    by: PeerKey | None


def require_datadir(arena: Arena) -> Path:
    """Return the datadir of an arena.

    Raises:
        PathReadOnlyError: it has none here.
        StoreError: it is offline.
    """
    if arena.datadir is None:
        raise PathReadOnlyError(
            f"arena {display(arena.name)} has no datadir on this host",
            hint="copy the file out of `.realize` in the mount, or do it on a host with a datadir",
        )
    if arena.offline:
        raise StoreError(f"arena {display(arena.name)} is offline: {arena.offline}")
    return arena.datadir


def _whatever_is_there(_: EntryRow | None) -> bool:
    return True


async def put_real(
    arena: Arena,
    path: RelPath,
    version: NewVersion,
    vector: Callable[[int], Vector],
    cause: Cause,
    *,
    may_replace: Callable[[EntryRow | None], bool] = _whatever_is_there,
) -> None:
    """Make ``version`` what is really at ``path`` of the datadir; ``vector(node)`` gives its vector.

    ``may_replace`` is asked, when it is done, about what this host has there then.

    Raises:
        PathReadOnlyError: the arena has no datadir.
        ChangedError: the path is being changed, or holds something that is not indexed.
        CorruptError: the content in the blob store is damaged.
        PathExistsError: a directory with something in it is there.
        StoreError: the disk failed, or is full.
    """
    datadir = require_datadir(arena)
    source = await _copy_out(arena, version.hash) if version.kind is Kind.FILE else None
    displaced = arena.work_path / displaced_name(None, 0, time.time_ns())
    try:
        async with arena.exclusive():
            node = arena.cache.tree.find(path)
            if not may_replace(arena.cache.local_entry(node) if node is not None else None):
                raise ChangedError(
                    f"{display(path)} was changed here meanwhile", hint="look at it again first"
                )
            replaces = _identity(arena, node) if node is not None else None
            if node is not None and replaces is not None:
                displaced = displaced.with_name(displaced_name(_hash(arena, node), node, time.time_ns()))
            placement = Placement(
                path,
                version.kind,
                version.mtime_ns,
                version.mode,
                source,
                version.target,
                replaces,
                displaced if replaces is not None else None,
            )
            with trio.CancelScope(shield=True):
                known = arena.local.datadir_id()
                ino = known[1] if known is not None else None
                try:
                    (placed,) = await trio.to_thread.run_sync(partial(place, datadir, [placement], ino=ino))
                except OSError as error:
                    raise StoreError(
                        f"datadir {datadir} cannot be opened: {error.strerror}",
                        hint="mount it or bring it back, then try again",
                    ) from error
                why = Why(cause.why, cause.by, mtime_ns=replaces.mtime_ns if replaces is not None else None)
                if placed.displaced:
                    arena.displaced.note(displaced, path, why)
                _check(path, placed)
                _record(arena, path, version, vector, placed, cause)
    finally:
        if source is not None:
            source.unlink(missing_ok=True)
    if version.hash is not None:
        arena.no_longer_needed(version.hash)
    if placed.displaced:
        await arena.displaced.settle(displaced, path, why)


async def _copy_out(arena: Arena, content: Hash | None) -> Path:
    """Copy a blob beside the datadir and make sure that the copy is right."""
    if content is None:
        raise ChangedError("the version is not hashed yet", hint="try again soon")
    copy = arena.work_path / f"new-put-{time.time_ns()}"
    blob = arena.blobs.open(content)  # so that it is not evicted meanwhile
    try:
        at = os.open(copy.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await arena.blobs.copy_file(content, at, os.fsencode(copy.name))
        finally:
            os.close(at)
        digest, _ = await trio.to_thread.run_sync(hash_file, copy)
    except (OSError, TruncatedError) as error:
        copy.unlink(missing_ok=True)
        raise StoreError(f"a copy of the content cannot be read: {error}") from error
    except BaseException:
        with suppress(OSError):
            copy.unlink(missing_ok=True)
        raise
    finally:
        await arena.blobs.release(blob)
    if digest != content:
        copy.unlink(missing_ok=True)
        raise CorruptError("the content held here is damaged", hint="`realize verify` looks for a good copy")
    return copy


def _identity(arena: Arena, node: int) -> Identity | None:
    row: Any = arena.cache.conn.execute(
        "SELECT size, mtime_ns, ino, kind = 2 FROM entry WHERE node = ? AND peer = 0 AND holding = ?",
        (node, int(Holding.REAL)),
    ).fetchone()
    return Identity(row[0], row[1], row[2], is_dir=bool(row[3])) if row else None


def _hash(arena: Arena, node: int) -> bytes | None:
    entry = arena.cache.local_entry(node)
    return entry.hash if entry is not None else None


def _check(path: RelPath, placed: Placed) -> None:
    if placed.occupied or (
        placed.error is not None and placed.error.errno in (errno.ENOTEMPTY, errno.EEXIST)
    ):
        raise PathExistsError(
            f"{display(path)} is a directory with something in it", hint="move it away first"
        )
    if placed.error is not None:
        raise StoreError(f"{display(path)} cannot be written: {placed.error.strerror}") from placed.error
    if placed.written:
        raise ChangedError(
            f"a program has {display(path)} open for writing", hint="close it there, then try again"
        )
    if placed.changed:
        raise ChangedError(
            f"{display(path)} is being changed, or holds what is not indexed", hint="try again in a moment"
        )


def _record(
    arena: Arena,
    path: RelPath,
    version: NewVersion,
    vector: Callable[[int], Vector],
    placed: Placed,
    cause: Cause,
) -> None:
    cache = arena.cache
    with cache.write():
        directory, name = split(path)
        node = cache.tree.ensure_child(cache.tree.ensure_dir(directory), name)
        new = vector(node)
        local = cache.local_entry(node)
        if local is not None and local.holding == Holding.CACHED and local.hash != version.hash:
            cache.cached.give_up(node, cause.by, cause.why)
        gone = version.kind is Kind.NONE
        entry = EntryRow(
            LOCAL_PEER,
            int(Holding.TOMBSTONE if gone else Holding.REAL),
            int(version.kind),
            version.size,
            version.mtime_ns,
            version.mode if version.kind is Kind.SYMLINK else version.mode & 0o777,
            version.hash,
            new,
            version.target or None,
        )
        cache.set_real(node, entry, placed.ino)
        cache.mark_dirty([node])
