"""Making room in a blob store: reservations against the quota, and what is evicted for them.

Engine thread. LRU over the trash, then the working area, then what is used often. INVARIANT: open blobs,
those that ``may_evict`` refuses, and the protected area are never taken; for a reservation nothing is taken
unless it makes enough room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from core.blobrows import Area
from core.blobshelf import Shelf
from core.errors import NO_ROOM, NoRoomError
from core.types import Hash

_ORDER = (Area.PENDING, Area.WORKING, Area.FREQUENT)
"""Areas that space is taken from, in this order (spec 4 §Blobs)."""


class Space:
    """Reserves and evicts for one shelf."""

    def __init__(
        self,
        shelf: Shelf,
        may_evict: Callable[[Hash], bool],
        evicted: Callable[[Sequence[tuple[Hash, int]]], None] | None,
    ) -> None:
        """Evict what ``may_evict`` allows; tell ``evicted`` ``(hash, bytes)`` of what went."""
        self._shelf, self._may_evict, self._evicted = shelf, may_evict, evicted
        self._room = trio.Lock()

    async def reserve(self, count: int) -> None:
        """See `BlobStore.reserve`."""
        quota = self._shelf.quota
        if not quota.shortage(count):
            quota.reserve(count)
            return
        async with self._room:
            while short := quota.shortage(count):
                victims = self._victims(short)
                if not victims:
                    raise NoRoomError(
                        f"{NO_ROOM}: {quota.reason(count)}; nothing can be evicted",
                        hint="raise `disk_usage`, or unmark or evict something",
                    )
                await self._evict(victims)
            quota.reserve(count)

    async def relieve(self) -> int:
        """Take what can be taken while more is in use than may be; returns the bytes that are still too many.

        For when others fill the disk: what cannot be helped is better halved than left.
        """
        quota = self._shelf.quota
        if not quota.shortage(0):
            return 0
        async with self._room:
            while (short := quota.shortage(0)) and (victims := self._victims(short, whole=False)):
                await self._evict(victims)
        return quota.shortage(0)

    def _victims(self, need: int, *, whole: bool = True) -> list[tuple[Hash, int]]:
        """Return the least recently used blobs that free ``need`` bytes.

        If there are not enough: none when ``whole``, else all there are.
        """
        shelf = self._shelf
        shelf.write_uses()
        victims: list[tuple[Hash, int]] = []
        for area in _ORDER:
            for content, disk_bytes in shelf.rows.oldest(area):
                if content in shelf.open_blobs or content in shelf.busy or not self._may_evict(content):
                    continue
                victims.append((content, disk_bytes))
                need -= disk_bytes
                if need <= 0:
                    return victims
        return [] if whole else victims

    async def _evict(self, victims: Sequence[tuple[Hash, int]]) -> None:
        await self._shelf.remove([content for content, _ in victims])
        if self._evicted is not None:
            self._evicted(victims)
