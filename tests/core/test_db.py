"""Databases: what is not ours, damaged or too new is left alone; transactions are all or nothing."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from core import db
from core.db import Connection, connect_readonly, open_arena, open_global, transaction
from core.errors import NoSpaceError, StoreError

SQLITE_OK = 0

Opener = Callable[[Path], Connection]
OPENERS = [open_global, open_arena]


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    conn = open_global(tmp_path / "cache.db")
    yield conn
    conn.close()


def settings(conn: Connection) -> dict[object, object]:
    return dict(conn.execute("SELECT key, value FROM setting"))


def put(conn: Connection, key: str) -> None:
    conn.execute("INSERT INTO setting (key, value) VALUES (?, '')", (key,))


def put_and_fail(conn: Connection, key: str, *, nested: bool = False) -> None:
    with transaction(conn):
        if nested:
            with transaction(conn):
                put(conn, key)
        else:
            put(conn, key)
        raise ValueError("no")


def _pragma(path: Path, text: str) -> None:
    conn = db.Connection(str(path))
    conn.execute(f"PRAGMA {text}")
    conn.close()


@pytest.mark.parametrize("opener", OPENERS)
def test_a_new_database_is_made_and_opens_again(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "x.db"
    for _ in range(2):
        db.close(opener(path))
    assert [file.name for file in tmp_path.iterdir()] == ["x.db"]


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("content", [b"not a database at all, " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_and_named(
    tmp_path: Path, opener: Opener, content: bytes
) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.db") as caught:
        opener(path)
    assert caught.value.hint
    assert path.read_bytes() == content


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    conn = db.Connection(str(path))
    conn.execute("CREATE TABLE recipe (name TEXT)")
    conn.close()
    before = path.read_bytes()
    for opener in OPENERS:
        with pytest.raises(StoreError, match="is not a Realize"):
            opener(path)
    assert path.read_bytes() == before


def test_the_one_kind_is_not_taken_for_the_other(tmp_path: Path) -> None:
    db.close(open_global(tmp_path / "x.db"))
    with pytest.raises(StoreError, match="is not a Realize arena database"):
        open_arena(tmp_path / "x.db")


@pytest.mark.parametrize("opener", OPENERS)
def test_a_database_from_a_newer_version_is_refused(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "x.db"
    db.close(opener(path))
    _pragma(path, "user_version=99")
    with pytest.raises(StoreError, match="version 99") as caught:
        opener(path)
    assert "upgrade" in caught.value.hint


def test_a_database_that_lost_its_tables_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    conn = db.Connection(str(path))
    conn.execute(f"PRAGMA application_id={db.ARENA_APPLICATION_ID}; PRAGMA user_version=1")
    conn.close()
    with pytest.raises(StoreError, match=r"x\.db"):
        open_arena(path)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no-such"):
        connect_readonly(tmp_path / "no-such.db")
    with pytest.raises(StoreError, match="dir"):
        open_arena(tmp_path / "dir" / "x.db")


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    conn = db.Connection(str(path))
    conn.execute(importlib.resources.files("core").joinpath("sql", "arena.sql").read_text())
    conn.execute(f"PRAGMA application_id={db.ARENA_APPLICATION_ID}; PRAGMA user_version=1")
    conn.execute("INSERT INTO mark (node, mark) VALUES (7, 'own')")
    conn.close()
    old, new = open_arena(path), open_arena(tmp_path / "new.db")
    assert old.execute("SELECT node, mark FROM mark").fetchall() == [(7, "own")]
    schema = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY name"
    assert old.execute(schema).fetchall() == new.execute(schema).fetchall()
    assert old.pragma("user_version") == new.pragma("user_version")


def test_damage_is_found_by_examining(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    conn = open_arena(path)
    with transaction(conn):
        conn.executemany(
            "INSERT INTO history (node, op, at_s) VALUES (?, 1, 1)", [(number,) for number in range(5000)]
        )
    db.close(conn)
    assert db.examine(path, "arena") == []
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 8192)
    try:
        found = db.examine(path, "arena")
    except StoreError as error:
        found = [str(error)]
    assert found


# -- transactions


def test_a_transaction_is_all_or_nothing(conn: Connection) -> None:
    with transaction(conn):
        put(conn, "a")
    with pytest.raises(ValueError, match="no"):
        put_and_fail(conn, "b")
    assert set(settings(conn)) == {"a"}


def test_nested_transactions_are_one(conn: Connection) -> None:
    with pytest.raises(ValueError, match="no"):
        put_and_fail(conn, "a", nested=True)
    assert settings(conn) == {}
    with transaction(conn), transaction(conn):
        put(conn, "b")
    assert set(settings(conn)) == {"b"}


def test_a_commit_that_failed_leaves_no_open_transaction(conn: Connection) -> None:
    conn.execute("PRAGMA foreign_keys=1; CREATE TABLE a (id INTEGER PRIMARY KEY)")
    conn.execute("CREATE TABLE b (a INTEGER REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(StoreError), transaction(conn):
        conn.execute("INSERT INTO b VALUES (1)")  # found wrong by the commit
    assert not conn.in_transaction
    assert conn.execute("SELECT * FROM b").fetchall() == []


def test_a_full_disk_is_said_and_loses_nothing(conn: Connection) -> None:
    with transaction(conn):
        put(conn, "a")
    conn.execute(f"PRAGMA max_page_count={int(conn.pragma('page_count'))}")
    with pytest.raises(NoSpaceError, match="full") as caught, transaction(conn):
        put(conn, "x" * 1_000_000)
    assert caught.value.hint
    conn.execute("PRAGMA max_page_count=1000000")
    with transaction(conn):
        put(conn, "b")
    assert set(settings(conn)) == {"a", "b"}


def test_readers_see_what_is_committed_and_cannot_write(conn: Connection, tmp_path: Path) -> None:
    reader = connect_readonly(tmp_path / "cache.db")
    with transaction(conn):
        put(conn, "a")
        assert settings(reader) == {}
    assert set(settings(reader)) == {"a"}
    with pytest.raises(StoreError), transaction(reader):
        put(reader, "b")
    reader.close()


@pytest.mark.parametrize("opener", [open_arena, connect_readonly])
def test_a_statement_is_not_planned_anew_for_other_values(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "arena.db"
    open_arena(path).close()
    conn = opener(path)
    compiled: list[str] = []

    def note(_: int, table: str | None, *__: str | None) -> int:
        compiled.append(str(table))
        return apsw.SQLITE_OK

    conn.authorizer = note
    query = "SELECT node FROM entry WHERE peer = ? AND hash = ?"  # for some values there is a partial index
    for peer in (1, 0, 1):
        conn.execute(query, (peer, b"")).fetchall()
    first = len(compiled)
    conn.execute(query, (0, b"other")).fetchall()
    conn.close()
    assert first > 0
    assert len(compiled) == first
