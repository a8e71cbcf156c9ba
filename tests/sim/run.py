"""Replay or search: ``python -m tests.sim.run --seed N --steps M [--count K] [--jobs J] [--bug NAME] …``.

Each seed runs in a process of its own that starts with ``PYTHONHASHSEED=0``: only so is a run the same each time.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import trio
from blake3 import blake3

from tests.sim.household import Household
from tests.sim.world import World

STEPS = 500
_TMPFS = "/dev/shm"


@dataclass
class Outcome:
    """What became of a seed; ``digest`` is equal for two runs that went the same way."""

    seed: int
    found: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    figures: str = ""
    digest: str = ""
    cpu_s: float = 0.0


def simulate(root: Path, seed: int, steps: int, *, kills: bool = True) -> Outcome:
    """Run one household."""
    started = time.process_time()
    world = World(seed)
    household = Household(root, world, seed, kills=kills)
    outcome = Outcome(seed)
    try:
        with world:
            outcome.found = trio.run(household.run, steps, clock=world.clock, instruments=[household.guards])
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome.found = [*household.ledger.problems, traceback.format_exc()]
    guards = household.guards
    outcome.log = household.ledger.log
    outcome.digest = blake3(
        "\n".join(
            [
                *(line.replace(str(root), "") for line in outcome.log),
                repr(world.rng.random()),
                repr(household.rng.random()),
            ]
        ).encode()
    ).hexdigest()[:16]
    outcome.figures = (
        f"{len(household.hosts)} hosts, {household.rests} rests, {household.deaths} deaths,"
        f" {household.requests.answered} answers, {guards.removals} removals, {guards.evictions} evictions,"
        f" {guards.reservations} reservations"
    )
    outcome.cpu_s = time.process_time() - started
    return outcome


def _replay(options: argparse.Namespace, seed: int) -> str:
    kills = " --no-kills" if options.no_kills else ""
    return f"python -m tests.sim.run --seed {seed} --steps {options.steps}{kills}"


def _one(options: argparse.Namespace, seed: int) -> Outcome:
    root = Path(tempfile.mkdtemp(prefix="sim-", dir=_TMPFS if os.path.isdir(_TMPFS) else None))
    try:
        return simulate(root, seed, options.steps, kills=not options.no_kills)
    finally:
        if options.keep:
            print(f"kept in {root}")  # noqa: T201
        else:
            shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    """Run the seeds; 1 if one of them failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim.run", *sys.argv[1:]],
                  {**os.environ, "PYTHONHASHSEED": "0"})  # fmt: skip
    gc.set_threshold(50_000, 20, 100)
    logging.basicConfig(level=logging.DEBUG if options.v else logging.ERROR)
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        outcome = _one(options, seed)
        text = "FAILED" if outcome.found else "ok"
        print(  # noqa: T201
            f"seed {seed}: {text} in {outcome.cpu_s:.1f} s, {outcome.digest}: {outcome.figures}", flush=True
        )
        if outcome.found:
            failed += 1
            lines = [f"replay: {_replay(options, seed)}", *outcome.found, "", *outcome.log]
            print("\n".join(line if "Traceback" in line else repr(line)[1:-1] for line in lines))  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
