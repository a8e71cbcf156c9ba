"""A large download ends as soon as what it fetches is not what is wanted any more."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from core.events import JobChanged
from core.types import FileState, Hash, Mark
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio

SIZE = 256 << 20


def _sparse(host: Host, name: str, size: int = SIZE) -> Hash:
    with open(host.data / name, "wb") as file:
        file.truncate(size)
    return Hash(blake3(bytes(size)).digest())


async def _half_way(host: Host, content: Hash) -> None:
    def begun() -> bool:
        row = host.arena.blobs.info(content)
        return row is not None and bool(row.ranges) and not row.held

    await until(begun)


def _ended(host: Host) -> list[str]:
    return [
        event.phase
        for event in host.events
        if isinstance(event, JobChanged) and event.path == b"film" and event.action == "download"
    ]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: os.truncate(a.data / "film", 2 << 20), id="changed"),
        pytest.param(lambda a: (a.data / "film").unlink(), id="deleted"),
    ],
)
async def test_by_a_change_at_the_holder(tmp_path: Path, change: Callable[[Host], None]) -> None:
    a, b, c = (Host(tmp_path, name, [o for o in "abc" if o != name], mark=Mark.OWN) for name in "abc")
    content = _sparse(a, "film")
    async with a.up(), b.up(), c.up(), linked(a, b, c):
        b.running.churten.stop()
        await until(lambda: (c.data / "film").exists())
        for host in (a, b, c):
            await host.idle()
        c.running.churten.stop()  # the old content can still be had, from c
        b.running.churten.start()
        await _half_way(b, content)
        change(a)
        await until(lambda: "cancelled" in _ended(b))
        await b.idle()
        assert not b.arena.blobs.held(content)


async def test_by_its_mark(tmp_path: Path) -> None:
    a, b = Host(tmp_path, "a", ["b"], mark=Mark.OWN), Host(tmp_path, "b", ["a"])
    content = _sparse(a, "film")
    async with a.up(), b.up(), linked(a, b):
        await until(lambda: b.node("film"))
        await a.idle()
        await b.mark("film", Mark.KEEP)
        await _half_way(b, content)
        await b.mark("film", Mark.WATCH)
        await until(lambda: "cancelled" in _ended(b))
        await b.idle()
        entry = (await b.entries())[b"film"]
        assert entry.state is FileState.PARTIAL
        assert 0 < entry.held < SIZE, "what has come is kept, and can be evicted"
        await b.mark("film", Mark.KEEP)
        await until(lambda: b.arena.blobs.held(content))
        assert _ended(b)[-1] == "finished"
