"""The trash as users see it: what is in it, and how it comes back. Engine thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from core.api import ArenaPath, Restored, TrashRow
from core.db import Connection
from core.errors import ChangedError, PathNotFoundError, RealizeError
from core.events import FileChanged
from core.paths import display
from core.putting import Cause, NewVersion, put_real, require_datadir
from core.trashrows import Reason, Trashed, TrashRows
from core.types import Kind, PeerKey, Vector

if TYPE_CHECKING:
    from core.arena import Arena


def trash_rows(arena: str, conn: Connection, path: bytes, names: Mapping[PeerKey, str]) -> list[TrashRow]:
    """Return what is in the trash at and below a path; ``names`` are those of the hosts by key.

    In a worker; ``conn`` is read-only.
    """
    trash = TrashRows(conn)
    return [
        TrashRow(
            at=ArenaPath(arena, row.path),
            hash=row.hash,
            size=row.size,
            mtime_ns=row.mtime_ns,
            mode=row.mode,
            when_ns=row.at_ns,
            why=row.why.value,
            by=names.get(row.by, row.by.hex()) if row.by is not None else "",
        )
        for row in [*(trash.at(path) if path else ()), *trash.below(path)]
    ]


async def restore(arena: Arena, path: bytes, content: bytes) -> list[Restored]:
    """Put back what was at a path, or what was below it; see `Api.trash_restore`.

    Raises:
        PathReadOnlyError: the arena has no datadir here.
        PathNotFoundError: nothing of it is in the trash.
        RealizeError: a single path could not be restored.
    """
    require_datadir(arena)
    exact = [row for row in arena.cache.trash.at(path) if row.hash.startswith(content)]
    if exact:
        await _restore_one(arena, exact[0])
        return [Restored(ArenaPath(arena.name, path), exact[0].size)]
    rows = _below(arena, path) if not content else []
    if not rows:
        what = f"{display(arena.name)}/{display(path)}"
        version = f" with content {content.hex()}" if content else ""
        raise PathNotFoundError(
            f"{what}{version} is not in the trash", hint="`realize trash list` shows what is"
        )
    return [await _try_restore(arena, row) for row in rows]


def _below(arena: Arena, path: bytes) -> list[Trashed]:
    """Return the newest of each path below one that shows nothing now."""
    newest: dict[bytes, Trashed] = {}
    for row in arena.cache.trash.below(path):
        newest.setdefault(row.path, row)
    return [row for row in newest.values() if not _is_there(arena, row.path)]


def _is_there(arena: Arena, path: bytes) -> bool:
    node = arena.cache.tree.find(path)
    return node is not None and arena.cache.shown(node).kind != Kind.NONE


async def _try_restore(arena: Arena, row: Trashed) -> Restored:
    at = ArenaPath(arena.name, row.path)
    try:
        await _restore_one(arena, row)
    except RealizeError as error:
        return Restored(at, row.size, str(error))
    return Restored(at, row.size)


async def _restore_one(arena: Arena, row: Trashed) -> None:
    cache = arena.cache
    before = cache.tree.find(row.path)
    old = cache.shown(before) if before is not None else None
    if old is not None and old.kind == Kind.FILE and old.hash is None:
        where = f"{display(arena.name)}/{display(row.path)}"
        raise ChangedError(f"{where} is being changed, and not hashed yet", hint="try again soon")
    # What is there now was seen; what comes until the file is in its place stands beside it.
    local = cache.local_entry(before) if before is not None else None
    seen = [Vector(found.vector) for found in (old, local) if found is not None]

    def vector(node: int) -> Vector:
        return cache.vector_over(node, seen)

    version = NewVersion(Kind.FILE, row.size, row.mtime_ns, row.mode, row.hash)
    await put_real(arena, row.path, version, vector, Cause(Reason.REPLACED, cache.self_key))
    cache.trash.remove([row.id])
    with cache.write():
        cache.emit(
            FileChanged(
                arena=arena.name,
                path=row.path,
                what="replaced" if old is not None and old.kind else "added",
                cause="user",
                before=old.hash if old is not None else None,
                after=row.hash,
            )
        )
