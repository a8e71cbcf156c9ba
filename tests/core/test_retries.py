"""When jobs that failed are tried again, and what ends the wait: by a mock clock, hours in a moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from core.api import JobRow
from core.errors import ChangedError
from core.events import JobChanged
from core.types import FileState, Mark
from core.work import NO_HOLDER, RETRY_S
from tests.core.engines import Host, linked, until
from tests.sim.world import World

SIZES = [pytest.param(100, id="small"), pytest.param(3 << 20, id="large")]


def simulated(main: Callable[[], Awaitable[None]], seed: int = 1) -> None:
    with World(seed) as world:
        trio.run(main, clock=world.clock)


def refuse(host: Host) -> None:
    """Let a host give nothing, though it says that it holds it."""

    async def read_small(arena: str, contents: list[object]) -> list[None]:
        return [None] * len(contents)

    def open_content(arena: str, content: object) -> None:
        raise ChangedError("the content is not held any more")

    async def blocks(arena: str, content: object) -> None:
        raise ChangedError("the content is not held any more")

    host.running.provider.read_small = read_small  # type: ignore[assignment,method-assign]
    host.running.provider.open_content = open_content  # type: ignore[assignment,method-assign]
    host.running.provider.blocks = blocks  # type: ignore[assignment,method-assign]


def give(host: Host) -> None:
    for name in ("read_small", "open_content", "blocks"):
        host.running.provider.__dict__.pop(name, None)


def tries_s(host: Host) -> list[float]:
    """Return when downloads were begun, in seconds."""
    return [
        event.at_ns / 1e9
        for event in host.events
        if isinstance(event, JobChanged) and event.phase == "started" and event.action == "download"
    ]


async def waiting(host: Host) -> JobRow:
    (row,) = [row for row in (await host.service.jobs()).rows if row.at.path == b"film"]
    return row


def pair(tmp_path: Path) -> tuple[Host, Host]:
    return Host(tmp_path, "anna", ["bert"], mark=Mark.OWN), Host(tmp_path, "bert", ["anna"])


async def known(bert: Host) -> None:
    async def hashed() -> bool:
        entry = (await bert.entries()).get(b"film")
        return entry is not None and entry.hash is not None

    await until(hashed)


@pytest.mark.parametrize("size", SIZES)
def test_what_failed_is_tried_again_after_ever_longer_times_with_jitter(tmp_path: Path, size: int) -> None:
    anna, bert = pair(tmp_path)
    anna.write("film", bytes(size))

    async def main() -> None:
        async with anna.up(), bert.up(), linked(anna, bert):
            await known(bert)
            refuse(anna)
            await bert.mark("film", Mark.KEEP)
            await trio.sleep(4800)
            row = await waiting(bert)
            assert row.state == "failed"
            assert row.reason
            assert row.retry_s is not None
            assert 0 < row.retry_s <= 1800 * 1.2
            assert "tried" in dict((await bert.service.why(row.at)).lines)["next"]
            assert (await bert.service.status()).churten.failed == 1
            expected = [*RETRY_S, RETRY_S[-1]]
            pauses = [after - before for before, after in pairwise(tries_s(bert))][: len(expected)]
            for pause, base in zip(pauses, expected, strict=True):
                assert 0.79 * base <= pause <= 1.21 * base + 3, (pause, base)
            assert len({pause / base for pause, base in zip(pauses, expected, strict=True)}) > 3, "jitter"

    assert RETRY_S == (1, 5, 30, 300, 1800)
    simulated(main)


def test_a_restart_keeps_the_wait_and_a_clock_set_back_does_not_prolong_it(tmp_path: Path) -> None:
    anna, bert = pair(tmp_path)
    anna.write("film", bytes(100))

    async def main() -> None:
        async with anna.up():
            async with bert.up(), linked(anna, bert):
                await known(bert)
                refuse(anna)
                await bert.mark("film", Mark.KEEP)
                await trio.sleep(200)
                assert len(tries_s(bert)) == 4
            bert.events.clear()
            async with bert.up(), linked(anna, bert):
                await trio.sleep(30)
                assert tries_s(bert) == [], "it was put off for five minutes"
                await trio.sleep(400)
                assert len(tries_s(bert)) == 1
                # As after a clock that was years ahead.
                cache = bert.arena.cache
                with cache.write():
                    cache.conn.execute("UPDATE dirty SET due_ns = due_ns + ?", (10**9 * 86_400 * 365 * 5,))
                give(anna)
                await trio.sleep(2400)
                assert (await bert.entries())[b"film"].state is FileState.KEPT

    simulated(main)


def test_without_a_holder_nothing_is_tried_until_one_connects(tmp_path: Path) -> None:
    anna, bert = pair(tmp_path)
    anna.write("film", bytes(100))

    async def main() -> None:
        async with anna.up(), bert.up():
            async with linked(anna, bert):
                await known(bert)
            await bert.mark("film", Mark.KEEP)
            await trio.sleep(10)
            row = await waiting(bert)
            assert (row.state, row.reason, row.retry_s) == ("waiting", NO_HOLDER, None)
            assert (await bert.service.status()).churten.failed == 0
            before = tries_s(bert)
            await trio.sleep(3000)
            assert tries_s(bert) == before, "it is no use"
            async with linked(anna, bert):
                await trio.sleep(1)
                assert (await bert.entries())[b"film"].state is FileState.KEPT

    simulated(main)


@pytest.mark.parametrize("size", SIZES)
def test_a_change_of_the_node_ends_the_wait(tmp_path: Path, size: int) -> None:
    anna, bert = pair(tmp_path)
    anna.write("film", bytes(size))

    async def main() -> None:
        async with anna.up(), bert.up(), linked(anna, bert):
            await known(bert)
            refuse(anna)
            await bert.mark("film", Mark.KEEP)
            await trio.sleep(60)
            row = await waiting(bert)
            assert row.retry_s is not None
            assert row.retry_s > 100
            give(anna)
            anna.write("film", b"\1" * size)
            await trio.sleep(5)
            entry = (await bert.entries())[b"film"]
            assert (entry.state, entry.held) == (FileState.KEPT, size)
            assert (await bert.service.jobs()).rows == ()

            refuse(anna)
            anna.write("film", b"\2" * size)
            await trio.sleep(60)
            assert (await waiting(bert)).retry_s is not None
            await bert.mark("film", None)
            await trio.sleep(1)
            assert (await bert.service.jobs()).rows == (), "nothing wants it any more"
            before = tries_s(bert)
            await trio.sleep(1000)
            assert tries_s(bert) == before

    simulated(main)


def test_a_user_may_have_it_tried_at_once(tmp_path: Path) -> None:
    anna, bert = pair(tmp_path)
    anna.write("film", bytes(100))

    async def main() -> None:
        async with anna.up(), bert.up(), linked(anna, bert):
            await known(bert)
            refuse(anna)
            await bert.mark("film", Mark.KEEP)
            await trio.sleep(600)
            give(anna)
            await bert.service.job_retry((await waiting(bert)).at)
            await trio.sleep(1)
            assert (await bert.entries())[b"film"].state is FileState.KEPT

    simulated(main)
