"""A `core.fetch.Fetcher` over a blob store and fake peers, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from core.blobs import BlobStore
from core.config import DiskUsage
from core.fetch import Fetcher
from tests.fakes.links import FakeLink, Faults, hash_of
from tests.fakes.stores import Bench


class FetchBench(Bench):
    """A workdir, its store and a fetcher. ``stall_s`` is short: a peer that says nothing is soon left."""

    store: BlobStore
    fetcher: Fetcher

    @asynccontextmanager
    async def fetching(
        self,
        usage: DiskUsage = DiskUsage(),  # noqa: B008 - frozen
        stall_s: float = 5.0,
    ) -> AsyncIterator[Fetcher]:
        async with self.opened(usage) as self.store, trio.open_nursery() as nursery:
            self.fetcher = Fetcher("docs", self.store, nursery, stall_s=stall_s)
            yield self.fetcher
            nursery.cancel_scope.cancel()


def peer(name: str, *contents: bytes, faults: Faults | None = None) -> FakeLink:
    return FakeLink(name, {hash_of(data): data for data in contents}, faults)
