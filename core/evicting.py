"""Giving up cached content because the user asked (`Api.evict`); never what may be the last copy.

Engine thread. INVARIANT: a whole blob goes only after a connected peer has confirmed, just now, a durable
copy for every path that is cached by it (`core.leases`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from core.api import ArenaPath, EvictStep
from core.choice import LOCAL_PEER
from core.events import Evicted, QuotaChanged
from core.leases import Wanted, ask
from core.paths import display
from core.types import Hash, Holding, Mark

if TYPE_CHECKING:
    from core.arena import Arena
    from core.engine import Engine

_ASK_AT_ONCE = 500


async def evict_files(engine: Engine, files: Sequence[tuple[Arena, int]]) -> AsyncGenerator[EvictStep, None]:
    """Give up what is cached of files; yields a step for each of which something was held."""
    for start in range(0, len(files), _ASK_AT_ONCE):
        group: dict[str, tuple[Arena, dict[int, Hash]]] = {}
        for arena, node in files[start : start + _ASK_AT_ONCE]:
            refused = _refusal(arena, node)
            if refused is not None:
                yield refused
                continue
            content = _held(arena, node)
            if content is not None:
                group.setdefault(arena.name, (arena, {}))[1][node] = content
        for arena, wanted in group.values():
            async for step in _evict(engine, arena, wanted):
                yield step


def _at(arena: Arena, node: int) -> ArenaPath:
    return ArenaPath(arena.name, arena.cache.tree.path(node))


def _held(arena: Arena, node: int) -> Hash | None:
    """Return the content of which something is in the blob store."""
    content = arena.cache.shown(node).hash
    if content is None or arena.blobs.info(Hash(content)) is None:
        return None
    return Hash(content)


def _refusal(arena: Arena, node: int) -> EvictStep | None:
    """Return why the content of a file may not be given up; None if it may, or nothing is held."""
    cache = arena.cache
    local = cache.local_entry(node)
    if local is not None and local.holding == Holding.REAL:
        return EvictStep(
            _at(arena, node),
            0,
            "it is a real file of the datadir, no cached content",
            "delete it to delete it everywhere",
        )
    if _held(arena, node) is None:
        return None
    mark = cache.marks.effective(node, cache.tree.parent_and_name(node)[0])
    if mark is not Mark.WATCH:
        return _marked(arena, node, node, mark)
    for other in cache.cached.nodes(cache.shown(node).hash or b""):
        mark = cache.marks.effective(other, cache.tree.parent_and_name(other)[0])
        if mark is not Mark.WATCH:
            return _marked(arena, node, other, mark)
    return None


def _marked(arena: Arena, node: int, why: int, mark: Mark) -> EvictStep:
    origin = arena.cache.marks.origin(why)
    if origin is None:
        source, hint = "the default of the arena", f"realize mark set watch {_quoted(arena, node)}"
    else:
        source, hint = f"set on {_quoted(arena, origin)}", f"realize mark unset {_quoted(arena, origin)}"
    what = "it is" if why == node else f"the same content at {_quoted(arena, why)} is"
    return EvictStep(_at(arena, node), 0, f"{what} marked {mark}, {source}", hint)


def _quoted(arena: Arena, node: int) -> str:
    path = arena.cache.tree.path(node)
    return display(arena.name) + (f"/{display(path)}" if path else "")


async def _evict(engine: Engine, arena: Arena, wanted: dict[int, Hash]) -> AsyncGenerator[EvictStep, None]:
    cache = arena.cache
    cached = {content: cache.cached.nodes(content) for content in wanted.values()}
    all_of_it = {node: content for content, nodes in cached.items() for node in nodes}
    with arena.giving_up.asking(list(all_of_it)) as mine:
        asked = [Wanted(node, cache.tree.path(node), all_of_it[node]) for node in mine]
        confirmed = await ask(
            arena.name, asked, lambda node, content: engine.durable_holders(arena, node, content), 1
        )
        sure = arena.giving_up.decide([node for node, count in confirmed.items() if count])
        for node, content in wanted.items():
            # RACE: what became cached by it meanwhile was not asked about; what is no more is in the trash.
            stays = node not in sure or not sure.issuperset(cache.cached.nodes(content))
            if stays and arena.blobs.held(content):
                yield EvictStep(
                    _at(arena, node),
                    0,
                    "it may be the last copy: no connected peer confirms that it keeps one",
                    "connect a peer that holds it; `realize why` names them",
                )
                continue
            yield EvictStep(_at(arena, node), await _give_up(arena, node, content))


async def _give_up(arena: Arena, node: int, content: Hash) -> int:
    """Remove a blob and record it; returns the bytes freed, 0 if it went with another path."""
    cache = arena.cache
    at = _at(arena, node)
    local = cache.local_entry(node)
    if local is not None and local.peer == LOCAL_PEER and local.holding == Holding.REAL:
        return 0  # RACE: it became real while the peers were asked
    freed = await arena.blobs.remove([content])
    cache.cached.drop(content)
    with cache.write() as changes:
        changes.nodes.add(node)
        changes.touched.add(cache.tree.parent_and_name(node)[0])
        cache.emit(
            Evicted(
                arena=arena.name,
                path=at.path,
                bytes_freed=freed,
                reason="the user asked for it",
                content=content,
                cause="user",
            )
        )
        cache.emit(QuotaChanged(arena=arena.name, used=arena.blobs.quota.disk_bytes, max=None))
    return freed
