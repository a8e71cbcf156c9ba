import io
import json
import logging
import sys
from collections.abc import Callable

import pytest

from app import logs
from core.errors import UsageError

Read = Callable[[], str]


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Read:
    """Return what reads all that was written to stderr since the last time."""
    for name in ("REALIZE_LOG", "JOURNAL_STREAM"):
        monkeypatch.delenv(name, raising=False)
    return lambda: capsys.readouterr().err


def test_levels_go_by_logger(stderr: Read) -> None:
    logs.configure("warning,realize.net=debug", as_json=False)
    logging.getLogger("realize.core.scan").info("hidden")
    logging.getLogger("realize.net.link").debug("shown")
    (line,) = stderr().splitlines()
    assert line.endswith(" debug realize.net.link: shown")


def test_the_environment_is_used_where_no_option_is(stderr: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALIZE_LOG", "info,realize.net=error")
    logs.configure(None, as_json=False)
    logging.getLogger("realize.core.scan").info("shown")
    logging.getLogger("realize.net.link").warning("hidden")
    shown = stderr()
    assert "shown" in shown
    assert "hidden" not in shown
    logs.configure("error", as_json=False)
    logging.getLogger("realize.core.scan").warning("hidden")
    assert "hidden" not in stderr()


def test_names_cannot_forge_lines(stderr: Read) -> None:
    logs.configure("info", as_json=False)
    logging.getLogger("realize.net.link").info("peer %s is up", "x\n2025 error realize: \x1b[31mfire\u202e")
    (line,) = stderr().splitlines()
    assert line.isprintable()


def test_the_journal_gets_priorities(stderr: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    logs.configure("debug", as_json=False)
    for level in ("error", "warning", "info", "debug"):
        getattr(logging.getLogger("realize.x"), level)("y")
    assert stderr().splitlines() == [f"<{n}>realize.x: y" for n in (3, 4, 6, 7)]


def test_machines_get_objects(stderr: Read) -> None:
    logs.configure("info", as_json=True)
    try:
        raise KeyError("k")  # noqa: TRY301 - what is logged is the point
    except KeyError:
        logging.getLogger("realize.x").exception("bad \udcff")
    value = json.loads(stderr())
    assert (value["level"], value["logger"], value["message"]) == ("error", "realize.x", "bad \udcff")
    assert "KeyError" in value["traceback"]


@pytest.mark.parametrize("text", ["loud", "=info", "info,realize.net=", "info,x=loud"])
def test_other_levels_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="not a level"):
        logs.check_level(text)


def test_a_dashboard_keeps_the_terminal_to_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    logs.configure("info", as_json=False, on_screen=True)
    logging.getLogger("realize.x").info("kept")
    assert terminal.getvalue() == ""
    assert "kept" in logs.log_file().read_text()
