"""The links to peers that are up, and the subscriptions that run over them.

Implements `core.ports.Household`: for every arena shared with a connected peer its announcements are
applied and acknowledged, and ours are served. Engine thread.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING

import trio

from core.announce import Batch
from core.errors import NetError, PathNotFoundError, RealizeError, StoreError
from core.events import TreeChanged
from core.ports import PeerLink
from core.types import PeerKey

if TYPE_CHECKING:
    from core.arena import Arena

_log = logging.getLogger("realize.core.subscriptions")

_ACK_PERSIST_S = 5.0
_STORE_RETRY_S = 5.0


class Subscriptions:
    """Links by peer, and what is known and told over them."""

    def __init__(self, arenas: Mapping[str, Arena], on_links: Callable[[], None]) -> None:
        """Serve ``arenas``; ``on_links`` is called after a link came or went."""
        self._arenas = arenas
        self._on_links = on_links
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[PeerKey, trio.CancelScope] = {}
        self.links: dict[PeerKey, PeerLink] = {}
        self._current: set[tuple[PeerKey, str]] = set()
        self._acked: dict[tuple[PeerKey, str], int] = {}
        self.rejected = 0
        """Batches that could not be applied."""

    async def run(self) -> None:
        """Run the subscriptions of all links, for ever."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for link in list(self.links.values()):
                    self._start(nursery, link)
                nursery.start_soon(self._persist_acknowledgements)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def link_up(self, link: PeerLink) -> None:
        """See `Household.link_up`."""
        self.links[link.key] = link
        for name in link.arenas & self._arenas.keys():
            self._arenas[name].link_up(link.key)
        if self._nursery is not None:
            self._start(self._nursery, link)
        self._links_changed(link)

    def link_down(self, link: PeerLink, reason: str) -> None:
        """See `Household.link_down`."""
        if self.links.get(link.key) is not link:
            return
        del self.links[link.key]
        scope = self._scopes.pop(link.key, None)
        if scope is not None:
            scope.cancel()
        self._current = {(key, arena) for key, arena in self._current if key != link.key}
        self.flush_acknowledgements()
        self._acked = {(key, arena): seq for (key, arena), seq in self._acked.items() if key != link.key}
        _log.info("%s is gone: %s", link.name, reason or "stopped here")
        self._links_changed(link)

    def _links_changed(self, link: PeerLink) -> None:
        self._on_links()
        for name in link.arenas & self._arenas.keys():
            self._arenas[name].events.emit(TreeChanged(arena=name))

    def _start(self, nursery: trio.Nursery, link: PeerLink) -> None:
        scope = self._scopes[link.key] = trio.CancelScope()
        nursery.start_soon(self._follow_all, link, scope)

    async def _follow_all(self, link: PeerLink, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for name in sorted(link.arenas & self._arenas.keys()):
                    nursery.start_soon(self._follow, link, self._arenas[name])

    async def _follow(self, link: PeerLink, arena: Arena) -> None:
        """Follow one arena of a peer; again from what is stored if that could not be written."""
        while True:
            uuid, seq = arena.cache.position(link.key)
            try:
                async with link.subscribe(arena.name, uuid, seq) as batches:
                    async for batch in batches:
                        self._apply(link, arena, batch)
                        if batch.phase.ends_listing:  # the parts of a listing carry the number of its end
                            await link.acknowledge(arena.name, batch.uuid, batch.seq)
            except StoreError as error:
                self._current.discard((link.key, arena.name))
                _log.info("what %s says of %s cannot be stored: %s", link.name, arena.name, error)
                arena.trouble.found(error)
                await trio.sleep(_STORE_RETRY_S)
                await arena.trouble.wait()
            except NetError as error:
                _log.debug("subscription to %s of %s ended: %s", arena.name, link.name, error)
                return
            else:
                return

    def _apply(self, link: PeerLink, arena: Arena, batch: Batch) -> None:
        try:
            arena.remote.apply(link.key, link.name, batch)
        except StoreError:
            raise
        except RealizeError as error:
            self.rejected += 1
            _log.warning("a batch about %s from %s was not applied: %s", arena.name, link.name, error)
            return
        if batch.phase.ends_listing:
            self._current.add((link.key, arena.name))

    def announcements(self, peer: PeerKey, arena: str, uuid: bytes, seq: int) -> AsyncIterator[Batch]:
        """See `Household.announcements`."""
        found = self._arenas.get(arena)
        if found is None:
            raise PathNotFoundError(f"no arena {arena!r}")
        return found.announcer.batches(uuid, seq)

    def acknowledged(self, peer: PeerKey, arena: str, uuid: bytes, seq: int) -> None:
        """See `Household.acknowledged`."""
        found = self._arenas.get(arena)
        if found is not None and uuid == found.cache.history.uuid:
            self._acked[peer, arena] = min(seq, found.cache.history.last)

    async def _persist_acknowledgements(self) -> None:
        while True:
            await trio.sleep(_ACK_PERSIST_S)
            self.flush_acknowledgements()

    def flush_acknowledgements(self) -> None:
        """Write what peers have acknowledged."""
        for (key, name), seq in self._acked.items():
            cache = self._arenas[name].cache
            try:
                if cache.acknowledged(key) != seq:
                    cache.set_acknowledged(key, seq)
            except StoreError as error:
                # Written later, or the peer is told again what it knows: both are harmless.
                _log.debug("the position of a peer in %s is not recorded: %s", name, error)

    def close(self) -> None:
        """Write what is to be known at the next start."""
        self.flush_acknowledgements()

    def waiting_for(self) -> str:
        """Say what keeps the announcements from being complete on both sides; "" when nothing does."""
        for key, link in self.links.items():
            for name in link.arenas & self._arenas.keys():
                if (key, name) not in self._current:
                    return f"the listing of {name} from {link.name}"
                if self._acked.get((key, name), -1) < self._arenas[name].cache.history.last:
                    return f"{link.name} to take over changes of {name}"
        return ""

    def connected_to(self, arena: str) -> list[PeerLink]:
        """Return the links over which an arena is shared."""
        return [link for link in self.links.values() if arena in link.arenas]
