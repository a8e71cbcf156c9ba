"""A directory that one host made a file while another changed something in it, on mounts (decision 0061)."""

from __future__ import annotations

import os
import shutil
from functools import partial

from app.demo.household import ArenaPlan, Peer, PeerPlan
from tests.e2e.household import WAIT_S, entries, household_of, put, reads, wait_until

CHANGED: dict[str, bytes | None] = {"changed": b"changed by bert"}
PATHS = ("file", "directory")
"""What is kept of each in the end."""


def _shown(peer: Peer, path: str) -> dict[str, bytes | None]:
    """Return what the mount has at a path: the file, or the names and contents of what is in a directory."""
    top = peer.view() / path
    if top.is_file():
        return {"": top.read_bytes()}
    found: dict[str, bytes | None] = {}
    for at, directories, names in os.walk(top):
        found |= {os.path.relpath(os.path.join(at, name), top): None for name in directories}
        for name in names:
            with open(os.path.join(at, name), "rb") as file:
                found[os.path.relpath(file.name, top)] = file.read()
    return found


def _shows(peer: Peer, path: str, expected: dict[str, bytes | None]) -> bool:
    try:
        return _shown(peer, path) == expected
    except OSError:
        return False


def _no_conflicts(peer: Peer) -> bool:
    return not peer.status()["arenas"][0]["conflicts"]


def _disagree(anna: Peer, bert: Peer) -> None:
    """Let anna make files of directories in which bert, apart from her, changes something."""
    for path in PATHS:
        put(anna.datadir() / path / "changed", b"common")
        put(anna.datadir() / path / "same", b"the same")
    for path in PATHS:
        for name, content in (("changed", b"common"), ("same", b"the same")):
            wait_until(partial(reads, bert.datadir() / path / name, content), WAIT_S, f"{name} is real")
    anna.wait_idle()
    bert.wait_idle()
    anna.command("peer", "disconnect", "bert")
    wait_until(lambda: bert.status()["peers"][0]["state"] != "connected", WAIT_S, "disconnected", every_s=0.2)
    for path in PATHS:
        shutil.rmtree(anna.datadir() / path)
        put(anna.datadir() / path, b"a file now")
        put(bert.datadir() / path / "changed", b"changed by bert")
    anna.wait_idle()
    bert.wait_idle()
    assert _shown(anna, "file") == {"": b"a file now"}
    anna.command("peer", "connect", "bert")


def test_the_directory_stays_on_every_mount_and_the_file_is_a_conflict_until_one_is_kept() -> None:
    own = [ArenaPlan("docs", options={"mark": "own"})]
    allowed = [r"rejected peer=\w+ .*disabled"]
    with household_of(PeerPlan("anna", own), PeerPlan("bert", own), allowed=allowed) as household:
        anna, bert = household.peers
        _disagree(anna, bert)
        for peer in (anna, bert):
            for path in PATHS:
                wait_until(partial(_shows, peer, path, CHANGED), WAIT_S, f"the directory at {peer.name}")
        anna.wait_idle()
        bert.wait_idle()
        for path in PATHS:
            assert (anna.datadir() / path).read_bytes() == b"a file now", "no host's own file is touched"
            assert (bert.datadir() / path / "changed").read_bytes() == b"changed by bert"
        for peer in (anna, bert):
            entry = entries(peer, "docs")["docs/file"]
            assert (entry["kind"], entry["conflict"]) == ("dir", True)
            versions = peer.mount / ".realize/conflicts/docs/file"
            assert (versions / ("local" if peer is anna else "anna")).read_bytes() == b"a file now"
        assert "several versions" in anna.command("why", "docs/file")

        anna.command("conflicts", "resolve", "docs/file", "--keep", "local")
        anna.command("conflicts", "resolve", "docs/directory", "--keep", "bert")
        for peer in (anna, bert):
            wait_until(partial(_shows, peer, "file", {"": b"a file now"}), WAIT_S, f"the file at {peer.name}")
            wait_until(partial(reads, peer.datadir() / "file", b"a file now"), WAIT_S, "and is real")
            wait_until(partial(_shows, peer, "directory", CHANGED), WAIT_S, f"the directory at {peer.name}")
            inside = peer.datadir() / "directory/changed"
            wait_until(partial(reads, inside, b"changed by bert"), WAIT_S, "and is real")
            wait_until(partial(_no_conflicts, peer), WAIT_S, f"the end at {peer.name}", every_s=0.2)
        assert "docs/file/changed" in bert.command("trash", "list")
        assert "docs/directory" in anna.command("trash", "list")
