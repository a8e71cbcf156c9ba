"""Conflicts, trash, log, evict and verify with real daemons and mounts."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from app.demo.household import ArenaPlan, Peer, PeerPlan
from tests.e2e.household import WAIT_S, household_of, put, reads, wait_until

NS = 1_600_000_000_000_000_000


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Peer, Peer]]:
    plans = [PeerPlan(name, [ArenaPlan("docs"), ArenaPlan("deep/er")]) for name in ("anna", "bert")]
    with household_of(*plans, allowed=[r"rejected peer=\w+ .*disabled"]) as household:
        anna, bert = household.peers
        yield anna, bert


def _disagree(anna: Peer, bert: Peer, name: str) -> None:
    """Let both change a file while they do not see each other."""
    anna.command("peer", "disconnect", "bert")
    wait_until(lambda: bert.status()["peers"][0]["state"] != "connected", WAIT_S, "disconnected")
    put(anna.datadir() / name, b"anna's", mtime_ns=NS)
    put(bert.datadir() / name, b"bert's own", mtime_ns=NS + 10**9)
    anna.wait_idle()
    bert.wait_idle()
    anna.command("peer", "connect", "bert")
    for peer in (anna, bert):
        wait_until(partial(_has_conflict, peer, True), WAIT_S, f"the conflict at {peer.name}")


def _has_conflict(peer: Peer, expected: bool) -> bool:
    return bool(peer.command("conflicts", "list", "--json")) is expected


def test_versions_in_conflict_are_readable_and_end_as_chosen(pair: tuple[Peer, Peer]) -> None:
    anna, bert = pair
    versions = anna.mount / ".realize/conflicts"
    assert sorted(os.listdir(versions)) == ["deep", "docs"]
    assert os.listdir(versions / "deep") == ["er"]
    assert os.listdir(versions / "docs") == []
    _disagree(anna, bert, "notes/plan.txt")
    assert os.listdir(versions / "docs") == ["notes"], "a listing is never outdated"
    at = versions / "docs/notes/plan.txt"
    assert sorted(os.listdir(at)) == ["bert", "local"]
    assert (at / "local").read_bytes() == b"anna's"
    assert (at / "bert").read_bytes() == b"bert's own"
    assert ((at / "bert").stat().st_size, (at / "bert").stat().st_mtime_ns) == (10, NS + 10**9)
    assert (anna.mount / "docs/notes/plan.txt").read_bytes() == b"anna's", "the local one stays shown"
    with pytest.raises(OSError, match="Read-only"):
        (at / "bert").write_bytes(b"no")
    anna.command("conflicts", "resolve", "docs/notes/plan.txt", "--keep", "bert")
    for peer in (anna, bert):
        wait_until(partial(reads, peer.view() / "notes/plan.txt", b"bert's own"), WAIT_S, "the choice")
        wait_until(partial(_has_conflict, peer, False), WAIT_S, f"the end at {peer.name}")
    assert os.listdir(versions / "docs") == []
    assert not at.exists()


def test_what_was_replaced_is_readable_in_the_trash_and_comes_back(pair: tuple[Peer, Peer]) -> None:
    anna, bert = pair
    path = put(anna.datadir() / "owned/report.txt", b"first", mtime_ns=NS)
    wait_until(lambda: (bert.view() / "owned/report.txt").exists(), WAIT_S, "the name")
    for peer in (anna, bert):
        peer.command("mark", "set", "own", "docs/owned")
    wait_until(partial(reads, bert.datadir() / "owned/report.txt", b"first"), WAIT_S, "it is real")
    put(path, b"second", mtime_ns=NS + 10**9)
    wait_until(partial(reads, bert.datadir() / "owned/report.txt", b"second"), WAIT_S, "the second")
    bert.wait_idle()
    trash = bert.mount / ".realize/trash/docs/owned"
    wait_until(lambda: os.path.exists(trash / "report.txt"), WAIT_S, "the first in the trash")
    assert (trash / "report.txt").read_bytes() == b"first"
    path.unlink()
    wait_until(lambda: not (bert.datadir() / "owned/report.txt").exists(), WAIT_S, "the deletion")
    wait_until(partial(reads, trash / "report.txt", b"second"), WAIT_S, "the newest under its name")
    assert sorted(os.listdir(trash)) == ["report.txt", "report~20200913-122640.txt"]
    assert (trash / "report~20200913-122640.txt").read_bytes() == b"first"
    assert (trash / "report.txt").stat().st_mtime_ns == NS + 10**9
    bert.command("trash", "restore", "docs/owned/report.txt")
    for peer in (anna, bert):
        wait_until(partial(reads, peer.view() / "owned/report.txt", b"second"), WAIT_S, "it is back")
    assert os.listdir(trash) == ["report.txt"]
    lines = map(json.loads, bert.command("log", "--json", "docs/owned/report.txt").splitlines())
    # The last is by the user, the others because of anna.
    done = [
        (line["what"], line["cause"]) for line in lines if line["what"] in ("added", "replaced", "removed")
    ]
    assert done[-1] == ("added", "user")
    assert ("replaced", "peer") in done


def test_evict_gives_up_what_a_peer_holds_and_verify_finds_nothing_wrong(pair: tuple[Peer, Peer]) -> None:
    anna, bert = pair
    put(anna.datadir() / "film", os.urandom(500_000))
    wait_until(lambda: (bert.view() / "film").exists(), WAIT_S, "the name")
    anna.wait_idle()
    bert.command("get", "docs/film")
    assert "500 000" not in bert.command("verify")
    assert bert.run("evict", "docs/film").returncode == 0
    assert os.stat(bert.view() / "film").st_blocks == 0
    bert.command("get", "docs/film")
    anna.command("peer", "disconnect", "bert")
    wait_until(lambda: bert.status()["peers"][0]["state"] != "connected", WAIT_S, "disconnected")
    done = bert.run("evict", "docs/film")
    assert done.returncode == 1
    assert "last copy" in done.stderr
    anna.command("peer", "connect", "bert")
    wait_until(lambda: bert.status()["peers"][0]["state"] == "connected", WAIT_S, "connected")


def test_arenas_are_listed(pair: tuple[Peer, Peer]) -> None:
    anna, _ = pair
    arenas = json.loads(anna.command("arena", "list", "--json"))["arenas"]
    assert [arena["name"] for arena in arenas] == ["docs", "deep/er"]
    assert Path(arenas[0]["datadir"]).samefile(anna.datadir())
