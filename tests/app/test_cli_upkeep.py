"""The commands for trash, conflicts, log, verify, evict and arenas, on real engines linked in memory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from app import cli
from app.commands.log import parse_since
from core.errors import UsageError
from core.loops import TrioThread
from core.types import Mark
from net.control import ControlServer
from tests.app.test_cli_daemon import Outcome, Realize
from tests.core.engines import Host, linked, until

PROGRAM = [sys.executable, "-c", "from app.cli import main; main()"]


class Household:
    """Anna, whose daemon answers the commands, and bert; both run in a thread."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.socket = base / "run/control.sock"
        self.anna, self.bert = Host(base, "anna", ["bert"]), Host(base, "bert", ["anna"])
        self._loop = TrioThread("household")
        self._started = trio.Event()
        self._join = trio.Event()

    async def _main(self) -> None:
        async with self.anna.up(), self.bert.up(), trio.open_nursery() as nursery:
            await nursery.start(ControlServer(self.anna.service, self.socket).run)
            self._started.set()
            await self._join.wait()
            async with linked(self.anna, self.bert):
                await trio.sleep_forever()

    def start(self) -> None:
        self._loop.start(self._main)
        self.do(self._started.wait)

    def do(self, work: Callable[..., Awaitable[Any]], *args: object) -> Any:  # noqa: ANN401 - what work gives
        return self._loop.submit(work, *args).result(timeout=30)

    def rest(self) -> None:
        for host in (self.anna, self.bert):
            self.do(host.idle)

    def link(self) -> None:
        async def join() -> None:
            self._join.set()
            await until(
                lambda: self.anna.running.subscriptions.links and self.bert.running.subscriptions.links
            )

        self.do(join)
        self.rest()

    def stop(self) -> None:
        self._loop.stop()
        assert self._loop.join(20)


@pytest.fixture
def household(tmp_path: Path) -> Iterator[Household]:
    made = Household(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def realize(
    household: Household, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Realize:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(household.base / "config"))
    monkeypatch.delenv("REALIZE_CONFIG", raising=False)
    monkeypatch.chdir(household.base)

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = cli.run(["--socket", str(household.socket), *arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def _conflict(household: Household) -> None:
    household.anna.write("plan.txt", b"anna's plan")
    household.bert.write("plan.txt", b"bert's plan!")
    household.rest()
    household.do(household.anna.mark, "", Mark.OWN)
    household.link()


def test_a_conflict_is_listed_and_resolved(household: Household, realize: Realize) -> None:
    assert realize("conflicts", "list").err == "no conflicts\n"
    _conflict(household)
    row: Any
    (row,) = realize("conflicts", "list", "--json").lines
    assert (row["path"], row["revived"]) == ("docs/plan.txt", False)
    mine, theirs = row["versions"]
    assert (mine["local"], mine["peers"], mine["size"], mine["shown"]) == (True, [], 11, True)
    assert (theirs["local"], theirs["peers"], theirs["size"], theirs["shown"]) == (False, ["bert"], 12, False)
    shown = realize("conflicts", "list", "docs").out
    assert "docs/plan.txt" in shown
    assert "* local" in shown
    outcome = realize("conflicts", "resolve", "docs/plan.txt", "--keep", "brt")
    assert (outcome.code, outcome.out) == (2, "")
    assert "local, bert, both" in outcome.err
    outcome = realize("conflicts", "resolve", "docs/plan.txt", "--keep", "both")
    assert (outcome.code, outcome.err) == (0, "")
    name = "docs/plan.conflict-bert-"
    assert outcome.out.splitlines()[0] == "docs/plan.txt: kept both"
    assert outcome.out.splitlines()[1].startswith(name)
    assert realize("conflicts", "list", "--json").lines == []
    assert realize("conflicts", "resolve", "docs/plan.txt", "--keep", "local").code == 2
    assert realize("conflicts", "resolve", "docs/plam.txt", "--keep", "local").code == 1
    assert sorted(household.anna.real().values()) == [b"anna's plan", b"bert's plan!"]


def test_the_trash_is_listed_and_restored(household: Household, realize: Realize) -> None:
    assert realize("trash", "list").err == "the trash is empty\n"
    _conflict(household)
    (done,) = realize("conflicts", "resolve", "docs/plan.txt", "--keep", "bert", "--json").lines
    assert done == {"path": "docs/plan.txt", "kept": "bert", "beside": []}
    household.rest()
    (row,) = realize("trash", "list", "--json").lines
    assert (row["path"], row["why"], row["by"], row["size"]) == ("docs/plan.txt", "replaced", "anna", 11)
    table = realize("trash", "list", "docs").out
    assert "replaced" in table
    assert str(row["hash"])[:12] in table
    assert realize("trash", "list", "docs/other").out == ""
    outcome = realize("trash", "restore", "docs/plan.txt")
    assert (outcome.code, outcome.out) == (0, "docs/plan.txt: 11 B restored\n")
    assert household.anna.real() == {b"plan.txt": b"anna's plan"}
    outcome = realize("trash", "restore", "docs/plan.txt", "--content", str(row["hash"])[:10])
    assert outcome.code == 1
    assert "not in the trash" in outcome.err
    assert realize("trash", "restore", "docs/plan.txt", "--content", "xyz!").code == 2
    assert realize("trash", "restore", "docs/plan.txt", "--json").lines == [
        {"path": "docs/plan.txt", "size": 12, "error": ""}
    ]


def test_evict_says_what_it_freed_or_why_not(household: Household, realize: Realize) -> None:
    household.bert.write("d/film", b"f" * 100_000)
    household.anna.write("d/mine", b"m" * 10)
    household.rest()
    household.link()
    assert realize("get", "docs/d/film").code == 0
    outcome = realize("evict", "docs/d")
    assert outcome.code == 3
    assert "1 file given up, " in outcome.out
    assert "docs/d/mine: it is a real file" in outcome.err
    outcome = realize("evict", "docs/d/mine")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    outcome = realize("evict", "docs/d/film", "--json")
    assert (outcome.code, outcome.out) == (0, "")
    household.do(household.anna.mark, "d", Mark.KEEP)
    household.rest()
    (step,) = realize("evict", "docs/d/film", "--json").lines
    assert "marked keep" in str(step["error"])
    assert step["path"] == "docs/d/film"


def test_verify_counts_and_fails_on_what_stays_damaged(household: Household, realize: Realize) -> None:
    household.anna.write("f", b"good" * 5000)
    household.anna.write("g", b"good")
    household.rest()
    assert realize("verify").out == "2 files as they should be; 19.5 K read\n"
    path = household.anna.data / "f"
    found = path.stat()

    async def rot() -> None:
        async with household.anna.arena.exclusive():
            path.write_bytes(b"evil" * 5000)
            os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))

    household.do(rot)
    outcome = realize("verify", "docs/f", "--json")
    assert outcome.code == 1
    first, counts = outcome.lines
    assert (first["path"], first["outcome"], first["size"]) == ("docs/f", "damaged", 20_000)
    assert counts == {"ok": 0, "changed": 0, "repaired": 0, "damaged": 1, "unreadable": 0, "bytes": 20_000}
    assert outcome.err.startswith("realize: 1 file could not be repaired (")
    outcome = realize("verify", "--no-repair")
    assert outcome.code == 1
    assert "1 file as they should be, 1 damaged" in outcome.out.splitlines()[-1]


def test_the_log_is_printed_for_people_and_programs(household: Household, realize: Realize) -> None:
    household.anna.write("a.txt", b"one")
    household.rest()
    lines = realize("log", "--json", "docs/a.txt").lines
    assert [(line["path"], line["what"], line["cause"]) for line in lines[:1]] == [
        ("docs/a.txt", "added", "user")
    ]
    assert set(lines[0]) == {"at_ns", "path", "what", "cause", "peer", "before", "after", "detail"}
    assert "docs/a.txt  [user]" in realize("log").out
    assert realize("log", "--since", "2000-01-01", "docs/a.txt", "--json").lines == lines
    assert realize("log", "--since", "2999-01-01").out == ""
    outcome = realize("log", "--since", "yesterday-ish")
    assert (outcome.code, outcome.out) == (2, "")


def test_the_log_is_followed_until_ctrl_c(household: Household) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "--socket", str(household.socket), "log", "--follow", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(cli.__file__).parent.parent,
    )
    assert process.stdout is not None
    household.anna.write("first", b"1")
    assert json.loads(process.stdout.readline())["path"] == "docs/first"
    household.anna.write("second", b"2")
    while json.loads(process.stdout.readline())["path"] != "docs/second":
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


def test_arenas_are_listed_and_held_deletions_confirmed(household: Household, realize: Realize) -> None:
    for number in range(120):
        household.anna.write(f"d/{number}", b"x")
    household.rest()
    value: Any
    (value,) = realize("arena", "list", "--json").lines
    (arena,) = value["arenas"]
    assert arena["name"] == "docs"
    assert (arena["datadir"], arena["files"], arena["held_deletes"]) == (str(household.anna.data), 120, 0)
    assert "online" in realize("arena", "list").out
    assert realize("arena", "confirm-deletes", "docs").out == "docs: no deletions were held\n"
    assert realize("arena", "confirm-deletes", "dosc").code == 1
    household.anna.write("stays", b"x")
    household.rest()

    async def held() -> None:
        for number in range(120):
            (household.anna.data / f"d/{number}").unlink()
        index = household.anna.arena.index
        await until(lambda: index is not None and index.held_files == 120)

    household.do(held)
    assert "120 deletions held" in realize("arena", "list").out
    assert "confirm-deletes docs" in realize("status").out
    assert realize("arena", "confirm-deletes", "docs", "--json").lines == [{"name": "docs", "files": 120}]
    household.rest()
    assert realize("ls", "docs", "--json").lines[-1]["path"] == "docs/stays"


def test_a_time_is_an_age_or_a_date() -> None:
    now_ns = 1_700_000_000_000_000_000
    assert parse_since("90s", now_ns) == now_ns - 90 * 10**9
    assert parse_since("1.5h", now_ns) == now_ns - 5400 * 10**9
    assert parse_since("2d", now_ns) == now_ns - 2 * 86400 * 10**9
    local = time.mktime((2026, 1, 31, 12, 0, 0, 0, 0, -1))
    assert parse_since("2026-01-31T12:00", now_ns) == int(local) * 10**9
    assert parse_since("2026-01-31T12:00+00:00", now_ns) == 1_769_860_800 * 10**9
    for wrong in ("", "10", "1y", "31.1.2026", "9999999-01-01"):
        with pytest.raises(UsageError):
            parse_since(wrong, now_ns)
