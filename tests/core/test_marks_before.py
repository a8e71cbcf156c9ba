"""Marks of paths that do not exist yet: they wait, survive, hold when the path comes, and can be removed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from core import markattr
from core.api import ArenaPath
from core.errors import NotADirError, PathNotFoundError
from core.trimming import trim
from core.types import FileState, Mark
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio


def a_year_later() -> int:
    return int(time.time()) + 365 * 86_400


def at(path: str) -> ArenaPath:
    return ArenaPath("docs", path.encode())


async def test_a_mark_set_before_anybody_has_the_path_holds_when_it_comes(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    async with bert.up():
        await bert.mark("trips/2030", Mark.KEEP)
        await bert.mark("letter", Mark.OWN)
        assert await bert.entries() == {}, "nothing is shown for it"
    async with bert.up():
        await trim(bert.arena.cache, 1 << 40, a_year_later())
        info = await bert.service.mark_get(at("trips/2030"))
        assert (info.mark, info.explicit, info.exists) == (Mark.KEEP, True, False)
        assert [(row.at, row.mark, row.exists) for row in await bert.service.mark_list()] == [
            (at("letter"), Mark.OWN, False),
            (at("trips/2030"), Mark.KEEP, False),
        ]
        why = await bert.service.why(at("letter"))
        assert why.entry is None
        assert dict(why.lines)["mark"] == "own, set here"
        assert "as soon as" in dict(why.lines)["next"]
        anna.write("trips/2030/plan", b"plan")
        anna.write("letter", b"letter")
        async with anna.up(), linked(anna, bert):
            await until(lambda: bert.real() == {b"letter": b"letter"})
            await until(lambda: bert.node("trips/2030/plan"))
            await anna.idle()
            await bert.idle()
            entries = await bert.entries()
            assert entries[b"trips/2030/plan"].state is FileState.KEPT
            assert all(row.exists for row in await bert.service.mark_list())


async def test_a_file_made_here_gets_the_mark_that_waited_for_it(tmp_path: Path) -> None:
    host = Host(tmp_path, "anna", [])
    async with host.up():
        await host.mark("d/later", Mark.OWN)
        file = host.write("d/later", b"now")
        await until(lambda: markattr.read(bytes(file)) == b"own")
        assert (await host.service.mark_get(at("d/later"))).exists


async def test_what_waits_can_be_removed_and_leaves_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, "anna", [])
    host.write("file", b"file")
    async with host.up():
        await host.idle()
        await host.mark("a/b/c", Mark.KEEP)
        await host.mark("a/b/c", None)
        await trim(host.arena.cache, 1 << 40, a_year_later())
        assert host.arena.cache.tree.find(b"a") is None
        assert await host.service.mark_list() == ()
        with pytest.raises(PathNotFoundError):
            await host.service.mark_get(at("a/b/c"))
        with pytest.raises(PathNotFoundError):
            await host.mark("a/b/c", None)
        with pytest.raises(PathNotFoundError, match="fiel does not exist") as caught:
            await host.mark("fiel", None)
        assert "file" in caught.value.hint
        with pytest.raises(NotADirError):
            await host.mark("file/below", Mark.KEEP)
        assert host.arena.cache.tree.find(b"file/below") is None


async def test_the_mark_of_a_deleted_file_stays_known_and_can_be_removed(tmp_path: Path) -> None:
    host = Host(tmp_path, "anna", [])
    file = host.write("file", b"file")
    async with host.up():
        await host.idle()
        await host.mark("file", Mark.KEEP)
        file.unlink()
        await until(lambda: host.node("file") is None)
        [row] = await host.service.mark_list()
        assert (row.at, row.exists) == (at("file"), False)
        assert not (await host.service.mark_get(at("file"))).exists
        await host.mark("file", None)
        assert await host.service.mark_list() == ()


@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_the_mark_holds_for_what_is_renamed_to_the_path(tmp_path: Path, kind: str) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    inside = "" if kind == "file" else "/inside"
    anna.write(f"draft{inside}", b"text")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node(f"draft{inside}"))
        await anna.idle()
        await bert.idle()
        await anna.mark("letter", Mark.OWN)
        await bert.mark("letter", Mark.KEEP)
        (anna.data / "draft").rename(anna.data / "letter")
        await until(lambda: bert.node(f"letter{inside}") and not bert.node("draft"))
        await anna.idle()
        await bert.idle()
        assert (anna.explicit("letter"), bert.explicit("letter")) == (Mark.OWN, Mark.KEEP)
        for host in (anna, bert):
            assert [row.at for row in await host.service.mark_list()] == [at("letter")]
        assert (await bert.entries())[f"letter{inside}".encode()].state is FileState.KEPT


async def test_a_mark_of_its_own_goes_before_the_one_that_waited(tmp_path: Path) -> None:
    host = Host(tmp_path, "anna", [])
    host.write("draft", b"text")
    async with host.up():
        await host.idle()
        await host.mark("draft", Mark.KEEP)
        await host.mark("letter", Mark.OWN)
        (host.data / "draft").rename(host.data / "letter")
        await until(lambda: host.node("letter"))
        await host.idle()
        assert host.explicit("letter") is Mark.KEEP
        assert [row.at for row in await host.service.mark_list()] == [at("letter")]
