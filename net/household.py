"""The peers of this host: who is connected, who is let in, who is dialled.

Engine thread. One connection per pair: if both sides dial, the one dialled by the lower fingerprint
stays; a newer one dialled by the same side replaces the older.

Invariant: `core.ports.Household.link_down` of a link comes before `link_up` of the next of that peer.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import trio

from core.config import PeerConfig
from core.errors import ConfigError, DisconnectedError, NetError, PathNotFoundError
from core.ports import ContentProvider, Household, LinkStats
from net import auth_log, listener
from net.clocks import suspended_s
from net.dialer import Backoff, Dialer, open_stream
from net.identity import Certificate, Identity, parse_certificate
from net.link import Link, LinkParts
from net.tls import PeerRejectedError, Tls

_log = logging.getLogger("realize.net.household")

GREETING_S = 10.0
"""LIMIT: time for handshake and first frame (spec 5 §Identity)."""
_LINGER_S = 1.0
_WORKERS = 6
"""LIMIT: threads that read files for peers."""

PeerState = Literal["connected", "connecting", "disconnected", "disabled"]
_DISABLED = "disconnected by the user"


@dataclass(frozen=True, slots=True)
class PeerRow:
    """State of one configured peer. ``stats`` None: not connected; ``last_seen_ns`` None: never."""

    name: str
    state: PeerState
    address: str | None
    reason: str
    fingerprint: bytes
    arenas: frozenset[str]
    last_seen_ns: int | None
    stats: LinkStats | None


@dataclass(slots=True)
class _Peer:
    """A configured peer and its connection. ``gone`` is set when ``link`` has been taken down."""

    config: PeerConfig
    certificate: Certificate
    visible: frozenset[str]
    disabled: bool
    reason: str = ""
    link: Link | None = None
    dialled: bool = False
    gone: trio.Event = field(default_factory=trio.Event)
    attempting: bool = False
    last_seen_ns: int | None = None
    shown: tuple[PeerState, str] = ("disconnected", "")
    dialer: Dialer | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def state(self) -> PeerState:
        if self.link is not None:
            return "connected"
        if self.disabled:
            return "disabled"
        return "connecting" if self.attempting else "disconnected"


class Peers:
    """Keeps the connections of a host. `run` it in the engine."""

    def __init__(
        self,
        identity: Identity,
        node_name: str,
        arenas: Iterable[str],
        peers: Sequence[PeerConfig],
        household: Household,
        content: ContentProvider,
        *,
        listen: Sequence[str] = (),
        disabled: Iterable[str] = (),
        on_change: Callable[[str, PeerState, str], None] = lambda name, state, reason: None,
        wall_ns: Callable[[], int] = time.time_ns,
        rng: random.Random | None = None,
    ) -> None:
        """Make the registry.

        Args:
            identity: who this host is.
            node_name: what it calls itself.
            arenas: all configured arenas.
            peers: the configured peers.
            household: is told of links, and serves subscriptions.
            content: serves content.
            listen: addresses to listen on, ``host:port``; port 0 takes any (see `ports`).
            disabled: names of peers that stay disconnected until `connect`.
            on_change: called as ``(name, state, reason)`` when a peer's state changes.
            wall_ns: the wall clock, for display.
            rng: random numbers for pauses between dials.

        Raises:
            ConfigError: a peer's certificate is not one, is this host's own, or is that of another peer.
        """
        self._identity = identity
        self._arenas = frozenset(arenas)
        self._household = household
        self._listen = tuple(listen)
        self._on_change = on_change
        self._wall_ns = wall_ns
        self._rng = rng or random.Random()
        limiter = trio.CapacityLimiter(_WORKERS)
        self._parts = LinkParts(node_name, household, content, limiter, wall_ns, suspended_s)
        self._nursery: trio.Nursery | None = None
        self._peers = self._described(peers)
        for name in disabled:
            if name in self._peers:
                self._peers[name].disabled = True
        for peer in self._peers.values():
            peer.shown = (peer.state, peer.reason)
        self._tls = self._new_tls()
        self.ports: list[int] = []

    def _described(self, configs: Sequence[PeerConfig]) -> dict[str, _Peer]:
        peers: dict[str, _Peer] = {}
        seen = {self._identity.fingerprint: "this host itself"}
        for config in configs:
            if config.address is not None:
                listener.checked_address(config.address)
            certificate = parse_certificate(config.cert_pem, source=f"peer {config.name}")
            other = seen.setdefault(certificate.fingerprint, f"peer {config.name}")
            if other != f"peer {config.name}":
                raise ConfigError([f"peer {config.name}: its certificate is that of {other}"])
            allowed = self._arenas if config.arenas is None else self._arenas & set(config.arenas)
            peers[config.name] = _Peer(config, certificate, allowed, disabled=False)
        return peers

    def _new_tls(self) -> Tls:
        return Tls(self._identity, {name: peer.certificate for name, peer in self._peers.items()})

    # --- life ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, dial and serve until cancelled; started once all listening sockets are bound.

        Raises:
            NetError: an address cannot be listened on.
            ConfigError: an address is not one.
        """
        sockets: list[trio.socket.SocketType] = []
        for address in self._listen:
            sockets += await listener.open_sockets(address)
        self.ports = list(dict.fromkeys(sock.getsockname()[1] for sock in sockets))
        try:
            async with trio.open_nursery() as self._nursery:
                if sockets:
                    self._nursery.start_soon(listener.serve, sockets, self._admit)
                for peer in self._peers.values():
                    self._start(peer)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def _start(self, peer: _Peer) -> None:
        if self._nursery is None or peer.config.address is None:
            return
        peer.dialer = Dialer(
            lambda: self._dial(peer),
            lambda: not peer.disabled and peer.link is None,
            Backoff(self._rng),
        )
        self._nursery.start_soon(self._keep, peer, peer.dialer)

    async def _keep(self, peer: _Peer, dialer: Dialer) -> None:
        with peer.scope:
            await dialer.run()

    def update(self, arenas: Iterable[str], peers: Sequence[PeerConfig]) -> None:
        """Take over a changed config: peers that are new, gone or changed are (dis)connected.

        Raises:
            ConfigError: as at the start; then nothing is changed.
        """
        before_arenas, self._arenas = self._arenas, frozenset(arenas)
        try:
            described = self._described(peers)
        except ConfigError:
            self._arenas = before_arenas
            raise
        before, self._peers = self._peers, described
        for name, peer in before.items():
            now = described.get(name)
            if now is not None and (now.config, now.visible) == (peer.config, peer.visible):
                described[name] = peer
                continue
            if now is not None:
                now.disabled = peer.disabled
                now.last_seen_ns = peer.last_seen_ns
            peer.disabled = True
            self._hang_up(peer, "removed from the config" if now is None else "the config changed")
            peer.scope.cancel()
        self._tls = self._new_tls()
        for name, peer in described.items():
            if before.get(name) is not peer:
                self._start(peer)

    # --- what users ask ---

    def status(self) -> list[PeerRow]:
        """Return the state of every configured peer, in the order of the config."""
        return [self._row(name, peer) for name, peer in self._peers.items()]

    def _row(self, name: str, peer: _Peer) -> PeerRow:
        link = peer.link
        return PeerRow(
            name=name,
            state=peer.state,
            address=peer.config.address,
            reason=peer.reason,
            fingerprint=peer.certificate.fingerprint,
            arenas=peer.visible if link is None else link.arenas,
            last_seen_ns=self._wall_ns() if link is not None else peer.last_seen_ns,
            stats=None if link is None else link.stats(),
        )

    def link(self, name: str) -> Link | None:
        """Return the link to a peer, None when it is not connected.

        Raises:
            PathNotFoundError: no such peer.
        """
        return self._peer(name).link

    def connect(self, name: str) -> None:
        """Enable a peer and dial it now, if it has an address.

        Raises:
            PathNotFoundError: no such peer.
        """
        peer = self._peer(name)
        peer.disabled = False
        if peer.reason == _DISABLED:
            peer.reason = ""
        if peer.dialer is not None:
            peer.dialer.kick()
        self._show(peer)

    def disconnect(self, name: str) -> None:
        """Close both directions and refuse the peer until `connect`.

        Raises:
            PathNotFoundError: no such peer.
        """
        peer = self._peer(name)
        peer.disabled = True
        peer.reason = _DISABLED
        self._hang_up(peer, _DISABLED)
        self._show(peer)

    def network_changed(self) -> None:
        """Try every peer again now, and doubt the connections there are."""
        for peer in self._peers.values():
            if peer.link is not None:
                peer.link.connection.probe()
            elif peer.dialer is not None:
                peer.dialer.kick()

    def _peer(self, name: str) -> _Peer:
        if name not in self._peers:
            raise PathNotFoundError(f"no peer {name!r}", hint=f"peers: {', '.join(self._peers) or 'none'}")
        return self._peers[name]

    def _hang_up(self, peer: _Peer, reason: str) -> None:
        if peer.link is not None:
            peer.link.connection.close(DisconnectedError(reason, peer=peer.config.name), goodbye=reason)
        elif peer.dialer is not None:
            peer.dialer.abandon()

    def _show(self, peer: _Peer) -> None:
        shown = (peer.state, peer.reason)
        if shown != peer.shown and self._peers.get(peer.config.name) is peer:
            peer.shown = shown
            self._on_change(peer.config.name, *shown)

    # --- connections ---

    async def _admit(
        self, stream: trio.SocketStream, address: str, authenticated: Callable[[], None]
    ) -> None:
        silent = "no handshake in time"
        with trio.CancelScope(deadline=trio.current_time() + GREETING_S) as scope:
            try:
                tls, name = await self._tls.accept(stream)
            except NetError as error:
                silent = ""
                fingerprint = error.fingerprint if isinstance(error, PeerRejectedError) else None
                auth_log.rejected(address, str(error), fingerprint=fingerprint)
                await _linger(stream)
            else:
                silent = "no hello in time"
                await self.attach(
                    name, tls, dialled=False, address=address, greeting=scope, greeted=authenticated
                )
        if scope.cancelled_caught and silent:
            auth_log.rejected(address, silent)
        with trio.move_on_after(0):
            await stream.aclose()

    async def _dial(self, peer: _Peer) -> bool:
        name, address = peer.config.name, peer.config.address or ""
        peer.attempting = not peer.reason or peer.reason == _DISABLED
        self._show(peer)
        try:
            with trio.CancelScope(deadline=trio.current_time() + GREETING_S) as scope:
                stream = await open_stream(address)
                try:
                    tls = await self._tls.connect(stream, name)
                    return await self.attach(name, tls, dialled=True, address=address, greeting=scope)
                finally:
                    with trio.move_on_after(0):
                        await stream.aclose()
            self._failed(peer, address, "no answer in time", None)
        except PeerRejectedError as error:
            self._failed(peer, address, str(error), error.fingerprint)
        except NetError as error:
            self._failed(peer, address, str(error), None)
        finally:
            peer.attempting = False
            self._show(peer)
        return False

    def _failed(self, peer: _Peer, address: str, reason: str, fingerprint: bytes | None) -> None:
        # A peer that is switched off is tried once a minute for days: said once, and again when it changes.
        if reason != peer.reason or fingerprint is not None:
            auth_log.rejected(address, reason, peer=peer.config.name, fingerprint=fingerprint)
        if peer.link is None and not peer.disabled:
            peer.reason = reason

    async def attach(
        self,
        name: str,
        stream: trio.abc.Stream,
        *,
        dialled: bool,
        address: str,
        greeting: trio.CancelScope | None = None,
        greeted: Callable[[], None] = lambda: None,
    ) -> bool:
        """Speak with a peer over an authenticated stream for as long as it lives; says whether it greeted.

        Args:
            name: whose stream it is.
            stream: TLS, or anything in memory whose other end is known; closed at the end.
            dialled: whether this side dialled.
            address: of the other side, for logs.
            greeting: has the deadline of the greeting, which is lifted after it.
            greeted: called when the peer has said hello.
        """
        peer = self._peers.get(name)
        if peer is None:  # RACE: removed from the config since its handshake began.
            auth_log.rejected(address, "not a peer any more", peer=name)
            return False
        link = Link(stream, name=name, key=peer.certificate.key, visible=peer.visible, parts=self._parts)
        up = False
        async with trio.open_nursery() as nursery:
            ended = trio.Event()
            nursery.start_soon(self._run_link, link, ended)
            try:
                if peer.disabled:
                    link.connection.close(DisconnectedError("disabled", peer=name), goodbye="disabled there")
                await link.greeted()
                if greeting is not None:
                    greeting.deadline = math.inf
                greeted()
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

    def _not_greeted(self, peer: _Peer, link: Link, address: str, error: NetError, dialled: bool) -> None:
        reason = str(link.connection.reason or error)
        if dialled:
            self._failed(peer, address, reason, peer.certificate.fingerprint)
        else:
            auth_log.rejected(
                address, reason, peer=peer.config.name, fingerprint=peer.certificate.fingerprint
            )

    async def _take_place(self, peer: _Peer, link: Link, dialled: bool) -> bool:
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

    def _ours_stay(self, peer: _Peer) -> bool:
        return self._identity.fingerprint < peer.certificate.fingerprint

    async def _serve(self, peer: _Peer, link: Link, address: str, ended: trio.Event) -> None:
        auth_log.accepted(peer.config.name, address, peer.certificate.fingerprint)
        peer.reason = ""
        self._show(peer)
        self._household.link_up(link)
        try:
            await ended.wait()
        finally:
            peer.link = None
            peer.last_seen_ns = self._wall_ns()
            reason = str(link.connection.reason)
            peer.reason = _DISABLED if peer.disabled else reason
            self._household.link_down(link, reason)
            peer.gone.set()
            if peer.dialer is not None:
                peer.dialer.look()
            self._show(peer)


async def _linger(stream: trio.SocketStream) -> None:
    """Wait until a refused client has read why: closing with unread data would discard the alert."""
    try:
        with trio.move_on_after(_LINGER_S):
            await stream.send_eof()
            while await stream.receive_some(65536):
                pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        _log.debug("a refused client was gone before it was told")
