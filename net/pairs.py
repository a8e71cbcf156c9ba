"""One connection per pair: which of two stays, and telling core of links that come and go.

Engine thread. If both sides dial, the connection dialled by the lower fingerprint stays; a newer one
dialled by the same side replaces the older.

Invariant: `core.ports.Household.link_down` of a link comes before `link_up` of the next of that peer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import trio

from core.errors import DisconnectedError, NetError
from core.ports import Household
from net import auth_log
from net.link import Link, LinkParts
from net.peer import DISABLED, Peer


@dataclass(frozen=True, slots=True)
class Greeting:
    """What is to happen when a peer has said hello: its deadline is lifted, it is no stranger any more."""

    scope: trio.CancelScope | None = None
    authenticated: Callable[[], None] = lambda: None

    def done(self) -> None:
        """The peer has said hello."""
        if self.scope is not None:
            self.scope.deadline = math.inf
        self.authenticated()


class Pairs:
    """Runs the links of a host, at most one for each peer at a time."""

    def __init__(self, fingerprint: bytes, parts: LinkParts, show: Callable[[Peer], None]) -> None:
        """Make it.

        Args:
            fingerprint: of this host.
            parts: what links share; its household is told of them.
            show: called when the state of a peer may have changed.
        """
        self._fingerprint = fingerprint
        self._parts = parts
        self._household: Household = parts.household
        self._show = show
        self._wall_ns = parts.wall_ns

    async def attach(
        self, peer: Peer, stream: trio.abc.Stream, *, dialled: bool, address: str, greeting: Greeting
    ) -> bool:
        """Speak with a peer over an authenticated stream for as long as it lives; says whether it greeted.

        Args:
            peer: whose stream it is.
            stream: TLS, or anything in memory whose other end is known; closed at the end.
            dialled: whether this side dialled.
            address: of the other side, for logs.
            greeting: is told when the peer has said hello.
        """
        name = peer.config.name
        link = Link(stream, name=name, key=peer.certificate.key, visible=peer.visible, parts=self._parts)
        up = False
        async with trio.open_nursery() as nursery:
            ended = trio.Event()
            nursery.start_soon(self._run_link, link, ended)
            try:
                if peer.disabled:
                    link.connection.close(DisconnectedError("disabled", peer=name), goodbye="disabled there")
                await link.greeted()
                greeting.done()
                up = await self._take_place(peer, link, dialled)
            except NetError as error:
                self._not_greeted(peer, link, address, error, dialled)
            else:
                if up:
                    await self._serve(peer, link, address, ended)
        return up

    @staticmethod
    async def _run_link(link: Link, ended: trio.Event) -> None:
        try:
            await link.run()
        finally:
            ended.set()

    def _not_greeted(self, peer: Peer, link: Link, address: str, error: NetError, dialled: bool) -> None:
        reason = str(link.connection.reason or error)
        if dialled:
            dial_failed(peer, address, reason, peer.certificate.fingerprint)
        else:
            auth_log.rejected(
                address, reason, peer=peer.config.name, fingerprint=peer.certificate.fingerprint
            )

    async def _take_place(self, peer: Peer, link: Link, dialled: bool) -> bool:
        """Make ``link`` the one of the peer, if it is to stay; waits until the one before is gone.

        Raises:
            DisconnectedError: another one stays.
        """
        while peer.link is not None:
            if dialled != peer.dialled and dialled != self._ours_stay(peer):
                peer.link.connection.probe()
                error = DisconnectedError("already connected", peer=peer.config.name)
                link.connection.close(error, goodbye="already connected")
                raise error
            error = DisconnectedError("replaced by a newer connection", peer=peer.config.name)
            peer.link.connection.close(error, goodbye=str(error))
            await peer.gone.wait()
        if link.connection.ended or peer.disabled:
            link.connection.close(DisconnectedError("closed", peer=peer.config.name))
            raise DisconnectedError("closed", peer=peer.config.name)
        peer.link, peer.dialled, peer.gone = link, dialled, trio.Event()
        peer.attempting &= not dialled
        return True

    def _ours_stay(self, peer: Peer) -> bool:
        return self._fingerprint < peer.certificate.fingerprint

    async def _serve(self, peer: Peer, link: Link, address: str, ended: trio.Event) -> None:
        auth_log.accepted(peer.config.name, address, peer.certificate.fingerprint)
        peer.reason = ""
        self._show(peer)
        self._household.link_up(link)
        try:
            await ended.wait()
        finally:
            peer.link = None
            peer.last_seen_ns = self._wall_ns()
            reason = str(link.connection.reason or "stopping")
            peer.reason = DISABLED if peer.disabled else reason
            self._household.link_down(link, reason)
            peer.gone.set()
            if peer.dialer is not None:
                peer.dialer.look()
            self._show(peer)


def dial_failed(peer: Peer, address: str, reason: str, fingerprint: bytes | None) -> None:
    """Note and log that dialling a peer came to nothing."""
    # A peer that is switched off is tried once a minute for days: said once, and again when it changes.
    if reason != peer.reason or fingerprint is not None:
        auth_log.rejected(address, reason, peer=peer.config.name, fingerprint=fingerprint)
    if peer.link is None and not peer.disabled:
        peer.reason = reason
