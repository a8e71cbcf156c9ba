"""Listening: sockets for every address of a name, and clients let in one by one.

Accepting never waits for a client; who has not said who he is counts against limits, so that a
flood of strangers leaves peers a place.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio

from core.addresses import ACCEPTED, parse_address
from core.errors import ConfigError, NetError
from net import auth_log

_log = logging.getLogger("realize.net.listener")

UNAUTHENTICATED = 64
"""LIMIT: connections at a time whose other side is not known yet (spec 5 §Identity)."""
UNAUTHENTICATED_PER_ADDRESS = 8
"""LIMIT: of these, from one address (spec 5 §Identity)."""
_BACKLOG = 64
_PORT_TRIES = 16
_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
_FIRST_PAUSE_S = 0.05
_LAST_PAUSE_S = 1.0

Admit = Callable[[trio.SocketStream, str, Callable[[], None]], Awaitable[None]]
"""Called as ``admit(stream, address, authenticated)`` in a task of its own for each client; calls
``authenticated()`` when it knows the peer, closes the stream, and raises nothing but bugs."""


def checked_address(text: str) -> tuple[str, int]:
    """Return host and port of an address of the config or the command line.

    Raises:
        ConfigError: it is not one.
    """
    try:
        return parse_address(text)
    except ValueError as error:
        raise ConfigError([f"{text!r} is not an address: {error}"], hint=f"write {ACCEPTED}") from error


async def open_sockets(text: str) -> list[trio.socket.SocketType]:
    """Bind every address, of both families, that ``text`` (``host:port``) stands for, on one port.

    Raises:
        ConfigError: the text is not an address.
        NetError: the name does not resolve, or the port cannot be had.
    """
    host, port = checked_address(text)
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise NetError(f"cannot listen on {text}: {error.strerror or error}") from error
    targets = list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))
    for attempt in range(_PORT_TRIES):
        try:
            return await _bind_all(targets)
        except OSError as error:
            # RACE: with port 0 the port of the first family may be taken in the other: try another.
            if port or error.errno != errno.EADDRINUSE or attempt == _PORT_TRIES - 1:
                hint = "another program (or daemon) uses the port" if error.errno == errno.EADDRINUSE else ""
                raise NetError(f"cannot listen on {text}: {error.strerror}", hint=hint) from error
    raise AssertionError("unreachable")


async def _bind_all(targets: Sequence[tuple[int, tuple[object, ...]]]) -> list[trio.socket.SocketType]:
    sockets: list[trio.socket.SocketType] = []
    refused: OSError | None = None
    try:
        for family, sockaddr in targets:
            port = sockets[0].getsockname()[1] if sockets else sockaddr[1]
            try:
                sockets.append(await _bind(family, (sockaddr[0], port, *sockaddr[2:])))
            except OSError as error:
                if error.errno not in _NO_FAMILY:
                    raise
                refused = error
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if refused is not None and not sockets:
        raise refused
    return sockets


async def _bind(family: int, sockaddr: tuple[object, ...]) -> trio.socket.SocketType:
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind(sockaddr)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


class Doorkeeper:
    """Counts who is not authenticated yet. Pure but for the log line of who is turned away."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._hosts: Counter[str] = Counter()

    def refusal(self, host: str) -> str:
        """Return why a client from ``host`` cannot even be asked who he is, "" if he can."""
        if self._hosts.total() >= UNAUTHENTICATED:
            return "too many unauthenticated connections"
        if self._hosts[host] >= UNAUTHENTICATED_PER_ADDRESS:
            return "too many unauthenticated connections from this address"
        return ""

    @contextmanager
    def waiting(self, host: str) -> Iterator[Callable[[], None]]:
        """Count a client for the time of the context, or until what it gives is called."""
        counted = True

        def done() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._hosts[host] -= 1
                if not self._hosts[host]:
                    del self._hosts[host]

        self._hosts[host] += 1
        try:
            yield done
        finally:
            done()


async def accept_for_ever(
    sock: trio.socket.SocketType, on_client: Callable[[trio.SocketStream, Any], None]
) -> None:
    """Accept clients of one listening socket and hand each to ``on_client(stream, sockaddr)``."""
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            accepted, peer = await sock.accept()
        except OSError as error:
            if error.errno not in _NO_RESOURCES:
                _log.debug("a client went away before it was accepted: %s", error)
                await trio.lowlevel.checkpoint()
                continue
            if pause_s == _FIRST_PAUSE_S:
                _log.warning("cannot accept connections: %s; trying again", error.strerror)
            await trio.sleep(pause_s)
            pause_s = min(_LAST_PAUSE_S, pause_s * 2)
            continue
        pause_s = _FIRST_PAUSE_S
        try:
            stream = trio.SocketStream(accepted)
        except OSError:
            accepted.close()
            continue
        on_client(stream, peer)


async def serve(sockets: Sequence[trio.socket.SocketType], admit: Admit) -> None:
    """Serve clients of all ``sockets`` for ever.

    Args:
        sockets: listening; closed at the end.
        admit: authenticates and serves one client.
    """
    doorkeeper = Doorkeeper()

    async def client(stream: trio.SocketStream, host: str, address: str) -> None:
        with doorkeeper.waiting(host) as authenticated:
            await admit(stream, address, authenticated)

    def on_client(stream: trio.SocketStream, sockaddr: tuple[Any, ...]) -> None:
        host = str(sockaddr[0])
        address = f"[{host}]:{sockaddr[1]}" if ":" in host else f"{host}:{sockaddr[1]}"
        refusal = doorkeeper.refusal(host)
        if refusal:
            auth_log.rejected(address, refusal)
            stream.socket.close()
        else:
            nursery.start_soon(client, stream, host, address)

    try:
        async with trio.open_nursery() as nursery:
            for sock in sockets:
                nursery.start_soon(accept_for_ever, sock, on_client)
    finally:
        for sock in sockets:
            sock.close()
