"""Checks of a daemon that runs: whether it answers, its health, its peers and their clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import words
from app.client import call
from app.doctor.check import Check
from app.settings import Settings
from core.errors import ConfigError, NoDaemonError, RealizeError

if TYPE_CHECKING:
    from core.api import Api, PeerStatus, Status

_SKEW_S = 60.0
"""LIMIT: beyond, times that users see are misleading; order never depends on clocks."""


def checks(settings: Settings) -> tuple[bool, list[Check]]:
    """Return whether a daemon runs, and the checks of it."""

    async def work(api: Api) -> Status:
        return await api.status()

    try:
        status = call(settings, work)
    except NoDaemonError:
        return False, [Check("daemon", True, "not running")]
    except ConfigError:
        return False, []
    except RealizeError as error:
        return True, [Check("daemon", False, f"does not answer: {error}", "restart it; its log says more")]
    found = [Check("daemon", True, f"runs, version {status.version}")]
    found += [Check("daemon", False, sentence, "see its log") for sentence in status.health]
    for peer in status.peers:
        found += _peer(peer)
    return True, found


def _peer(peer: PeerStatus) -> list[Check]:
    found = []
    if peer.state in ("connecting", "disconnected") and peer.address is not None:
        detail = f"not connected to {peer.address}: {peer.reason or 'no answer yet'}"
        fix = "is it running, is its address right, and does its config hold our `realize id`?"
        found.append(Check(f"peer {peer.name}", False, detail, fix))
    else:
        found.append(Check(f"peer {peer.name}", True, peer.state))
    if peer.clock_skew_s is not None:
        skew_s = peer.clock_skew_s
        detail = f"{words.human_duration(abs(skew_s))} apart"
        fix = "set the clock of the host that is wrong: sudo timedatectl set-ntp true"
        found.append(Check(f"clock of {peer.name}", abs(skew_s) <= _SKEW_S, detail, fix))
    return found
