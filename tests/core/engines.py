"""Whole engines in memory for tests: linked by a stream in memory, stopped, and killed.

A *killed* engine is one whose database is thrown back to where it was and whose tasks just end.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio
import trio.testing

from core.api import ArenaPath, Entry, MarkChange
from core.arena import Arena
from core.config import ArenaConfig, Config, NodeConfig, PeerConfig
from core.connected import ConnectedPeers
from core.engine import Engine
from core.events import AnyEvent
from core.paths import join
from core.service import Service
from core.types import Kind, Mark, PeerKey, RelPath
from net.link import Link, LinkParts

PATIENCE_S = 60.0


class Host:
    """One host of a household; its directories outlive its engines."""

    def __init__(self, base: Path, name: str, peers: Sequence[str], **arena: object) -> None:
        self.name, self.key, self.peers = name, PeerKey(name.encode().ljust(8, b".")), peers
        self.base = base / name
        self.data = self.base / "data"
        self.data.mkdir(parents=True)
        settings = {"datadir": self.data, "debounce_s": 0.05} | arena
        self.config = Config(
            self.base / "realize.toml",
            NodeConfig(name, self.base / "id.pem", (), None, False, self.base / "s"),
            self.base / "cache.db",
            (ArenaConfig("docs", self.base / "work", **settings),),  # type: ignore[arg-type]
            tuple(PeerConfig(peer, "") for peer in peers),
        )
        self.engine: Engine | None = None
        self.events: list[AnyEvent] = []

    @property
    def running(self) -> Engine:
        assert self.engine is not None
        return self.engine

    @property
    def arena(self) -> Arena:
        return self.running.arenas["docs"]

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Host]:
        """Run an engine for the time of the context; it stops in order."""
        keys = {peer: PeerKey(peer.encode().ljust(8, b".")) for peer in self.peers}
        self.engine = engine = Engine(self.config, self.key, keys)
        engine.events.tap(self.events.append)
        self.connected = ConnectedPeers()
        self.service = Service(engine, "fp" + self.name, self.connected)
        for peer in self.peers:
            engine.remember_peer(peer, "fp" + peer)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            yield self
            nursery.cancel_scope.cancel()
        self.engine = None

    def write(self, path: str, data: bytes = b"data") -> Path:
        at = self.data / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(data)
        return at

    async def idle(self) -> None:
        await self.service.wait_idle(PATIENCE_S)

    async def mark(self, path: str, mark: Mark | None) -> None:
        await self.service.mark_apply([MarkChange(ArenaPath("docs", path.encode()), mark)])

    def explicit(self, path: str) -> Mark | None:
        node = self.node(path)
        return self.arena.cache.marks.explicit(node) if node is not None else None

    def node(self, path: str) -> int | None:
        """Return the node of a path that shows something."""
        return self.running.node_of(self.arena, path.encode())

    async def entries(self) -> dict[bytes, Entry]:
        """Return everything that is shown, by path."""
        out: dict[bytes, Entry] = {}
        todo = [b""]
        while todo:
            page = await self.service.listdir(ArenaPath("docs", todo.pop()))
            for entry in page.entries:
                out[entry.path] = entry
                if entry.kind is Kind.DIR:
                    todo.append(entry.path)
        return out

    async def tree(self) -> dict[bytes, bytes | None]:
        """Return the hash of each shown path."""
        return {path: entry.hash for path, entry in (await self.entries()).items()}

    def real(self) -> dict[bytes, bytes]:
        """Return the content of each file in the datadir; what vanishes meanwhile is left out."""
        found: dict[bytes, bytes] = {}
        for at, _, names in os.walk(os.fsencode(self.data)):
            for name in names:
                path = os.path.join(at, name)
                with suppress(FileNotFoundError):
                    if not os.path.islink(path):
                        found[os.path.relpath(path, os.fsencode(self.data))] = Path(
                            os.fsdecode(path)
                        ).read_bytes()
        return found


@asynccontextmanager
async def linked(*hosts: Host) -> AsyncIterator[None]:
    """Connect running hosts, each with each."""
    async with trio.open_nursery() as nursery:
        ends: list[tuple[Host, Link]] = []
        for left, right in itertools.combinations(hosts, 2):
            one, other = trio.testing.memory_stream_pair()
            for host, peer, stream in ((left, right, one), (right, left, other)):
                engine = host.running
                parts = LinkParts(host.name, engine.subscriptions, engine.provider, trio.CapacityLimiter(4))
                link = Link(stream, name=peer.name, key=peer.key, visible=frozenset(["docs"]), parts=parts)
                nursery.start_soon(link.run)
                ends.append((host, link))
        for host, link in ends:
            await link.greeted()
            host.running.subscriptions.link_up(link)
            host.connected.add(link.key)
        yield
        for host, link in ends:
            if host.engine is not None:
                host.running.subscriptions.link_down(link, "test")
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that has no event of its own; it may be a coroutine function."""
    with trio.fail_after(PATIENCE_S):
        pause_s = 0.002
        while True:
            result = condition()
            if isinstance(result, Awaitable):
                result = await result
            if result:
                return
            # A look at whole datadirs takes its time from the engines: ever longer pauses.
            await trio.sleep(pause_s)
            pause_s = min(0.03, pause_s * 1.2)


def below(path: str, name: str) -> bytes:
    """Return the path of a name in a directory."""
    return join(path.encode(), name.encode())


def waits(host: Host, path: str) -> str:
    """Return the reason why churten does not go on with a path; "" if it does not have to."""
    node = host.arena.cache.tree.find(RelPath(path.encode()))
    return next((reason for at, _, reason, _ in host.arena.work.waiting(100) if at == node), "")
