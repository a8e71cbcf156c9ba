"""Two links that speak with each other, in memory or over TLS on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from core.errors import NetError
from net.identity import Identity
from net.link import Link, LinkParts
from net.tls import Tls
from tests.net.fakes import DirectoryContent, MemoryHousehold

ARENAS = frozenset({"docs", "music"})


@dataclass
class Side:
    name: str
    arenas: frozenset[str] = ARENAS
    household: MemoryHousehold = field(default_factory=MemoryHousehold)
    content: DirectoryContent = field(default_factory=DirectoryContent)

    def parts(self) -> LinkParts:
        return LinkParts(self.name, self.household, self.content, trio.CapacityLimiter(4))


@dataclass
class Pair:
    """``a`` is the link that side a has to b, and the other way round."""

    a: Link
    b: Link
    nursery: trio.Nursery
    ends: dict[str, NetError] = field(default_factory=dict)
    ended: trio.Event = field(default_factory=trio.Event)

    async def run(self, name: str, link: Link) -> None:
        self.ends[name] = await link.run()
        if len(self.ends) == 2:
            self.ended.set()


async def tls_pair(one: Identity, other: Identity) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listeners[0].socket.getsockname()
    streams: list[trio.abc.Stream] = []

    async def serve() -> None:
        accepted = await listeners[0].accept()
        stream, name = await Tls(other, {"one": one.certificate}).accept(accepted)
        assert name == "one"
        streams.append(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await trio.open_tcp_stream(host, port)
        dialled = await Tls(one, {"other": other.certificate}).connect(client, "other")
    await listeners[0].aclose()
    return dialled, streams[0]


@asynccontextmanager
async def linked(
    a: Side, b: Side, streams: tuple[trio.abc.Stream, trio.abc.Stream] | None, identities: dict[str, Identity]
) -> AsyncIterator[Pair]:
    left, right = streams or trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        pair = Pair(
            Link(left, name=b.name, key=identities["b"].key, visible=a.arenas, parts=a.parts()),
            Link(right, name=a.name, key=identities["a"].key, visible=b.arenas, parts=b.parts()),
            nursery,
        )
        nursery.start_soon(pair.run, "a", pair.a)
        nursery.start_soon(pair.run, "b", pair.b)
        await pair.a.greeted()
        await pair.b.greeted()
        yield pair
        nursery.cancel_scope.cancel()
