"""The seam to SQLite: opening, migrating and checking databases, and transactions.

The only module that imports ``apsw``; its errors become `StoreError` or `NoSpaceError` here. A
connection belongs to the thread that opened it.

Durability: WAL with ``synchronous=NORMAL`` survives a crash of the process without loss; a crash of
the machine may lose the last transactions, never the consistency. `durably` raises transactions
to ``FULL`` where something irrevocable follows them.
"""

from __future__ import annotations

import importlib.resources
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import apsw.bestpractice

from core.errors import NoSpaceError, StoreError

_log = logging.getLogger("realize.core.db")

Connection = apsw.Connection

_OWN = (
    apsw.bestpractice.connection_busy_timeout,
    apsw.bestpractice.connection_wal,  # writes to what it opens, before anybody could look at it
    apsw.bestpractice.library_logging,
)
"""Practices that are done here in another way."""
apsw.bestpractice.apply(tuple(f for f in apsw.bestpractice.recommended if f not in _OWN))


def _on_sqlite_log(code: int, message: str) -> None:
    """Pass on what SQLite has to say: its notices (a log recovered after a kill) are no warnings."""
    notice = code & 0xFF in (apsw.SQLITE_NOTICE, apsw.SQLITE_SCHEMA)
    _log.log(logging.INFO if notice else logging.WARNING, "SQLite: %s (%d)", message, code)


apsw.config(apsw.SQLITE_CONFIG_LOG, _on_sqlite_log)


GLOBAL_APPLICATION_ID = 0x526C7A47  # "RlzG"
ARENA_APPLICATION_ID = 0x526C7A41  # "RlzA"
_BUSY_TIMEOUT_MS = 5000
_CACHE_KIB = 8 * 1024
_STATEMENTS = 500
"""How many prepared statements a connection keeps: more than there are; the default, 100, are too few."""
_HEADER_BYTES = 100
_CHECK_S = 0.3
"""LIMIT: how long a start looks for damage in one database; some 100 MiB of it when cached."""
_CHECK_STEPS = 2000

_MIGRATIONS: dict[str, tuple[str, ...]] = {
    "global": ("global.sql",),
    "arena": ("arena.sql", "arena-2.sql", "arena-3.sql", "arena-4.sql", "arena-5.sql"),
}
"""Scripts that bring a database of each kind from version n to n+1, in order."""

_APPLICATION_IDS = {"global": GLOBAL_APPLICATION_ID, "arena": ARENA_APPLICATION_ID}


def open_global(path: Path) -> Connection:
    """Open the global database for writing, creating or migrating it.

    Raises:
        StoreError: it is damaged, from a newer version, not ours, or cannot be opened.
    """
    return _open(path, "global")


def open_arena(path: Path) -> Connection:
    """Open an arena database for writing, creating or migrating it.

    Raises:
        StoreError: it is damaged, from a newer version, not ours, or cannot be opened.
    """
    return _open(path, "arena")


def connect_readonly(path: Path) -> Connection:
    """Open an existing database for reading only.

    Raises:
        StoreError: it cannot be opened.
    """
    with _translated(path):
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_NOMUTEX
        conn = apsw.Connection(str(path), flags=flags, statementcachesize=_STATEMENTS)
        conn.set_busy_timeout(_BUSY_TIMEOUT_MS)
        _plan_once(conn)
        _pragma(conn, "query_only", 1)
        _pragma(conn, "cache_size", -_CACHE_KIB)
    return conn


def examine(path: Path, kind: str) -> list[str]:
    """Return what a quick check of a whole database finds wrong, at most a few lines; [] when sound.

    Reads all of it, changes nothing; for a database that no daemon has open.

    Raises:
        StoreError: it is damaged beyond reading, from a newer version, or not ours.
    """
    conn = connect_readonly(path)
    with _translated(path, kind):
        try:
            if int(conn.pragma("application_id")) != _APPLICATION_IDS[kind]:
                raise _foreign(path, kind)
            _refuse_newer(path, kind, int(conn.pragma("user_version")))
            if not conn.execute("SELECT count(*) FROM sqlite_schema").get:
                raise _damaged(path, kind, "it holds no tables")
            rows = [str(row[0]) for row in conn.execute("PRAGMA quick_check(5)")]
        finally:
            conn.close()
    return [row for row in rows if row != "ok"]


def _refuse_foreign(path: Path, kind: str) -> None:
    """Look at the header before SQLite does, which may write to what it opens.

    Raises:
        StoreError: it is a database of something else.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError:
        return  # there is none yet, or it cannot be opened, which is told where it is
    if len(header) < _HEADER_BYTES or not header.startswith(b"SQLite format 3\0"):
        return
    # https://www.sqlite.org/fileformat.html: schema cookie at 40, 0 in an empty database; application at 68.
    application_id = int.from_bytes(header[68:72], "big")
    empty = application_id == 0 and not any(header[40:44])
    if application_id != _APPLICATION_IDS[kind] and not empty:
        raise _foreign(path, kind)
    _refuse_newer(path, kind, int.from_bytes(header[60:64], "big"))


def _refuse_newer(path: Path, kind: str, version: int) -> None:
    if version > len(_MIGRATIONS[kind]):
        raise StoreError(
            f"{path} is of version {version}, this program knows up to {len(_MIGRATIONS[kind])}",
            hint="upgrade Realize; the database was left as it is",
        )


def _foreign(path: Path, kind: str) -> StoreError:
    return StoreError(
        f"{path} is not a Realize {kind} database",
        hint="check `workdir` and `[cache].db` in the config; move the foreign file away",
    )


def _open(path: Path, kind: str) -> Connection:
    _refuse_foreign(path, kind)
    with _translated(path, kind):
        conn = apsw.Connection(str(path), statementcachesize=_STATEMENTS)
        conn.set_busy_timeout(_BUSY_TIMEOUT_MS)
        _plan_once(conn)
        try:
            _refuse_damaged(conn, path, kind)
        except BaseException:
            conn.close()
            raise
        for name, value in (
            ("journal_mode", "wal"),
            ("synchronous", "normal"),
            ("cache_size", -_CACHE_KIB),
            ("wal_autocheckpoint", 4000),
            ("journal_size_limit", 64 * 1024 * 1024),
            ("temp_store", "memory"),
        ):
            _pragma(conn, name, value)
        _migrate(conn, path, kind)
    return conn


def _plan_once(conn: Connection) -> None:
    """Plan each statement once, not again whenever other values are bound (decision 50).

    SQLite compares bound values with the conditions of partial indexes and with its statistics, and compiles
    such a statement anew for every other value: 30 to 50 µs a keyed read instead of 5.
    """
    conn.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def _pragma(conn: Connection, name: str, value: int | str) -> None:
    conn.execute(f"PRAGMA {name}={value}")


def _migrate(conn: Connection, path: Path, kind: str) -> None:
    scripts = _MIGRATIONS[kind]
    version = int(conn.pragma("user_version"))
    application_id = int(conn.pragma("application_id"))
    expected = _APPLICATION_IDS[kind]
    if version == 0 and application_id == 0 and not conn.execute("SELECT 1 FROM sqlite_schema").get:
        _pragma(conn, "application_id", expected)
    elif application_id != expected:
        raise _foreign(path, kind)
    _refuse_newer(path, kind, version)
    for number, script in enumerate(scripts[version:], start=version + 1):
        sql = importlib.resources.files("core").joinpath("sql", script).read_text()
        with conn:
            conn.execute(sql)
            _pragma(conn, "user_version", number)


def _refuse_damaged(conn: Connection, path: Path, kind: str) -> None:
    """Look through a database before anything is written to it, as far as the time allows.

    Raises:
        StoreError: it is damaged.
    """
    if not int(conn.pragma("user_version")):
        return  # new
    if not conn.execute("SELECT count(*) FROM sqlite_schema").get:
        raise _damaged(path, kind, "it holds no tables")
    until_s = time.monotonic() + _CHECK_S
    conn.set_progress_handler(lambda: time.monotonic() > until_s, _CHECK_STEPS)
    try:
        found = [str(row[0]) for row in conn.execute("PRAGMA quick_check(1)")]
    except apsw.InterruptError:
        return  # too large to be looked through now; `realize doctor` takes the time
    finally:
        conn.set_progress_handler(None)
    if found != ["ok"]:
        raise _damaged(path, kind, found[0])


def _damaged(path: Path, kind: str, what: object) -> StoreError:
    return StoreError(f"{path} is damaged: {what}", hint=f"stop the daemon and {rebuilding(path, kind)}")


def rebuilding(path: Path, kind: str) -> str:
    """Say how a damaged database is made anew, and what of it comes back."""
    if kind == "arena":
        return (
            f"move {path} away: the tree is made again from the datadir, the blobs and the peers;"
            " marks set on the datadir's files are read again, the others, the history and the trash are lost"
        )
    return f"move {path} away: it is made again from the arenas and the peers"


@contextmanager
def _translated(database: Path | Connection, kind: str = "") -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise _as_ours(error, _path_of(database), kind) from error


def _as_ours(error: apsw.Error, path: Path, kind: str) -> StoreError:
    if isinstance(error, apsw.FullError):
        return NoSpaceError(f"{path}: {error}", hint="free space on that disk")
    if isinstance(error, apsw.IOError):
        return StoreError(f"{path}: {error}", hint="check that disk; the system's log says more")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        # While it is open nobody knows which kind it is.
        return _damaged(path, kind or "arena", error)
    return StoreError(f"{path} cannot be used: {error}", hint="run `realize doctor`")


def _path_of(database: Path | Connection) -> Path:
    return database if isinstance(database, Path) else Path(database.filename)


@contextmanager
def transaction(conn: Connection) -> Iterator[None]:
    """Run one write transaction; nested ones join the outer. No ``await`` inside.

    Raises:
        NoSpaceError: the disk is full; nothing was written.
        StoreError: the database is damaged.
    """
    if conn.in_transaction:
        yield
        return
    with _translated(conn):
        conn.execute("BEGIN IMMEDIATE")
        try:
            yield
            conn.execute("COMMIT")
        except BaseException:
            # A commit that failed for space leaves the transaction open; what followed would join it.
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise


@contextmanager
def durably(conn: Connection) -> Iterator[None]:
    """Make the transactions within survive a crash of the machine once they are committed."""
    conn.execute("PRAGMA synchronous=full")
    try:
        yield
    finally:
        conn.execute("PRAGMA synchronous=normal")


def close(conn: Connection) -> None:
    """Checkpoint and close a writing connection; the write-ahead log is gone afterwards."""
    with _translated(_path_of(conn)):  # asked for before it is closed
        try:
            conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            conn.close()
