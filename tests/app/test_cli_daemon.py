"""The commands that ask a daemon: over a real control socket, of a household in memory."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from app import cli
from core.api import ArenaPath, PeerState, PeerStatus
from core.errors import NetError
from core.loops import TrioThread
from core.types import Kind, Mark
from net.control import ControlServer
from tests.fakes.api import FakeApi, FakeFile, FakeJob

PROGRAM = [sys.executable, "-c", "from app.cli import main; main()"]
NOW_NS = 1_700_000_000_000_000_000
GONE = b"notes/g\xfcne \x1b[31m"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


Realize = Callable[..., Outcome]


def peer(name: str, state: PeerState, address: str | None = None) -> PeerStatus:
    return PeerStatus(
        name=name, state=state, address=address, rtt_ms=1.25 if state == "connected" else None,
        rx_bytes=10, tx_bytes=20, rx_rate=2048.0, tx_rate=0.0, arenas=("docs",), clock_skew_s=0.1,
    )  # fmt: skip


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi("laptop", NOW_NS)
    api.add_arena("docs", cache_max=1 << 30)
    api.add_arena("photos", mark=Mark.KEEP, offline="its datadir is missing")
    api.peer_list = [peer("server", "connected", "server.local:9771"), peer("desk", "disconnected")]
    api.add("docs", b"notes/a.txt", FakeFile(1536, held=1536, real=True, holders=("server",)))
    api.add("docs", b"notes/b.txt", FakeFile(4096, holders=("server", "desk")))
    api.add("docs", b"notes/c.txt", FakeFile(10, held=10, holders=("server",), conflict=True))
    api.add("docs", GONE, FakeFile(7, holders=()))
    api.add("docs", b"link", FakeFile(5, kind=Kind.SYMLINK, target=b"notes", holders=("server",)))
    api.marks[ArenaPath("docs", b"notes")] = Mark.KEEP
    return api


@contextmanager
def serving(api: FakeApi, path: Path) -> Iterator[TrioThread]:
    """Serve ``api`` on a control socket for the time of the context."""
    started = trio.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(ControlServer(api, path).run)
            started.set()
            await trio.sleep_forever()

    async def wait() -> None:
        await started.wait()

    loop = TrioThread("control server")
    loop.start(main)
    try:
        loop.submit(wait).result(timeout=10)
        yield loop
    finally:
        loop.stop()
        assert loop.join(10)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "run/control.sock"


@pytest.fixture
def daemon(api: FakeApi, socket: Path) -> Iterator[TrioThread]:
    with serving(api, socket) as loop:
        yield loop


@pytest.fixture
def realize(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, socket: Path
) -> Realize:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("REALIZE_CONFIG", raising=False)
    monkeypatch.delenv("REALIZE_LOG", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = cli.run(["--socket", str(socket), *arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


pytestmark = pytest.mark.usefixtures("daemon")


# status


def test_status_as_json_has_the_keys_of_the_contract_in_order(realize: Realize) -> None:
    outcome = realize("status", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    (value,) = outcome.lines
    keys = ["schema", "name", "fingerprint", "version", "mount", "idle", "arenas", "peers", "churten"]
    assert list(value)[: len(keys)] == keys
    assert value["schema"] == 1
    arena = value["arenas"][0]  # type: ignore[index]
    keys = ["name", "mark", "files", "real", "cached", "online", "bytes", "cache"]
    assert list(arena)[:11] == [*keys, "hashing", "conflicts", "only_here"]
    assert list(arena["cache"]) == ["used", "max"]
    first_peer = value["peers"][0]  # type: ignore[index]
    keys = ["name", "state", "address", "rtt_ms", "rx_bytes", "tx_bytes", "rx_rate", "tx_rate", "arenas"]
    assert list(first_peer)[:9] == keys
    assert value["churten"] == {"running": True, "active": 0, "queued": 0, "failed": 0}


def test_status_for_people_shows_arenas_peers_and_churten(realize: Realize) -> None:
    outcome = realize("status")
    assert outcome.code == 0
    for words in ("laptop", "idle", "docs", "offline: its datadir is missing", "● connected", "1.2 ms"):
        assert words in outcome.out
    assert "churten running: 0 active" in outcome.out
    assert "\x1b" not in outcome.out


def test_status_waits_until_idle_or_says_what_for(realize: Realize, api: FakeApi) -> None:
    assert realize("status", "--wait-idle", "5").code == 0
    api.hash_progress = ("docs", 1, 5, 10, 50, 2.0)
    outcome = realize("status", "--wait-idle", "0.01", "--json")
    assert (outcome.code, outcome.out) == (75, "")
    assert "hashing docs" in outcome.err


# ls and why


def test_ls_without_a_path_lists_the_arenas(realize: Realize) -> None:
    outcome = realize("ls", "--json")
    assert [(line["path"], line["kind"]) for line in outcome.lines] == [
        ("docs", "dir"),
        ("photos", "dir"),
    ]


def test_ls_as_json_has_the_keys_of_the_contract(realize: Realize) -> None:
    entries = realize("ls", "docs/notes", "--json").lines
    keys = ["path", "kind", "size", "mtime_ns", "mode", "hash", "state", "mark", "holders", "conflict"]
    assert all(list(entry) == keys for entry in entries)
    by_path = {entry["path"]: entry for entry in entries}
    assert by_path["docs/notes/a.txt"] | {"mtime_ns": 0, "mode": 0} == {
        "path": "docs/notes/a.txt",
        "kind": "file",
        "size": 1536,
        "mtime_ns": 0,
        "mode": 0,
        "hash": "11" * 32,
        "state": "real",
        "mark": "keep",
        "holders": ["server"],
        "conflict": False,
    }
    assert by_path["docs/notes/c.txt"]["conflict"] is True
    assert by_path["docs/notes/b.txt"]["holders"] == ["server", "desk"]


def test_names_that_are_not_text_survive_as_json_and_are_harmless_to_a_terminal(realize: Realize) -> None:
    outcome = realize("ls", "docs/notes", "--json")
    assert outcome.out.isascii()
    (path,) = [line["path"] for line in outcome.lines if "ne" in str(line["path"]).rsplit("/", 1)[-1][:4]]
    assert os.fsencode(str(path)) == b"docs/" + GONE
    assert realize("ls", str(path), "--json").lines[0]["path"] == path
    shown = realize("ls", "docs/notes").out
    assert "g\\xfcne \\x1b[31m" in shown
    assert "\x1b" not in shown


def test_ls_lists_everything_below_with_parents_first(realize: Realize) -> None:
    paths = [line["path"] for line in realize("ls", "-R", "--json").lines]
    assert paths[:2] == ["docs", "photos"]
    assert paths.index("docs/notes") < paths.index("docs/notes/a.txt")
    assert len(paths) == 2 + 2 + 4


def test_ls_shows_a_directory_as_what_is_in_it_is(realize: Realize, api: FakeApi, daemon: TrioThread) -> None:
    async def fill() -> None:
        api.add("photos", b"all/1", FakeFile(4, held=4, holders=("server",)))
        api.add("photos", b"some/1", FakeFile(4, held=4, holders=("server",)))
        api.add("photos", b"some/2", FakeFile(4, holders=("server",)))
        api.add("photos", b"none/1", FakeFile(4, holders=("server",)))
        api.marks[ArenaPath("photos", b"all")] = Mark.KEEP

    daemon.submit(fill).result(10)
    states = {line["path"]: line["state"] for line in realize("ls", "photos", "--json").lines}
    assert states == {"photos/all": "kept", "photos/some": "partial", "photos/none": "online"}
    assert "◐ partial" in realize("ls").out
    assert "✔ kept" in realize("why", "photos/all").out.splitlines()[0]


def test_ls_follows_pages_to_the_end(realize: Realize, api: FakeApi, daemon: TrioThread) -> None:
    async def fill() -> None:
        for number in range(2345):
            api.add("photos", b"%05d" % number, FakeFile(1, holders=("server",)))

    daemon.submit(fill).result(10)
    paths = [line["path"] for line in realize("ls", "photos", "--json").lines]
    assert paths == [f"photos/{number:05}" for number in range(2345)]


def test_ls_ends_quietly_when_its_reader_goes_away(api: FakeApi, daemon: TrioThread, socket: Path) -> None:
    async def fill() -> None:
        for number in range(5000):
            api.add("photos", b"%05d" % number, FakeFile(1, holders=("server",)))

    daemon.submit(fill).result(10)
    process = subprocess.Popen(
        [*PROGRAM, "--socket", str(socket), "ls", "photos", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(cli.__file__).parent.parent,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(20) != 0, err) == (True, b"")
    process.stderr.close()


def test_ls_for_people_is_aligned_and_says_more_with_l(realize: Realize) -> None:
    lines = realize("ls", "docs/notes").out.splitlines()
    assert [line.split()[1] for line in lines] == ["real", "online", "conflict", "unavailable"]
    assert len({line.index("keep") for line in lines}) == 1
    (line,) = [line for line in lines if "b.txt" in line]
    assert "○ online" in line
    assert "4.0 K" in line
    assert "[server, desk]" in line
    (line,) = [line for line in realize("ls", "-l", "docs/notes").out.splitlines() if "a.txt" in line]
    assert "-rw-r--r--" in line
    assert "11" * 6 in line
    assert "link -> notes" in realize("ls", "docs").out


def test_ls_of_a_file_is_the_file(realize: Realize) -> None:
    assert [line["path"] for line in realize("ls", "docs/notes/a.txt", "--json").lines] == [
        "docs/notes/a.txt"
    ]


def test_a_path_that_does_not_exist_is_exit_1(realize: Realize) -> None:
    for command in ("ls", "why"):
        outcome = realize(command, "docs/nothing")
        assert (outcome.code, outcome.out) == (1, "")
    outcome = realize("ls", "dosc/notes")
    assert outcome.code == 1
    assert "there are: docs" in outcome.err
    assert outcome.err.count("\n") == 1


def test_why_goes_rule_by_rule(realize: Realize) -> None:
    outcome = realize("why", "docs/notes/b.txt")
    assert outcome.code == 0
    assert "keep, from docs/notes" in outcome.out
    (value,) = realize("why", "docs/notes/b.txt", "--json").lines
    assert value["path"] == "docs/notes/b.txt"
    assert {"rule": "state", "finding": "online"} in value["lines"]  # type: ignore[operator]
    assert value["entry"]["state"] == "online"  # type: ignore[index]


# mark


def test_marks_are_set_shown_and_removed(realize: Realize) -> None:
    outcome = realize("mark", "set", "own", "docs/notes/a.txt", "photos", "--json")
    assert outcome.code == 0
    assert outcome.lines == [
        {"path": path, "mark": "own", "explicit": True, "origin": path, "exists": True}
        for path in ("docs/notes/a.txt", "photos")
    ]
    assert "own" in realize("mark", "get", "photos").out
    assert realize("mark", "unset", "docs/notes/a.txt").code == 0
    (value,) = realize("mark", "get", "docs/notes/a.txt", "--json").lines
    inherited = {"mark": "keep", "explicit": False, "origin": "docs/notes", "exists": True}
    assert value == {"path": "docs/notes/a.txt"} | inherited
    rows = realize("mark", "list", "--json").lines
    assert [(row["path"], row["mark"]) for row in rows] == [("docs/notes", "keep"), ("photos", "own")]
    assert [row["path"] for row in realize("mark", "list", "docs", "--json").lines] == ["docs/notes"]
    assert "docs/notes" in realize("mark", "list").out


def test_a_path_that_does_not_exist_is_marked_for_when_it_comes(realize: Realize) -> None:
    outcome = realize("mark", "set", "keep", "docs/notse")
    assert outcome.code == 0
    assert "marked for when it comes" in outcome.out
    assert "docs/notse does not exist yet" in outcome.err
    (row,) = realize("mark", "get", "docs/notse", "--json").lines
    assert (row["mark"], row["explicit"], row["exists"]) == ("keep", True, False)
    assert "docs/notse  not there yet" in realize("mark", "list").out
    outcome = realize("mark", "unset", "docs/notse")
    assert (outcome.code, outcome.out) == (0, "")
    assert "docs/notse does not exist" in outcome.err
    assert realize("mark", "unset", "docs/notse").code == 1
    assert realize("mark", "get", "docs/notse").code == 1


def test_marks_of_several_paths_are_set_all_or_none(realize: Realize, api: FakeApi) -> None:
    before = dict(api.marks)
    assert realize("mark", "set", "own", "docs/notes", "dosc").code == 1
    assert api.marks == before


def test_mark_get_goes_on_past_paths_that_have_none(realize: Realize) -> None:
    outcome = realize("mark", "get", "docs", "nowhere/x", "--json")
    assert outcome.code == 3
    assert [line["path"] for line in outcome.lines] == ["docs"]
    assert outcome.err.splitlines()[0].startswith("realize: nowhere/x: ")
    assert realize("mark", "get", "nowhere/x").code == 1


# get


def test_get_fetches_and_says_so(realize: Realize, api: FakeApi) -> None:
    outcome = realize("get", "docs/notes/b.txt")
    assert (outcome.code, outcome.err) == (0, "")
    assert "1 file, 4.0 K: all here" in outcome.out
    (step,) = realize("get", "docs/notes/b.txt", "--json").lines
    assert step == {
        "path": "docs/notes/b.txt",
        "bytes_done": 4096,
        "bytes_total": 4096,
        "done": True,
        "error": "",
        "no_holder": False,
    }


def test_get_of_some_is_exit_3_and_names_the_others(realize: Realize) -> None:
    outcome = realize("get", "docs/notes")
    assert outcome.code == 3
    assert "no connected peer holds it" in outcome.err
    assert "1 of 4 files" in outcome.err


def test_get_of_what_nobody_holds_is_exit_5(realize: Realize) -> None:
    outcome = realize("get", os.fsdecode(b"docs/" + GONE))
    assert outcome.code == 5
    assert outcome.err.count("\n") == 1
    assert "no connected peer holds it" in outcome.err


# peer


def test_peers_are_listed_connected_and_disconnected(realize: Realize) -> None:
    (value,) = realize("peer", "list", "--json").lines
    peers = value["peers"]
    assert [(row["name"], row["state"]) for row in peers] == [  # type: ignore[attr-defined]
        ("server", "connected"),
        ("desk", "disconnected"),
    ]
    assert "server.local:9771" in realize("peer", "list").out
    assert realize("peer", "disconnect", "server").out == "server: disabled\n"
    assert realize("peer", "connect", "server", "--json").lines == [{"name": "server", "state": "connecting"}]
    assert realize("peer", "connect", "serve").code == 1


# churten


def test_churten_is_started_stopped_and_asked(realize: Realize) -> None:
    assert realize("churten", "is-running").code == 0
    assert realize("churten", "stop").out == "churten stopped\n"
    outcome = realize("churten", "is-running", "--json")
    assert (outcome.code, outcome.lines) == (10, [{"running": False}])
    assert realize("churten", "start", "--json").lines == [{"running": True}]
    assert realize("churten", "is-running").code == 0


def test_jobs_are_shown_with_reasons(realize: Realize, api: FakeApi) -> None:
    failed = FakeJob(
        2, ArenaPath("docs", b"notes/x"), "download", "failed", 0, 10, reason="disk full", retry_s=90
    )
    active = FakeJob(
        1, ArenaPath("docs", b"notes/b.txt"), "download", "active", 1024, 4096, rate=1024.0, peers=("server",)
    )
    api.job_list = [active, failed]
    outcome = realize("churten", "jobs")
    for words in ("1 active", "1 failed", "25 %", "1.0 K/s", "3 s", "from server", "disk full", "1 m 30 s"):
        assert words in outcome.out
    (value,) = realize("churten", "jobs", "--json").lines
    assert [job["path"] for job in value["jobs"]] == ["docs/notes/b.txt", "docs/notes/x"]  # type: ignore[attr-defined]


def test_churten_run_stops_only_what_it_started(realize: Realize, api: FakeApi) -> None:
    assert realize("churten", "run").code == 0
    assert api.running
    api.running = False
    assert realize("churten", "run").code == 0
    assert not api.running
    assert api.calls["churten_start"] == 2


def test_churten_run_stops_on_ctrl_c_what_it_started(api: FakeApi, socket: Path) -> None:
    api.running = False
    api.job_list = [FakeJob(1, ArenaPath("docs", b"notes/b.txt"), "download", "active", 0, 4096, rate=1.0)]
    process = subprocess.Popen(
        [*PROGRAM, "--socket", str(socket), "churten", "run", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(cli.__file__).parent.parent,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["active"] == 1
    assert api.running
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")
    assert not api.running


# Errors


def test_an_error_of_the_daemon_arrives_as_it_was(realize: Realize, api: FakeApi) -> None:
    api.failing["peers"] = NetError("cannot ask\nserver", peer="server", hint="try again")
    outcome = realize("peer", "list")
    assert outcome.code == 1
    assert outcome.err == "realize: cannot ask\\nserver (try again)\n"


# doctor


def test_doctor_asks_the_running_daemon(realize: Realize, api: FakeApi) -> None:
    skewed = PeerStatus(
        name="far", state="connected", address=None, rtt_ms=None, rx_bytes=0, tx_bytes=0, rx_rate=0.0,
        tx_rate=0.0, arenas=(), clock_skew_s=-7200.0,
    )  # fmt: skip
    api.peer_list.append(skewed)
    outcome = realize("doctor", "--json")
    assert outcome.code == 1
    (value,) = outcome.lines
    checks = {check["check"]: check for check in value["checks"]}  # type: ignore[attr-defined]
    assert checks["daemon"]["ok"] is True
    assert checks["clock of far"]["ok"] is False
    assert "2 h 00 m apart" in checks["clock of far"]["detail"]
    assert checks["clock of server"]["ok"] is True
    assert all(check["fix"] for check in checks.values() if not check["ok"])
