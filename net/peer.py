"""A configured peer: who it is, and what is known of its connection. Engine thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import trio

from core.config import PeerConfig
from core.errors import DisconnectedError
from core.ports import LinkStats
from net.dialer import Dialer
from net.identity import Certificate
from net.link import Link

PeerState = Literal["connected", "connecting", "disconnected", "disabled"]
DISABLED = "disconnected by the user"


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
class Peer:
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
        """The word of ``status --json``."""
        if self.link is not None:
            return "connected"
        if self.disabled:
            return "disabled"
        return "connecting" if self.attempting else "disconnected"

    def close(self, reason: str) -> None:
        """Close the connection, or give up dialling for now."""
        if self.link is not None:
            self.link.connection.close(DisconnectedError(reason, peer=self.config.name), goodbye=reason)
        elif self.dialer is not None:
            self.dialer.abandon()
