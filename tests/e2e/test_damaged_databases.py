"""Databases that are damaged or of a newer version: refused and named; `doctor` says the way out."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from app.doctor import examine
from app.settings import Settings
from tests.e2e.household import WAIT_S, Household, Peer, hashed, household_of, put, wait_until

FILES = 200


@pytest.fixture(scope="module")
def stopped() -> Iterator[Household]:
    """Give one peer that has run, with files and a mark; its databases are put back after each test."""
    with household_of("solo", start=False) as one:
        (solo,) = one.peers
        for number in range(FILES):
            put(solo.datadir() / f"{number % 7}/file with a long name {number}", b"%d" % number)
        solo.start()
        solo.wait_idle()
        solo.command("mark", "set", "keep", "docs/3")
        solo.stop()
        yield one


@pytest.fixture
def solo(stopped: Household) -> Iterator[Peer]:
    (peer,) = stopped.peers
    paths = [path_of(peer, kind) for kind in ("global", "arena")]
    before = [path.read_bytes() for path in paths]
    yield peer
    peer.stop()
    for path, content in zip(paths, before, strict=True):
        path.write_bytes(content)


def path_of(solo: Peer, kind: str) -> Path:
    return solo.home / "cache.db" if kind == "global" else solo.datadir().parent / "arena.db"


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def pages_lost(path: Path) -> None:
    with path.open("r+b") as file:
        for at in range(8192, path.stat().st_size, 8192):
            file.seek(at)
            file.write(b"\xa5" * 4096)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 99")


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE recipe (name TEXT)")
        conn.commit()


def no_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        marks = [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    path.unlink()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(f"PRAGMA application_id = {marks[0]}")
        conn.execute(f"PRAGMA user_version = {marks[1]}")
        conn.commit()


WAYS = [garbage, cut, pages_lost, newer, foreign, no_tables]


@pytest.mark.parametrize("kind", ["global", "arena"])
@pytest.mark.parametrize("damage", WAYS)
def test_a_database_that_cannot_be_used_is_refused_named_and_left_alone(
    solo: Peer, kind: str, damage: Callable[[Path], None]
) -> None:
    path = path_of(solo, kind)
    damage(path)
    before = path.read_bytes()
    done = solo.run("tui", "--no-ui")
    assert done.returncode == 1, done
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert "(" in done.stderr, "a next step"
    assert path.read_bytes() == before

    (about,) = [check for check in examine(Settings(config=solo.config)) if check.check == f"database {path}"]
    assert not about.ok
    assert ("upgrade" if damage is newer else "move") in about.fix
    if damage in (garbage, cut, pages_lost, no_tables):
        assert "again from" in about.fix, about


def test_what_doctor_says_can_be_rebuilt_is_rebuilt(solo: Peer) -> None:
    for kind in ("global", "arena"):
        path = path_of(solo, kind)
        garbage(path)
        path.rename(path.with_suffix(".broken"))
    solo.start()
    solo.wait_idle()
    shown = solo.view() / f"3/file with a long name {3}"
    wait_until(partial(hashed, shown), WAIT_S, "it is indexed again")
    assert len([path for path in solo.view().rglob("*") if path.is_file()]) == FILES
