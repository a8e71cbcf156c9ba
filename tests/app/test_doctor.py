"""Doctor on a machine without a daemon: each trouble is named, with a fix."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from app import cli
from app.doctor import Check, examine
from app.settings import Settings
from core import db

Examine = Callable[[], dict[str, Check]]


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a host that was just set up."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert cli.run(["init", "--dir", str(tmp_path), "--arena", "docs", "--listen", "localhost:0"]) == 0
    capsys.readouterr()
    return tmp_path


@pytest.fixture
def checks(home: Path) -> Examine:
    def run() -> dict[str, Check]:
        found = examine(Settings(config=home / "realize.toml"))
        assert all(check.fix for check in found if not check.ok)
        return {check.check: check for check in found}

    return run


def add_to_node(home: Path, line: str) -> None:
    path = home / "realize.toml"
    path.write_text(path.read_text().replace("[node]\n", f"[node]\n{line}\n"))


def test_a_host_just_set_up_has_no_trouble_with_its_own_files(checks: Examine) -> None:
    found = checks()
    for name in ("config", "identity", "port localhost:0", "inotify watches", "daemon"):
        assert found[name].ok, found[name]
    for name in ("filesystem", "xattrs", "disk space"):
        assert f"{name}, workdir of docs" in found


def test_looking_leaves_nothing_behind(home: Path, checks: Examine) -> None:
    before = sorted(home.rglob("*"))
    checks()
    assert sorted(home.rglob("*")) == before


def test_a_config_that_is_wrong_is_one_trouble_for_each_error(home: Path) -> None:
    path = home / "realize.toml"
    path.write_text("a = 1\nb = 2\n")
    failed = [check for check in examine(Settings(config=path)) if not check.ok and check.check == "config"]
    assert [check.detail.split(": ")[1] for check in failed] == ["a = 1", "b = 2"]


def test_without_a_config_it_says_how_to_make_one(tmp_path: Path) -> None:
    (found,) = [
        check for check in examine(Settings(config=tmp_path / "none.toml")) if check.check == "config"
    ]
    assert not found.ok
    assert "realize init" in found.fix


def test_a_key_that_others_can_read_is_named(home: Path, checks: Examine) -> None:
    (home / "identity.pem").chmod(0o644)
    found = checks()["identity"]
    assert not found.ok
    assert found.fix == f"chmod 600 {home}/identity.pem"


def test_a_port_that_is_taken_is_named(home: Path, checks: Examine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        path = home / "realize.toml"
        path.write_text(path.read_text().replace("localhost:0", address))
        found = checks()[f"port {address}"]
    assert not found.ok
    assert "ss -ltnp" in found.fix


def test_a_datadir_that_went_away_is_named(home: Path, checks: Examine) -> None:
    (home / "docs/arena.db").touch()
    (home / "docs/data").rmdir()
    found = checks()["datadir of docs"]
    assert not found.ok
    assert "offline" in found.detail


def test_a_mount_that_would_hide_files_is_named(home: Path, checks: Examine) -> None:
    add_to_node(home, 'mount = "mnt"')
    assert checks()[f"mount {home}/mnt"].ok
    (home / "mnt").mkdir()
    assert checks()[f"mount {home}/mnt"].ok
    (home / "mnt/file").touch()
    found = checks()[f"mount {home}/mnt"]
    assert not found.ok
    assert "hide" in found.detail


def test_databases_are_looked_at_whole(home: Path, checks: Examine) -> None:
    db.close(db.open_global(home / "cache.db"))
    db.close(db.open_arena(home / "docs/arena.db"))
    assert checks()[f"database {home}/cache.db"].ok
    assert checks()[f"database {home}/docs/arena.db"].ok
    (home / "cache.db").write_bytes(os.urandom(8192))
    found = checks()[f"database {home}/cache.db"]
    assert not found.ok
    assert "damaged" in found.detail
    os.replace(home / "docs/arena.db", home / "cache.db")
    assert "not a Realize global database" in checks()[f"database {home}/cache.db"].detail


def test_the_command_exits_1_and_shows_the_fix(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "identity.pem").unlink()
    assert cli.run(["--config", str(home / "realize.toml"), "doctor"]) == 1
    out = capsys.readouterr().out
    assert "✖ identity: " in out
    assert "→ `realize init` makes one" in out
