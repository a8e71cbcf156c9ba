"""Hosts and lines of a household in one process: real engines, directories and links, memory streams."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import trio
import trio.testing

from core.arena import Arena
from core.config import ArenaConfig, Config, NodeConfig, PeerConfig
from core.connected import ConnectedPeers
from core.engine import Engine
from core.service import Service
from core.types import Mark, PeerKey
from net.link import Link, LinkParts

ARENA = "docs"
_DEBOUNCE_S = 0.02


class KilledError(BaseException):
    """The process of a host died at a step of its database. Not an Exception: nothing may handle it."""


def key_of(name: str) -> PeerKey:
    return PeerKey(name.encode().ljust(8, b"-"))


class DyingEngine(Engine):
    """An engine that can die: nothing is flushed, written or said at the end."""

    def __init__(self, config: Config, self_key: PeerKey, peer_keys: dict[str, PeerKey]) -> None:
        super().__init__(config, self_key, peer_keys)
        self.killed = False
        self.scope = trio.CancelScope()
        self.closing = trio.Event()
        self._commits_left: int | None = None
        for arena in self.arenas.values():
            arena.cache.conn.set_commit_hook(self._on_commit)

    def die_after(self, commits: int) -> None:
        """Die when as many more transactions have been committed; the next one never is."""
        self._commits_left = commits

    def _on_commit(self) -> bool:
        if self.killed:
            raise KilledError
        if self._commits_left is not None:
            self._commits_left -= 1
            if self._commits_left < 0:
                self.killed = True
                self.scope.cancel()
                raise KilledError
        return False

    async def _close(self) -> None:
        if not self.killed:
            with dying():
                await super()._close()
            if not self.killed:
                return
        self.closing.set()
        await trio.testing.wait_all_tasks_blocked()  # the lines go first
        for counter in self.counters.values():
            counter.close()
        for arena in self.arenas.values():
            arena.cache.conn.close()
            arena.lock.release()
        self.conn.close()
        self._global_lock.release()


class Host:
    """One host: its directories for ever, and its engine while it runs."""

    def __init__(self, name: str, root: Path, others: list[str], *, mark: Mark, real: bool) -> None:
        self.name = name
        self.key = key_of(name)
        self.datadir = root / name / "data" if real else None
        self.workdir = root / name / "work"
        (root / name / "data").mkdir(parents=True)
        arena = ArenaConfig(
            name=ARENA, workdir=self.workdir, datadir=self.datadir, mark=mark, debounce_s=_DEBOUNCE_S
        )
        node = NodeConfig(name, root / name / "id.pem", (), None, False, root / name / "socket")
        self._config = Config(
            root / name / "realize.toml",
            node,
            root / name / "cache.db",
            (arena,),
            tuple(PeerConfig(other, "") for other in others),
        )
        self._keys = {other: key_of(other) for other in others}
        self._engine: DyingEngine | None = None
        self._service: Service | None = None
        self._scope = trio.CancelScope()
        self.stopping = trio.Event()
        self.stopped = trio.Event()
        self.stopped.set()
        self.connected = ConnectedPeers()

    @property
    def engine(self) -> DyingEngine:
        assert self._engine is not None
        return self._engine

    @property
    def service(self) -> Service:
        assert self._service is not None
        return self._service

    @property
    def arena(self) -> Arena:
        return self.engine.arenas[ARENA]

    @property
    def running(self) -> bool:
        engine = self._engine
        return not (engine is None or engine.killed or self.stopping.is_set() or self.stopped.is_set())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop` or `kill`."""
        self._engine = DyingEngine(self._config, self.key, self._keys)
        for other in self._keys:
            self._engine.remember_peer(other, "fp")
        self.connected = ConnectedPeers()
        self._service = Service(self._engine, "fp", self.connected)
        self._scope = self._engine.scope
        self.stopping = self._engine.closing
        self.stopped = trio.Event()
        try:
            with self._scope, dying():
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._engine.run)
                    task_status.started()
        finally:
            self.stopping.set()
            self._service.close()
            self.stopped.set()

    async def stop(self) -> None:
        """Stop in order: links first."""
        self.stopping.set()
        while self.engine.subscriptions.links and not self.stopped.is_set():  # noqa: ASYNC110 - no event
            await trio.sleep(0.001)
        self._scope.cancel()
        await self.stopped.wait()

    async def kill(self) -> None:
        """Die now."""
        self.engine.killed = True
        self._scope.cancel()
        await self.stopped.wait()


@contextlib.contextmanager
def dying() -> Iterator[None]:
    """Let a death end a task quietly."""
    try:
        yield
    except* KilledError:
        pass


class _SlowStream(trio.abc.Stream):
    """A stream whose data is sometimes late, so that what happens on several lines mixes."""

    def __init__(self, inner: trio.abc.Stream, rng: random.Random) -> None:
        self._inner = inner
        self._rng = rng

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._inner.receive_some(max_bytes)
        if self._rng.random() < 0.3:
            await trio.sleep(self._rng.random() * 0.01)
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


class Line:
    """What connects two hosts while both run and the line is not cut."""

    def __init__(self, left: Host, right: Host, rng: random.Random) -> None:
        self.ends = (left, right)
        self.cut = False
        self._rng = rng
        self._changed = trio.Event()
        self._scope = trio.CancelScope()

    def set_cut(self, cut: bool) -> None:
        """Cut the line, or join it again."""
        self.cut = cut
        if cut:
            self._scope.cancel()
        self._changed.set()

    @property
    def up(self) -> bool:
        """Say whether both ends know each other as connected."""
        left, right = self.ends
        return (
            left.running
            and right.running
            and right.key in left.engine.subscriptions.links
            and left.key in right.engine.subscriptions.links
        )

    async def run(self) -> None:
        """Connect again and again."""
        while True:
            if self.cut or not all(host.running for host in self.ends):
                self._changed = trio.Event()
                with trio.move_on_after(0.01):
                    await self._changed.wait()
                continue
            with trio.CancelScope() as self._scope:
                await self._connect()
            await trio.sleep(0.002)

    async def _connect(self) -> None:
        left, right = self.ends
        streams = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end, left, right, streams[0], nursery)
            nursery.start_soon(self._end, right, left, streams[1], nursery)

    async def _end(self, host: Host, other: Host, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        engine = host.engine
        parts = LinkParts(host.name, engine.subscriptions, engine.provider, trio.CapacityLimiter(4))
        link = Link(
            _SlowStream(stream, self._rng),
            name=other.name,
            key=other.key,
            visible=frozenset([ARENA]),
            parts=parts,
        )
        with dying():
            async with trio.open_nursery() as inner:
                inner.start_soon(self._until_stopped, host, inner.cancel_scope)
                ended = trio.Event()
                inner.start_soon(self._run_link, link, ended)
                try:
                    await link.greeted()
                    if not host.running:
                        return
                    engine.subscriptions.link_up(link)
                    host.connected.add(other.key)
                    await ended.wait()
                finally:
                    host.connected.remove(other.key)
                    if not host.engine.killed and link.key in engine.subscriptions.links:
                        engine.subscriptions.link_down(link, "line")
                    inner.cancel_scope.cancel()
                    nursery.cancel_scope.cancel()

    @staticmethod
    async def _run_link(link: Link, ended: trio.Event) -> None:
        await link.run()
        ended.set()

    @staticmethod
    async def _until_stopped(host: Host, scope: trio.CancelScope) -> None:
        await host.stopping.wait()
        scope.cancel()


def files_below(root: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield every path below a directory, relative, with what lstat says."""
    base = os.fsencode(root)
    for directory, names, files in os.walk(base):
        for name in sorted(names) + sorted(files):
            path = os.path.join(directory, name)
            yield os.path.relpath(path, base), os.lstat(path)
