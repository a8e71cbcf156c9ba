"""The commands that need no daemon: init, id, config check, help, errors."""

import json
import os
import stat
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import app
from app import cli
from core import config
from core.config import Config
from net import identity


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Realize = Callable[..., Outcome]


@pytest.fixture
def realize(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Realize:
    """Run the command line in this process, as a user without any config."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("REALIZE_CONFIG", raising=False)
    monkeypatch.delenv("REALIZE_LOG", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


# init


def test_init_writes_a_config_an_identity_and_the_directories(realize: Realize, tmp_path: Path) -> None:
    elsewhere = tmp_path / "files/photos"
    outcome = realize(
        *(
            "init",
            "--dir",
            tmp_path / "h",
            "--name",
            "laptop",
            "--listen",
            "localhost:1",
            "--listen",
            "[::1]:2",
        ),
        *("--arena", "docs", "--arena", "a/b", "--arena", f"photos={elsewhere}"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    found = config.load(tmp_path / "h/realize.toml")
    assert (found.node.name, found.node.listen) == ("laptop", ("localhost:1", "[::1]:2"))
    assert [(arena.name, arena.workdir, arena.datadir) for arena in found.arenas] == [
        ("docs", tmp_path / "h/docs", tmp_path / "h/docs/data"),
        ("a/b", tmp_path / "h/a/b", tmp_path / "h/a/b/data"),
        ("photos", tmp_path / "files/.photos.realize", elsewhere),
    ]
    assert all(arena.workdir.is_dir() for arena in found.arenas)
    assert stat.S_IMODE(found.node.key.stat().st_mode) == 0o600
    assert identity.load(tmp_path / "h/identity.pem")
    assert f"realize --config {tmp_path}/h/realize.toml id" in outcome.out


def test_init_without_a_directory_uses_the_configs(realize: Realize, tmp_path: Path) -> None:
    assert realize("init").code == 0
    assert (tmp_path / "home/config/realize/realize.toml").exists()
    assert realize("config", "check").code == 0
    assert realize("id").code == 0
    assert realize("--config", tmp_path / "x/my.toml", "init").code == 0
    assert config.load(tmp_path / "x/my.toml").node.key == tmp_path / "x/identity.pem"


@pytest.mark.parametrize("name", ["realize.toml", "identity.pem"])
def test_init_never_overwrites(realize: Realize, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    outcome = realize("init", "--dir", tmp_path, "--arena", "docs")
    assert outcome.code == 1
    assert str(tmp_path / name) in outcome.err
    assert outcome.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {name, "home"}
    assert (tmp_path / name).read_text() == "mine"


def test_a_second_init_changes_nothing(realize: Realize, tmp_path: Path) -> None:
    realize("init", "--dir", tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("realize.toml", "identity.pem")]
    assert realize("init", "--dir", tmp_path).code == 1
    assert [(tmp_path / name).read_bytes() for name in ("realize.toml", "identity.pem")] == before


def test_init_makes_the_identity_that_a_written_config_lacks(realize: Realize, tmp_path: Path) -> None:
    (tmp_path / "realize.toml").write_text('[node]\nkey = "k/id.pem"\n')
    assert realize("init", "--dir", tmp_path).code == 0
    assert identity.load(tmp_path / "k/id.pem")
    assert (tmp_path / "realize.toml").read_text() == '[node]\nkey = "k/id.pem"\n'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arena", ""], "not an arena"),
        (["--arena", "../x"], "not an arena"),
        (["--arena", "x="], "not an arena"),
        (["--arena", "a", "--arena", "a"], "given twice"),
        (["--arena", "a/b", "--arena", "a"], "inside the other"),
        (["--listen", "nowhere"], "port is missing"),
        (["--name", "a/b"], "not a usable name"),
        (["--arena", "docs=."], "where peers would see it"),
    ],
)
def test_options_of_init_that_make_no_config_leave_no_file(
    realize: Realize, tmp_path: Path, arguments: list[str], words: str
) -> None:
    outcome = realize("init", "--dir", tmp_path, *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "realize.toml").exists()
    assert not (tmp_path / "identity.pem").exists()


def test_init_tells_machines_what_it_made(realize: Realize, tmp_path: Path) -> None:
    made = json.loads(realize("init", "--dir", tmp_path, "--arena", "docs", "--json").out)
    assert made["config"] == str(tmp_path / "realize.toml")
    assert str(tmp_path / "docs/data") in made["made"]


# id


def test_id_prints_the_certificate_and_nothing_else(realize: Realize, tmp_path: Path) -> None:
    realize("init", "--dir", tmp_path)
    own = identity.load(tmp_path / "identity.pem")
    outcome = realize("--config", tmp_path / "realize.toml", "id")
    assert (outcome.code, outcome.out, outcome.err) == (0, own.cert_pem, "")


def test_id_needs_nothing_of_the_config_but_the_key(realize: Realize, tmp_path: Path) -> None:
    realize("init", "--dir", tmp_path)
    path = tmp_path / "realize.toml"
    path.write_text('wrong = 1\n[[peer]]\nname = "half"')
    outcome = realize("--config", path, "id", "--fingerprint")
    assert outcome.code == 0
    assert outcome.out.strip() == identity.short_form(identity.load(tmp_path / "identity.pem").fingerprint)
    value = json.loads(realize("--config", path, "id", "--json").out)
    assert value["fingerprint"] == outcome.out.strip()
    assert value["certificate"].startswith("-----BEGIN CERTIFICATE-----")


def test_id_without_an_identity_says_what_to_do(realize: Realize, tmp_path: Path) -> None:
    outcome = realize("id")
    assert outcome.code == 78
    assert "realize init" in outcome.err
    (tmp_path / "realize.toml").touch()
    outcome = realize("--config", tmp_path / "realize.toml", "id")
    assert outcome.code == 78
    assert "identity.pem" in outcome.err
    assert "realize init" in outcome.err


# config check


def test_config_check_lists_every_error_a_line_each(realize: Realize, tmp_path: Path) -> None:
    path = tmp_path / "realize.toml"
    path.write_text('[node]\nnaem = "x"\n[[arena]]\nname = "docs"\nworkdir = "w"\ndatadir = "gone"\n')
    outcome = realize("--config", path, "config", "check")
    assert outcome.code == 78
    assert outcome.out == ""
    first, second = outcome.err.splitlines()
    assert first.startswith(f'realize: {path}:2: [node]: naem = "x": unknown key; did you mean "name"?')
    assert second.startswith(f"realize: {path}:6: ")
    assert f"{tmp_path}/gone" in second
    value = json.loads(realize("--config", path, "config", "check", "--json").out)
    assert (value["ok"], len(value["problems"])) == (False, 2)


def test_config_check_of_a_good_config_says_so(realize: Realize, tmp_path: Path) -> None:
    realize("init", "--dir", tmp_path, "--arena", "docs")
    outcome = realize("--config", tmp_path / "realize.toml", "config", "check")
    assert (outcome.code, outcome.err) == (0, "")
    assert "good; arenas: docs; peers: none" in outcome.out


def test_config_check_tells_keys_without_effect(realize: Realize, tmp_path: Path) -> None:
    path = tmp_path / "realize.toml"
    (tmp_path / "d").mkdir()
    arena = 'name = "docs"\nworkdir = "w"\ndatadir = "d"\nmountpoint = "o"\n'
    path.write_text(f'[node]\nmount = "m"\n[[arena]]\n{arena}')
    outcome = realize("--config", path, "config", "check")
    assert outcome.code == 0
    assert 'arena "docs": mountpoint' in outcome.err


# Errors and help


def test_a_missing_config_that_was_asked_for_is_a_config_error(realize: Realize) -> None:
    outcome = realize("--config", "/nowhere/realize.toml", "status")
    assert outcome.code == 78
    assert outcome.err.startswith("realize: /nowhere/realize.toml: there is no such config file")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["status", "--nosuch"],
        ["status", "--wait-idle", "soon"],
        ["status", "--wait-idle", "-1"],
        ["mark", "set", "hold", "docs"],
        ["mark", "get"],
        ["get"],
        ["peer"],
        ["peer", "connect"],
        ["--log-level", "loud", "status"],
        ["tui", "--listen", "nowhere"],
        ["why", "a", "b"],
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(realize: Realize, arguments: list[str]) -> None:
    outcome = realize(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("realize: ")
    assert outcome.err.count("\n") == 1


def test_no_command_prints_the_help_and_is_wrong(realize: Realize) -> None:
    outcome = realize()
    assert outcome.code == 2
    assert "Commands:" in outcome.err


COMMANDS = [
    *(["init"], ["id"], ["config"], ["config", "check"], ["tui"], ["demo"], ["status"], ["ls"], ["why"]),
    *(["get"], ["peer"], ["peer", "list"], ["peer", "connect"], ["peer", "disconnect"], ["mark"]),
    *(["mark", "set"], ["mark", "unset"], ["mark", "get"], ["mark", "list"], ["churten"]),
    *(["churten", "start"], ["churten", "stop"], ["churten", "is-running"], ["churten", "jobs"]),
    *(["churten", "run"], ["doctor"]),
]


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=lambda words: " ".join(words) or "realize")
def test_every_command_has_help(realize: Realize, command: list[str]) -> None:
    outcome = realize(*command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"Usage: {' '.join(['realize', *command])}" in outcome.out
    if command not in ([], ["config"], ["peer"], ["mark"], ["churten"]):
        assert "Example" in outcome.out


def test_the_version_is_the_distributions(realize: Realize) -> None:
    from importlib.metadata import version

    assert realize("--version").out == f"realize {version('realize')}\n"


# tui


def test_tui_gives_the_daemon_the_config_with_what_the_options_say(
    realize: Realize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    realize("init", "--dir", tmp_path, "--listen", "localhost:1")
    got: list[tuple[Config, bool]] = []

    def run(found: Config, *, ui: bool) -> int:
        got.append((found, ui))
        return 7

    standin = types.ModuleType("app.daemon")
    monkeypatch.setattr(standin, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "app.daemon", standin)
    monkeypatch.setattr(app, "daemon", standin, raising=False)
    outcome = realize(
        *("--config", tmp_path / "realize.toml", "--socket", "s.sock"),
        *("tui", "--no-ui", "--mount", "m", "--listen", "localhost:2", "--listen", "[::1]:3"),
    )
    assert outcome.code == 7
    ((found, ui),) = got
    assert (found.node.mount, found.node.socket) == (tmp_path / "m", tmp_path / "s.sock")
    assert found.node.listen == ("localhost:2", "[::1]:3")
    assert not ui


def test_tui_with_a_wrong_config_lists_its_errors(realize: Realize, tmp_path: Path) -> None:
    (tmp_path / "realize.toml").write_text("a = 1\nb = 2\n")
    outcome = realize("--config", tmp_path / "realize.toml", "tui", "--no-ui")
    assert outcome.code == 78
    assert len(outcome.err.splitlines()) == 2


# The real program


def program(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    code = "from app.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        cwd=Path(cli.__file__).parent.parent,
        timeout=30,
        check=False,
    )


def test_the_program_exits_as_its_commands_say(tmp_path: Path) -> None:
    done = program("init", "--dir", str(tmp_path))
    assert done.returncode == 0
    again = program("init", "--dir", str(tmp_path))
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("realize: ")
    assert "Traceback" not in again.stderr


def test_debug_adds_the_traceback(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    done = program("--config", missing, "--log-level", "debug", "id")
    assert done.returncode == 78
    assert done.stderr.startswith("realize: ")
    assert "Traceback" in done.stderr
    assert "Traceback" in program("--config", missing, "id", REALIZE_LOG="debug").stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(cli.__file__).parent.parent,
        timeout=30,
        check=False,
    )
    os.close(write)
    assert done.returncode != 0
    assert done.stderr == ""


def test_help_and_status_import_no_screen_mount_or_network() -> None:
    code = (
        "import sys; from app.cli import run; run(['--help']);"
        "print([name for name in ('textual', 'rich', 'pyfuse3', 'capnp', 'trio', 'cryptography', 'apsw')"
        " if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(cli.__file__).parent.parent,
        timeout=30,
        check=True,
    )
    assert done.stderr.strip() == "[]"


def test_completion_can_be_had_for_the_shell(tmp_path: Path) -> None:
    env = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    shown = program("--show-completion", "bash", **env)
    assert shown.returncode == 0
    assert "_REALIZE_COMPLETE" in shown.stdout
    completed = program(
        **{"_REALIZE_COMPLETE": "complete_bash", "COMP_WORDS": "realize chur", "COMP_CWORD": "1"}
    )
    assert completed.stdout.split() == ["churten"]
