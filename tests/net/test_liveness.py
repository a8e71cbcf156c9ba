"""Connections that fall silent, in simulated time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from core.errors import DisconnectedError, NetError
from core.types import Hash
from net import codec
from net.connection import Connection
from net.frames import encode_prefix
from net.link import Link, LinkParts
from net.messages import Hello, Ping
from net.session import PING_S, PROBE_S, SILENCE_S
from tests.net.fakes import DirectoryContent, MemoryHousehold
from tests.net.links import Side, linked

pytestmark = pytest.mark.trio


class Lonely:
    """A link whose other side says hello and then only what the test says."""

    def __init__(self, suspended_s: float = 0.0) -> None:
        self.suspended_s = suspended_s
        left, self.far = memory_stream_pair()
        parts = LinkParts(
            "a",
            MemoryHousehold(),
            DirectoryContent(),
            trio.CapacityLimiter(1),
            suspended_s=lambda: self.suspended_s,
        )
        self.link = Link(left, name="b", key=b"k" * 8, visible=frozenset(), parts=parts)  # type: ignore[arg-type]
        self.end: NetError | None = None
        self.ended_s = 0.0

    async def run(self) -> None:
        start_s = trio.current_time()
        self.end = await self.link.run()
        self.ended_s = trio.current_time() - start_s

    async def hello(self) -> None:
        header = codec.encode(0, Hello("b", frozenset(), 0))
        await self.far.send_all(encode_prefix(header, 0))
        await self.link.greeted()


@asynccontextmanager
async def lonely() -> AsyncIterator[Lonely]:
    made = Lonely()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await made.hello()
        yield made


async def test_silence_closes_and_fails_what_was_asked(autojump_clock: MockClock) -> None:
    async with lonely() as made:
        with pytest.raises(DisconnectedError, match="silent for 45 s"):
            await made.link.have("docs", [Hash(bytes(32))])
    assert made.ended_s == pytest.approx(SILENCE_S)


async def test_any_byte_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    async with lonely() as made:
        for _ in range(4):
            await trio.sleep(SILENCE_S - 5)
            await made.far.send_all(encode_prefix(codec.encode(0, Ping(1)), 0))
    assert made.ended_s == pytest.approx(5 * SILENCE_S - 20)


async def test_after_a_suspend_life_is_asked_for_at_once(autojump_clock: MockClock) -> None:
    async with lonely() as made:
        await trio.sleep(1)
        made.suspended_s = 3600.0
    assert made.ended_s == pytest.approx(PING_S + PROBE_S)


async def test_a_probe_must_be_answered_soon(autojump_clock: MockClock) -> None:
    async with lonely() as made:
        await trio.sleep(2)
        made.link.connection.probe()
    assert made.ended_s == pytest.approx(2 + PROBE_S)


async def test_an_idle_pair_stays_connected_for_hours(autojump_clock: MockClock) -> None:
    from net.identity import Certificate, Identity

    keys = {name: Identity(Certificate("", b"", name.encode() * 32), b"") for name in ("a", "b")}
    async with linked(Side("a"), Side("b"), None, keys) as pair:
        await trio.sleep(6 * 3600)
        assert not pair.a.connection.ended
        assert pair.a.stats().rtt_s == 0.0
        pair.a.connection.probe()
        await trio.sleep(60)
        assert not pair.b.connection.ended


async def test_a_peer_that_never_reads_is_given_up(autojump_clock: MockClock) -> None:
    class Stuck(trio.abc.Stream):
        def __init__(self, stream: trio.abc.Stream) -> None:
            self._stream = stream
            self._next: Hello | Ping = Hello("b", frozenset(), 0)

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep_forever()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.sleep_forever()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            await trio.sleep(10)
            body, self._next = self._next, Ping(1)
            return encode_prefix(codec.encode(0, body), 0)

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def refuse(*_: object) -> None:
        raise AssertionError

    stream, _ = memory_stream_pair()
    connection = Connection(
        Stuck(stream), Hello("a", frozenset(), 0), refuse, label="b", remote_error=lambda _: NetError("")
    )
    start_s = trio.current_time()
    reason = await connection.run()
    assert str(reason) == "b does not read"
    assert trio.current_time() - start_s < 130
