"""Soaking can be ended while it is at work, and leaves nothing behind that runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.demo.household import wait_until

_WORKERS = 2


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _below(pid: int) -> list[int]:
    found = _children(pid)
    return found + [grandchild for child in found for grandchild in _below(child)]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_its_processes(by: signal.Signals) -> None:
    soak = subprocess.Popen(
        [sys.executable, "-m", "tests.soak", "--minutes", "10", "--jobs", str(_WORKERS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(_below(soak.pid)) > _WORKERS, 30, "the simulation with its workers")
        started = _below(soak.pid)
        soak.send_signal(by)
        said, _ = soak.communicate(timeout=60)
    finally:
        soak.kill()
        soak.wait()
    assert f"ended by {by.name}" in said
    assert "0 turns, 0 failures" in said
    assert soak.returncode == 128 + by
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 10, "the end of them all")
