"""Hosts and lines of a household in one process: real engines, directories and links, memory streams."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio
import trio.testing

from core.arena import Arena
from core.config import ArenaConfig, Config, DiskUsage, NodeConfig, PeerConfig
from core.connected import ConnectedPeers
from core.engine import Engine
from core.mounting import MountService
from core.service import Service
from core.types import Mark, PeerKey
from net.link import Link, LinkParts
from tests.sim.world import Process, World, current, dying

ARENA = "docs"


def key_of(name: str) -> PeerKey:
    return PeerKey(name.encode().ljust(8, b"-"))


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of host it is."""

    mark: Mark
    real: bool
    """It has a datadir."""
    quota: int | None = None
    min_copies: int = 1
    clock_ns: int = 0
    """How wrong its clock is."""
    debounce_s: float = 0.3


class MortalEngine(Engine):
    """An engine that can die: nothing is flushed, written or said at the end."""

    def __init__(
        self, config: Config, self_key: PeerKey, peer_keys: dict[str, PeerKey], process: Process
    ) -> None:
        super().__init__(config, self_key, peer_keys)
        self.process = process
        self.closing = trio.Event()
        for arena in self.arenas.values():
            arena.cache.conn.set_commit_hook(self._on_commit)

    def _on_commit(self) -> bool:
        self.process.step()
        return False

    async def _close(self) -> None:
        if not self.process.killed:
            with dying():
                await super()._close()
            if not self.process.killed:
                return
        self.closing.set()
        await trio.testing.wait_all_tasks_blocked()  # the lines go first
        for counter in self.counters.values():
            counter.close()
        for arena in self.arenas.values():
            arena.cache.conn.close()
            arena.audit.close()
            arena.lock.release()
        self.conn.close()
        self._global_lock.release()


class Host:
    """One host: its directories for ever, and its engine while it runs."""

    def __init__(self, name: str, root: Path, others: list[str], profile: Profile) -> None:
        self.name = name
        self.key = key_of(name)
        self.profile = profile
        self.datadir = root / name / "data" if profile.real else None
        self.workdir = root / name / "work"
        self.away, self.emptied = root / name / "away", root / name / "emptied"
        (root / name / "data").mkdir(parents=True)
        arena = ArenaConfig(
            name=ARENA,
            workdir=self.workdir,
            datadir=self.datadir,
            mark=profile.mark,
            disk_usage=DiskUsage(max=profile.quota),
            debounce_s=profile.debounce_s,
            max_parallel_hashers=2,
            min_copies=profile.min_copies,
        )
        node = NodeConfig(name, root / name / "id.pem", (), None, False, root / name / "socket")
        self._config = Config(
            root / name / "realize.toml",
            node,
            root / name / "cache.db",
            (arena,),
            tuple(PeerConfig(other, "") for other in others),
        )
        self.others = frozenset(others)
        self.without: set[str] = set()
        """Peers that are not in the config of its next life."""
        self.knows = self.others
        """Peers that are in the config of its present life."""
        self._engine: MortalEngine | None = None
        self._service: Service | None = None
        self._mount: MountService | None = None
        self.requests = 0
        """How many requests of users it is answering."""
        self.life_steps: int | None = None
        """After how many steps the next life ends, while it starts or later; None: it does not."""
        self.process = Process(name, profile.clock_ns)
        self.stopping = trio.Event()
        self.stopped = trio.Event()
        self.stopped.set()
        self.connected = ConnectedPeers()

    @property
    def usable(self) -> bool:
        """Say whether there is a datadir in which users can work."""
        return self.datadir is not None and not self.away.exists() and not self.emptied.exists()

    def take_away(self, *, empty: bool) -> None:
        """Take the datadir away as a disk that is unmounted, or all that is in it."""
        assert self.datadir is not None
        if not empty:
            self.datadir.rename(self.away)
            return
        self.emptied.mkdir()
        for path in sorted(self.datadir.iterdir()):
            path.rename(self.emptied / path.name)

    def bring_back(self) -> None:
        """Bring the datadir back, with everything that was in it."""
        assert self.datadir is not None
        if self.away.exists():
            self.away.rename(self.datadir)
        if self.emptied.exists():
            for path in sorted(self.emptied.iterdir()):
                path.rename(self.datadir / path.name)
            self.emptied.rmdir()

    @property
    def engine(self) -> MortalEngine:
        assert self._engine is not None
        return self._engine

    @property
    def service(self) -> Service:
        assert self._service is not None
        return self._service

    @property
    def mount(self) -> MountService:
        assert self._mount is not None
        return self._mount

    @property
    def arena(self) -> Arena:
        return self.engine.arenas[ARENA]

    def query(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        """Ask the arena's database, whether its daemon runs or not."""
        if self.running:  # its own connection: to open another one takes long
            return self.arena.cache.conn.execute(sql, values).fetchall()
        with contextlib.closing(sqlite3.connect(f"file:{self.workdir}/arena.db?mode=ro", uri=True)) as conn:
            return conn.execute(sql, values).fetchall()

    def has(self, arena: Arena) -> bool:
        """Say whether an arena is this host's in its present life, be that about to end."""
        return self._engine is not None and self._engine.arenas[ARENA] is arena

    @property
    def running(self) -> bool:
        dead = self._engine is None or self.process.killed
        return not (dead or self.stopping.is_set() or self.stopped.is_set())

    async def run(self, *, task_status: trio.TaskStatus[bool] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop` or `kill`; started with whether it lives, for it can die while it starts."""
        process = self.process = Process(self.name, self.profile.clock_ns)
        process.die_after(self.life_steps)
        self.life_steps = None
        self._engine = None
        current.set(process)
        self.stopped = trio.Event()
        self.stopping = trio.Event()
        started = False
        try:
            with process.scope, dying():
                self._open()
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.engine.run)
                    await nursery.start(self._run_mount)
                    started = True
                    task_status.started(True)
        finally:
            self.stopping.set()
            self._close()
            process.close_files()
            self.stopped.set()
            if not started and process.killed:
                task_status.started(False)

    async def _run_mount(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self.mount.run(task_status=task_status)
        except Exception:
            # What it was doing goes on for a moment after its host died, with everything closed.
            if not self.process.killed:
                raise

    def _open(self) -> None:
        self.knows = self.others - self.without
        config = replace(
            self._config, peers=tuple(peer for peer in self._config.peers if peer.name in self.knows)
        )
        keys = {other: key_of(other) for other in sorted(self.knows)}
        self._engine = MortalEngine(config, self.key, keys, self.process)
        self.stopping = self._engine.closing
        for other in keys:
            self._engine.remember_peer(other, "fp")
        self.connected = ConnectedPeers()
        self._service = Service(self._engine, "fp", self.connected)
        self._mount = MountService(self._engine, self._service.mark_apply, self._service.status_json)

    def _close(self) -> None:
        if self._service is not None:
            self._service.close()
            self._service = None
        self._mount = None

    async def stop(self) -> None:
        """Stop in order: requests and links first."""
        self.stopping.set()
        while (self.requests or self.engine.subscriptions.links) and not self.stopped.is_set():  # noqa: ASYNC110 - no event
            await trio.sleep(0.001)
        self.process.scope.cancel()
        await self.stopped.wait()

    async def kill(self) -> None:
        """Die now."""
        self.process.kill()
        await self.stopped.wait()


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
        if self._rng.random() < 0.2:
            await trio.sleep(min(2.0, self._rng.expovariate(50)))
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


class Line:
    """What connects two hosts while both run and the line is not cut."""

    def __init__(self, left: Host, right: Host, world: World, seed: float) -> None:
        self.ends = (left, right)
        self.cut = False
        self._world = world
        self._rng = random.Random(seed)
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
            if self.cut or not self._possible():
                self._changed = trio.Event()
                with trio.move_on_after(0.5):
                    await self._changed.wait()
                continue
            with trio.CancelScope() as self._scope:
                await self._connect()
            await trio.sleep(self._rng.choice([0.002, 0.05, 0.5]))

    def _possible(self) -> bool:
        left, right = self.ends
        known = right.name in left.knows and left.name in right.knows
        return known and left.running and right.running

    async def _connect(self) -> None:
        left, right = self.ends
        streams = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end, left, right, streams[0], nursery)
            nursery.start_soon(self._end, right, left, streams[1], nursery)

    async def _end(self, host: Host, other: Host, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        current.set(host.process)
        engine = host.engine
        parts = LinkParts(
            host.name, engine.subscriptions, engine.provider, trio.CapacityLimiter(4), self._world.now_ns
        )
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
                    if not engine.process.killed and link.key in engine.subscriptions.links:
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
    below = [b""] if os.path.isdir(base) else []
    while below:
        directory = below.pop()
        with os.scandir(os.path.join(base, directory)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = os.path.join(directory, entry.name)
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    below.append(path)


_UNREALIZED = (
    "SELECT n.id, e.hash FROM node n LEFT JOIN entry e ON e.node = n.id AND e.peer = 0"
    " AND e.holding = 2 AND e.ino <> 0 WHERE n.parent = ? AND n.name = ?"
)


def unrealized(host: Host, path: bytes) -> bytes | None:
    """Return the content of a file that was in the datadir at a path until the host unrealized it."""
    node, content = 0, None
    for name in (b"", *path.split(b"/")):
        found = host.query(_UNREALIZED, (node, name))
        if not found:
            return None
        ((node, content),) = found
    return content
