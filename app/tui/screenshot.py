"""Pictures of the dashboard: drives it through its panes without a terminal and saves SVGs.

The household behind the bridge decides what they show; the demo's is the one in the README.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from textual.pilot import Pilot

from app.bridge import Bridge
from app.tui.app import RealizeApp
from app.tui.present import Snapshot

CALM_ROUNDS = 5
"""Times in a row that every widget has handled all its messages and nothing was under way."""

SETTLE_S = 10.0
"""LIMIT: how long a picture waits for what it is to show."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture: terminal size, and the keys that lead to it."""

    name: str
    size: tuple[int, int]
    keys: tuple[str, ...]


SHOTS = (
    Shot("dashboard", (140, 42), ("1", "enter")),
    Shot("arenas", (110, 30), ("1", "z")),
    Shot("connections", (120, 20), ("2", "z")),
    Shot("churten", (120, 20), ("3", "z")),
    Shot("marks", (110, 20), ("4", "z")),
    Shot("activity", (110, 20), ("5", "z")),
    Shot("help", (110, 40), ("question_mark",)),
    Shot("small", (80, 24), ("1",)),
    Shot("tiny", (40, 12), ("1",)),
)


async def _nothing() -> None:
    """Do nothing meanwhile."""


async def capture(
    bridge: Bridge,
    out_dir: Path,
    *,
    title: str = "laptop",
    now_ns: Callable[[], int] = time.time_ns,
    meanwhile: Callable[[], Awaitable[None]] = _nothing,
) -> list[Path]:
    """Save a picture of each of `SHOTS` in ``out_dir``; returns their paths. asyncio, main thread.

    ``meanwhile`` is awaited once the dashboard follows the engine: what it lets happen is in the
    pictures, as activity and transfers.
    """
    app = RealizeApp(bridge, title=title, attached=False, remembering=False, now_ns=now_ns)
    saved = []
    async with app.run_test(size=SHOTS[0].size) as pilot:
        await settled(pilot, app)
        await meanwhile()
        for shot in SHOTS:
            await pilot.resize_terminal(*shot.size)
            await _press(pilot, app, *shot.keys)
            app.clear_notifications()
            await settled(pilot, app)
            path = out_dir / f"{shot.name}.svg"
            path.write_text(app.export_screenshot(title=f"realize — {title}"), encoding="utf-8")
            saved.append(path)
            await _press(pilot, app, "escape", "escape")
    return saved


async def _press(pilot: Pilot[int], app: RealizeApp, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settled(pilot, app)


async def settled(pilot: Pilot[int], app: RealizeApp) -> None:
    """Wait until the state is read and nothing that is visible is still being loaded.

    Raises:
        TimeoutError: it was not within `SETTLE_S`.
    """
    calm = 0
    async with asyncio.timeout(SETTLE_S):
        # What one message leads to may be another message: calm has to last some rounds.
        while calm < CALM_ROUNDS:
            await pilot.pause(0 if calm else 0.002)
            calm = calm + 1 if app.settled and _complete(app.snapshot) else 0


def _complete(snapshot: Snapshot) -> bool:
    return None not in (snapshot.status, snapshot.jobs, snapshot.marks)
