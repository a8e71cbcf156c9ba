"""The dashboard of a daemon elsewhere, its pictures, and what it remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.bridge import Bridge
from app.tui import uistate
from app.tui.attach import connect
from app.tui.screenshot import SHOTS, capture
from core.api import Api
from core.errors import NoDaemonError
from core.loops import TrioThread
from tests.fakes import household
from tests.fakes.api import FakeApi


def test_the_client_is_opened_in_a_thread_of_its_own_and_closed_with_it() -> None:
    closed: list[bool] = []

    @asynccontextmanager
    async def client() -> AsyncIterator[Api]:
        yield household.sample()
        closed.append(True)

    loop, _, title = connect(client())
    assert title == "laptop"
    loop.stop()
    assert loop.join(5)
    assert loop.failure is None


def test_no_daemon_is_an_error_of_ours() -> None:
    @asynccontextmanager
    async def client() -> AsyncIterator[Api]:
        raise NoDaemonError("no daemon answers")
        yield household.sample()

    with pytest.raises(NoDaemonError):
        connect(client())


@pytest.mark.asyncio
async def test_pictures_are_taken_of_every_pane(
    engine: Callable[[FakeApi], TrioThread], tmp_path: Path
) -> None:
    api = household.sample()
    saved = await capture(Bridge(engine(api), api), tmp_path, now_ns=lambda: api.now_ns)
    assert [path.stem for path in saved] == [shot.name for shot in SHOTS]
    for path in saved:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert "docs" in text or path.stem in ("connections", "help")


def test_the_remembered_state_survives_and_damage_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "state" / "dashboard.json"
    assert uistate.load(file) == uistate.UiState()
    state = uistate.UiState(pane="marks", theme="nord", sorts={"arenas": ("size", True)}, zoomed=True)
    uistate.save(file, state)
    assert uistate.load(file) == state
    file.write_text('{"pane": 7')
    assert uistate.load(file) == uistate.UiState()
    file.write_text('{"pane": "marks", "from the future": 1}')
    assert uistate.load(file) == uistate.UiState(pane="marks")


def test_a_state_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    uistate.save(tmp_path / "file" / "dashboard.json", uistate.UiState())


def test_the_state_is_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert uistate.state_file() == tmp_path / "realize" / "dashboard.json"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert uistate.state_file() == tmp_path / ".local/state/realize/dashboard.json"
