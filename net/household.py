"""The peers of this host: who is connected, who is let in, who is dialled.

Engine thread. The sockets are here and in `net.listener`; which of two connections stays is decided in
`net.pairs`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence

import trio

from core.config import PeerConfig
from core.errors import ConfigError, NetError, PathNotFoundError
from core.ports import ContentProvider, Household
from net import auth_log, listener
from net.clocks import suspended_s
from net.dialer import Backoff, Dialer, open_stream
from net.identity import Identity, parse_certificate
from net.interfaces import watch_addresses
from net.link import Link, LinkParts
from net.pairs import Greeting, Pairs, dial_failed
from net.peer import DISABLED, Peer, PeerRow, PeerState
from net.tls import PeerRejectedError, Tls

__all__ = ["PeerRow", "PeerState", "Peers"]

_log = logging.getLogger("realize.net.household")

GREETING_S = 10.0
"""LIMIT: time for handshake and first frame (spec 5 §Identity)."""
_LINGER_S = 1.0
_WORKERS = 6
"""LIMIT: threads that read files for peers."""


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
        self._listen = tuple(listen)
        self._on_change = on_change
        self._wall_ns = wall_ns
        self._rng = rng or random.Random()
        limiter = trio.CapacityLimiter(_WORKERS)
        parts = LinkParts(node_name, household, content, limiter, wall_ns, suspended_s)
        self._pairs = Pairs(identity.fingerprint, parts, self._show)
        self._nursery: trio.Nursery | None = None
        self._peers = self._described(peers)
        for name in disabled:
            if name in self._peers:
                self._peers[name].disabled = True
        for peer in self._peers.values():
            peer.shown = (peer.state, peer.reason)
        self._tls = self._new_tls()
        self.ports: list[int] = []

    def _described(self, configs: Sequence[PeerConfig]) -> dict[str, Peer]:
        peers: dict[str, Peer] = {}
        seen = {self._identity.fingerprint: "this host itself"}
        for config in configs:
            if config.address is not None:
                listener.checked_address(config.address)
            certificate = parse_certificate(config.cert_pem, source=f"peer {config.name}")
            other = seen.setdefault(certificate.fingerprint, f"peer {config.name}")
            if other != f"peer {config.name}":
                raise ConfigError([f"peer {config.name}: its certificate is that of {other}"])
            allowed = self._arenas if config.arenas is None else self._arenas & set(config.arenas)
            peers[config.name] = Peer(config, certificate, allowed, disabled=False)
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
                self._nursery.start_soon(watch_addresses, self.network_changed)
                for peer in self._peers.values():
                    self._start(peer)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def _start(self, peer: Peer) -> None:
        if self._nursery is None or peer.config.address is None:
            return
        peer.dialer = Dialer(
            lambda: self._dial(peer),
            lambda: not peer.disabled and peer.link is None,
            Backoff(self._rng),
        )
        self._nursery.start_soon(self._keep, peer, peer.dialer)

    async def _keep(self, peer: Peer, dialer: Dialer) -> None:
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
            peer.close("removed from the config" if now is None else "the config changed")
            peer.scope.cancel()
        self._tls = self._new_tls()
        for name, peer in described.items():
            if before.get(name) is not peer:
                self._start(peer)

    # --- what users ask ---

    def status(self) -> list[PeerRow]:
        """Return the state of every configured peer, in the order of the config."""
        return [self._row(name, peer) for name, peer in self._peers.items()]

    def _row(self, name: str, peer: Peer) -> PeerRow:
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
        if peer.reason == DISABLED:
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
        peer.reason = DISABLED
        peer.close(DISABLED)
        self._show(peer)

    def network_changed(self) -> None:
        """Try every peer again now, and doubt the connections there are."""
        for peer in self._peers.values():
            if peer.link is not None:
                peer.link.connection.probe()
            elif peer.dialer is not None:
                peer.dialer.kick()

    def _peer(self, name: str) -> Peer:
        if name not in self._peers:
            raise PathNotFoundError(f"no peer {name!r}", hint=f"peers: {', '.join(self._peers) or 'none'}")
        return self._peers[name]

    def _show(self, peer: Peer) -> None:
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
                await self._attach(name, tls, False, address, Greeting(scope, authenticated))
        if scope.cancelled_caught and silent:
            auth_log.rejected(address, silent)
        with trio.move_on_after(0):
            await stream.aclose()

    async def _dial(self, peer: Peer) -> bool:
        name, address = peer.config.name, peer.config.address or ""
        peer.attempting = not peer.reason or peer.reason == DISABLED
        self._show(peer)
        try:
            with trio.CancelScope(deadline=trio.current_time() + GREETING_S) as scope:
                stream = await open_stream(address)
                try:
                    tls = await self._tls.connect(stream, name)
                    return await self._attach(name, tls, True, address, Greeting(scope))
                finally:
                    with trio.move_on_after(0):
                        await stream.aclose()
            dial_failed(peer, address, "no answer in time", None)
        except PeerRejectedError as error:
            dial_failed(peer, address, str(error), error.fingerprint)
        except NetError as error:
            dial_failed(peer, address, str(error), None)
        finally:
            peer.attempting = False
            self._show(peer)
        return False

    async def attach(self, name: str, stream: trio.abc.Stream, *, dialled: bool, address: str) -> bool:
        """Speak with a peer over a stream that is known to be its own; see `Pairs.attach`."""
        return await self._attach(name, stream, dialled, address, Greeting())

    async def _attach(
        self, name: str, stream: trio.abc.Stream, dialled: bool, address: str, greeting: Greeting
    ) -> bool:
        peer = self._peers.get(name)
        if peer is None:  # RACE: removed from the config since its handshake began.
            auth_log.rejected(address, "not a peer any more", peer=name)
            return False
        return await self._pairs.attach(peer, stream, dialled=dialled, address=address, greeting=greeting)


async def _linger(stream: trio.SocketStream) -> None:
    """Wait until a refused client has read why: closing with unread data would discard the alert."""
    try:
        with trio.move_on_after(_LINGER_S):
            await stream.send_eof()
            while await stream.receive_some(65536):
                pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        _log.debug("a refused client was gone before it was told")
