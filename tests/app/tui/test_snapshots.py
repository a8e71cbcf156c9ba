"""How the panes look, with a frozen clock: ``pytest --snapshot-update`` accepts a new look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from app.bridge import Bridge
from app.tui.app import RealizeApp
from app.tui.screenshot import settled
from core.loops import TrioThread
from tests.fakes import household
from tests.fakes.api import FakeApi

Compare = Callable[..., bool]
Engine = Callable[[FakeApi], TrioThread]


@pytest.fixture
def looks(
    snap_compare: Compare, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., bool]:
    """Say whether the dashboard looks as accepted after some keys."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def compare(api: FakeApi, *keys: str, size: tuple[int, int], theme: str = "realize") -> bool:
        app = RealizeApp(
            Bridge(engine(api), api), title=api.name, attached=False, now_ns=lambda: api.now_ns, polling=False
        )

        async def drive(pilot: Pilot[int]) -> None:
            app.theme = theme
            await settled(pilot, app)
            for key in keys:
                await pilot.press(key)
                await settled(pilot, app)

        return snap_compare(app, terminal_size=size, run_before=drive)

    return compare


def test_whole_dashboard(looks: Callable[..., bool]) -> None:
    assert looks(household.sample(), "enter", size=(140, 42))


@pytest.mark.parametrize("pane", ["arenas", "connections", "churten", "marks", "activity"])
def test_pane_alone(looks: Callable[..., bool], pane: str) -> None:
    number = str(["arenas", "connections", "churten", "marks", "activity"].index(pane) + 1)
    keys = (number, "z", "enter") if pane == "arenas" else (number, "z")
    assert looks(household.sample(), *keys, size=(120, 24))


@pytest.mark.parametrize("size", [(80, 24), (40, 12)], ids=["80x24", "40x12"])
def test_small_terminal(looks: Callable[..., bool], size: tuple[int, int]) -> None:
    assert looks(household.sample(), "down", "enter", size=size)


@pytest.mark.parametrize("theme", ["high-contrast", "colour-blind-safe"])
def test_theme(looks: Callable[..., bool], theme: str) -> None:
    assert looks(household.sample(), "enter", size=(110, 30), theme=theme)


def test_new_household(looks: Callable[..., bool]) -> None:
    assert looks(household.empty(), size=(120, 40))


def test_question_before_a_large_change(looks: Callable[..., bool]) -> None:
    assert looks(household.sample(), "down", "k", size=(100, 30))
