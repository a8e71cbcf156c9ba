"""``python -m tests.soak --minutes M``: simulated households and real kills, by turns, for so long.

Prints every seed that failed with the command that replays it; exits with 1 if there was one. SIGINT and
SIGTERM end the turn that is under way with all its processes; it exits with 1 then too if a seed had failed,
else with 128 and the signal's number.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

_SEEDS = 20
_ROUNDS = 5
_TURN_S = 3600.0
"""LIMIT: what a turn may take before it counts as failed."""
_ENDING_S = 30.0
"""LIMIT: what the processes of a turn may take to end in order: daemons stop, mounts and directories go."""


class _EndedError(BaseException):
    """A signal came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _on_signal(number: int, _: FrameType | None) -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # it is ending already
    raise _EndedError(number)


def _run(arguments: list[str]) -> tuple[bool, str]:
    """Run a module of the tests; returns whether it failed, and what it printed."""
    turn = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        process_group=0,  # a Ctrl-C comes here alone
    )
    try:
        said, _ = turn.communicate(timeout=_TURN_S)
    except subprocess.TimeoutExpired:
        return True, f"{_end(turn)}\nno end after {_TURN_S:.0f} s"
    except _EndedError:
        _end(turn)
        raise
    return turn.returncode != 0, said


def _end(turn: subprocess.Popen[str]) -> str:
    """End a turn with all its processes; returns what it printed."""
    with suppress(ProcessLookupError):
        os.killpg(turn.pid, signal.SIGINT)
    try:
        return turn.communicate(timeout=_ENDING_S)[0]
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(turn.pid, signal.SIGKILL)
        return turn.communicate()[0]


def _turn(number: int, seed: int, jobs: int) -> list[str]:
    """Return the arguments of a turn."""
    if number % 2:
        return ["tests.crash.run", "--rounds", str(_ROUNDS), "--seed", str(seed)]
    what = ["tests.sim.run", "--seed", str(seed), "--count", str(_SEEDS), "--jobs", str(jobs), "--brief"]
    return what + (["--wide"] if number % 4 else [])


def main() -> int:
    """Soak until the time is over; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="the first; by default another one each time")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(time.time())
    until_s = time.monotonic() + 60 * options.minutes
    failed: list[str] = []
    turns = ended_by = 0
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, _on_signal)
    try:
        while time.monotonic() < until_s:
            what = _turn(turns, seed, options.jobs)
            print(f"python -m {' '.join(what)}", flush=True)  # noqa: T201
            bad, said = _run(what)
            turns += 1
            seed += _SEEDS
            print("FAILED" if bad else "ok", flush=True)  # noqa: T201
            if bad:
                print(said, flush=True)  # noqa: T201
                failed += _replays(said) or [f"python -m {' '.join(what)}"]
    except _EndedError as error:
        ended_by = error.number
        print(f"ended by {signal.Signals(ended_by).name}", flush=True)  # noqa: T201
    print(f"{turns} turns, {len(failed)} failures", *failed, sep="\n")  # noqa: T201
    return 1 if failed else (128 + ended_by if ended_by else 0)


def _replays(said: str) -> list[str]:
    return [line.removeprefix("replay: ") for line in said.splitlines() if line.startswith("replay: ")]


if __name__ == "__main__":
    sys.exit(main())
