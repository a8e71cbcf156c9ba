"""The dashboard on a fake household: engine in a real trio thread, app in a terminal of any size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from textual import events
from textual.pilot import Pilot

from app.bridge import Bridge
from app.tui import feed
from app.tui.app import RealizeApp
from app.tui.panes import loader
from app.tui.screenshot import settled
from core.loops import TrioThread
from tests.fakes.api import FakeApi

CHARACTERS = {"space": " ", "slash": "/", "question_mark": "?"}
SIZES = [(200, 60), (80, 24), (40, 12)]


class Screen:
    """The app under test and the household behind it."""

    def __init__(self, app: RealizeApp, api: FakeApi, loop: TrioThread, pilot: Pilot[int]) -> None:
        self.app, self.api, self.loop, self.pilot = app, api, loop, pilot

    async def press(self, *keys: str) -> None:
        """Press keys, waiting after each until everything it led to is shown."""
        for key in keys:
            self.send(key)
            await self.settle()

    def send(self, key: str) -> None:
        """Press a key and go on at once."""
        driver = self.app._driver
        assert driver is not None
        event = events.Key(key, key if len(key) == 1 else CHARACTERS.get(key))
        event.set_sender(self.app)
        driver.send_message(event)

    async def type(self, text: str) -> None:
        for char in text:
            self.send("space" if char == " " else char)
        await self.settle()

    async def settle(self) -> None:
        """Wait until the app has shown all that the engine has told, and asks for nothing more."""
        await settled(self.pilot, self.app)
        # Events come by themselves: once all tasks over there wait, they have been handed over.
        await asyncio.wrap_future(self.loop.submit(trio.testing.wait_all_tasks_blocked))
        await settled(self.pilot, self.app)

    async def engine(self, change: Callable[[FakeApi], object]) -> None:
        """Let something happen in the engine's thread, and wait until it is shown."""

        async def run() -> None:
            change(self.api)

        await asyncio.wrap_future(self.loop.submit(run))
        await self.settle()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await self.pilot.pause(0.005)

    @property
    def lines(self) -> list[str]:
        """What the terminal shows."""
        screen = self.app.screen
        return ["".join(segment.text for segment in strip) for strip in screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def has(self, *words: str) -> bool:
        return all(word in self.text for word in words)

    @property
    def toasts(self) -> list[str]:
        return [notification.message for notification in self.app._notifications]


Opener = Callable[..., AbstractAsyncContextManager[Screen]]


@pytest.fixture
def engine() -> Iterator[Callable[[FakeApi], TrioThread]]:
    """Start a trio thread for a household; it is stopped at the end."""
    loops: list[TrioThread] = []

    def start(_: FakeApi) -> TrioThread:
        loop = TrioThread("engine")
        loop.start(trio.sleep_forever)
        loops.append(loop)
        return loop

    yield start
    for loop in loops:
        loop.stop()
        assert loop.join(5)


@pytest.fixture
def dashboard(
    engine: Callable[[FakeApi], TrioThread], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Opener:
    """Open the dashboard on a household."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setenv("TZ", "UTC")
    # The pauses between readings are for people and engines; a test waits for what it wants to see.
    for pause in ("STATUS_EVERY_S", "JOBS_EVERY_S", "MARKS_EVERY_S"):
        monkeypatch.setattr(feed, pause, 0.01)
    monkeypatch.setattr(feed, "UPDATES_PER_S", 100)
    monkeypatch.setattr(loader, "REREAD_PAUSE_S", 0.0)

    @asynccontextmanager
    async def open_(
        api: FakeApi, size: tuple[int, int] = (120, 40), *, attached: bool = False, polling: bool = False
    ) -> AsyncIterator[Screen]:
        loop = engine(api)
        app = RealizeApp(
            Bridge(loop, api), title=api.name, attached=attached, now_ns=lambda: api.now_ns, polling=polling
        )
        async with app.run_test(size=size) as pilot:
            screen = Screen(app, api, loop, pilot)
            await screen.settle()
            yield screen

    return open_
