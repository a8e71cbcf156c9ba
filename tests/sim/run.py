"""Replay or search: ``python -m tests.sim.run --seed N --steps M [--count K] [--no-kills] [--keep]``."""

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
from pathlib import Path

import trio

from tests.sim.checks import problems
from tests.sim.household import Household
from tests.sim.world import World

_TMPFS = "/dev/shm"


class _Checked(Household):
    found: list[str]

    async def at_rest(self) -> None:
        self.found = problems(self.hosts, self.users)


def simulate(root: Path, seed: int, steps: int, *, kills: bool = True) -> list[str]:
    """Run one household; returns what is wrong, and after it what was done."""
    world = World(seed)
    household = _Checked(root, world, seed, kills=kills)
    household.found = []
    try:
        with world:
            trio.run(household.run, steps, clock=world.clock)
    except* Exception:  # noqa: BLE001 - whatever it is, it is a finding
        household.found = [traceback.format_exc()]
    if household.found:
        again = f"python -m tests.sim.run --seed {seed} --steps {steps}{'' if kills else ' --no-kills'}"
        return [f"replay: {again}", *household.found, "", *household.users.log]
    return []


def main() -> int:
    gc.set_threshold(50_000, 20, 100)
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.v else logging.ERROR)
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        root = Path(tempfile.mkdtemp(prefix="sim-", dir=_TMPFS if os.path.isdir(_TMPFS) else None))
        started = time.process_time()
        found = simulate(root, seed, options.steps, kills=not options.no_kills)
        took = time.process_time() - started
        print(f"seed {seed}: {'FAILED' if found else 'ok'} in {took:.1f} s", flush=True)  # noqa: T201
        print("\n".join(line if "Traceback" in line else repr(line)[1:-1] for line in found))  # noqa: T201
        failed += bool(found)
        if options.keep and found:
            print(f"kept in {root}")  # noqa: T201
        else:
            shutil.rmtree(root)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
