"""What users ask of daemons: reads through the mount's backend, marks, and the commands."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Sequence

import trio
from blake3 import blake3

from core.api import ArenaPath, MarkChange
from core.blobshelf import blob_name
from core.errors import RealizeError
from core.types import Hash, Holding, Inode, Kind, Mark, Vector
from tests.sim.checks import Node, nodes
from tests.sim.hosts import ARENA, Host
from tests.sim.ledger import Ledger
from tests.sim.world import current, dying

_READ_S = 60.0


class Requests:
    """Asks daemons; each request runs beside the steps that follow it."""

    def __init__(self, rng: random.Random, ledger: Ledger, nursery: Callable[[], trio.Nursery]) -> None:
        self._rng = rng
        self._ledger = ledger
        self._nursery = nursery
        self.answered = 0
        self._kinds: list[Callable[[Host], Awaitable[None]]] = [
            self._read, self._evict, self._verify, self._restore, self._resolve, self._get, self._churten,
        ]  # fmt: skip
        self._weights = [10, 2, 1, 1, 4, 1, 1]

    def ask(self, host: Host) -> None:
        """Ask something of a daemon that runs."""
        self._nursery().start_soon(self._run, host, self._rng.choices(self._kinds, self._weights)[0])

    async def _run(self, host: Host, request: Callable[[Host], Awaitable[None]]) -> None:
        if not host.running:
            return
        current.set(host.process)
        host.requests += 1
        try:
            with dying(), trio.move_on_after(_READ_S) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_at, host.stopping, scope)
                    try:
                        await request(host)
                        self.answered += 1
                    except RealizeError as error:
                        self._ledger.note(host.name, f"{request.__name__}: {error}")
                    except Exception:
                        # A request goes on for a moment after its host died, with everything closed.
                        if not host.process.killed:
                            raise
                    nursery.cancel_scope.cancel()
        finally:
            host.requests -= 1

    def _some(self, host: Host) -> Node | None:
        found = nodes(host)
        return self._rng.choice(found) if found else None

    # -- marks

    def mark(self, host: Host, others: Sequence[Host]) -> None:
        """Set or remove a mark at a path that the host shows, there or on all hosts; answered at once."""
        rng = self._rng
        node = self._some(host) if rng.random() < 0.7 else None
        at = ArenaPath(ARENA, node.path if node is not None else b"")
        mark = rng.choice([Mark.WATCH, Mark.WATCH, Mark.KEEP, Mark.OWN, Mark.OWN, None])
        for one in others if rng.random() < 0.4 else [host]:
            self._ledger.note(one.name, f"mark {at.path!r} {mark}")
            self._nursery().start_soon(self._run, one, lambda host: self._apply(host, at, mark))

    async def _apply(self, host: Host, at: ArenaPath, mark: Mark | None) -> None:
        await host.service.mark_apply([MarkChange(at, mark)])

    # -- reading

    async def _read(self, host: Host) -> None:
        found = [node for node in nodes(host) if node.kind == Kind.FILE]
        if not found:
            return
        node = self._rng.choice(found)
        if node.local == Holding.REAL:
            self._read_real(host, node)
        elif node.hash is None:
            await self._read_unhashed(host, node)
        else:
            await self._read_content(host, node, Hash(node.hash))

    def _read_real(self, host: Host, node: Node) -> None:
        assert host.datadir is not None
        try:
            with open(os.path.join(os.fsencode(host.datadir), node.path), "rb") as file:
                self._whole(host, node, file.read())
        except OSError as error:
            self._ledger.note(host.name, f"reads {node.path!r}: {error.strerror}")

    async def _read_unhashed(self, host: Host, node: Node) -> None:
        data = await host.mount.read_unhashed(
            ARENA, Inode(node.id), Vector(node.vector), 0, min(node.size, 1 << 20)
        )
        if len(data) == node.size:
            self._whole(host, node, data)

    def _whole(self, host: Host, node: Node, data: bytes) -> None:
        content = blake3(data).digest()
        if content not in self._ledger.data:
            self._ledger.problems.append(
                f"I4 {host.name} read {len(data)} bytes of {node.path!r} that are no version"
            )
        elif not self._ledger.belongs(content, node.path):
            self._ledger.problems.append(
                f"I3 {host.name} read at {node.path!r} what was never written there: "
                + self._ledger.origins(content)
            )

    async def _read_content(self, host: Host, node: Node, content: Hash) -> None:
        """Read as `fuse.sources` does: fetch, then read the blob's file while it is held open."""
        rng = self._rng
        expected = self._ledger.data.get(content)
        if expected is None or not self._ledger.belongs(content, node.path):
            self._ledger.problems.append(
                f"I3 {host.name} shows {node.path!r} with a content never written there: "
                + self._ledger.origins(content)
            )
            return
        self._ledger.note(host.name, f"reads {node.path!r}")
        mount, size = host.mount, len(expected)
        mount.opened(ARENA, content, size)
        file = -1
        try:
            at = rng.choice([0, 0, rng.randrange(size + 1)])
            while at < size:
                end = min(size, at + rng.choice([4096, 131_072, 1 << 20]))
                got = await mount.fetch(
                    ARENA, Inode(node.id), content, size, at, end, rng.choice([0, 1 << 20])
                )
                data = got.data[: end - at]
                if not data:
                    if file < 0:
                        try:
                            file = os.open(host.workdir / "blobs" / blob_name(content), os.O_RDONLY)
                        except FileNotFoundError:
                            continue  # evicted before it was opened, as `fuse.sources` has it
                    covered = [min(stop, end) for start, stop in got.ranges if start <= at < stop]
                    if not covered:
                        self._ledger.problems.append(f"{host.name}: a fetch of {node.path!r} gave nothing")
                        return
                    await trio.sleep(rng.choice([0, 0, 0.05, 1]))
                    data = os.pread(file, covered[0] - at, at)
                if data != expected[at : at + len(data)] or not data:
                    self._ledger.problems.append(
                        f"I3 {host.name} read wrong bytes at {at} of {node.path!r}, {content.hex()[:16]}"
                    )
                    return
                if rng.random() < 0.2:
                    mount.used(ARENA, Inode(node.id), content)
                at += len(data)
        finally:
            if file >= 0:
                os.close(file)
            if not host.process.killed:
                mount.closed(ARENA, content)

    # -- commands

    async def _evict(self, host: Host) -> None:
        node = self._some(host) if self._rng.random() < 0.7 else None
        self._ledger.note(host.name, f"evict {node.path if node else b''!r}")
        async for _ in host.service.evict([ArenaPath(ARENA, node.path if node else b"")]):
            pass

    async def _verify(self, host: Host) -> None:
        self._ledger.note(host.name, "verify")
        async for step in host.service.verify(repair=self._rng.random() < 0.5):
            self._ledger.note(host.name, f"verified: {step}")

    async def _get(self, host: Host) -> None:
        node = self._some(host)
        if node is not None:
            self._ledger.note(host.name, f"get {node.path!r}")
            async for _ in host.service.get([ArenaPath(ARENA, node.path)]):
                pass

    async def _churten(self, host: Host) -> None:
        if host.engine.churten.running:
            await host.service.churten_stop()
        else:
            await host.service.churten_start()
        self._ledger.note(host.name, f"churten runs: {host.engine.churten.running}")

    async def _restore(self, host: Host) -> None:
        rows = await host.service.trash_list()
        if not rows:
            return
        row = self._rng.choice(rows)
        self._ledger.note(host.name, f"restores {row.at.path!r} {row.hash.hex()[:16]}")
        self._ledger.touched(row.hash)
        self._give_up_here(host, row.at.path)
        node = host.arena.cache.tree.find(row.at.path)
        if node is not None:
            entry = host.arena.cache.local_entry(node)
            for content in (host.arena.cache.shown(node).hash, entry.hash if entry is not None else None):
                if content is not None:
                    self._ledger.gave_up(content)
        await host.service.trash_restore(row.at, content=row.hash)

    async def _resolve(self, host: Host) -> None:
        rows = await host.service.conflicts()
        if not rows:
            return
        row = self._rng.choice(rows)
        peers = [name for version in row.versions for name in version.peers if name != host.name]
        keep = self._rng.choice(["local", "both", *peers])
        self._ledger.note(host.name, f"resolves {row.at.path!r}, keeps {keep}")
        for version in row.versions:
            kept = keep == "both" or (version.here if keep == "local" else keep in version.peers)
            if version.hash is not None and not kept:
                self._ledger.gave_up(version.hash)
            elif version.hash is not None:
                self._ledger.touched(version.hash)
        if keep in peers:
            self._give_up_here(host, row.at.path)
        self._give_up_below(host, row.at.path)
        await host.service.conflict_resolve(row.at, keep)

    def _give_up_here(self, host: Host, path: bytes) -> None:
        """What the user has replaced is what is in the datadir, which may not be indexed yet."""
        if host.datadir is not None:
            self._ledger.gave_up_file(host.datadir / os.fsdecode(path))

    def _give_up_below(self, host: Host, path: bytes) -> None:
        """What is in a directory that is not kept goes with it."""
        cache = host.arena.cache
        node = cache.tree.find(path)
        for below in cache.visible_below(node) if node is not None else ():
            for entry in cache.entries(below):
                if entry.hash is not None:
                    self._ledger.gave_up(entry.hash)


async def _cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
