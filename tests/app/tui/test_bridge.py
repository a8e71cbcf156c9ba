"""Calls from asyncio into a trio thread: results, failures, cancelling, events."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio

from app.bridge import Bridge
from core.api import Api, ArenaPath
from core.errors import EngineStoppedError, PathNotFoundError
from core.events import AnyEvent, ChurtenChanged
from core.loops import TrioThread
from tests.fakes import household
from tests.fakes.api import FakeApi

pytestmark = pytest.mark.asyncio
Engine = Callable[[FakeApi], TrioThread]


async def test_a_call_runs_in_the_trio_thread_and_returns_or_raises(engine: Engine) -> None:
    api = household.sample()
    bridge = Bridge(engine(api), api)
    assert (await bridge.call(lambda api: api.status())).name == "laptop"

    async def where(_: Api) -> str:
        return threading.current_thread().name

    assert await bridge.call(where) == "engine"
    with pytest.raises(PathNotFoundError):
        await bridge.call(lambda api: api.lookup(ArenaPath("nowhere")))
    assert bridge.pending == 0


async def test_cancelling_a_call_cancels_it_over_there(engine: Engine) -> None:
    api = household.sample()
    bridge = Bridge(engine(api), api)
    started, cancelled = threading.Event(), threading.Event()

    async def wait(_: Api) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    task = asyncio.create_task(bridge.call(wait))
    assert await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(cancelled.wait, 5)


async def test_an_engine_that_ends_fails_what_waits_and_what_comes_later(engine: Engine) -> None:
    api = household.sample()
    loop = engine(api)
    bridge = Bridge(loop, api)
    started = threading.Event()

    async def wait(_: Api) -> None:
        started.set()
        await trio.sleep_forever()

    task = asyncio.create_task(bridge.call(wait))
    assert await asyncio.to_thread(started.wait, 5)
    loop.stop()
    with pytest.raises(EngineStoppedError):
        await task
    loop.join(5)
    with pytest.raises(EngineStoppedError):
        await bridge.call(lambda api: api.status())


async def test_events_are_followed_until_stopped(engine: Engine) -> None:
    api = household.sample()
    bridge = Bridge(engine(api), api)
    batches: list[list[AnyEvent]] = []
    came = threading.Event()

    def on_batch(batch: list[AnyEvent]) -> None:
        batches.append(batch)
        came.set()

    stop = bridge.follow(on_batch)
    await bridge.call(_emit(api))
    assert await asyncio.to_thread(came.wait, 5)
    assert [type(event) for event in batches[0]] == [ChurtenChanged]
    stop()
    async with asyncio.timeout(5):
        while api.bus._subscriptions:
            await bridge.call(lambda api: api.status())


def _emit(api: FakeApi) -> Callable[[Api], Awaitable[None]]:
    async def emit(_: Api) -> None:
        while not api.bus._subscriptions:
            await trio.lowlevel.checkpoint()
        api.bus.emit(ChurtenChanged(running=True))

    return emit


async def test_a_stream_that_fails_is_told_once(engine: Engine) -> None:
    api = household.sample()
    api.failing["events"] = EngineStoppedError("gone")
    failures: list[BaseException] = []
    told = threading.Event()

    def on_failure(error: BaseException) -> None:
        failures.append(error)
        told.set()

    Bridge(engine(api), api).follow(lambda _: None, on_failure)
    assert await asyncio.to_thread(told.wait, 5)
    assert [str(error) for error in failures] == ["gone"]
