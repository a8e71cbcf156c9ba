"""Every benchmark comes to its end at its small size, and every row says something."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import BENCHES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", BENCHES)
def test_the_small_size_runs(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--size", "small", "--only", name, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows
    assert all(row["value"] >= 0 and row["unit"] and row["work"] for row in rows)
