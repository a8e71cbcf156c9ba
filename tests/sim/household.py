"""A household that is shaken by a seeded driver, and brought to rest."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import trio

from core.types import Mark
from core.work import NO_HOLDER
from tests.sim.hosts import Host, Line, Profile
from tests.sim.users import Users
from tests.sim.world import World

_REST_S = 7200.0
_QUIET_LOOKS = 4


class NoRestError(AssertionError):
    """The household did not come to rest."""


class Household:
    """Hosts, the lines between all of them, and their users."""

    def __init__(self, root: Path, world: World, seed: int, *, kills: bool = True) -> None:
        self.rng = rng = random.Random(seed)
        self._kills = kills
        self.world = world
        names = [f"h{number}" for number in range(rng.choice([3, 3, 3, 3, 4, 5]))]
        self.hosts = [
            Host(name, root, [other for other in names if other != name], _profile(rng, index))
            for index, name in enumerate(names)
        ]
        self.lines = [
            Line(left, right, world, rng.random()) for left, right in itertools.combinations(self.hosts, 2)
        ]
        self.users = Users(rng)
        self._nursery: trio.Nursery | None = None

    @property
    def nursery(self) -> trio.Nursery:
        assert self._nursery is not None
        return self._nursery

    async def run(self, steps: int) -> None:
        """Do ``steps`` random things, then heal everything and wait for rest; stops all at the end.

        The caller looks at the hosts in `at_rest`, which is called before they are stopped.
        """
        async with trio.open_nursery() as self._nursery:
            for host in self.hosts:
                await self.start(host)
            for line in self.lines:
                self.nursery.start_soon(line.run)
            for _ in range(steps):
                await self._step()
                if self.rng.random() < 0.4:
                    await trio.sleep(self.rng.choice([0, 0.01, 0.05, 0.3, 0.5, 1.5, 3]))
            await self.heal()
            await self.rest()
            await self.at_rest()
            for host in self.hosts:
                await host.stop()
            self.nursery.cancel_scope.cancel()

    async def at_rest(self) -> None:
        """Look at the household at rest; overridden by who has something to look for."""

    async def _step(self) -> None:
        rng = self.rng
        host = rng.choice(self.hosts)
        what = rng.random()
        if what < 0.83:
            if host.datadir is not None:
                self.users.act(host)
        elif what < 0.90:
            if host.running:
                await self.users.mark(host)
        elif what < 0.96:
            line = rng.choice(self.lines)
            self.users.log.append(f"line {[end.name for end in line.ends]} cut={not line.cut}")
            line.set_cut(not line.cut)
        else:
            await self._restart(host)

    async def start(self, host: Host) -> None:
        """Begin a life of a host; one that is to end at once may have ended already."""
        await self.nursery.start(host.run)

    async def _restart(self, host: Host) -> None:
        how = self.rng.random()
        if not host.running:
            await host.stopped.wait()
            await self.start(host)
        elif how < 0.4 or not self._kills:
            self.users.log.append(f"{host.name}: restarted")
            await host.stop()
            await self.start(host)
        elif how < 0.6:
            self.users.log.append(f"{host.name}: killed")
            await host.kill()
        else:
            self.users.log.append(f"{host.name}: to die at a commit")
            host.process.die_after(self.rng.choice([0, 3, 10, 30, 100, 300]))

    async def heal(self) -> None:
        """Join all lines and start all hosts."""
        for line in self.lines:
            line.set_cut(False)
        for host in self.hosts:
            if host.running:
                host.process.die_after(None)
            else:
                await host.stopped.wait()
                await self.start(host)

    async def rest(self) -> None:
        """Wait until nothing is left to do on any host."""
        quiet = 0
        with trio.move_on_after(_REST_S):
            while quiet < _QUIET_LOOKS:
                await trio.sleep(0.5)
                await self._confirm_emptied()
                quiet = 0 if self.busy() else quiet + 1
            return
        raise NoRestError(f"no rest: {self.busy()}")

    async def _confirm_emptied(self) -> None:
        """Say that a datadir was emptied on purpose, as its user would."""
        for host in self.hosts:
            index = host.arena.index
            if index is not None and "is empty" in host.arena.offline:
                await index.confirm_deletes()

    def busy(self) -> str:
        """Say what is left to do; "" at rest."""
        for line in self.lines:
            if not line.up:
                return f"{[end.name for end in line.ends]} are not connected"
        for host in self.hosts:
            waiting = host.arena.offline or host.engine.waiting_for()
            if waiting:
                return f"{host.name}: {waiting}"
            for node, _, reason, attempts in host.arena.work.waiting(100):
                if reason != NO_HOLDER:
                    return f"{host.name}: {host.arena.cache.tree.path(node)!r}: {reason} ({attempts} times)"
        return ""


def _profile(rng: random.Random, index: int) -> Profile:
    return Profile(
        mark=rng.choice([Mark.WATCH, Mark.KEEP, Mark.OWN, Mark.OWN]),
        real=index < 2 or rng.random() < 0.5,
        debounce_s=rng.choice([0.02, 0.3]),
    )
