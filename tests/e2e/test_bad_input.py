"""What goes wrong around a daemon: wrong configs, strangers, lost directories. Nothing may be lost by it."""

import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import tomlkit

from tests.e2e.household import (
    LOOPBACK,
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
from tests.fakes.stores import flip

HANDSHAKE_DEADLINE_S = 10
REJECTED = r"realize\.auth.*rejected|rejected addr="
OFFLINE = r"offline"


@pytest.fixture
def allowed() -> list[str]:
    return []


@pytest.fixture
def household(allowed: list[str]) -> Iterator[Household]:
    with household_of("anna", "bert", allowed=allowed) as both:
        yield both


def rejections(peer: Peer) -> list[str]:
    return [line for line in peer.log().splitlines() if "rejected addr=" in line]


def more_rejections(peer: Peer, before: int) -> bool:
    return len(rejections(peer)) > before


def share(household: Household, names: list[str]) -> tuple[Peer, Peer]:
    """Put files at anna's and wait until bert shows them with their hashes."""
    anna, bert = household.peers
    for name in names:
        put(anna.datadir() / name, name.encode())
    for name in names:
        wait_until(partial(hashed, bert.view() / name), WAIT_S, name)
    anna.wait_idle()
    return anna, bert


def test_all_errors_of_a_config_are_listed_with_their_lines() -> None:
    with household_of("solo", start=False) as household:
        (solo,) = household.peers
        good = solo.config.read_text()
        solo.config.write_text(good + '\n[[peer]]\nnmae = "x"\n\n[cash]\ndb = "x"\n')
        for command in (["config", "check"], ["tui", "--no-ui"]):
            done = solo.run(*command)
            assert done.returncode == 78, (command, done)
            assert "nmae" in done.stderr + done.stdout
            assert "cash" in done.stderr + done.stdout
            assert "Traceback" not in done.stderr
        lines = (done.stderr + done.stdout).splitlines()
        number = good.count("\n") + 3
        assert any(f"{solo.config.name}:{number}" in line and "name" in line for line in lines), lines
        done = solo.run("--config", str(solo.home / "missing.toml"), "status", with_config=False)
        assert done.returncode == 78


def test_a_second_daemon_on_the_same_directories_is_refused(household: Household) -> None:
    anna, bert = household.peers
    assert anna.process is not None

    def elsewhere(document: tomlkit.TOMLDocument) -> None:
        document["node"].update({"socket": str(anna.home / "two.sock"), "listen": []})
        del document["node"]["mount"]

    before = anna.config.read_text()
    anna.edit_config(elsewhere)
    second = anna.run("tui", "--no-ui")
    anna.config.write_text(before)
    again = anna.run("tui", "--no-ui")
    for done in (second, again):
        assert done.returncode == 1, done
        assert str(anna.process.pid) in done.stderr
    put(anna.datadir() / "file.txt", b"undisturbed")
    wait_until(partial(reads, bert.view() / "file.txt", b"undisturbed"), WAIT_S, "the first goes on")


@pytest.mark.parametrize("loss", ["emptied", "missing", "replaced"])
def test_a_lost_datadir_deletes_nothing(household: Household, allowed: list[str], loss: str) -> None:
    allowed.append(OFFLINE)
    names = [f"dir/{number}.txt" for number in range(12)]
    anna, bert = share(household, names)
    bert.command("get", "docs/dir/1.txt")
    assert anna.stop() == 0
    aside = anna.home / "aside"
    anna.datadir().rename(aside)
    if loss != "missing":
        anna.datadir().mkdir()
    if loss == "replaced":
        put(anna.datadir() / "something else.txt", b"another disk")

    anna.start()
    household.wait_connected()
    (arena,) = anna.status()["arenas"]
    assert arena.get("offline"), arena
    bert.wait_idle()
    assert sorted(os.listdir(bert.view() / "dir")) == sorted(Path(name).name for name in names)
    assert reads(bert.view() / "dir/1.txt", b"dir/1.txt")

    anna.stop()
    shutil.rmtree(anna.datadir(), ignore_errors=True)
    aside.rename(anna.datadir())
    anna.start()
    household.wait_connected()
    wait_until(partial(reads, bert.view() / "dir/2.txt", b"dir/2.txt"), WAIT_S, "all is well again")
    (arena,) = anna.status()["arenas"]
    assert not arena.get("offline")


def test_a_datadir_lost_while_running_deletes_nothing(household: Household, allowed: list[str]) -> None:
    allowed.append(OFFLINE)
    names = [f"{number}.txt" for number in range(12)]
    anna, bert = share(household, names)
    anna.datadir().rename(anna.home / "aside")
    wait_until(lambda: bool(anna.status()["arenas"][0].get("offline")), WAIT_S, "offline", every_s=0.1)
    anna.datadir().mkdir()
    bert.wait_idle()
    assert set(names) <= set(os.listdir(bert.view()))


def test_an_unreadable_file_is_neither_deleted_nor_in_the_way(allowed: list[str]) -> None:
    # Root reads everything: as root the daemon runs without the capabilities that let it.
    wrapper = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    plan = PeerPlan("anna", [ArenaPlan("docs")], wrapper=wrapper)
    allowed.append(r"secret|closed")
    with household_of(plan, "bert", allowed=allowed) as household:
        anna, bert = share(household, ["fine.txt", "secret.txt"])
        (anna.datadir() / "secret.txt").chmod(0)
        put(anna.datadir() / "closed/inside.txt", b"inside").parent.chmod(0)
        put(anna.datadir() / "more.txt", b"more")
        wait_until(partial(reads, bert.view() / "more.txt", b"more"), WAIT_S, "the others go on")
        anna.stop()
        anna.start()
        household.wait_connected()
        put(anna.datadir() / "later.txt", b"later")
        wait_until(partial(reads, bert.view() / "later.txt", b"later"), WAIT_S, "also after a restart")
        assert "docs/secret.txt" in entries(bert, "docs")
        (anna.datadir() / "closed").chmod(0o755)
        (anna.datadir() / "secret.txt").chmod(0o644)
        wait_until(partial(reads, bert.view() / "secret.txt", b"secret.txt"), WAIT_S, "readable again")


def test_special_files_are_not_announced(household: Household) -> None:
    anna, bert = household.peers
    os.mkfifo(anna.datadir() / "pipe")
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(os.fspath(anna.datadir() / "endpoint"))
    share(household, ["after.txt"])
    assert os.listdir(bert.view()) == ["after.txt"]


def test_strangers_are_refused_and_nobody_is_disturbed(household: Household, allowed: list[str]) -> None:
    allowed.append(REJECTED)
    anna, bert = household.peers
    assert anna.port is not None
    silent = socket.create_connection((LOOPBACK, anna.port))
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4096, os.urandom(100_000), b""):
        before = len(rejections(anna))
        with socket.create_connection((LOOPBACK, anna.port)) as stranger:
            stranger.settimeout(HANDSHAKE_DEADLINE_S)
            with suppress(ConnectionError):  # a reset is an answer too
                stranger.sendall(garbage)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(4096):
                    pass
        wait_until(partial(more_rejections, anna, before), WAIT_S, "a line in the log")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    before = len(rejections(anna))
    with socket.create_connection((LOOPBACK, anna.port)) as plain:
        plain.settimeout(HANDSHAKE_DEADLINE_S)
        # TLS 1.3: a client learns at its first read that it was refused, by an alert or a close.
        with suppress(OSError), context.wrap_socket(plain) as nameless:
            assert nameless.recv(1) == b""
    wait_until(lambda: len(rejections(anna)) > before, WAIT_S, "a line for the one without a certificate")

    put(anna.datadir() / "meanwhile.txt", b"undisturbed")
    wait_until(partial(reads, bert.view() / "meanwhile.txt", b"undisturbed"), WAIT_S, "life goes on")

    silent.settimeout(2 * HANDSHAKE_DEADLINE_S)
    with silent:
        assert silent.recv(1) == b"", "silence is closed by the deadline"


def test_a_peer_that_is_not_configured_is_refused(allowed: list[str]) -> None:
    allowed.append(REJECTED)
    with household_of("anna", "bert", start=False, allowed=allowed) as household:
        anna, bert = household.peers
        before = anna.config.read_text()
        stranger = Peer(PeerPlan("eve", [ArenaPlan("docs")]), household.directory / "eve")
        household.peers.append(stranger)
        stranger.introduce(anna)
        assert anna.config.read_text() == before
        put(anna.datadir() / "file.txt", b"private")
        household.start()
        wait_until(lambda: bool(rejections(anna)), WAIT_S, "the refusal")
        assert stranger.status()["peers"][0]["state"] != "connected"
        wait_until(partial(reads, bert.view() / "file.txt", b"private"), WAIT_S, "the others go on")
        assert not (stranger.view() / "file.txt").exists()
        fingerprint = "".join(stranger.command("id", "--fingerprint").split())
        assert fingerprint
        allowed.append(r"anna")  # what eve logs of being refused


def test_a_daemon_that_finds_its_port_taken_says_so() -> None:
    with household_of("solo", start=False) as household, socket.socket() as taken:
        (solo,) = household.peers
        taken.bind((LOOPBACK, solo.port or 0))
        taken.listen()
        done = solo.run("tui", "--no-ui")
        assert done.returncode == 1
        assert str(solo.port) in done.stderr
        assert "Traceback" not in done.stderr


def test_a_cached_file_damaged_by_hand_while_down_is_never_read_wrong(
    household: Household, allowed: list[str]
) -> None:
    allowed += [r"were changed or removed in", r"no connected peer holds"]
    content = os.urandom(500_000)
    anna, bert = household.peers
    put(anna.datadir() / "kept.bin", content)
    anna.command("mark", "set", "own", "docs")
    shown = bert.view() / "kept.bin"
    wait_until(partial(hashed, shown), WAIT_S, "its hash")
    bert.command("mark", "set", "keep", "docs/kept.bin")
    wait_until(lambda: attribute(shown, "state") == "kept", WAIT_S, "kept")
    bert.stop()
    anna.stop()
    blobs = bert.datadir().parent / "blobs"
    (blob,) = [path for path in blobs.glob("*/*") if path.stat().st_size == len(content)]
    flip(blob, len(content) // 2)

    bert.start()
    assert not reads(shown, content)
    assert attribute(shown, "state") != "kept"
    assert "were changed or removed" in bert.log()
    anna.start()
    wait_until(lambda: attribute(shown, "state") == "kept", WAIT_S, "fetched again")
    assert shown.read_bytes() == content
