"""The control socket: `core.api.Api` for programs of the same user (spec 3 §Control socket).

The frames of the peers' protocol over a unix socket. `ControlServer` runs in the engine;
`ControlClient` in any trio loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import trio

from core.api import Api
from core.errors import NetError, NoDaemonError, RealizeError, RemoteProtocolError, UsageError
from net import messages
from net.answers import Answers
from net.connection import Connection
from net.control_table import MAX_VALUE, METHODS, Method, error_of, parts_of
from net.incoming import Incoming
from net.messages import Hello, Request
from net.unix_socket import connect_unix, listen_unix, peer_uid

_log = logging.getLogger("realize.net.control")

_DAEMON = "the daemon"


class ControlServer:
    """Serves an `Api` at a unix socket."""

    def __init__(self, api: Api, socket_path: Path) -> None:
        """Make the server; nothing is bound before `run`."""
        self._api = api
        self._path = socket_path

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once the socket listens.

        Raises:
            StoreError: another daemon answers at the socket, or it cannot be made.
        """
        # Imported by the server alone: it brings the certificates along, which a client need not wait for.
        from net.listener import accept_for_ever

        sock = await listen_unix(self._path)
        made = self._path.stat().st_ino
        try:
            async with trio.open_nursery() as nursery:

                def on_client(stream: trio.SocketStream, _: object) -> None:
                    nursery.start_soon(self._client, stream)

                task_status.started()
                await accept_for_ever(sock, on_client)
        finally:
            sock.close()
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == made:
                    self._path.unlink()

    async def _client(self, stream: trio.SocketStream) -> None:
        uid = peer_uid(stream)
        if uid not in (os.getuid(), 0):
            _log.warning("refused user %d on the control socket", uid)
            await stream.aclose()
            return
        connection = Connection(
            stream,
            Hello("daemon", frozenset(), time.time_ns()),
            self._serve,
            label="control client",
            remote_error=error_of,
        )
        reason = await connection.run()
        _log.debug("control client left: %s", reason)

    async def _serve(self, request: Request, payload: memoryview, answers: Answers) -> None:
        if not isinstance(request, messages.Control):
            raise UsageError("this socket takes control requests only")
        method = METHODS.get(request.method)
        if method is None:
            raise UsageError(f"the daemon has no method {request.method!r}", hint="restart the daemon")
        arguments = method.decode_arguments(payload)
        call = getattr(self._api, method.name)
        if not method.stream:
            await _send(answers, await call(**arguments))
            return
        async with contextlib.aclosing(cast("AsyncGenerator[object, None]", call(**arguments))) as values:
            async for value in values:
                await _send(answers, value)


async def _send(answers: Answers, value: object) -> None:
    for part, more in parts_of(value):
        await answers.send(messages.Result(more), part)


class ControlClient:
    """A client of a daemon: ``async with ControlClient(path) as api``.

    What is entered is an `Api`: its methods are attached to this class from `METHODS`.
    """

    def __init__(self, socket_path: Path) -> None:
        """Make a client of the daemon at ``socket_path``; entering it connects."""
        self._path = socket_path
        self._connection: Connection | None = None
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> Api:
        """Connect.

        Raises:
            NoDaemonError: nobody listens.
        """
        stream = await connect_unix(self._path)
        self._connection = Connection(
            stream,
            Hello("client", frozenset(), time.time_ns()),
            _refuse,
            label=_DAEMON,
            remote_error=error_of,
        )
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._connection.run)
        try:
            await self._connection.greeted()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            if isinstance(error, NetError):
                raise NoDaemonError(f"{_DAEMON} on {self._path} does not speak: {error}") from error
            raise
        return cast("Api", self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnect, which cancels what is being asked."""
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()
        # The error is not shown to the nursery, which would wrap it in a group.
        await self._manager.__aexit__(None, None, None)

    @contextlib.asynccontextmanager
    async def _ask(
        self, method: Method, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> AsyncIterator[AsyncGenerator[Any, None]]:
        connection = self._connection
        assert connection is not None, "use it in `async with`"
        try:
            payload = method.encode_arguments(args, kwargs)
            async with (
                connection.ask(messages.Control(method.name), payload) as incoming,
                contextlib.aclosing(_values(method, incoming)) as values,
            ):
                yield values
        except RealizeError as error:
            if connection.ended and isinstance(error, NetError):
                raise NoDaemonError(f"{_DAEMON} went away") from error
            raise


async def _values(method: Method, incoming: Incoming) -> AsyncGenerator[Any, None]:
    data = bytearray()
    while (taken := await incoming.take()) is not None:
        item, payload = taken
        data += payload
        if len(data) > MAX_VALUE or not isinstance(item, messages.Result):
            raise RemoteProtocolError(f"result of {method.name} is too large")
        if not item.more:
            yield method.decode_result(bytes(data))
            data.clear()


async def _refuse(request: Request, payload: memoryview, answers: Answers) -> None:
    raise UsageError("a client answers nothing")


def _plain(method: Method) -> Callable[..., Awaitable[Any]]:
    async def call(self: ControlClient, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - as Api says
        async with self._ask(method, args, kwargs) as values:
            found = [value async for value in values]
        if len(found) != 1:
            raise RemoteProtocolError(f"{method.name} was answered with {len(found)} values")
        return found[0]

    return call


def _streaming(method: Method) -> Callable[..., AsyncGenerator[Any, None]]:
    async def call(self: ControlClient, *args: object, **kwargs: object) -> AsyncGenerator[Any, None]:
        async with self._ask(method, args, kwargs) as values:
            async for value in values:
                yield value

    return call


for _method in METHODS.values():
    setattr(ControlClient, _method.name, (_streaming if _method.stream else _plain)(_method))
