"""Which peer to fetch a content from: measured throughput, and who was wrong about which version.

Engine thread; in memory only. A holder whose block does not fit another holder's block list is
*accused* by that other one; when the whole content then turns out wrong, it was the list that lied:
its giver is *convicted* and those it accused are heard again. So every round that fails takes one
holder out for good, and the rounds end.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence

from core.ports import PeerLink
from core.types import Hash, PeerKey

_log = logging.getLogger("realize.core.holders")

_MAX_CONTENTS = 4096
"""LIMIT: contents for which liars are remembered."""
_SMOOTHING = 0.3


class HolderBook:
    """What is known of the peers as sources of content."""

    def __init__(self) -> None:
        """Know nothing."""
        self._rates: dict[PeerKey, float] = {}
        self._wrong: OrderedDict[Hash, dict[PeerKey, PeerKey | None]] = OrderedDict()

    def measured(self, peer: PeerKey, count: int, seconds: float) -> None:
        """Take in that ``count`` bytes came from a peer in ``seconds``."""
        rate = count / max(seconds, 1e-6)
        old = self._rates.get(peer)
        self._rates[peer] = rate if old is None else old + _SMOOTHING * (rate - old)

    def rate(self, peer: PeerKey) -> float:
        """Return the throughput of a peer in bytes/s, 0 before it was measured."""
        return self._rates.get(peer, 0.0)

    def usable(self, content: Hash, holders: Sequence[PeerLink]) -> list[PeerLink]:
        """Return the holders that were not wrong about a content, the fastest first."""
        wrong = self._wrong.get(content, {})
        return sorted(
            (link for link in holders if link.key not in wrong), key=lambda link: -self.rate(link.key)
        )

    def accuse(self, content: Hash, link: PeerLink, accuser: PeerKey | None, what: str) -> None:
        """Avoid a holder for a content; ``accuser`` gave the list it does not fit (None: the hash)."""
        wrong = self._wrong.setdefault(content, {})
        self._wrong.move_to_end(content)
        while len(self._wrong) > _MAX_CONTENTS:
            self._wrong.popitem(last=False)
        if link.key not in wrong:
            _log.warning("peer %s sent %s for %s; not asking it again", link.name, what, content.hex())
        wrong[link.key] = None if accuser == link.key else accuser

    def convict(self, content: Hash, giver: PeerKey) -> None:
        """Avoid the giver of a list that cannot be right, and clear those it accused."""
        self.forgive(content, giver)
        self._wrong.setdefault(content, {})[giver] = None

    def forgive(self, content: Hash, giver: PeerKey) -> None:
        """Hear again those that only the list of ``giver`` speaks against; it is out of reach itself."""
        wrong = self._wrong.get(content, {})
        for peer in [peer for peer, accuser in wrong.items() if accuser == giver]:
            del wrong[peer]

    def forget(self, peer: PeerKey) -> None:
        """Forget what a peer did wrong: it connects anew, and may have repaired its copy."""
        for wrong in self._wrong.values():
            wrong.pop(peer, None)

    def is_wrong(self, content: Hash, peer: PeerKey) -> bool:
        """Say whether a holder is avoided for a content."""
        return peer in self._wrong.get(content, {})

    def any_wrong(self, content: Hash) -> bool:
        """Say whether anyone is avoided for a content."""
        return bool(self._wrong.get(content))
