"""Real daemons killed at random: ``python -m tests.crash.run [--rounds N] [--seed S] [--keep]``.

A household of three on loopback with real mounts. Each round a seeded user works in the datadirs and
through the mounts while one or two daemons are killed and started again; then everything has to come to
rest and be right. What the daemons do meanwhile is theirs, so a seed repeats the user, not every moment.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from app.demo.household import ArenaPlan, Household, HouseholdError, Peer, PeerPlan
from core.api import Api, ArenaPath, MarkChange
from core.errors import NetError, NotYetError, RealizeError
from core.types import Kind, Mark
from tests.crash.checks import (
    ARENA,
    Tree,
    ask,
    damaged,
    datadir_differs,
    left_over,
    lost,
    tree,
    trees_differ,
    unsatisfied,
)
from tests.crash.quota import QuotaWatch
from tests.crash.user import User, digest
from tests.e2e.household import alarms

QUOTA_BYTES = 1_500_000
"""Less than what there is as a rule: reads make room for each other, and large files are streamed."""
USABLE_S = 5.0
"""I10: stop and start leave a usable mount within 5 s."""
_REST_S = 45.0
_ACTIONS = 12
_PAUSE_S = 0.1

ALLOWED = (
    r"detaching the mount that a crashed daemon left",
    r"realize\.auth: rejected peer=\w+ addr=\S+ reason=",
    r"realize\.fuse\.guard: .*(no connected peer|being changed|sent nothing|closed|lost)",
)
"""What daemons may warn of whose peers are killed."""
_EMPTIED = r"is offline: datadir .* is empty, and was not"
"""What a daemon may warn of besides at whose start the user has emptied the datadir."""


class WrongError(Exception):
    """What is wrong, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))


class Run:
    """One household over all its rounds."""

    def __init__(self, seed: int, *, keep: bool = False, directory: Path | None = None) -> None:
        self.rng = random.Random(seed)
        self.user = User(self.rng)
        self.household = Household(directory, keep=keep)
        self.kills = 0
        self.slowest_start_s = 0.0
        self.most_cached_bytes = 0
        self._logged: dict[str, int] = {}
        self._dead: set[str] = set()
        self._emptied: set[str] = set()
        """Whose datadirs the user left with nothing in them in this round."""
        quota = {"disk_usage": {"max": QUOTA_BYTES}}
        for plan in (
            PeerPlan("anna", [ArenaPlan(ARENA, options={"mark": "own"})]),
            PeerPlan("bert", [ArenaPlan(ARENA)]),
            PeerPlan("cleo", [ArenaPlan(ARENA, options=quota)]),
        ):
            self.household.add(plan)
        self.anna, self.bert, self.cleo = self.household.peers

    def start(self) -> None:
        self.household.introduce_all()
        for name, text in (("a", b"first"), ("d1/b", b"second"), ("d2/c", b"third")):
            path = self.anna.datadir() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            self.user.ever.add(digest(text))
        self.household.start()
        self.household.wait_connected()
        self._at_rest()
        ask(self.bert, partial(_mark, b"d2", Mark.OWN))
        ask(self.cleo, partial(_mark, b"d1", Mark.KEEP))

    # -- one round

    def round(self, number: int) -> None:
        """Let the user work and daemons die; then look whether all is well.

        Raises:
            WrongError: it is not.
        """
        rng, watch = self.rng, QuotaWatch(self.cleo.datadir().parent / "blobs")
        self.user.note(f"round {number}")
        watch.start()
        try:
            kills_at = sorted(rng.sample(range(_ACTIONS), rng.choice([1, 1, 2])))
            for step in range(_ACTIONS):
                if step in kills_at:
                    self._kill(
                        rng.choice([peer for peer in self.household.peers if peer.name not in self._dead])
                    )
                elif self._dead and rng.random() < 0.2:
                    self._revive()
                self._act()
                # No wait for anything: the next kill comes at any moment of what the daemons do meanwhile.
                time.sleep(rng.random() * _PAUSE_S)
            while self._dead:
                self._revive()
            trees = self._at_rest()
        finally:
            watch.stop()
        self.most_cached_bytes = max(self.most_cached_bytes, watch.most)
        problems = self._problems(trees)
        if watch.most > QUOTA_BYTES:
            problems.append(f"I7: cleo's blobs took {watch.most} bytes of {QUOTA_BYTES}")
        if problems:
            raise WrongError(problems)

    def _kill(self, peer: Peer) -> None:
        self.user.note(f"{peer.name} is killed")
        self.kills += 1
        peer.kill()
        self._dead.add(peer.name)

    def _revive(self) -> None:
        name = self.rng.choice(sorted(self._dead))
        peer = next(peer for peer in self.household.peers if peer.name == name)
        self.user.note(f"{name} starts")
        started_s = time.monotonic()
        peer.start()
        names = os.listdir(peer.view())
        took_s = time.monotonic() - started_s - _kept_waiting_s(peer)
        self.slowest_start_s = max(self.slowest_start_s, took_s)
        self._dead.discard(name)
        if took_s > USABLE_S:
            raise WrongError([f"I10: the mount of {name} was usable after {took_s:.1f} s"])
        if not names and any(peer.datadir().iterdir()):
            raise WrongError([f"the mount of {name} shows nothing after its start"])

    def _act(self) -> None:
        rng = self.rng
        alive = [peer for peer in self.household.peers if peer.name not in self._dead]
        choice = rng.random()
        if choice < 0.6:
            # A user works in his datadir whether the daemon runs or not.
            peer = rng.choice([self.anna, self.anna, self.bert])
            self.user.act(peer.name, peer.datadir())
            if not any(peer.datadir().iterdir()):
                self._emptied.add(peer.name)
        elif choice < 0.95 and alive:
            reader = self.cleo if self.cleo in alive and rng.random() < 0.7 else rng.choice(alive)
            for _ in range(rng.choice([1, 3, 6])):
                self.user.read(reader.name, reader.view())
        elif alive:
            peer = rng.choice(alive)
            marks = [Mark.KEEP, None] if peer is self.cleo else [Mark.OWN, Mark.KEEP, Mark.WATCH, None]
            path, mark = rng.choice([b"d1", b"d2", b"a", b"d1/b"]), rng.choice(marks)
            self.user.note(f"{peer.name}: mark {path!r} {mark}")
            try:
                ask(peer, partial(_mark, path, mark))
            except RealizeError as error:
                self.user.note(f"it was not set: {error}")

    # -- at rest

    def _confirm_emptied(self) -> None:
        """Say that a datadir was emptied on purpose, where the user did that and is asked for it."""
        for peer in self.household.peers:
            (arena,) = ask(peer, lambda api: api.status()).arenas
            if peer.name in self._emptied and "is empty" in arena.offline:
                self.user.note(f"{peer.name}: the emptied datadir is confirmed")
                ask(peer, lambda api: api.arena_confirm_deletes(ARENA))

    def _at_rest(self) -> dict[str, Tree]:
        """Wait until nothing is left to be done and all show the same; return what they show."""
        deadline_s = time.monotonic() + _REST_S
        problems: list[str] = []
        while time.monotonic() < deadline_s:
            try:
                self._confirm_emptied()
                for peer in self.household.peers:
                    ask(peer, lambda api: api.wait_idle(5.0))
                trees = {peer.name: ask(peer, tree) for peer in self.household.peers}
            except (NetError, NotYetError) as error:
                problems = [str(error)]
                continue
            problems = trees_differ(trees)
            for name, shown in trees.items():
                problems += [
                    f"{name}: {path!r} is not hashed"
                    for path, entry in shown.items()
                    if entry.kind is Kind.FILE and entry.hash is None
                ]
            for peer in (self.anna, self.bert):
                problems += [*datadir_differs(peer, trees[peer.name]), *unsatisfied(peer, trees[peer.name])]
            for peer in self.household.peers:
                problems += left_over(peer)
            if not problems:
                return trees
        raise WrongError([f"no rest within {_REST_S:g} s", *problems])

    def _problems(self, trees: dict[str, Tree]) -> list[str]:
        problems = [*lost(self.household.peers, trees, self.user.contents), *self.user.wrong]
        status = ask(self.cleo, lambda api: api.status())
        (arena,) = status.arenas
        if arena.cache.max != QUOTA_BYTES or arena.cache.used > QUOTA_BYTES:
            problems.append(f"I7: cleo says that it uses {arena.cache}")
        for peer in self.household.peers:
            problems += self._new_alarms(peer)
        return problems

    def _new_alarms(self, peer: Peer) -> list[str]:
        log = peer.log()
        emptied = (_EMPTIED,) if peer.name in self._emptied else ()
        found = alarms(log[self._logged.get(peer.name, 0) :], (*ALLOWED, *emptied))
        self._logged[peer.name] = len(log)
        self._emptied.discard(peer.name)
        return [f"{peer.name} logged: {line}" for line in found]

    def finish(self) -> None:
        """Let each daemon read all that it holds, and stop in order.

        Raises:
            WrongError: something is not what it should be.
        """
        problems = []
        for peer in self.household.peers:
            problems += [f"{peer.name}: verify: {text}" for text in ask(peer, damaged)]
            if peer.stop() != 0:
                problems.append(f"{peer.name} did not stop in order")
        if problems:
            raise WrongError(problems)


def _kept_waiting_s(peer: Peer) -> float:
    """Return how long the daemon could have run and the machine's other work was run instead.

    The longest of its threads' times in the run queue (proc(5), ``schedstat``): they overlap.
    """
    assert peer.process is not None
    tasks = Path(f"/proc/{peer.process.pid}/task").glob("*/schedstat")
    return max(int(path.read_text().split()[1]) for path in tasks) / 1e9


async def _mark(path: bytes, mark: Mark | None, api: Api) -> None:
    await api.mark_apply([MarkChange(ArenaPath(ARENA, path), mark)])


def crash(seed: int, rounds: int, *, keep: bool = False, say: bool = False) -> tuple[list[str], Run]:
    """Run one household; returns what is wrong, with how to repeat it and what the user did last."""
    run = Run(seed, keep=keep)
    number = 0
    found: list[str] = []
    try:
        run.start()
        for number in range(1, rounds + 1):
            started_s = time.monotonic()
            run.round(number)
            if say:
                print(f"round {number}: {time.monotonic() - started_s:.1f} s", flush=True)  # noqa: T201
        run.finish()
    except (WrongError, HouseholdError) as error:
        found = str(error).splitlines()
    except Exception:  # noqa: BLE001 - whatever it is, it is a finding
        found = traceback.format_exc().splitlines()
    finally:
        run.household.close()
    if not found:
        return [], run
    where = f", kept in {run.household.directory}" if keep else "; --keep keeps the directories"
    again = f"python -m tests.crash.run --seed {seed} --rounds {rounds}"
    return [f"round {number} of: {again}{where}", *found, "", *run.user.log[-60:]], run


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    started_s = time.monotonic()
    found, run = crash(options.seed, options.rounds, keep=options.keep, say=True)
    print("\n".join(repr(line)[1:-1] for line in found))  # noqa: T201
    print(  # noqa: T201
        f"seed {options.seed}: {'FAILED' if found else 'ok'} in {time.monotonic() - started_s:.0f} s,"
        f" {run.kills} kills, {run.user.reads} reads, slowest start {run.slowest_start_s:.1f} s,"
        f" cache at most {run.most_cached_bytes} of {QUOTA_BYTES}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
