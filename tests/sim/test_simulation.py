"""Households of random users, partitions, restarts and deaths come to rest with the invariants kept.

A failing seed says how to be replayed: ``python -m tests.sim.run --seed N --steps M``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.run import simulate

STEPS = 60


@pytest.mark.parametrize("seed", range(8))
def test_the_invariants_hold_at_rest(tmp_path: Path, seed: int) -> None:
    assert "\n".join(simulate(tmp_path, seed, STEPS)) == ""


@pytest.mark.parametrize("seed", range(8, 11))
def test_without_deaths_too(tmp_path: Path, seed: int) -> None:
    assert "\n".join(simulate(tmp_path, seed, STEPS, kills=False)) == ""
