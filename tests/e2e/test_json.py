"""What every command prints with ``--json`` against a real daemon, key by key and type by type.

The tables are the contract: `STATUS`, `ENTRY` and their parts as the specification has them, the others as
they were first published. Keys may be added, none may go or change its type.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import pytest
import typer

from app import cli
from app.demo.household import ArenaPlan, Peer, PeerPlan
from core.events import JobAction
from core.types import FileState, Mark
from tests.app.conftest import logging_restored  # noqa: F401 - a fixture for every test here
from tests.e2e.household import WAIT_S, hashed, household_of, put, reads, wait_until

NS = 1_600_000_000_000_000_000


@dataclass(frozen=True)
class Opt:
    """A value that may be null."""

    of: Any


@dataclass(frozen=True)
class Many:
    """A list, each of the kind; at least as many as are ``least``."""

    of: Any
    least: int = 0


@dataclass(frozen=True)
class Word:
    """One of some words."""

    words: frozenset[str]


def words(*names: str) -> Word:
    return Word(frozenset(names))


class Hex:
    """A content hash."""


STATE = Word(frozenset(FileState) - {"fetching", "conflict"})
"""As spec 3 has them; fetching and conflicts are told beside it."""
MARK = Word(frozenset(Mark))
ENTRY = {
    "path": str,
    "kind": words("file", "dir", "symlink"),
    "size": int,
    "mtime_ns": int,
    "mode": int,
    "hash": Opt(Hex),
    "state": STATE,
    "mark": MARK,
    "holders": Many(str),
    "conflict": bool,
}
PEER = {
    "name": str,
    "state": words("connected", "connecting", "disconnected", "disabled"),
    "address": Opt(str),
    "rtt_ms": Opt(float),
    "rx_bytes": int,
    "tx_bytes": int,
    "rx_rate": float,
    "tx_rate": float,
    "arenas": Many(str, 1),
}
ARENA = {
    "name": str,
    "mark": MARK,
    "files": int,
    "real": int,
    "cached": int,
    "online": int,
    "bytes": int,
    "cache": {"used": int, "max": Opt(int)},
    "hashing": int,
    "conflicts": int,
    "only_here": int,
}
STATUS = {
    "schema": int,
    "name": str,
    "fingerprint": str,
    "version": str,
    "mount": Opt(str),
    "idle": bool,
    "arenas": Many(ARENA, 1),
    "peers": Many(PEER, 1),
    "churten": {"running": bool, "active": int, "queued": int, "failed": int},
}
JOB = {
    "job": int,
    "path": str,
    "action": Word(frozenset(get_args(JobAction))),
    "state": words("active", "queued", "waiting", "failed"),
    "files": int,
    "bytes_done": int,
    "bytes_total": int,
    "rate": float,
    "eta_s": Opt(float),
    "peers": Many(str),
    "reason": str,
    "retry_s": Opt(float),
}
JOBS = {
    "running": bool,
    "active": int,
    "queued": int,
    "failed": int,
    "rate": float,
    "jobs": Many(JOB),
    "hashing": Many(dict),
}
VERSION = {
    "peers": Many(str),
    "local": bool,
    "shown": bool,
    "kind": words("file", "dir", "symlink", "deleted"),
    "size": int,
    "mtime_ns": int,
    "mode": int,
    "hash": Opt(Hex),
}
CONFLICT = {"path": str, "revived": bool, "versions": Many(VERSION, 2)}
RESOLVED = {"path": str, "kept": str, "beside": Many(str, 1)}
MARK_OF = {"path": str, "mark": MARK, "explicit": bool, "origin": Opt(str), "exists": bool}
MARK_ROW = {
    "path": str,
    "mark": MARK,
    "files": int,
    "bytes_held": int,
    "bytes_wanted": int,
    "exists": bool,
}
TRASH = {
    "path": str,
    "size": int,
    "mtime_ns": int,
    "mode": int,
    "hash": Hex,
    "when_ns": int,
    "why": words("replaced", "deleted", "damaged"),
    "by": str,
}
LOG = {
    "at_ns": int,
    "path": str,
    "what": str,
    "cause": str,
    "peer": str,
    "before": Opt(Hex),
    "after": Opt(Hex),
    "detail": str,
}
VERIFY = {"ok": int, "changed": int, "repaired": int, "damaged": int, "unreadable": int, "bytes": int}
EVICT = {"path": str, "bytes_freed": int, "error": str}
GET = {"path": str, "bytes_done": int, "bytes_total": int, "done": bool, "error": str}
WHY = {"path": str, "entry": Opt(ENTRY), "lines": Many({"rule": str, "finding": str}, 2)}
ARENA_OF_LIST = {"name": str, "mark": MARK, "workdir": str, "datadir": Opt(str), "mountpoint": Opt(str)}


class Command(NamedTuple):
    """A command, what each of its lines is, and how many lines it prints at least."""

    line: str
    shape: dict[str, Any]
    lines: int | Literal["some"] = 1


COMMANDS = [
    Command("status", STATUS),
    Command("ls", ENTRY),
    Command("ls docs", ENTRY, "some"),
    Command("ls -R docs", ENTRY, "some"),
    Command("ls -l docs/both.txt", ENTRY),
    Command("why docs/both.txt", WHY),
    Command("why docs/later", WHY),
    Command("why docs", WHY),
    Command("mark get docs docs/kept/a docs/later", MARK_OF, 3),
    Command("mark list", MARK_ROW, 3),
    Command("mark set keep docs/kept/a", MARK_OF),
    Command("mark unset docs/kept/a", MARK_OF),
    Command("churten jobs", JOBS),
    Command("churten is-running", {"running": bool}),
    Command("churten start", {"running": bool}),
    Command("churten run", JOBS, "some"),
    Command("get docs/film", GET),
    Command("evict docs/film", EVICT),
    Command("conflicts list", CONFLICT),
    Command("conflicts resolve docs/both.txt --keep both", RESOLVED),
    Command("trash list", TRASH),
    Command("trash restore docs/owned/report", {"path": str, "size": int, "error": str}),
    Command("log", LOG, "some"),
    Command("log --since 1h docs/owned", LOG, "some"),
    Command("verify docs", VERIFY),
    Command("arena list", {"arenas": Many(ARENA_OF_LIST, 1)}),
    Command("arena confirm-deletes docs", {"name": str, "files": int}),
    Command("peer list", {"peers": Many(PEER, 1)}),
    Command("peer connect anna", {"name": str, "state": str}),
]


def complain(value: Any, shape: Any, at: str) -> Iterator[str]:  # noqa: ANN401 - JSON of any kind
    """Yield what is wrong with a value."""
    match shape:
        case dict():
            if not isinstance(value, dict):
                yield f"{at}: {value!r} is no object"
                return
            for key, inner in shape.items():
                if key in value:
                    yield from complain(value[key], inner, f"{at}.{key}")
                else:
                    yield f"{at}.{key} is missing"
        case Opt(of=inner):
            if value is not None:
                yield from complain(value, inner, at)
        case Many(of=inner, least=least):
            if not isinstance(value, list) or len(value) < least:
                yield f"{at}: {value!r} is no list of {least} or more"
                return
            for number, item in enumerate(value):
                yield from complain(item, inner, f"{at}[{number}]")
        case Word(words=known):
            if value not in known:
                yield f"{at}: {value!r} is none of {sorted(known)}"
        case type() if shape is Hex:
            if not isinstance(value, str) or len(value) != 64 or value.strip("0123456789abcdef"):
                yield f"{at}: {value!r} is no hash"
        case type():
            kinds = (int, float) if shape is float else (shape,)
            if not isinstance(value, kinds) or (isinstance(value, bool) and shape is not bool):
                yield f"{at}: {value!r} is no {shape.__name__}"
        case _:
            raise TypeError(shape)


@pytest.fixture(scope="module")
def bert() -> Iterator[Peer]:
    """Give bert, at whom there is something for every command to tell."""
    arenas = [ArenaPlan("docs", options={"disk_usage": {"max": "1G"}})]
    plans = [PeerPlan("anna", arenas), PeerPlan("bert", arenas)]
    with household_of(*plans, allowed=[r"rejected peer=\w+ .*disabled"]) as household:
        anna, bert = household.peers
        for name, content in (("film", os.urandom(300_000)), ("kept/a", b"a"), ("owned/report", b"first")):
            put(anna.datadir() / name, content)
        (anna.datadir() / "link").symlink_to("film")
        for name in ("film", "kept/a", "owned/report"):
            wait_until(partial(hashed, bert.view() / name), WAIT_S, name)
        anna.command("mark", "set", "own", "docs")
        bert.command("mark", "set", "keep", "docs/kept", "docs/later")
        bert.command("mark", "set", "own", "docs/owned")
        wait_until(partial(reads, bert.datadir() / "owned/report", b"first"), WAIT_S, "it is real")
        put(anna.datadir() / "owned/report", b"second", mtime_ns=NS)
        wait_until(partial(reads, bert.datadir() / "owned/report", b"second"), WAIT_S, "the second")
        anna.command("peer", "disconnect", "bert")
        wait_until(lambda: bert.status()["peers"][0]["state"] != "connected", WAIT_S, "disconnected")
        put(anna.datadir() / "both.txt", b"anna's", mtime_ns=NS)
        put(bert.datadir() / "both.txt", b"bert's own", mtime_ns=NS + 10**9)
        anna.wait_idle()
        bert.wait_idle()
        anna.command("peer", "connect", "bert")
        wait_until(lambda: bert.status()["arenas"][0]["conflicts"] == 1, WAIT_S, "the conflict")
        bert.wait_idle()
        yield bert


def test_every_command_prints_the_agreed_keys(bert: Peer) -> None:
    wrong: list[str] = []
    for command in COMMANDS:
        # In this process: thirty starts of python would take most of the time.
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = cli.run(["--config", str(bert.config), *command.line.split(), "--json"])
        if code:
            wrong.append(f"{command.line}: exit {code}: {err.getvalue()}")
            continue
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        if len(lines) != command.lines and (command.lines != "some" or len(lines) < 2):
            wrong.append(f"{command.line}: {len(lines)} lines: {out.getvalue()[:200]}")
        for line in lines:
            wrong += complain(line, command.shape, command.line)
    assert not wrong, "\n".join(wrong)


def _commands(command: Any, name: str = "") -> Iterator[tuple[str, list[str]]]:  # noqa: ANN401 - of typer
    """Yield each command with its options."""
    for below, one in getattr(command, "commands", {}).items():
        yield from _commands(one, f"{name} {below}".strip())
    if not hasattr(command, "commands"):
        yield name, [option for parameter in command.params for option in parameter.opts]


WITHOUT_JSON = {
    "tui": "runs the daemon",
    "demo": "tells a story",
}


def test_every_command_takes_json_and_is_in_the_table() -> None:
    found = dict(_commands(typer.main.get_command(cli.build())))
    without = {name for name, options in found.items() if "--json" not in options}
    assert without == set(WITHOUT_JSON)
    told = {name for name in found if any(f"{one.line} ".startswith(f"{name} ") for one in COMMANDS)}
    # What they print without a daemon is tested in tests/app/test_cli_setup.py and test_doctor.py.
    elsewhere = {"init", "id", "config check", "doctor", "churten stop", "peer disconnect"}
    assert found.keys() - told - set(WITHOUT_JSON) == elsewhere
