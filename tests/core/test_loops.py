"""Work that crosses from one loop to another: results, errors, cancelling, and the end of the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Iterator

import pytest
import trio

from core.errors import EngineStoppedError, PathNotFoundError
from core.loops import TrioThread

PATIENCE_S = 10.0


@pytest.fixture
def loop() -> Iterator[TrioThread]:
    thread = TrioThread("engine")
    thread.start(trio.sleep_forever)
    yield thread
    thread.stop()
    assert thread.join(PATIENCE_S)
    assert thread.failure is None


async def add(left: int, right: int) -> int:
    await trio.lowlevel.checkpoint()
    return left + right


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise PathNotFoundError("no such thing", hint="look elsewhere")


class Sleeper:
    """Sleeps until cancelled, and tells."""

    def __init__(self) -> None:
        self.asleep = threading.Event()
        self.cancelled = threading.Event()

    async def sleep(self) -> None:
        self.asleep.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


def test_a_thread_gets_the_result(loop: TrioThread) -> None:
    assert loop.submit(add, 1, 2).result(PATIENCE_S) == 3


def test_an_error_comes_over_whole(loop: TrioThread) -> None:
    with pytest.raises(PathNotFoundError, match="no such thing") as caught:
        loop.submit(fail).result(PATIENCE_S)
    assert caught.value.hint == "look elsewhere"
    assert loop.submit(add, 1, 1).result(PATIENCE_S) == 2


def test_cancelling_the_future_cancels_the_work(loop: TrioThread) -> None:
    sleeper = Sleeper()
    future = loop.submit(sleeper.sleep)
    assert sleeper.asleep.wait(PATIENCE_S)
    assert future.cancel()
    assert sleeper.cancelled.wait(PATIENCE_S)


@pytest.mark.asyncio
async def test_asyncio_gets_the_result_and_cancels(loop: TrioThread) -> None:
    assert await asyncio.wrap_future(loop.submit(add, 2, 3)) == 5
    sleeper = Sleeper()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(loop.submit(sleeper.sleep)), 0.05)
    assert await asyncio.to_thread(sleeper.cancelled.wait, PATIENCE_S)


@pytest.mark.trio
async def test_another_trio_loop_gets_the_result(loop: TrioThread) -> None:
    assert await loop.call(add, 3, 4) == 7
    with pytest.raises(PathNotFoundError):
        await loop.call(fail)


@pytest.mark.trio
async def test_cancelling_the_caller_cancels_the_work(loop: TrioThread) -> None:
    sleeper = Sleeper()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.call, sleeper.sleep)
            await trio.to_thread.run_sync(sleeper.asleep.wait, PATIENCE_S)
            scope.cancel()
    assert await trio.to_thread.run_sync(sleeper.cancelled.wait, PATIENCE_S)


def test_pending_calls_fail_when_the_loop_ends() -> None:
    loop = TrioThread("engine")
    loop.start(trio.sleep_forever)
    sleeper = Sleeper()
    pending = loop.submit(sleeper.sleep)
    assert sleeper.asleep.wait(PATIENCE_S)
    loop.stop()
    with pytest.raises(EngineStoppedError):
        pending.result(PATIENCE_S)
    assert loop.join(PATIENCE_S)
    with pytest.raises(EngineStoppedError, match="engine"):
        loop.submit(add, 1, 2).result(PATIENCE_S)
    assert not loop.post(print)


def test_a_loop_that_fails_says_why_and_fails_its_calls(caplog: pytest.LogCaptureFixture) -> None:
    broken = threading.Event()

    async def main() -> None:
        await trio.to_thread.run_sync(broken.wait, PATIENCE_S)
        raise ZeroDivisionError("bug")

    loop = TrioThread("engine")
    loop.start(main)
    sleeper = Sleeper()
    pending = loop.submit(sleeper.sleep)
    assert sleeper.asleep.wait(PATIENCE_S)
    with caplog.at_level(logging.CRITICAL, "realize"):
        broken.set()
        with pytest.raises(EngineStoppedError):
            pending.result(PATIENCE_S)
        assert loop.join(PATIENCE_S)
    assert loop.failure is not None
    assert "bug" in repr(loop.failure)


def test_a_posted_callback_that_raises_ends_nothing(
    loop: TrioThread, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()
    assert loop.post(lambda: 1 // 0)
    assert loop.post(done.set)
    assert done.wait(PATIENCE_S)
    assert loop.submit(add, 1, 2).result(PATIENCE_S) == 3
    assert "posted callback failed" in caplog.text


def test_calls_while_it_stops_all_come_back() -> None:
    for _ in range(20):
        loop = TrioThread("engine")
        loop.start(trio.sleep_forever)
        with concurrent.futures.ThreadPoolExecutor(1) as caller:
            asked = [caller.submit(loop.submit, add, 1, number) for number in range(50)]
            loop.stop()
            futures = [future.result(PATIENCE_S) for future in asked]
        assert loop.join(PATIENCE_S)
        for number, future in enumerate(futures):
            error = future.exception(PATIENCE_S)
            assert isinstance(error, EngineStoppedError) if error else future.result() == 1 + number
