"""Fetching files whole because the user asked (`Api.get`), whatever their marks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from core.api import ArenaPath, GetProgress
from core.errors import NoHolderError, RealizeError
from core.ports import PeerLink
from core.types import Hash, Kind

if TYPE_CHECKING:
    from core.arena import Arena

_PARALLEL = 4
_SAY_EVERY_S = 0.1


async def fetch_files(
    files: Sequence[tuple[Arena, int]], holders: Callable[[Arena, int, Hash, int], list[PeerLink]]
) -> AsyncIterator[GetProgress]:
    """Fetch the files at these nodes, a few at a time; yields their progress until all have ended."""
    send, receive = trio.open_memory_channel[GetProgress](64)

    async def one(arena: Arena, node: int, out: trio.MemorySendChannel[GetProgress]) -> None:
        async with limit, out:
            await _fetch_one(arena, node, holders, out)

    limit = trio.Semaphore(_PARALLEL)
    async with trio.open_nursery() as nursery, receive:
        async with send:
            for arena, node in files:
                nursery.start_soon(one, arena, node, send.clone())
        async for progress in receive:
            yield progress


async def _fetch_one(
    arena: Arena,
    node: int,
    holders: Callable[[Arena, int, Hash, int], list[PeerLink]],
    out: trio.MemorySendChannel[GetProgress],
) -> None:
    at = ArenaPath(arena.name, arena.cache.tree.path(node))
    shown = arena.cache.shown(node)
    size = shown.size
    if shown.kind != Kind.FILE or shown.local:
        await out.send(GetProgress(at=at, bytes_done=size, bytes_total=size, done=True))
        return
    said = trio.current_time()
    done = 0

    def progress(more: int) -> None:
        nonlocal said, done
        done += more
        if trio.current_time() - said >= _SAY_EVERY_S:
            said = trio.current_time()
            try:
                out.send_nowait(GetProgress(at=at, bytes_done=done, bytes_total=size, done=False))
            except trio.WouldBlock:
                return  # the reader is behind; the next figure includes this one

    try:
        if shown.hash is None:
            raise NoHolderError("it is not hashed yet by the peer that changed it", hint="try again soon")
        content = Hash(shown.hash)
        links = holders(arena, node, content, size)
        if not links:
            raise NoHolderError("no connected peer holds it", hint="see `realize peer list`")
        await arena.fetcher.download(content, size, links, progress=progress)
        arena.record_cached([node])
    except RealizeError as error:
        lost = isinstance(error, NoHolderError)
        await out.send(
            GetProgress(at=at, bytes_done=0, bytes_total=size, done=True, error=str(error), no_holder=lost)
        )
    else:
        await out.send(GetProgress(at=at, bytes_done=size, bytes_total=size, done=True))
