"""The command line against a running household: what it prints, its JSON, its exit codes."""

import json
import os
import stat
from collections.abc import Iterator
from functools import partial

import pytest

from tests.e2e.household import (
    WAIT_S,
    ArenaPlan,
    Household,
    Peer,
    PeerPlan,
    attribute,
    entries,
    hashed,
    household_of,
    put,
    reads,
    wait_until,
)

STATUS_KEYS = {"schema", "name", "fingerprint", "version", "mount", "idle", "arenas", "peers", "churten"}
ARENA_KEYS = {
    *("name", "mark", "files", "real", "cached", "online", "bytes"),
    *("cache", "hashing", "conflicts", "only_here"),
}
PEER_KEYS = {
    *("name", "state", "address", "rtt_ms", "rx_bytes", "tx_bytes", "rx_rate", "tx_rate", "arenas"),
}
ENTRY_KEYS = {"path", "kind", "size", "mtime_ns", "mode", "hash", "state", "mark", "holders", "conflict"}


@pytest.fixture(scope="module")
def household() -> Iterator[Household]:
    with household_of("anna", "bert", allowed=["rejected peer=.*disabled"]) as both:
        anna, bert = both.peers
        put(anna.datadir() / "a/file.txt", b"hello", mtime_ns=10**18, mode=0o640)
        put(anna.datadir() / "a/b/deep.txt", b"deep")
        put(anna.datadir() / "top.txt", b"top")
        (anna.datadir() / "link").symlink_to("top.txt")
        for name in ("a/file.txt", "a/b/deep.txt", "top.txt"):
            wait_until(partial(hashed, bert.view() / name), WAIT_S, name)
        wait_until((bert.view() / "link").is_symlink, WAIT_S, "the link")
        yield both


@pytest.fixture
def anna(household: Household) -> Peer:
    return household.peers[0]


@pytest.fixture
def bert(household: Household) -> Peer:
    return household.peers[1]


def test_status_has_the_agreed_keys(bert: Peer) -> None:
    bert.wait_idle()
    status = bert.status()
    assert set(status) >= STATUS_KEYS
    assert (status["schema"], status["name"], status["idle"]) == (1, "bert", True)
    assert status["mount"] == str(bert.mount)
    (arena,) = status["arenas"]
    assert set(arena) >= ARENA_KEYS
    assert (arena["name"], arena["mark"], arena["files"], arena["bytes"]) == ("docs", "watch", 3, 12)
    assert (arena["real"], arena["cached"] + arena["online"]) == (0, 3)
    assert set(arena["cache"]) == {"used", "max"}
    (peer,) = status["peers"]
    assert set(peer) >= PEER_KEYS
    assert (peer["name"], peer["state"], peer["arenas"]) == ("anna", "connected", ["docs"])
    assert peer["rx_bytes"] > 0
    assert set(status["churten"]) == {"running", "active", "queued", "failed"}
    assert status["fingerprint"] == bert.command("id", "--fingerprint").strip()


def test_status_for_people_names_peers_and_arenas(bert: Peer) -> None:
    text = bert.command("status")
    assert "anna" in text
    assert "docs" in text


def test_ls_has_the_agreed_keys(bert: Peer) -> None:
    found = entries(bert, "docs")
    assert set(found) == {"docs/a", "docs/link", "docs/top.txt"}
    assert all(set(entry) >= ENTRY_KEYS for entry in found.values())
    assert [found[path]["kind"] for path in sorted(found)] == ["dir", "symlink", "file"]
    everything = entries(bert, "-R", "docs")
    assert {"docs/a/file.txt", "docs/a/b", "docs/a/b/deep.txt"} <= set(everything)
    file = everything["docs/a/file.txt"]
    assert (file["size"], file["mtime_ns"], file["mode"] & 0o777) == (5, 10**18, 0o640)
    assert file["hash"] == "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
    assert (file["mark"], file["holders"], file["conflict"]) == ("watch", ["anna"], False)


def test_ls_for_people_and_by_any_path(bert: Peer) -> None:
    assert "docs" in bert.command("ls")
    assert "top.txt" in bert.command("ls", "docs")
    long = bert.command("ls", "-l", str(bert.view() / "a"))
    assert "file.txt" in long
    assert "online" in long
    assert "anna" in long
    assert "deep.txt" in bert.command("ls", "-R", str(bert.datadir()))


def test_get_fetches_now(bert: Peer) -> None:
    shown = bert.view() / "a/b/deep.txt"
    assert attribute(shown, "state") == "online"
    bert.command("get", "docs/a/b/deep.txt")
    assert attribute(shown, "state") == "cached"
    bert.command("get", "docs/a")
    assert attribute(bert.view() / "a/file.txt", "state") == "cached"


def test_names_that_do_not_exist_offer_the_nearest(bert: Peer) -> None:
    for command in (["ls", "docs/tpo.txt"], ["get", "docs/tpo.txt"]):
        done = bert.run(*command)
        assert done.returncode in {1, 2}, done
        assert done.stderr.startswith("realize: ")
        assert "top.txt" in done.stderr
    done = bert.run("ls", "dcos")
    assert done.returncode in {1, 2}
    assert "docs" in done.stderr
    done = bert.run("peer", "connect", "ana")
    assert done.returncode in {1, 2}
    assert "anna" in done.stderr
    for done in (bert.run("nonsense"), bert.run("ls", "--nonsense"), bert.run("mark", "set", "kep", "docs")):
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_peers_can_be_disconnected_and_connected(anna: Peer, bert: Peer) -> None:
    def state(peer: Peer) -> str:
        (row,) = json.loads(peer.command("peer", "list", "--json"))["peers"]
        return str(row["state"])

    assert "anna" in bert.command("peer", "list")
    bert.command("peer", "disconnect", "anna")
    wait_until(lambda: state(bert) == "disabled", WAIT_S, "disabled", every_s=0.05)
    wait_until(lambda: state(anna) != "connected", WAIT_S, "the other end", every_s=0.05)
    bert.command("peer", "connect", "anna")
    wait_until(lambda: state(bert) == "connected" == state(anna), WAIT_S, "connected", every_s=0.05)
    put(anna.datadir() / "after.txt", b"after")
    wait_until(partial(reads, bert.view() / "after.txt", b"after"), WAIT_S, "life goes on")


def test_churten_run_ends_when_idle(anna: Peer, bert: Peer) -> None:
    put(anna.datadir() / "run/file.txt", b"run")
    wait_until(partial(hashed, bert.view() / "run/file.txt"), WAIT_S, "its hash")
    bert.command("churten", "stop")
    bert.command("mark", "set", "keep", "docs/run")
    bert.command("churten", "run")
    assert attribute(bert.view() / "run/file.txt", "state") == "kept"
    assert bert.run("churten", "is-running").returncode == 10, "it stops what it started"
    bert.command("churten", "start")
    bert.command("mark", "unset", "docs/run")


def test_doctor_and_config_check_find_nothing_wrong(bert: Peer) -> None:
    assert bert.run("config", "check").returncode == 0
    done = bert.run("doctor")
    assert "/dev/fuse" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_control_socket_is_private(bert: Peer) -> None:
    assert stat.S_IMODE(bert.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(bert.socket.parent.stat().st_mode) == 0o700


def test_commands_without_a_daemon_say_how_to_start_one() -> None:
    with household_of("solo", start=False) as household:
        (solo,) = household.peers
        for command in (
            ["status"],
            ["ls", "docs"],
            ["mark", "list"],
            ["churten", "is-running"],
            ["peer", "list"],
        ):
            done = solo.run(*command)
            assert done.returncode == 4, done
            assert "tui" in done.stderr, "it says how to start one"
        done = solo.run("--socket", str(solo.home / "elsewhere.sock"), "status")
        assert done.returncode == 4


def test_init_id_and_version_need_no_daemon() -> None:
    with household_of("solo", start=False) as household:
        (solo,) = household.peers
        pem = solo.command("id")
        assert pem.startswith("-----BEGIN CERTIFICATE-----")
        assert pem.rstrip().endswith("-----END CERTIFICATE-----")
        assert stat.S_IMODE((solo.home / "identity.pem").stat().st_mode) == 0o600
        assert len(solo.command("id", "--fingerprint").split()) == 1
        assert solo.run("--version", with_config=False).returncode == 0
        before = solo.config.read_bytes(), (solo.home / "identity.pem").read_bytes()
        again = solo.run(
            "init", "--dir", str(solo.home), "--name", "other", "--arena", "docs", with_config=False
        )
        assert again.returncode != 0
        assert (solo.config.read_bytes(), (solo.home / "identity.pem").read_bytes()) == before


def test_a_peer_sees_only_the_arenas_it_is_configured_for() -> None:
    both = [ArenaPlan("docs"), ArenaPlan("private/letters")]
    with Household() as household:
        anna, bert = household.add(PeerPlan("anna", both)), household.add(PeerPlan("bert", both))
        anna.introduce(bert, ["docs"])
        bert.introduce(anna)
        put(anna.datadir() / "open.txt", b"open")
        put(anna.home / "private/letters/data/secret.txt", b"secret")
        put(bert.home / "private/letters/data/mine.txt", b"mine")
        household.start()
        household.wait_connected()
        wait_until(partial(reads, bert.view() / "open.txt", b"open"), WAIT_S, "the open file")
        anna.wait_idle()
        bert.wait_idle()
        assert os.listdir(bert.mount / "private/letters") == ["mine.txt"]
        assert "secret" not in bert.command("ls", "-R", "private/letters")
        (peer,) = anna.status()["peers"]
        assert peer["arenas"] == ["docs"]


def test_an_arena_without_a_datadir_is_a_view() -> None:
    with household_of(
        PeerPlan("anna", [ArenaPlan("docs")]),
        PeerPlan("viewer", [ArenaPlan("docs", datadir=False)], listen=False),
    ) as household:
        anna, viewer = household.peers
        put(anna.datadir() / "file.txt", b"seen")
        wait_until(partial(reads, viewer.view() / "file.txt", b"seen"), WAIT_S, "the file")
        with pytest.raises(OSError, match="Read-only"):
            (viewer.view() / "new.txt").write_bytes(b"no")
