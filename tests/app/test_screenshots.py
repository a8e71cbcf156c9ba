"""The pictures in the README show the dashboard as it looks now."""

from __future__ import annotations

from pathlib import Path

from app.demo.screenshots import MADE_FROM, shown_sources

PICTURES = Path(__file__).resolve().parents[2] / "screenshots"


def test_the_pictures_are_of_these_sources() -> None:
    made_from = (PICTURES / MADE_FROM).read_text(encoding="ascii").strip()
    assert made_from == shown_sources(), "the dashboard was changed since: run `make screenshots`"


def test_the_readme_shows_a_picture_that_is_there() -> None:
    readme = (PICTURES.parent / "README.md").read_text(encoding="utf-8")
    assert "screenshots/dashboard.svg" in readme
    assert "<svg" in (PICTURES / "dashboard.svg").read_text(encoding="utf-8")
