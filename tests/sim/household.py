"""A household that is shaken by a seeded driver, and brought to rest now and then."""

from __future__ import annotations

import contextlib
import itertools
import random
from pathlib import Path

import trio

from core.types import Mark
from core.work import NO_HOLDER, UNCONFIRMED
from tests.sim.checks import excused, lost, problems
from tests.sim.disks import Disks
from tests.sim.guards import Guards
from tests.sim.hosts import Host, Line, Profile
from tests.sim.ledger import Ledger
from tests.sim.requests import Requests
from tests.sim.troubles import Troubles
from tests.sim.users import Users
from tests.sim.world import World, acting, dying

_REST_S = 4 * 3600.0
_QUIET_LOOKS = 3
_PHASE_STEPS = 100
_LOOK_STEPS = 10
_YEAR_NS = 365 * 86_400 * 10**9


class NoRestError(AssertionError):
    """The household did not come to rest."""


class Household:
    """Hosts, the lines between all of them, and their users."""

    def __init__(
        self, root: Path, world: World, seed: int, *, kills: bool = True, wide: bool = False
    ) -> None:
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
        self._missing = set(rng.sample(self.lines, rng.choice([0, 0, 1, len(self.lines) - len(names) + 1])))
        """Lines that are there only while the household comes to rest."""
        self.ledger = Ledger()
        self.disks = Disks(self.hosts)
        self.guards = Guards(self.hosts, self.ledger, self.disks)
        self.users = Users(rng, world, self.ledger)
        self.requests = Requests(rng, self.ledger, lambda: self.nursery)
        self.troubles = Troubles(rng, self.hosts, self.ledger, self.disks) if wide else None
        self.rests = self.deaths = 0
        self._nursery: trio.Nursery | None = None
        self._busy: trio.Nursery | None = None

    @property
    def nursery(self) -> trio.Nursery:
        """Where requests run: it is waited for before a rest."""
        assert self._busy is not None
        return self._busy

    async def run(self, steps: int) -> list[str]:
        """Do ``steps`` random things, with rests between; returns what is wrong, as soon as something is."""
        with self.guards.watching(self.world):
            async with trio.open_nursery() as self._nursery:
                for host in self.hosts:
                    await self._start(host)
                for line in self.lines:
                    self._nursery.start_soon(line.run)
                found = await self._phases(steps)
                for host in self.hosts:
                    await host.stop()
                self._nursery.cancel_scope.cancel()
        return found

    async def _phases(self, steps: int) -> list[str]:
        left = steps
        while left > 0:
            phase = min(left, self.rng.randrange(_PHASE_STEPS // 2, _PHASE_STEPS * 3 // 2))
            left -= phase
            for line in self._missing:
                line.set_cut(True)
            async with trio.open_nursery() as self._busy:
                for number in range(phase):
                    await self._step()
                    if self.rng.random() < 0.4:
                        await trio.sleep(self.rng.choice([0, 0.01, 0.05, 0.3, 0.5, 1.5, 3]))
                    if number % _LOOK_STEPS == 0:
                        self.ledger.problems += lost(self.ledger, self.disks)
                    if self.ledger.problems:
                        self._busy.cancel_scope.cancel()
                        return self.ledger.problems
            for host in self.hosts:
                self.users.tidy(host)
            await self._heal()
            await self._rest()
            self.rests += 1
            found = [*self.ledger.problems, *problems(self.hosts, self.ledger, self.disks)]
            if found:
                return found
            self.ledger.rested()
            self.ledger.note("household", "rested")
        return []

    # -- steps

    async def _step(self) -> None:
        rng = self.rng
        host = rng.choice(self.hosts)
        if self.troubles is not None:
            await self._befall(self.troubles, host)
        what = rng.random()
        if what < 0.68:
            if host.usable:
                self.users.act(host)
        elif what < 0.71:
            if host.usable:
                self.nursery.start_soon(self.users.write_slowly, host)
        elif what < 0.77:
            if host.running:
                self.requests.mark(host, self.hosts)
        elif what < 0.90:
            if host.running:
                self.requests.ask(host)
        elif what < 0.95:
            line = rng.choice(self.lines)
            if line not in self._missing:
                self.ledger.note("line", f"{[end.name for end in line.ends]} cut={not line.cut}")
                line.set_cut(not line.cut)
        elif what < 0.99:
            await self._restart(host)
        else:
            await self._move_datadir(host)

    async def _start(self, host: Host) -> None:
        """Begin a life of a host; one that is to end at once may have ended already."""
        assert self._nursery is not None
        await self._nursery.start(host.run)

    async def _restart(self, host: Host) -> None:
        how = self.rng.random()
        if not host.running:
            await host.stopped.wait()
            if self._kills and how < 0.2:
                host.life_steps = self.rng.randrange(60)
                self.deaths += 1
            self.ledger.note(host.name, f"starts, to die after {host.life_steps} steps")
            await self._start(host)
        elif how < 0.3 or not self._kills:
            self.ledger.note(host.name, "restarted")
            await host.stop()
            if how < 0.2:
                await self._start(host)
        elif how < 0.5:
            self.ledger.note(host.name, "killed")
            self.deaths += 1
            await host.kill()
        else:
            steps = self.rng.choice([0, 1, 3, 10, 30, 100])
            self.ledger.note(host.name, f"to die after {steps} steps")
            self.deaths += 1
            host.process.die_after(steps)

    async def _befall(self, troubles: Troubles, host: Host) -> None:
        chance = self.rng.random()
        if chance < 0.015 and host.usable:
            troubles.make_unreadable(host)
        elif 0.015 <= chance < 0.03:
            if host.running:
                await (host.kill() if self._kills and self.rng.random() < 0.5 else host.stop())
            await host.stopped.wait()
            troubles.before_start(host)
            await self._start(host)

    async def _move_datadir(self, host: Host) -> None:
        if host.datadir is None:
            return
        if not host.usable:
            self.ledger.note(host.name, "datadir is back")
            host.bring_back()
            return
        empty = self.rng.random() < 0.5
        if empty and host.running:  # while it runs, these were deletions
            await host.stop()
        await host.stopped.wait() if not host.running else None
        self.ledger.note(host.name, "datadir is emptied" if empty else "datadir is taken away")
        host.take_away(empty=empty)

    # -- rest

    async def _heal(self) -> None:
        """Join all lines, bring everything back and start all hosts."""
        for host in self.hosts:
            if host.datadir is not None and not host.usable:
                host.bring_back()
        for line in self.lines:
            line.set_cut(False)
        for host in self.troubles.separated() if self.troubles is not None else ():
            if host.running:
                await host.stop()
        for host in self.hosts:
            host.process.die_after(None)
            if not host.running:
                await host.stopped.wait()
                await self._start(host)
            await host.service.churten_start()

    async def _rest(self) -> None:
        """Wait until nothing is left to do on any host."""
        quiet = 0
        look_s = 0.5
        with trio.move_on_after(_REST_S):
            while quiet < _QUIET_LOOKS:
                await trio.sleep(look_s)
                look_s = min(60.0, look_s * 1.05)
                await self._confirm_emptied()
                if self.troubles is not None:
                    self.troubles.mend()
                quiet = 0 if self.busy() else quiet + 1
            return
        left = {
            host.name: [
                (host.arena.cache.tree.path(node), reason, attempts, host.arena.work.one(node))
                for node, _, reason, attempts in host.arena.work.waiting(5)
            ]
            for host in self.hosts
        }
        raise NoRestError(f"no rest: {self.busy()}; queued: {left}")

    async def _confirm_emptied(self) -> None:
        """Say that a datadir was emptied on purpose, as its user would."""
        for host in self.hosts:
            index = host.arena.index
            if index is not None and "is empty" in host.arena.offline:
                with acting(host.process), dying():
                    await index.confirm_deletes()

    def busy(self) -> str:
        """Say what is left to do; "" at rest."""
        for line in self.lines:
            if not line.up:
                return f"{[end.name for end in line.ends]} are not connected"
        for host in self.hosts:
            with acting(host.process):
                waiting = self._waiting(host)
            if waiting:
                return f"{host.name}: {waiting}"
        return ""

    @staticmethod
    def _waiting(host: Host) -> str:
        waiting = host.arena.offline or host.engine.waiting_for()
        if waiting:
            return waiting
        for node, _, reason, attempts in host.arena.work.waiting(100):
            # A copy may stay for ever for want of a confirmation: of another path with the same content.
            if reason not in (NO_HOLDER, UNCONFIRMED) and not excused(host, reason):
                with contextlib.suppress(KeyError):
                    return f"{host.arena.cache.tree.path(node)!r}: {reason} ({attempts} times)"
        return ""


def _profile(rng: random.Random, index: int) -> Profile:
    quota = rng.choice([None, None, None, 200_000, 800_000, 3_000_000])
    return Profile(
        mark=Mark.WATCH if quota is not None else rng.choice([Mark.WATCH, Mark.KEEP, Mark.OWN, Mark.OWN]),
        real=index < 2 or rng.random() < 0.5,
        quota=quota,
        min_copies=rng.choice([1, 1, 2]),
        clock_ns=rng.choice([0, 0, 0, 2 * _YEAR_NS, -3 * _YEAR_NS]),
        debounce_s=rng.choice([0.02, 0.3]),
    )
