"""The room that an arena's cache may take: what waits for it, what is told of it, and what makes some.

Engine thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from core.errors import StoreError
from core.events import QuotaChanged
from core.quota import SLACK_BYTES

if TYPE_CHECKING:
    from core.arena import Arena

_log = logging.getLogger("realize.core.room")

_TELL_BYTES = 1024 * 1024
_TELL_S = 0.5


class Room:
    """The room of one arena."""

    def __init__(self, arena: Arena) -> None:
        """Look after the blobs of ``arena``."""
        self._arena, self._blobs = arena, arena.blobs
        self._over = False
        self._needed = 0
        self.on_room: Callable[[], None] = lambda: None
        """Called when there may be room for what waited for it (`lacking`)."""
        self._changed = trio.Event()
        self._blobs.quota.on_use = lambda: self._changed.set()

    async def relieve(self) -> None:
        """Evict what is over the quota because others fill the disk; warn once if that is not enough."""
        try:
            over = await self._blobs.relieve()
        except StoreError as error:
            _log.warning("%s: content could not be evicted: %s", self._arena.name, error)
            return
        if over and not self._over:
            self._arena.warn(
                f"the cache uses {over} bytes more than it may, and nothing more can be evicted",
                "free space on that disk, raise `disk_usage`, or unmark something",
            )
        self._over = bool(over)
        if self._needed and not self._blobs.quota.shortage(self._needed):
            self.made()

    def lacking(self, size: int, reason: str) -> None:
        """Note that a job waits for room for ``size`` bytes; warns when it is the first."""
        need = self._blobs.quota.blocks(size) + SLACK_BYTES
        if not self._needed:
            self._arena.warn(
                f"{reason}; what is marked waits for room", "raise `disk_usage`, free space, or mark less"
            )
        self._needed = min(need, self._needed or need)

    @property
    def waiting(self) -> int:
        """How many paths wait for room in the cache."""
        return self._arena.work.waiting_for_room() if self._needed else 0

    def made(self) -> None:
        """Let what waits for room try again."""
        if self._needed:
            self._needed = 0
            self.on_room()

    async def run(self) -> None:
        """Tell of the use of the cache when it changed noticeably, and at most twice a second."""
        quota = self._blobs.quota
        told = -1
        while True:
            limit = quota.max_bytes
            least = max(_TELL_BYTES, (limit or 0) // 100)
            if abs(quota.disk_bytes - told) >= least or told < 0:
                told = quota.disk_bytes
                self._arena.events.emit(QuotaChanged(arena=self._arena.name, used=told, max=limit))
            self._changed = trio.Event()
            await self._changed.wait()
            await trio.sleep(_TELL_S)
