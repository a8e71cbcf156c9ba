"""Content that is in this arena already is never fetched from a peer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from core.types import FileState, Mark
from net.link import Link
from tests.core.engines import Host, linked, until

LARGE = os.urandom(3_000_000)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Host, Host]:
    return Host(tmp_path, "a", ["b"], mark=Mark.OWN), Host(tmp_path, "b", ["a"])


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The peers that content was asked of."""
    asked: list[str] = []
    for name in ("read", "read_many"):
        real: Any = getattr(Link, name)

        def counted(self: Link, *args: object, real: Any = real) -> object:  # noqa: ANN401
            asked.append(self.name)
            return real(self, *args)

        monkeypatch.setattr(Link, name, counted)
    return asked


@pytest.mark.trio
@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_a_copy_made_at_a_peer_is_copied_here(
    pair: tuple[Host, Host], requests: list[str], data: bytes
) -> None:
    a, b = pair
    a.write("first", data)
    async with a.up(), b.up():
        async with linked(a, b):
            await b.mark("", Mark.OWN)
            await until(lambda: b.real() == {b"first": data})
            await b.idle()
            assert requests
            requests.clear()
            a.write("second", data)
            await until(lambda: b.real() == {b"first": data, b"second": data})
            await b.idle()
            await b.mark("", Mark.WATCH)
            a.write("third", data)
            await until(lambda: b.node("third"))
            await a.idle()
        # Nobody is connected any more, and nobody is needed.
        await b.mark("third", Mark.KEEP)
        await b.idle()
        assert (await b.entries())[b"third"].state is FileState.KEPT
    assert requests == []


@pytest.mark.trio
async def test_what_went_to_the_trash_comes_back_from_there(
    pair: tuple[Host, Host], requests: list[str]
) -> None:
    a, b = pair
    a.write("f", LARGE)
    async with a.up(), b.up(), linked(a, b):
        await b.mark("", Mark.OWN)
        await until(lambda: b.real() == {b"f": LARGE})
        await b.idle()
        requests.clear()
        (a.data / "f").unlink()
        await until(lambda: b.real() == {})
        await b.idle()
        a.write("g", LARGE)
        await until(lambda: b.real() == {b"g": LARGE})
        await b.idle()
    assert requests == []


@pytest.mark.trio
async def test_a_file_that_is_not_what_it_was_is_not_copied(
    pair: tuple[Host, Host], requests: list[str]
) -> None:
    a, b = pair
    a.write("first", LARGE)
    async with a.up(), b.up(), linked(a, b):
        await b.mark("", Mark.OWN)
        await until(lambda: b.real() == {b"first": LARGE})
        await a.idle()
        await b.idle()
        # The disk gives something else, and nothing shows it.
        at = b.data / "first"
        before = at.stat()
        with at.open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"bad block")
        os.utime(at, ns=(before.st_atime_ns, before.st_mtime_ns))
        await b.idle()
        requests.clear()
        a.write("second", LARGE)
        await until(lambda: b.real().get(b"second") == LARGE)
        assert requests
