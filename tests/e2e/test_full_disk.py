"""A workdir that is full or read-only: told, nothing half-visible, and it goes on later."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.household import (
    WAIT_S,
    Household,
    Peer,
    attribute,
    fails_with,
    hashed,
    household_of,
    put,
    reads,
    wait_until,
)

MIB = 1024 * 1024
TOLD = [r"nothing can be recorded", r"is offline: its database cannot be written", r"not recorded"]
_RECOVERY_S = 45.0
"""Longest wait: the disk is looked at every 5 s, and what failed before is tried again after up to 30 s."""


def _as_root(*command: str) -> bool:
    sudo = [] if os.getuid() == 0 else ["sudo", "-n"]
    if sudo and shutil.which("sudo") is None:
        return False
    return subprocess.run([*sudo, *command], capture_output=True, check=False).returncode == 0


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[None]:
    """Mount a small filesystem of its own at a directory that is made for it."""
    at.mkdir(parents=True, exist_ok=True)
    owner = f"uid={os.getuid()},gid={os.getgid()},mode=700"
    if not _as_root("mount", "-t", "tmpfs", "-o", f"size={size},{owner}", "realize-test", str(at)):
        pytest.skip("mounting a small disk takes root, or sudo without a password")
    try:
        yield
    finally:
        _as_root("umount", "-l", str(at))


@pytest.fixture
def allowed() -> list[str]:
    return list(TOLD)


@pytest.fixture
def household(allowed: list[str]) -> Iterator[Household]:
    """Give anna, and bert whose arena is on a disk of 64 MiB; not started."""
    with household_of("anna", "bert", start=False, allowed=allowed) as both:
        disk = both.peers[1].datadir().parent
        shutil.rmtree(disk)
        with small_disk(disk, "64m"):
            both.peers[1].datadir().mkdir()
            try:
                yield both
            finally:
                both.peers[1].stop()


def fill(peer: Peer) -> Path:
    """Leave no byte free on the disk of a peer's arena; returns the file that takes it."""
    filler = peer.datadir().parent / "filler"
    for size in (65536, 4096, 1):
        with filler.open("ab", buffering=0) as file, fails_with(errno.ENOSPC):
            while True:
                file.write(b"x" * size)
    return filler


def started(household: Household) -> tuple[Peer, Peer]:
    household.start()
    household.wait_connected()
    anna, bert = household.peers
    return anna, bert


def health(peer: Peer) -> str:
    return " ".join(peer.status()["health"])


def test_a_workdir_full_while_running_stops_the_work_with_a_reason_until_there_is_room(
    household: Household,
) -> None:
    anna, bert = started(household)
    put(anna.datadir() / "before.txt", b"before")
    wait_until(partial(hashed, bert.view() / "before.txt"), WAIT_S, "its hash")
    filler = fill(bert)
    for number in range(40):
        put(anna.datadir() / f"many/{number}.txt", os.urandom(2000))
    wait_until(lambda: "full" in health(bert), WAIT_S, "the reason", every_s=0.2)
    assert "free space on that disk" in health(bert)
    done = bert.run("mark", "set", "own", "docs")
    assert done.returncode == 1
    assert "full" in done.stderr
    assert "before.txt" in os.listdir(bert.view())
    assert reads(bert.view() / "before.txt", b"before"), "what is not stored is streamed"

    filler.unlink()
    wait_until(lambda: not health(bert), _RECOVERY_S, "it goes on", every_s=0.2)
    bert.command("mark", "set", "own", "docs")
    wait_until(lambda: len(list((bert.datadir() / "many").glob("*"))) == 40, _RECOVERY_S, "all of it")
    put(bert.datadir() / "mine.txt", b"mine")
    wait_until(partial(reads, anna.view() / "mine.txt", b"mine"), WAIT_S, "both ways")


def test_a_disk_full_while_downloading_makes_the_job_wait_and_shows_nothing_half(
    household: Household,
) -> None:
    anna, bert = started(household)
    content = os.urandom(32 * MIB)
    put(anna.datadir() / "large.bin", content)
    put(bert.datadir().parent / "other", os.urandom(24 * MIB))
    wait_until(partial(hashed, bert.view() / "large.bin"), WAIT_S, "its hash")
    bert.command("mark", "set", "own", "docs/large.bin")

    def waits() -> bool:
        return "no room in the cache" in bert.command("churten", "jobs")

    wait_until(waits, WAIT_S, "the reason", every_s=0.2)
    assert not (bert.datadir() / "large.bin").exists()
    assert attribute(bert.view() / "large.bin", "state") != "real"
    assert (bert.view() / "large.bin").stat().st_size == len(content)
    (bert.datadir().parent / "other").unlink()
    wait_until(partial(reads, bert.datadir() / "large.bin", content), _RECOVERY_S, "all of it")


def test_a_workdir_that_is_full_at_the_start_is_refused_with_a_hint(household: Household) -> None:
    _, bert = household.peers
    filler = fill(bert)
    done = bert.run("tui", "--no-ui")
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert str(bert.datadir().parent) in done.stderr
    assert "free space" in done.stderr, done.stderr
    filler.unlink()
    started(household)


@pytest.mark.parametrize("known", [False, True], ids=["new", "used before"])
def test_a_workdir_that_is_read_only_at_the_start_is_refused_with_a_hint(
    household: Household, known: bool
) -> None:
    _, bert = household.peers
    disk = str(bert.datadir().parent)
    if known:
        bert.start()
        bert.stop()
    assert _as_root("mount", "-o", "remount,ro", disk)
    done = bert.run("tui", "--no-ui")
    assert _as_root("mount", "-o", "remount,rw", disk)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert disk in done.stderr
    assert "(" in done.stderr, "a next step"
    started(household)
