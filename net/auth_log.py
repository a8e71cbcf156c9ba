"""The ``realize.auth`` lines: one for each connection attempt and its outcome (spec 3 §Logging)."""

from __future__ import annotations

import logging

from core.paths import display
from net.identity import short_form

_log = logging.getLogger("realize.auth")


def accepted(peer: str, address: str, fingerprint: bytes) -> None:
    """A peer is authenticated and has said hello."""
    _log.info("accepted peer=%s addr=%s fingerprint=%s", display(peer), address, short_form(fingerprint))


def rejected(address: str, reason: str, *, peer: str = "", fingerprint: bytes | None = None) -> None:
    """A connection attempt came to nothing. ``fingerprint``: of the certificate, where one arrived.

    With a ``peer`` it is one of ours that is away, or has two connections: nothing to be warned of.
    """
    who = f"peer={display(peer)} " if peer else ""
    which = f" fingerprint={short_form(fingerprint)}" if fingerprint else ""
    level = logging.INFO if peer else logging.WARNING
    _log.log(level, "rejected %saddr=%s reason=%s%s", who, address, display(reason), which)
