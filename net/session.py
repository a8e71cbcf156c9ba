"""Who may send what now: the state of one connection, without clock and without I/O.

Both sides ask and answer. For what we ask, `Session` gives out ids and keeps the credit we granted; for
what the other side asks, it keeps the credit it granted us. `receive` checks each message against
that state; anything out of order is a `RemoteProtocolError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from core.errors import LocalProtocolError, RemoteProtocolError
from net import messages
from net.messages import ITEM_COST, ITEM_OF, MAX_WINDOW, Body, Hello, Item, Request

PING_S = 15.0
"""LIMIT: how often a ping is sent (spec 5 §Connections)."""
SILENCE_S = 45.0
"""LIMIT: silence that closes a connection (spec 5 §Connections)."""
PROBE_S = 5.0
"""LIMIT: silence that is allowed after a ping sent because the connection is in doubt."""


@dataclass(slots=True)
class _Asked:
    """A request of ours. ``left``: credit the other side still has; ``taken``: to be given back."""

    request: Request
    window: int
    left: int
    taken: int = 0
    cancelled: bool = False


@dataclass(slots=True)
class _Serving:
    """A request of theirs. ``credit``: what we may still send, negative after an overdraft."""

    request: Request
    credit: int


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The other side asks; its payload belongs to the request."""

    id: int
    request: Request


@dataclass(frozen=True, slots=True)
class ItemReceived:
    """A part of the answer to our request."""

    id: int
    item: Item


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer to our request is complete (``failure`` None) or failed; its id is free."""

    id: int
    failure: messages.Failure | None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The other side wants no more of an answer we are giving; it is still to be ended."""

    id: int


@dataclass(frozen=True, slots=True)
class CreditReceived:
    """An answer we are giving may go on."""

    id: int


Event: TypeAlias = (
    Hello
    | RequestReceived
    | ItemReceived
    | Ended
    | Cancelled
    | CreditReceived
    | messages.Ping
    | messages.Pong
    | messages.Goodbye
    | messages.Acknowledge
)


class Session:
    """State of one connection after its stream is authenticated."""

    def __init__(self) -> None:
        """Start before the hellos."""
        self.hello: Hello | None = None
        self._asked: dict[int, _Asked] = {}
        self._serving: dict[int, _Serving] = {}
        self._last_id = 0
        self._subscriptions = 0
        self._requests_open = 0

    # --- what we ask ---

    def ask(self, request: Request) -> int:
        """Return the id of a new request of ours.

        Raises:
            LocalProtocolError: no hello yet, or as many are open as may be.
        """
        if self.hello is None:
            raise LocalProtocolError("request before hello")
        if self.requests_open >= messages.REQUESTS_IN_FLIGHT and not isinstance(request, messages.Subscribe):
            raise LocalProtocolError("too many requests in flight")
        while True:
            self._last_id = self._last_id % 0xFFFFFFFF + 1
            if self._last_id not in self._asked:
                break
        window = messages.window_of(request)
        self._requests_open += not isinstance(request, messages.Subscribe)
        self._asked[self._last_id] = _Asked(request, window, window)
        return self._last_id

    def withdraw(self, request_id: int) -> None:
        """Forget a request of ours that was never sent."""
        asked = self._asked.pop(request_id)
        self._requests_open -= not isinstance(asked.request, messages.Subscribe)

    @property
    def requests_open(self) -> int:
        """How many requests of ours, subscriptions apart, are not ended."""
        return self._requests_open

    def consumed(self, request_id: int, payload_length: int) -> int:
        """Note that an item was taken by its user; return the credit to grant now, 0 for none yet."""
        asked = self._asked.get(request_id)
        if asked is None or asked.cancelled:
            return 0
        asked.taken += ITEM_COST + payload_length
        if asked.taken * 4 < asked.window:
            return 0
        grant, asked.taken = asked.taken, 0
        asked.left += grant
        return grant

    def cancel(self, request_id: int) -> bool:
        """Give up a request of ours; says whether the other side must be told."""
        asked = self._asked.get(request_id)
        if asked is None or asked.cancelled:
            return False
        asked.cancelled = True
        return True

    # --- what we answer ---

    def credit(self, request_id: int) -> int:
        """Return the bytes that may be sent for an answer of ours; 0 or less: wait."""
        return self._serving[request_id].credit

    def spend(self, request_id: int, amount: int) -> None:
        """Take from the credit of an answer of ours what is about to be sent."""
        self._serving[request_id].credit -= amount

    def finish(self, request_id: int) -> None:
        """Note that an answer of ours has ended or failed."""
        serving = self._serving.pop(request_id)
        self._subscriptions -= isinstance(serving.request, messages.Subscribe)

    # --- what comes ---

    def receive(self, request_id: int, body: Body, payload_length: int) -> Event | None:
        """Check a message and return what it means; None when it means nothing any more.

        Raises:
            RemoteProtocolError: it is not allowed now.
        """
        if payload_length and not isinstance(body, messages.WITH_PAYLOAD):
            raise RemoteProtocolError(f"{type(body).__name__} with a payload")
        if isinstance(body, Hello):
            return self._receive_hello(body)
        if self.hello is None and not isinstance(body, messages.Goodbye):
            raise RemoteProtocolError(f"{type(body).__name__} before hello")
        if isinstance(body, messages.REQUESTS):
            return self._receive_request(request_id, body)
        match body:
            case messages.Ping() | messages.Pong() | messages.Goodbye() | messages.Acknowledge():
                return body
            case messages.Credit():
                return self._receive_credit(request_id, body.amount)
            case messages.Cancel():
                return Cancelled(request_id) if request_id in self._serving else None
            case messages.End():
                return self._receive_end(request_id, None)
            case messages.Failure():
                return self._receive_end(request_id, body)
            case _:
                assert isinstance(body, messages.ITEMS)
                return self._receive_item(request_id, body, payload_length)

    def _receive_hello(self, hello: Hello) -> Hello:
        if self.hello is not None:
            raise RemoteProtocolError("second hello")
        if hello.protocol != messages.PROTOCOL:
            raise RemoteProtocolError(
                f"protocol version {hello.protocol}, not {messages.PROTOCOL}",
                hint="run the same version of realize on both hosts",
            )
        self.hello = hello
        return hello

    def _receive_request(self, request_id: int, request: Request) -> RequestReceived:
        if request_id == 0 or request_id in self._serving:
            raise RemoteProtocolError(f"request with id {request_id}, which is in use")
        subscribes = isinstance(request, messages.Subscribe)
        if subscribes and self._subscriptions >= messages.SUBSCRIPTIONS_IN_FLIGHT:
            raise RemoteProtocolError("too many subscriptions")
        if not subscribes and len(self._serving) - self._subscriptions >= messages.REQUESTS_IN_FLIGHT:
            raise RemoteProtocolError("too many requests in flight")
        self._subscriptions += subscribes
        self._serving[request_id] = _Serving(request, messages.window_of(request))
        return RequestReceived(request_id, request)

    def _receive_credit(self, request_id: int, amount: int) -> CreditReceived | None:
        serving = self._serving.get(request_id)
        if serving is None:
            return None  # RACE: it crossed our end.
        serving.credit += amount
        if serving.credit > MAX_WINDOW:
            raise RemoteProtocolError("credit out of bounds")
        return CreditReceived(request_id)

    def _receive_end(self, request_id: int, failure: messages.Failure | None) -> Ended:
        asked = self._asked.pop(request_id, None)
        if asked is None:
            raise RemoteProtocolError(f"end of request {request_id}, which is not open")
        self._requests_open -= not isinstance(asked.request, messages.Subscribe)
        return Ended(request_id, failure)

    def _receive_item(self, request_id: int, item: Item, payload_length: int) -> ItemReceived | None:
        asked = self._asked.get(request_id)
        if asked is None:
            raise RemoteProtocolError(f"answer to request {request_id}, which is not open")
        if not isinstance(item, ITEM_OF[type(asked.request)]):
            raise RemoteProtocolError(f"{type(item).__name__} for a {type(asked.request).__name__}")
        if asked.left <= 0:
            raise RemoteProtocolError("more than the credit allows")
        asked.left -= ITEM_COST + payload_length
        return None if asked.cancelled else ItemReceived(request_id, item)


@dataclass(slots=True)
class Liveness:
    """When to ping and when to give up, from monotonic times in seconds."""

    last_received_s: float
    last_ping_s: float
    deadline_s: float | None = None
    """When a connection in doubt is given up, unless something comes."""

    def received(self, now_s: float) -> None:
        """Note that bytes came."""
        self.last_received_s = now_s
        self.deadline_s = None

    def doubt(self, now_s: float) -> None:
        """Want a sign of life soon."""
        self.last_ping_s = float("-inf")
        if self.deadline_s is None:
            self.deadline_s = now_s + PROBE_S

    def ping_due(self, now_s: float) -> bool:
        """Say whether a ping is to be sent now, and note that it is."""
        if now_s - self.last_ping_s < PING_S:
            return False
        self.last_ping_s = now_s
        return True

    def dead(self, now_s: float) -> bool:
        """Say whether the other side has been silent for too long."""
        in_doubt = self.deadline_s is not None and now_s >= self.deadline_s
        return in_doubt or now_s - self.last_received_s >= SILENCE_S

    def next_s(self) -> float:
        """Return when to look again."""
        wake = min(self.last_ping_s + PING_S, self.last_received_s + SILENCE_S)
        return wake if self.deadline_s is None else min(wake, self.deadline_s)
