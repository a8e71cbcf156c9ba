"""One connection: the tasks that move frames between a stream and a `Session`.

Engine thread (trio). A connection does not care what requests mean: what the other side asks goes to a
`Handler`, what we ask comes back as an `Incoming`. Any `trio.abc.Stream` will do; one with
``receive_into`` and ``send_parts`` (`net.tls.TlsStream`) is used without copies.

Invariants: frames leave whole; what is not an item of a batch answer leaves first; memory is bounded by
the credit granted, the requests in flight and what `net.outbox` lets wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

import trio

from core.errors import (
    DisconnectedError,
    LocalProtocolError,
    NetError,
    ProtocolError,
    RealizeError,
    RemoteProtocolError,
)
from core.paths import display
from core.ports import LinkStats
from core.types import Priority
from net import codec, messages
from net.answers import Answers, failure_of
from net.frames import FLAG_COMPRESSED, FrameDecoder, encode_prefix
from net.incoming import Incoming
from net.messages import Body, Hello, Item, Request
from net.meter import Meter
from net.outbox import Outbox
from net.session import (
    Cancelled,
    CreditReceived,
    Ended,
    ItemReceived,
    Liveness,
    RequestReceived,
    Session,
)

_log = logging.getLogger("realize.net.connection")

_SEND_S = 120.0
"""LIMIT: time to send 256 KiB, so that a peer that never reads is given up (2 KiB/s)."""
_GOODBYE_S = 0.5

Handler = Callable[[Request, memoryview, Answers], Awaitable[None]]
"""Answers a request; its return ends the answer, a `RealizeError` fails it."""


@runtime_checkable
class FastStream(Protocol):
    """What a stream may offer beside `trio.abc.Stream`."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive at least one byte; 0 at the end."""
        ...

    async def send_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send parts one after the other."""
        ...


class Connection:
    """An authenticated stream that speaks frames. `run` it; it ends once and for all."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        hello: Hello,
        serve: Handler,
        *,
        label: str,
        remote_error: Callable[[messages.Failure], RealizeError],
        on_acknowledge: Callable[[messages.Acknowledge], None] | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        suspended_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Make the connection.

        Args:
            stream: authenticated; closed at the end of `run`.
            hello: what to say first.
            serve: answers the requests of the other side.
            label: the name of the other side in errors and logs.
            remote_error: makes the error that a failure sent by the other side is here.
            on_acknowledge: is told of acknowledgements.
            wall_ns: the wall clock, for skew only.
            suspended_s: how long this host was suspended since some fixed time (see `net.clocks`).
        """
        self.label = label
        self.stream = stream
        self._fast = stream if isinstance(stream, FastStream) else None
        self._hello = hello
        self._serve = serve
        self._remote_error = remote_error
        self._on_acknowledge = on_acknowledge
        self._wall_ns = wall_ns
        self._suspended_s = suspended_s
        self._session = Session()
        self._greeted = trio.Event()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._error: NetError | None = None
        self._goodbye = ""
        self._incoming: dict[int, Incoming] = {}
        self._answers: dict[int, Answers] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._slot_free = trio.lowlevel.ParkingLot()
        self._outbox = Outbox()
        self._sending = False
        self._stopping = False
        self._send_scope = trio.CancelScope()
        self._liveness = Liveness(0.0, 0.0)
        self._look = trio.Event()
        self._pings: dict[int, float] = {}
        self._rtt_s: float | None = None
        self._skew_s: float | None = None
        self._rx, self._tx = Meter(), Meter()

    # --- life ---

    async def run(self) -> NetError:
        """Move frames until the connection ends; returns why. Cancel it to close at once."""
        now_s = trio.current_time()
        self._liveness = Liveness(now_s, float("-inf"))
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    self._outbox.put(0, self._hello)
                    self._nursery.start_soon(self._write)
                    self._nursery.start_soon(self._watch)
                    await self._read()
        finally:
            if self._error is None:
                self._error = DisconnectedError(f"connection to {self.label} closed", peer=self.label)
                self._goodbye = "stopping"
            self._settle()
            await self._part()
        return self._error

    def _settle(self) -> None:
        for incoming in self._incoming.values():
            incoming.end(self._error)
        self._incoming.clear()
        self._greeted.set()
        self._slot_free.unpark_all()

    async def _part(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE_S):
            if self._goodbye and not self._sending:
                header = codec.encode(0, messages.Goodbye(self._goodbye[:1000]))
                try:
                    await self._send([encode_prefix(header, 0)])
                except NetError:
                    _log.debug("%s was gone before goodbye", self.label)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE_S):
            await self.stream.aclose()

    def close(self, error: NetError, *, goodbye: str = "") -> None:
        """End the connection because of ``error``; the first one counts."""
        if self._error is None:
            self._error, self._goodbye = error, goodbye
        self._scope.cancel()

    def breach(self, error: ProtocolError) -> None:
        """End the connection because the other side broke the protocol."""
        error.peer = self.label
        _log.warning("%s broke the protocol: %s", self.label, display(str(error)))
        self.close(error, goodbye=f"protocol error: {error}")

    @property
    def ended(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._error is not None

    @property
    def reason(self) -> NetError | None:
        """Why the connection ended; None while it lives."""
        return self._error

    async def greeted(self) -> Hello:
        """Wait for the hello of the other side.

        Raises:
            NetError: the connection ended first.
        """
        await self._greeted.wait()
        if self._error is not None or self._session.hello is None:
            raise self._gone()
        return self._session.hello

    def probe(self) -> None:
        """Doubt the connection: it must show life within a few seconds."""
        self._liveness.doubt(trio.current_time())
        self._look.set()

    def stats(self) -> LinkStats:
        """Return the current figures."""
        now_s = trio.current_time()
        return LinkStats(
            rtt_s=self._rtt_s,
            rx_bytes=self._rx.total,
            tx_bytes=self._tx.total,
            rx_rate=self._rx.rate(now_s),
            tx_rate=self._tx.rate(now_s),
            clock_skew_s=self._skew_s,
        )

    def _gone(self) -> NetError:
        error = DisconnectedError(f"no connection to {self.label}", peer=self.label)
        error.__cause__ = self._error
        return error

    # --- asking ---

    @asynccontextmanager
    async def ask(self, request: Request, payload: bytes = b"") -> AsyncIterator[Incoming]:
        """Ask the other side; leaving the context cancels what is not complete.

        Raises:
            NetError: the connection is gone, or the request cannot be encoded.
        """
        counted = not isinstance(request, messages.Subscribe)
        while counted and self._session.requests_open >= messages.REQUESTS_IN_FLIGHT and not self._error:
            await self._slot_free.park()
        if self._error is not None:
            raise self._gone()
        request_id = self._session.ask(request)
        incoming = Incoming(lambda length: self._consumed(request_id, length))
        self._incoming[request_id] = incoming
        try:
            self._outbox.put(request_id, request, payload)
        except LocalProtocolError:
            del self._incoming[request_id]
            self._session.withdraw(request_id)
            raise
        try:
            yield incoming
        finally:
            if self._incoming.pop(request_id, None) is not None and self._session.cancel(request_id):
                self._outbox.put(request_id, messages.Cancel())

    def _consumed(self, request_id: int, payload_length: int) -> None:
        grant = self._session.consumed(request_id, payload_length)
        if grant and self._error is None:
            self._outbox.put(request_id, messages.Credit(grant))

    def tell(self, body: messages.Acknowledge) -> None:
        """Send a message that has no answer.

        Raises:
            NetError: the connection is gone.
        """
        if self._error is not None:
            raise self._gone()
        self._outbox.put(0, body)

    # --- writing ---

    async def send_item(
        self, request_id: int, item: Item, payload: bytes | memoryview, priority: Priority, flags: int
    ) -> None:
        """Queue an item of an answer once there is room; for `Answers`."""
        await self._outbox.room(priority)
        self._outbox.put(request_id, item, payload, flags=flags, priority=priority)

    async def _write(self) -> None:
        try:
            while not self._stopping:
                parts = await self._outbox.take()
                self._sending = True
                # A frame that is cut cannot be followed by a goodbye: `_watch` gives it a moment.
                deadline_s = trio.current_time() + _SEND_S
                with trio.CancelScope(deadline=deadline_s, shield=True) as self._send_scope:
                    await self._send(parts)
                if self._send_scope.cancelled_caught:
                    raise DisconnectedError(f"{self.label} does not read", peer=self.label)
                self._sending = False
                self._tx.add(trio.current_time(), sum(map(len, parts)))
        except NetError as error:
            self.close(error)

    async def _send(self, parts: list[bytes | memoryview]) -> None:
        if self._fast is not None:
            await self._fast.send_parts(parts)
            return
        try:
            await self.stream.send_all(b"".join(parts))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise DisconnectedError(f"connection to {self.label} lost", peer=self.label) from error

    # --- reading ---

    async def _read(self) -> None:
        decoder = FrameDecoder()
        try:
            while True:
                count = await self._receive(decoder.buffer())
                if not count:
                    break
                now_s = trio.current_time()
                self._rx.add(now_s, count)
                self._liveness.received(now_s)
                decoder.received(count)
                while (frame := decoder.next_frame()) is not None:
                    self._dispatch(*codec.decode(frame.header), frame.payload, frame.flags)
        except RemoteProtocolError as error:
            self.breach(error)
        except NetError as error:
            self.close(error)
        else:
            self.close(DisconnectedError(f"{self.label} closed the connection", peer=self.label))

    async def _receive(self, buffer: memoryview) -> int:
        if self._fast is not None:
            return await self._fast.receive_into(buffer)
        try:
            data = await self.stream.receive_some(len(buffer))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise DisconnectedError(f"connection to {self.label} lost", peer=self.label) from error
        buffer[: len(data)] = data
        return len(data)

    def _dispatch(self, request_id: int, body: Body, payload: memoryview, flags: int) -> None:
        if bool(flags & FLAG_COMPRESSED) != isinstance(body, messages.Announcements):
            raise RemoteProtocolError(f"{type(body).__name__} with flags {flags:#x}")
        match self._session.receive(request_id, body, len(payload)):
            case ItemReceived(id=asked, item=item):
                self._incoming[asked].put(item, payload)
            case Ended(id=asked, failure=failure):
                self._end(asked, failure)
            case RequestReceived(id=served, request=request):
                self._spawn(served, request, payload)
            case CreditReceived(id=served):
                self._answers[served].credited()
            case Cancelled(id=served):
                self._scopes[served].cancel()
            case messages.Ping(token=token):
                self._outbox.put_pong(token)
            case messages.Pong(token=token):
                self._measure(token)
            case messages.Acknowledge() as acknowledge:
                if self._on_acknowledge is not None:
                    self._on_acknowledge(acknowledge)
            case Hello() as hello:
                self._skew_s = (hello.clock_ns - self._wall_ns()) / 1e9
                self._greeted.set()
            case messages.Goodbye(reason=reason):
                text = f"{self.label} closed the connection: {display(reason)}"
                raise DisconnectedError(text, peer=self.label)
            case None:
                pass

    def _end(self, request_id: int, failure: messages.Failure | None) -> None:
        incoming = self._incoming.pop(request_id, None)
        if incoming is not None:
            incoming.end(None if failure is None else self._remote_error(failure))
        self._slot_free.unpark_all()

    def _measure(self, token: int) -> None:
        sent_s = self._pings.pop(token, None)
        if sent_s is not None:
            self._rtt_s = trio.current_time() - sent_s

    # --- answering ---

    def _spawn(self, request_id: int, request: Request, payload: memoryview) -> None:
        assert self._nursery is not None
        batch = isinstance(request, messages.Subscribe | messages.ReadMany) or (
            isinstance(request, messages.Read) and not request.interactive
        )
        priority = Priority.BATCH if batch else Priority.INTERACTIVE
        self._answers[request_id] = answers = Answers(self, self._session, request_id, priority)
        self._scopes[request_id] = scope = trio.CancelScope()
        self._nursery.start_soon(self._answer, request_id, request, payload, answers, scope)

    async def _answer(
        self,
        request_id: int,
        request: Request,
        payload: memoryview,
        answers: Answers,
        scope: trio.CancelScope,
    ) -> None:
        end: messages.End | messages.Failure = messages.End()
        with scope:
            try:
                await self._serve(request, payload, answers)
            except RealizeError as error:
                end = failure_of(error)
            except Exception:  # noqa: BLE001 - the guard of served requests: a bug fails one, and is seen
                _log.exception("%s of %s failed", type(request).__name__, self.label)
                end = messages.Failure(0, "internal error")
        del self._answers[request_id], self._scopes[request_id]
        self._session.finish(request_id)
        # INVARIANT: the end leaves after the items, so it goes the same way.
        self._outbox.put(request_id, end, priority=answers.priority)

    # --- watching ---

    async def _watch(self) -> None:
        try:
            await self._look_after()
        finally:
            self._stopping = True
            self._send_scope.deadline = trio.current_time() + _GOODBYE_S

    async def _look_after(self) -> None:
        suspended_s = self._suspended_s()
        while True:
            now_s = trio.current_time()
            if self._liveness.dead(now_s):
                silence = now_s - self._liveness.last_received_s
                self.close(DisconnectedError(f"{self.label} was silent for {silence:.0f} s", peer=self.label))
            if self._suspended_s() - suspended_s > 1:
                suspended_s = self._suspended_s()
                self._liveness.doubt(now_s)
            if self._liveness.ping_due(now_s):
                self._ping(now_s)
            self._look = trio.Event()
            with trio.move_on_after(max(0.0, self._liveness.next_s() - now_s)):
                await self._look.wait()

    def _ping(self, now_s: float) -> None:
        token = max(self._pings, default=0) + 1
        self._pings[token] = now_s
        while len(self._pings) > 4:
            del self._pings[min(self._pings)]
        self._outbox.put(0, messages.Ping(token))
