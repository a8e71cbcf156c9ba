"""Notices when this host gets or loses a network address, so that nobody waits for a pause to end."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable

import trio

_log = logging.getLogger("realize.net.interfaces")

# rtnetlink(7): multicast groups of address changes, as bits of the address that is bound.
_GROUPS = 0x10 | 0x100
_SETTLE_S = 1.0
"""Changes come in bursts, and routes follow addresses."""
_QUIET_S = 10.0
"""LIMIT: least time between two notices, for hosts whose containers come and go."""
_MESSAGE_BYTES = 65536


async def watch_addresses(changed: Callable[[], None]) -> None:
    """Call ``changed`` after every burst of address changes, for ever; returns where that cannot be known."""
    try:
        sock = trio.socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError as error:
        _log.debug("changes of the network are not noticed: %s", error)
        return
    with sock:
        try:
            await sock.bind((0, _GROUPS))
        except OSError as error:
            _log.debug("changes of the network are not noticed: %s", error)
            return
        while True:
            await burst(sock)
            changed()
            await trio.sleep(_QUIET_S)


async def burst(sock: trio.socket.SocketType) -> None:
    """Wait for a message, and until no more have come for a while."""
    await _receive(sock)
    while True:
        with trio.move_on_after(_SETTLE_S) as quiet:
            await _receive(sock)
        if quiet.cancelled_caught:
            return


async def _receive(sock: trio.socket.SocketType) -> None:
    try:
        await sock.recv(_MESSAGE_BYTES)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        _log.debug("the kernel dropped messages of address changes: a change all the same")
