"""The peers of a host as the engine and users see them: `core.ports.Network` over `net.household`."""

from __future__ import annotations

import logging

from core.api import PeerStatus
from core.connected import ConnectedPeers
from core.engine import Engine
from core.errors import StoreError
from core.events import PeerChanged
from core.ports import LinkStats
from net.household import PeerRow, Peers, PeerState
from net.identity import Identity, short_form

_log = logging.getLogger("realize.app.network")


class HostNetwork:
    """Runs the connections of a host and remembers what the user said of them. Engine thread."""

    def __init__(self, engine: Engine, identity: Identity, connected: ConnectedPeers) -> None:
        """Make the connections of ``engine``'s config; ``connected`` is kept up to date for readers.

        Raises:
            ConfigError: a peer's certificate cannot be used.
        """
        config = engine.config
        self._engine = engine
        self._connected = connected
        self._fingerprints: dict[str, str] = {}
        self.peers = Peers(
            identity,
            config.node.name,
            [arena.name for arena in config.arenas],
            config.peers,
            engine.subscriptions,
            engine.provider,
            listen=config.node.listen,
            disabled=engine.disabled_peers(),
            on_change=self._changed,
        )
        self._seen = engine.last_seen()
        for row in self.peers.status():
            self._fingerprints[row.name] = short_form(row.fingerprint)
            engine.remember_peer(row.name, self._fingerprints[row.name])

    def _changed(self, name: str, state: PeerState, reason: str) -> None:
        key = self._engine.peer_keys[name]
        if state == "connected":
            self._connected.add(key)
        elif key in self._connected.keys:
            self._connected.remove(key)
            try:
                self._engine.remember_peer(name, self._fingerprints[name], seen=True)
            except StoreError as error:
                _log.warning("when %s was last seen is not recorded: %s", name, error)
        self._engine.events.emit(PeerChanged(peer=name, state=state, reason=reason))

    def status(self) -> list[PeerStatus]:
        """See `Network.status`."""
        return [self._row(row) for row in self.peers.status()]

    def _row(self, row: PeerRow) -> PeerStatus:
        stats = row.stats or LinkStats(None, 0, 0, 0.0, 0.0, None)
        return PeerStatus(
            name=row.name,
            state=row.state,
            address=row.address,
            rtt_ms=stats.rtt_s * 1000 if stats.rtt_s is not None else None,
            rx_bytes=stats.rx_bytes,
            tx_bytes=stats.tx_bytes,
            rx_rate=stats.rx_rate,
            tx_rate=stats.tx_rate,
            arenas=tuple(sorted(row.arenas)),
            fingerprint=self._fingerprints.get(row.name, ""),
            reason=row.reason,
            last_seen_ns=row.last_seen_ns or self._seen.get(row.name),
            clock_skew_s=stats.clock_skew_s,
        )

    def connect(self, name: str) -> None:
        """See `Network.connect`."""
        self.peers.connect(name)
        self._engine.remember_peer(name, self._fingerprints[name], disabled=False)

    def disconnect(self, name: str) -> None:
        """See `Network.disconnect`."""
        self.peers.disconnect(name)
        self._engine.remember_peer(name, self._fingerprints[name], disabled=True)
