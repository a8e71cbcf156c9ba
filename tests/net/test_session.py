"""What a session allows, as tables."""

from __future__ import annotations

import pytest

from core.byteranges import ByteRanges
from core.errors import LocalProtocolError, RemoteProtocolError
from core.types import Hash
from net import messages
from net.messages import Body, Hello
from net.session import (
    PING_S,
    PROBE_S,
    SILENCE_S,
    Cancelled,
    CreditReceived,
    Ended,
    ItemReceived,
    Liveness,
    RequestReceived,
    Session,
)

HELLO = Hello("peer", frozenset(), 0)
HAVE = messages.Have("docs", [Hash(bytes(32))])
SUBSCRIBE = messages.Subscribe("docs", b"", 0, 1000)


def read(window: int) -> messages.Read:
    return messages.Read("docs", Hash(bytes(32)), ByteRanges.whole(10), False, window)


@pytest.fixture
def ready() -> Session:
    made = Session()
    made.receive(0, HELLO, 0)
    return made


@pytest.mark.parametrize(
    "body", [messages.Ping(1), HAVE, messages.End(), messages.Credit(1), messages.Cancel()]
)
def test_nothing_comes_before_hello(body: Body) -> None:
    with pytest.raises(RemoteProtocolError, match="before hello"):
        Session().receive(1, body, 0)


def test_goodbye_may_stand_for_hello() -> None:
    goodbye = messages.Goodbye("disabled")
    assert Session().receive(0, goodbye, 0) is goodbye


def test_hello_comes_once_and_with_our_version(ready: Session) -> None:
    with pytest.raises(RemoteProtocolError, match="second hello"):
        ready.receive(0, HELLO, 0)
    with pytest.raises(RemoteProtocolError, match="protocol version 9"):
        Session().receive(0, Hello("peer", frozenset(), 0, protocol=9), 0)
    with pytest.raises(LocalProtocolError):
        Session().ask(HAVE)


@pytest.mark.parametrize(
    ("request_id", "body", "length"),
    [
        (0, HAVE, 0),
        (1, HAVE, 5),
        (0, messages.Ping(1), 5),
        (9, messages.Flags(), 1),
        (9, messages.End(), 0),
        (9, messages.Failure(1, ""), 0),
    ],
)
def test_what_is_out_of_order_is_a_breach(ready: Session, request_id: int, body: Body, length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        ready.receive(request_id, body, length)


@pytest.mark.parametrize("body", [messages.Cancel(), messages.Credit(5)])
def test_what_crossed_the_end_means_nothing(ready: Session, body: Body) -> None:
    assert ready.receive(9, body, 0) is None


def test_a_request_of_theirs_from_begin_to_end(ready: Session) -> None:
    assert ready.receive(4, read(100), 0) == RequestReceived(4, read(100))
    with pytest.raises(RemoteProtocolError, match="in use"):
        ready.receive(4, HAVE, 0)
    assert ready.credit(4) == 100
    ready.spend(4, 150)
    assert ready.credit(4) == -50
    assert ready.receive(4, messages.Credit(60), 0) == CreditReceived(4)
    assert ready.credit(4) == 10
    assert ready.receive(4, messages.Cancel(), 0) == Cancelled(4)
    ready.finish(4)
    assert ready.receive(4, HAVE, 0) == RequestReceived(4, HAVE)


def test_credit_cannot_be_piled_up(ready: Session) -> None:
    ready.receive(4, read(messages.MAX_WINDOW), 0)
    with pytest.raises(RemoteProtocolError, match="credit"):
        ready.receive(4, messages.Credit(1), 0)


def test_requests_of_theirs_are_limited_and_subscriptions_apart(ready: Session) -> None:
    for number in range(1, 257):
        ready.receive(number, HAVE, 0)
    assert ready.receive(1000, SUBSCRIBE, 0) == RequestReceived(1000, SUBSCRIBE)
    with pytest.raises(RemoteProtocolError, match="too many requests"):
        ready.receive(257, HAVE, 0)
    ready.finish(5)
    assert ready.receive(257, HAVE, 0) == RequestReceived(257, HAVE)


def test_subscriptions_of_theirs_are_limited(ready: Session) -> None:
    for number in range(1, messages.SUBSCRIPTIONS_IN_FLIGHT + 1):
        ready.receive(number, SUBSCRIBE, 0)
    with pytest.raises(RemoteProtocolError, match="too many subscriptions"):
        ready.receive(99_999, SUBSCRIBE, 0)


def test_a_request_of_ours_from_begin_to_end(ready: Session) -> None:
    request_id = ready.ask(read(1000))
    item = messages.Data(0)
    assert ready.receive(request_id, item, 300) == ItemReceived(request_id, item)
    assert ready.consumed(request_id, 100) == 0
    assert ready.consumed(request_id, 200) == 300 + 2 * messages.ITEM_COST
    assert ready.receive(request_id, messages.End(), 0) == Ended(request_id, None)
    assert ready.consumed(request_id, 100) == 0
    assert ready.requests_open == 0
    failure = messages.Failure(7, "changed")
    again = ready.ask(HAVE)
    assert again != request_id
    assert ready.receive(again, failure, 0) == Ended(again, failure)


def test_answers_are_of_the_kind_that_was_asked(ready: Session) -> None:
    request_id = ready.ask(HAVE)
    with pytest.raises(RemoteProtocolError, match="Data for a Have"):
        ready.receive(request_id, messages.Data(0), 1)


def test_more_than_the_credit_is_a_breach_but_one_overdraft_is_not(ready: Session) -> None:
    request_id = ready.ask(read(1000))
    ready.receive(request_id, messages.Data(0), 999 - messages.ITEM_COST)
    ready.receive(request_id, messages.Data(0), 1024 * 1024)
    with pytest.raises(RemoteProtocolError, match="credit"):
        ready.receive(request_id, messages.Data(0), 1)


def test_a_cancelled_request_is_silent_until_its_end(ready: Session) -> None:
    request_id = ready.ask(read(1000))
    assert ready.cancel(request_id)
    assert not ready.cancel(request_id)
    assert ready.receive(request_id, messages.Data(0), 10) is None
    assert ready.consumed(request_id, 10) == 0
    assert ready.requests_open == 1
    ready.receive(request_id, messages.End(), 0)
    assert ready.requests_open == 0
    assert not ready.cancel(request_id)


def test_requests_of_ours_are_limited(ready: Session) -> None:
    for _ in range(messages.REQUESTS_IN_FLIGHT):
        ready.ask(HAVE)
    with pytest.raises(LocalProtocolError):
        ready.ask(HAVE)
    assert ready.ask(SUBSCRIBE)


def test_ids_wrap_around_past_those_in_use(ready: Session) -> None:
    first = ready.ask(HAVE)
    ready._last_id = 0xFFFFFFFE
    assert ready.ask(HAVE) == 0xFFFFFFFF
    assert ready.ask(HAVE) == first + 1


def test_pings_are_due_and_silence_is_noticed() -> None:
    alive = Liveness(100.0, float("-inf"))
    assert alive.ping_due(100.0)
    assert not alive.ping_due(100.0 + PING_S - 0.1)
    assert alive.ping_due(100.0 + PING_S)
    assert not alive.dead(100.0 + SILENCE_S - 0.1)
    assert alive.dead(100.0 + SILENCE_S)
    alive.received(120.0)
    assert not alive.dead(100.0 + SILENCE_S)
    assert alive.next_s() == 100.0 + 2 * PING_S


def test_a_connection_in_doubt_must_show_life_soon() -> None:
    alive = Liveness(100.0, 100.0)
    alive.doubt(101.0)
    assert alive.ping_due(101.0)
    assert alive.next_s() == 101.0 + PROBE_S
    alive.doubt(103.0)
    assert alive.dead(101.0 + PROBE_S)
    alive.received(104.0)
    assert not alive.dead(101.0 + PROBE_S)
