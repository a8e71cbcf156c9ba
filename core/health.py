"""What is degraded in the arenas, a sentence each with what to do: part of the status. Engine thread."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.arena import Arena


def sentences(arenas: Collection[Arena]) -> Iterator[str]:
    """Yield what the user should know, of all arenas."""
    for arena in arenas:
        yield from (f"{arena.name}: {text}" for text in _of(arena))


def _of(arena: Arena) -> Iterator[str]:
    if arena.trouble.reason:
        yield f"nothing can be recorded: {arena.trouble.reason}"
    if arena.index is not None and arena.index.held_files:
        yield (
            f"{arena.index.held_files} deletions are held; if they are yours:"
            f" `realize arena confirm-deletes {arena.name}`, else put the files back"
        )
    waiting = arena.room.waiting
    if waiting:
        yield (
            f"the cache is full, {waiting} path{' waits' if waiting == 1 else 's wait'} for room;"
            " raise `disk_usage`, or mark less"
        )
    stuck = arena.displaced.without_room
    if stuck:
        yield (
            f"{stuck} replaced or deleted file{' waits' if stuck == 1 else 's wait'} in {arena.work_path} for"
            " room in the trash; raise `disk_usage`, free space, or mark less"
        )
    if arena.index is None:
        return
    if arena.index.unwatched:
        yield arena.index.unwatched
    files, directories = arena.local.unreadable_files(), arena.index.unreadable_directories
    if files or directories:
        parts = [f"{files} file{'' if files == 1 else 's'}"] if files else []
        parts += [f"{directories} director{'y' if directories == 1 else 'ies'}"] if directories else []
        yield (
            f"{' and '.join(parts)} in the datadir cannot be read;"
            " make them readable for the user that Realize runs as"
        )
