"""Households of random users, partitions, restarts and deaths keep the invariants of spec 8.

A failing seed says how to be replayed: ``python -m tests.sim.run --seed N --steps M``. Simulations run in
processes of their own: only with ``PYTHONHASHSEED=0`` from the start is a seed the same run each time.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

SEEDS, STEPS, PARTS = 100, 500, 4
"""50 000 steps, in so many tests; `make soak` and ``python -m tests.sim.run`` run more."""
WIDE_SEEDS = range(200, 210)

BUGS = {"vector-not-merged": "I1", "lease-skipped": "I5", "old-content-dropped": "I5"}
"""Bugs put in on purpose, and the invariant they are to be caught by."""
BUG_SEEDS = range(129, 150)
"""Seeds, of 300 steps, of which one at least finds each bug and is well without it."""

_OUTCOME = re.compile(r"seed (\d+): (ok|FAILED) in [\d.]+ s, (\w+):")


def _simulate(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.run", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="backslashreplace",
        check=False,
    )
    return done.returncode, done.stdout


def _hold(seeds: range, *how: object) -> None:
    _, said = _simulate("--seed", seeds.start, "--count", len(seeds), "--brief", *how)
    outcomes = _OUTCOME.findall(said)
    assert len(outcomes) == len(seeds), said
    assert {outcome for _, outcome, _ in outcomes} == {"ok"}, said


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // PARTS))
def test_the_invariants_hold(first: int) -> None:
    _hold(range(first, first + SEEDS // PARTS), "--steps", STEPS)


@pytest.mark.timeout(600)
def test_they_hold_with_databases_lost_peers_removed_and_files_unreadable() -> None:
    _hold(WIDE_SEEDS, "--steps", 300, "--wide")


def test_a_seed_is_the_same_run_each_time() -> None:
    runs = {_OUTCOME.findall(_simulate("--seed", 7, "--steps", 150)[1])[0] for _ in range(2)}
    assert len(runs) == 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_bug_put_in_on_purpose_is_found(bug: str) -> None:
    for seed in BUG_SEEDS:
        run = ("--seed", seed, "--steps", 300, "--brief")
        found = re.search(rf"\b{BUGS[bug]} ", _simulate(*run, "--bug", bug)[1])
        if found and _simulate(*run)[0] == 0:
            return
    pytest.fail(f"no seed of {BUG_SEEDS} finds {bug}")
