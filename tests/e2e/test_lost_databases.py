"""Daemons whose databases were deleted while they were stopped: nothing is deleted, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from app.demo.household import Peer
from tests.e2e.household import (
    WAIT_S,
    Household,
    attribute,
    hashed,
    household_of,
    put,
    reads,
    wait_until,
)


@pytest.fixture
def household() -> Iterator[Household]:
    with household_of("anna", "bert") as both:
        yield both


def _delete_databases(peer: Peer, what: str) -> None:
    found = [path for path in peer.home.rglob(f"{what}.db*") if path.is_file()]
    assert found, f"there is no {what}.db"
    for path in found:
        path.unlink()


@pytest.mark.parametrize(
    ("victim", "what"),
    [(0, "arena"), (1, "cache"), (1, "*")],
    ids=["the holder's arena.db", "the receiver's cache.db", "all of the receiver"],
)
def test_a_daemon_without_its_databases_finds_everything_again(
    household: Household, victim: int, what: str
) -> None:
    anna, bert = household.peers
    put(anna.datadir() / "dir/kept.txt", b"kept")
    put(anna.datadir() / "owned.txt", b"owned")
    put(anna.datadir() / "seen.txt", b"only seen")
    put(bert.datadir() / "other.txt", b"from bert")
    wait_until(partial(hashed, bert.view() / "seen.txt"), WAIT_S, "all is seen")
    bert.command("mark", "set", "keep", "docs/dir")
    bert.command("mark", "set", "own", "docs/owned.txt")
    wait_until(lambda: attribute(bert.view() / "dir/kept.txt", "state") == "kept", WAIT_S, "kept")
    wait_until(lambda: (bert.datadir() / "owned.txt").exists(), WAIT_S, "owned")
    for peer in household.peers:
        peer.wait_idle()
    roots = [peer.view().stat().st_ino for peer in household.peers]
    lost = household.peers[victim]
    lost.stop()
    _delete_databases(lost, what)
    put(lost.datadir() / ("other.txt" if lost is bert else "owned.txt"), b"changed meanwhile")
    lost.start()
    household.wait_connected()
    owned = b"owned" if lost is bert else b"changed meanwhile"
    other = b"changed meanwhile" if lost is bert else b"from bert"
    expected = {"dir/kept.txt": b"kept", "owned.txt": owned, "seen.txt": b"only seen", "other.txt": other}
    for peer in household.peers:
        for path, content in expected.items():
            wait_until(partial(reads, peer.view() / path, content), WAIT_S, f"{peer.name}: {path}")
        peer.wait_idle()
        names = sorted(path.name for path in peer.view().iterdir())
        assert names == ["dir", "other.txt", "owned.txt", "seen.txt"]
        assert "no conflicts" in peer.run("conflicts", "list").stderr + peer.run("conflicts", "list").stdout
    assert [peer.view().stat().st_ino for peer in household.peers] == roots
