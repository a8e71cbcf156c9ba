"""Replay or search: ``python -m tests.sim.run --seed N --steps M [--count K] [--jobs J] [--bug NAME] …``.

Processes are started with ``PYTHONHASHSEED=0``: only so is a seed the same run each time.
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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import trio
from blake3 import blake3

from tests.sim.bugs import BUGS, put_in
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


def simulate(
    root: Path, seed: int, steps: int, *, kills: bool = True, wide: bool = False, bug: str | None = None
) -> Outcome:
    """Run one household."""
    started = time.process_time()
    world = World(seed)
    household = Household(root, world, seed, kills=kills, wide=wide)
    outcome = Outcome(seed)
    try:
        with world, put_in(bug):
            outcome.found = trio.run(household.run, steps, clock=world.clock, instruments=[household.guards])
    except BaseException as error:
        if _is_interrupt(error):
            raise KeyboardInterrupt from error
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
        f" {guards.given_up} copies given up,"
        f" {guards.reservations} reservations"
    )
    outcome.cpu_s = time.process_time() - started
    return outcome


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


def _replay(options: argparse.Namespace, seed: int) -> str:
    more = (" --no-kills" if options.no_kills else "") + (f" --bug {options.bug}" if options.bug else "")
    more = (" --wide" if options.wide else "") + more
    return f"python -m tests.sim.run --seed {seed} --steps {options.steps}{more}"


def _one(options: argparse.Namespace, seed: int) -> Outcome:
    logging.basicConfig(level=logging.DEBUG if options.v else logging.ERROR)
    gc.set_threshold(200_000, 20, 100)  # a simulation makes much garbage in cycles, and lives for seconds
    root = Path(tempfile.mkdtemp(prefix="sim-", dir=_TMPFS if os.path.isdir(_TMPFS) else None))
    try:
        return simulate(
            root, seed, options.steps, kills=not options.no_kills, wide=options.wide, bug=options.bug
        )
    finally:
        if options.keep:
            print(f"kept in {root}", flush=True)  # noqa: T201
        else:
            shutil.rmtree(root, ignore_errors=True)


def _all(options: argparse.Namespace) -> Iterator[Outcome]:
    seeds = range(options.seed, options.seed + options.count)
    if options.jobs == 1:
        yield from (_one(options, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(partial(_one, options), seeds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what was not begun is left
            raise


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--count", type=int, default=1, help="of seeds")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--bug", choices=sorted(BUGS), help="put in on purpose")
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--wide", action="store_true", help="with what is in tests/sim/troubles.py as well")
    parser.add_argument("--keep", action="store_true", help="keep the directories")
    parser.add_argument("--brief", action="store_true", help="leave out what was done")
    parser.add_argument("-v", action="store_true", help="with the logs of the daemons")
    return parser.parse_args()


def main() -> int:
    """Run the seeds; 1 if one of them failed."""
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim.run", *sys.argv[1:]],
                  {**os.environ, "PYTHONHASHSEED": "0"})  # fmt: skip
    failed = steps = 0
    for outcome in _all(options):
        text = "FAILED" if outcome.found else "ok"
        print(  # noqa: T201
            f"seed {outcome.seed}: {text} in {outcome.cpu_s:.1f} s, {outcome.digest}: {outcome.figures}",
            flush=True,
        )
        steps += options.steps
        if outcome.found:
            failed += 1
            lines = [f"replay: {_replay(options, outcome.seed)}", *outcome.found]
            if not options.brief:
                lines += ["", *outcome.log]
            print("\n".join(line if "Traceback" in line else repr(line)[1:-1] for line in lines))  # noqa: T201
    print(f"{options.count} seeds, {steps} steps, {failed} failed")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
