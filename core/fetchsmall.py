"""Fetching many small contents: groups of up to 1 MiB per request, several in flight.

One storer takes whatever has arrived, from all holders, in one worker call and one transaction: the
slower the disk, the larger its batches. Engine thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence

import trio

from core.blobgroup import GroupItem
from core.blobrows import Area
from core.download import FetchParts, Progress
from core.errors import ChangedError, NetError, RealizeError, RemoteError, RemoteProtocolError, StoreError
from core.ports import PeerLink
from core.streams import holder_error, nobody, stalled
from core.types import Hash, PeerKey

_log = logging.getLogger("realize.core.fetchsmall")

GROUP_BYTES = 1024 * 1024
GROUP_FILES = 256
_SLOTS = 3
"""LIMIT: groups in flight per holder."""
_BACKLOG_BYTES = 8 * 1024 * 1024
"""LIMIT: bytes that wait for the disk before no more groups are asked for."""
_BATCH_FILES = 1024
"""LIMIT: contents stored in one transaction, some 10 ms: what a reader may have to wait for."""

Item = tuple[Hash, int]
Answers = AsyncIterator[list[tuple[int, bytes | memoryview | None]]]


class SmallFetch:
    """One call of `Fetcher.download_small`.

    First all holders share the work; then each is asked for what the others could not give.
    """

    def __init__(
        self, parts: FetchParts, items: Sequence[Item], progress: Progress, area: Area = Area.WORKING
    ) -> None:
        """Prepare to fetch ``items``; those that are here already are done."""
        self._parts, self._progress, self._area = parts, progress, area
        self.outcome: dict[Hash, RealizeError | None] = {}
        self._left: dict[Hash, int] = {}
        for content, size in items:
            if parts.store.held(content):
                self.outcome[content] = None
            else:
                self._left[content] = size
        self._groups: deque[list[Item]] = deque()
        self._arrived: deque[tuple[PeerLink, GroupItem]] = deque()
        self._arrived_bytes = 0
        self._active = 0
        self._changed = trio.Event()
        self._out: dict[PeerKey, RealizeError] = {}
        self._tried: dict[Hash, set[PeerKey]] = {}
        self._store_error: StoreError | None = None

    async def run(self, holders: Sequence[PeerLink]) -> dict[Hash, RealizeError | None]:
        """Fetch until each content is here or nobody has it."""
        await self._round(holders, list(self._left.items()))
        for link in holders:
            rest = [item for item in self._left.items() if link.key not in self._tried.get(item[0], ())]
            if rest:
                await self._round([link], rest)
        for content in self._left:
            self.outcome[content] = self._store_error or self._nobody(content)
        return self.outcome

    def _nobody(self, content: Hash) -> RealizeError:
        failures = list(self._out.values())
        if self._tried.get(content):
            failures.append(ChangedError("a peer does not hold it any more"))
        return nobody(content, failures, wrong=self._parts.book.any_wrong(content))

    async def _round(self, holders: Sequence[PeerLink], items: Sequence[Item]) -> None:
        links = [link for link in holders if link.key not in self._out]
        if not links or self._store_error is not None:
            return
        self._groups = deque(_grouped(items))
        async with trio.open_nursery() as nursery:
            for link in links:
                for _ in range(min(_SLOTS, len(self._groups))):
                    self._active += 1
                    nursery.start_soon(self._slot, link)
            try:
                await self._store_arrived()
            except StoreError as error:
                self._store_error = error
                nursery.cancel_scope.cancel()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # Network

    async def _slot(self, link: PeerLink) -> None:
        try:
            while (group := await self._next_group(link)) is not None:
                await self._fetch(link, group)
        except (NetError, ChangedError) as error:
            _log.debug("%s failed for a group: %s", link.name, error)
            self._out[link.key] = error
        finally:
            self._active -= 1
            self._notify()

    async def _next_group(self, link: PeerLink) -> list[Item] | None:
        while self._groups and link.key not in self._out:
            if self._arrived_bytes < _BACKLOG_BYTES:
                return self._groups.popleft()
            await self._changed.wait()
        return None

    async def _fetch(self, link: PeerLink, group: list[Item]) -> None:
        came: set[int] = set()
        started = trio.current_time()
        hashes, sizes = [content for content, _ in group], [size for _, size in group]
        try:
            async with link.read_many(self._parts.arena, hashes, sizes) as answers:
                while len(came) < len(group):
                    batch = await self._batch(link, answers)
                    self._take(link, group, batch, came)
        except RemoteError as error:
            raise holder_error(error) from error
        finally:
            if len(came) < len(group):
                self._groups.append([item for index, item in enumerate(group) if index not in came])
        self._parts.book.measured(link.key, sum(sizes), trio.current_time() - started)

    async def _batch(self, link: PeerLink, answers: Answers) -> list[tuple[int, bytes | memoryview | None]]:
        try:
            with trio.fail_after(self._parts.stall_s):
                return await anext(answers)
        except StopAsyncIteration:
            raise RemoteProtocolError(f"{link.name} ended a group early", peer=link.name) from None
        except trio.TooSlowError:
            raise stalled(link, self._parts.stall_s) from None

    def _take(
        self,
        link: PeerLink,
        group: Sequence[Item],
        batch: Sequence[tuple[int, bytes | memoryview | None]],
        came: set[int],
    ) -> None:
        for index, data in batch:
            if not 0 <= index < len(group) or index in came:
                raise RemoteProtocolError(f"{link.name} sent what was not asked for", peer=link.name)
            came.add(index)
            content, size = group[index]
            if data is None:
                self._tried.setdefault(content, set()).add(link.key)
                continue
            self._arrived.append((link, (content, size, bytes(data))))
            self._arrived_bytes += size
        self._notify()

    # Disk

    async def _store_arrived(self) -> None:
        while self._active or self._arrived:
            if not self._arrived:
                await self._changed.wait()
                continue
            count = min(len(self._arrived), _BATCH_FILES)
            batch = [self._arrived.popleft() for _ in range(count)]
            right = await self._parts.store.add_many([item for _, item in batch], self._area)
            for (link, item), fine in zip(batch, right, strict=True):
                self._stored(link, item, fine=fine)
            self._notify()

    def _stored(self, link: PeerLink, item: GroupItem, *, fine: bool) -> None:
        content, size, _ = item
        self._arrived_bytes -= size
        if fine:
            self.outcome[content] = None
            self._left.pop(content, None)
            self._progress(size)
        else:
            self._tried.setdefault(content, set()).add(link.key)
            self._parts.book.accuse(content, link, None, "wrong data")


def _grouped(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield ``items`` in order, in groups of bounded bytes and number."""
    group: list[Item] = []
    total = 0
    for item in items:
        if group and (total + item[1] > GROUP_BYTES or len(group) >= GROUP_FILES):
            yield group
            group, total = [], 0
        group.append(item)
        total += item[1]
    if group:
        yield group
