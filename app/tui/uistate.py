"""What the dashboard remembers between runs: focused pane, order, theme (spec 7 *Conventions*).

A damaged or missing file is the default; a directory that cannot be written is logged, never fatal.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

_log = logging.getLogger("realize.app.tui.uistate")


class UiState(msgspec.Struct, frozen=True):
    """The remembered state; unknown fields are ignored, missing ones are the default."""

    pane: str = "arenas"
    theme: str = "realize"
    sorts: dict[str, tuple[str, bool]] = {}
    zoomed: bool = False


def state_file() -> Path:
    """Return where the state is kept."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "realize" / "dashboard.json"


def load(path: Path) -> UiState:
    """Return what was remembered, or the default."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=UiState)
    except FileNotFoundError:
        return UiState()
    except (OSError, msgspec.MsgspecError) as error:
        _log.info("the state of the dashboard in %s is not usable: %s", path, error)
        return UiState()


def save(path: Path, state: UiState) -> None:
    """Remember the state; whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".tmp")
        fresh.write_bytes(msgspec.json.encode(state))
        fresh.replace(path)
    except OSError as error:
        _log.info("the state of the dashboard cannot be kept in %s: %s", path, error)
