"""What may be given up for space: what others keep, and no mark here wants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.cache import ArenaCache
from core.choice import LOCAL_PEER
from core.copies import Copies
from core.types import Hash, Holding, Mark, RelPath
from tests.core.caches import H1, A, file, hear, memory_cache, node


@pytest.fixture
def cache() -> Iterator[ArenaCache]:
    with memory_cache() as cache:
        yield cache


def _cached_here(cache: ArenaCache, held_elsewhere: Holding = Holding.REAL) -> None:
    hear(cache, A, file(b"d/f", H1, held=held_elsewhere, a=1))
    found = node(cache, b"d/f")
    with cache.write():
        _, row = file(b"d/f", H1, a=1)
        cache.put_entry(found, row._replace(peer=LOCAL_PEER, holding=int(Holding.CACHED)))
        cache.refresh(found)


@pytest.mark.parametrize("held", [Holding.REAL, Holding.KEPT])
def test_what_a_peer_holds_durably_may_go(cache: ArenaCache, held: Holding) -> None:
    _cached_here(cache, held)
    assert Copies(cache).may_evict(Hash(H1))


def test_what_a_peer_merely_has_in_its_cache_stays(cache: ArenaCache) -> None:
    _cached_here(cache, Holding.CACHED)
    assert not Copies(cache).may_evict(Hash(H1))


@pytest.mark.parametrize("mark", [Mark.KEEP, Mark.OWN])
@pytest.mark.parametrize("at", [b"", b"d", b"d/f"])
def test_what_was_marked_a_moment_ago_stays(cache: ArenaCache, mark: Mark, at: bytes) -> None:
    _cached_here(cache)
    with cache.write():
        cache.marks.set(cache.tree.find(RelPath(at)) or cache.root, mark)
    assert not Copies(cache).may_evict(Hash(H1))
