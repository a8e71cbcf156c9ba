"""Peers that stop, are killed and come back: nothing is lost, nothing hangs, the mount is usable."""

import errno
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.household import (
    WAIT_S,
    Household,
    attribute,
    fails_with,
    hashed,
    household_of,
    is_mounted,
    put,
    reads,
    wait_until,
)

MIB = 1024 * 1024
NO_HOLDER_LIMIT_S = 5.5
USABLE_LIMIT_S = 5.0
"""Invariant I10: stop and start leave a usable mount within 5 s."""

KILLED = [r"detaching the mount that a crashed daemon left", r"SQLITE_NOTICE_RECOVER_WAL"]
"""What a daemon may warn of at its start after it was killed."""


@pytest.fixture
def allowed() -> list[str]:
    return []


@pytest.fixture
def household(allowed: list[str]) -> Iterator[Household]:
    with household_of("anna", "bert", allowed=allowed) as both:
        yield both


def state(path: Path) -> str:
    return attribute(path, "state")


def forget_pages(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.mark.timed
def test_cached_content_is_read_when_its_origin_is_gone(household: Household) -> None:
    anna, bert = household.peers
    content = os.urandom(3 * MIB + 17)
    put(anna.datadir() / "read.bin", content)
    put(anna.datadir() / "kept.bin", content[::-1])
    put(anna.datadir() / "unread.bin", os.urandom(MIB))
    read, kept, unread = (bert.view() / f"{name}.bin" for name in ("read", "kept", "unread"))
    wait_until(lambda: hashed(read) and hashed(kept) and hashed(unread), WAIT_S, "all hashes")
    assert read.read_bytes() == content
    bert.command("mark", "set", "keep", "docs/kept.bin")
    wait_until(lambda: (state(read), state(kept)) == ("cached", "kept"), WAIT_S, "cached")

    assert anna.stop() == 0
    wait_until(lambda: state(unread) == "unavailable", WAIT_S, "unavailable")
    for path, expected in ((read, content), (kept, content[::-1])):
        forget_pages(path)
        assert path.read_bytes() == expected
    assert unread.stat().st_size == MIB

    started_s = time.monotonic()
    with fails_with(errno.EHOSTUNREACH):
        unread.read_bytes()
    assert time.monotonic() - started_s < NO_HOLDER_LIMIT_S
    done = bert.run("get", "docs/unread.bin")
    assert done.returncode == 5, done.stderr

    assert bert.stop() == 0
    bert.start()
    assert read.read_bytes() == content, "also after a restart with nobody there"
    assert kept.read_bytes() == content[::-1]
    anna.start()
    wait_until(lambda: state(unread) == "online", WAIT_S, "online again")
    assert len(unread.read_bytes()) == MIB


def test_a_third_peer_reads_from_the_second_when_the_first_is_gone() -> None:
    with household_of("anna", "bert", "cleo") as household:
        anna, bert, cleo = household.peers
        content = os.urandom(2 * MIB)
        put(anna.datadir() / "passed on.bin", content)
        shown = bert.view() / "passed on.bin"
        wait_until(partial(hashed, shown), WAIT_S, "its hash")
        bert.command("mark", "set", "keep", "docs/passed on.bin")
        wait_until(lambda: state(shown) == "kept", WAIT_S, "kept at bert's")
        third = cleo.view() / "passed on.bin"
        wait_until(
            lambda: "bert" in attribute(third, "holders").split(","), WAIT_S, "cleo knows that bert has it"
        )
        anna.stop()
        assert third.read_bytes() == content


def test_a_restart_of_either_keeps_everything(household: Household) -> None:
    anna, bert = household.peers
    put(anna.datadir() / "dir/file.txt", b"from anna", mtime_ns=10**18)
    put(bert.datadir() / "other.txt", b"from bert")
    bert.command("mark", "set", "keep", "docs/dir")
    wait_until(lambda: state(bert.view() / "dir/file.txt") == "kept", WAIT_S, "kept")
    wait_until(lambda: reads(anna.view() / "other.txt", b"from bert"), WAIT_S, "the other way")
    for peer in (anna, bert):
        peer.wait_idle()
    inodes = {path: path.stat().st_ino for path in (bert.view() / "dir", bert.view() / "dir/file.txt")}

    for peer in (bert, anna):
        assert peer.stop() == 0
        assert not is_mounted(peer.mount)
        peer.start()
        household.wait_connected()
        assert (bert.view() / "dir/file.txt").read_bytes() == b"from anna"
        assert (bert.view() / "dir/file.txt").stat().st_mtime_ns == 10**18
        assert state(bert.view() / "dir/file.txt") == "kept"
        assert attribute(bert.view() / "dir", "mark") == "keep"
        assert (anna.view() / "other.txt").read_bytes() == b"from bert"
        assert inodes == {path: path.stat().st_ino for path in inodes}


def test_changes_made_while_either_is_away_are_found(household: Household) -> None:
    anna, bert = household.peers
    for name in ("changed", "deleted", "untouched"):
        put(anna.datadir() / name, b"before")
        wait_until(partial(hashed, bert.view() / name), WAIT_S, name)
        assert (bert.view() / name).read_bytes() == b"before"
    anna.wait_idle()
    bert.wait_idle()
    bert.stop()
    put(anna.datadir() / "changed", b"while bert was away")
    anna.wait_idle()
    anna.stop()
    (anna.datadir() / "deleted").unlink()
    put(anna.datadir() / "new/one", b"while nobody was there")
    bert.start()
    assert (bert.view() / "untouched").read_bytes() == b"before"
    anna.start()
    wait_until(partial(reads, bert.view() / "changed", b"while bert was away"), WAIT_S, "the change")
    wait_until(partial(reads, bert.view() / "new/one", b"while nobody was there"), WAIT_S, "the new one")
    wait_until(lambda: not (bert.view() / "deleted").exists(), WAIT_S, "the deletion")


@pytest.mark.parametrize("victim", [0, 1], ids=["anna", "bert"])
@pytest.mark.timed
def test_a_killed_daemon_loses_nothing(household: Household, allowed: list[str], victim: int) -> None:
    allowed += KILLED
    anna, bert = household.peers
    content = os.urandom(5 * MIB)
    put(anna.datadir() / "kept.bin", content)
    put(anna.datadir() / "owned.txt", b"owned")
    kept, owned = bert.view() / "kept.bin", bert.datadir() / "owned.txt"
    wait_until(lambda: hashed(kept) and hashed(bert.view() / "owned.txt"), WAIT_S, "hashes")
    bert.command("mark", "set", "keep", "docs/kept.bin")
    bert.command("mark", "set", "own", "docs/owned.txt")
    wait_until(lambda: state(kept) == "kept" and reads(owned, b"owned"), WAIT_S, "both")

    household.peers[victim].kill()
    if victim == 0:
        put(anna.datadir() / "owned.txt", b"changed while dead")
        assert kept.read_bytes() == content
    took_s = household.peers[victim].start()
    assert took_s < USABLE_LIMIT_S
    assert "kept.bin" in os.listdir(household.peers[victim].view()), "the mount is usable at once"
    household.wait_connected()
    forget_pages(kept)
    assert kept.read_bytes() == content
    put(anna.datadir() / "owned.txt", b"after")
    wait_until(partial(reads, owned, b"after"), WAIT_S, "life goes on")


def test_killed_in_the_middle_of_a_download_it_goes_on(household: Household, allowed: list[str]) -> None:
    allowed += KILLED
    anna, bert = household.peers
    content = os.urandom(160 * MIB)
    put(anna.datadir() / "large.bin", content)
    shown = bert.view() / "large.bin"
    wait_until(partial(hashed, shown), WAIT_S, "its hash")
    bert.command("mark", "set", "keep", "docs/large.bin")
    wait_until(lambda: attribute(shown, "progress").split("/")[0] not in {"", "0"}, WAIT_S, "its first bytes")
    bert.kill()
    bert.start()
    wait_until(lambda: state(shown) == "kept", 30, "all of it")
    assert shown.read_bytes() == content


@pytest.mark.timed
def test_a_waiting_read_can_be_interrupted_and_fails_in_time(household: Household) -> None:
    anna, bert = household.peers
    put(anna.datadir() / "far.bin", os.urandom(MIB))
    shown = bert.view() / "far.bin"
    wait_until(partial(hashed, shown), WAIT_S, "its hash")
    anna.stop()
    wait_until(lambda: state(shown) == "unavailable", WAIT_S, "unavailable")
    reader = os.posix_spawn("/bin/cat", ["cat", os.fspath(shown)], os.environ)
    started_s = time.monotonic()
    os.kill(reader, 9)
    os.waitpid(reader, 0)
    assert time.monotonic() - started_s < 2.0
    started_s = time.monotonic()
    os.listdir(bert.view())
    assert time.monotonic() - started_s < 1.0


def test_starting_alone_shows_what_is_here_at_once() -> None:
    with household_of("anna", "bert", start=False) as household:
        anna, _ = household.peers
        put(anna.datadir() / "local.txt", b"local")
        anna.start()
        assert "docs" in os.listdir(anna.mount)
        wait_until(partial(reads, anna.view() / "local.txt", b"local"), WAIT_S, "the local file")
        (peer,) = anna.status()["peers"]
        assert peer["state"] in {"connecting", "disconnected"}


def test_churten_stopped_stays_stopped(household: Household) -> None:
    anna, bert = household.peers
    assert bert.run("churten", "is-running").returncode == 0
    bert.command("churten", "stop")
    assert bert.run("churten", "is-running").returncode == 10
    put(anna.datadir() / "wanted.txt", b"wanted")
    shown = bert.view() / "wanted.txt"
    wait_until(partial(hashed, shown), WAIT_S, "its hash")
    bert.command("mark", "set", "keep", "docs")
    bert.stop()
    bert.start()
    household.wait_connected()
    assert bert.run("churten", "is-running").returncode == 10
    assert json.loads(bert.command("churten", "jobs", "--json"))["running"] is False
    assert bert.status()["churten"]["running"] is False
    assert state(shown) == "online"
    bert.command("churten", "start")
    assert bert.run("churten", "is-running").returncode == 0
    wait_until(lambda: state(shown) == "kept", WAIT_S, "kept")
