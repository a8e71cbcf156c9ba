"""``python -m tests.soak --minutes M``: simulated households and real kills, by turns, for so long.

Prints every seed that failed with the command that replays it; exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time

_SEEDS = 20
_ROUNDS = 5


def _run(arguments: list[str], timeout_s: float) -> tuple[bool, str]:
    """Run a module of the tests; returns whether it failed, and what it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        text = said.decode(errors="backslashreplace") if isinstance(said, bytes) else said
        return True, f"{text}\nno end after {timeout_s:.0f} s"
    return done.returncode != 0, done.stdout


def main() -> int:
    """Soak until the time is over; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="the first; by default another one each time")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(time.time())
    until = time.monotonic() + 60 * options.minutes
    kills = importlib.util.find_spec("tests.crash.run") is not None
    failed: list[str] = []
    turn = 0
    while time.monotonic() < until:
        if kills and turn % 2:
            what = ["tests.crash.run", "--rounds", str(_ROUNDS), "--seed", str(seed)]
        else:
            what = [
                "tests.sim.run",
                "--seed",
                str(seed),
                "--count",
                str(_SEEDS),
                "--jobs",
                str(options.jobs),
                "--brief",
            ]
        turn += 1
        seed += _SEEDS
        bad, said = _run(what, timeout_s=3600.0)

        print(f"{'FAILED' if bad else 'ok'}: python -m {' '.join(what)}", flush=True)  # noqa: T201
        if bad:
            print(said, flush=True)  # noqa: T201
            replays = [line for line in said.splitlines() if line.startswith("replay: ")]
            failed += [line.removeprefix("replay: ") for line in replays] or [f"python -m {' '.join(what)}"]
    print(f"{turn} turns, {len(failed)} failures", *failed, sep="\n")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
