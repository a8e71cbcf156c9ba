"""Datadirs away or exchanged, clocks years apart, trees of unusual form: between engines."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.api import ArenaPath
from core.errors import ChangedError
from core.types import Kind, Mark
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio

NAMES = [f"d/{number}" for number in range(8)] + ["top"]
YEAR_NS = 365 * 86_400 * 10**9


# -- the datadir


def symlink_to_another(data: Path) -> None:
    data.rename(data.parent / "aside")
    (data.parent / "other").mkdir()
    (data.parent / "other/foreign").write_bytes(b"foreign")
    data.symlink_to(data.parent / "other")


def symlink_to_nowhere(data: Path) -> None:
    data.rename(data.parent / "aside")
    data.symlink_to(data.parent / "nowhere")


def empty(data: Path) -> None:
    data.rename(data.parent / "aside")
    data.mkdir()


def another(data: Path) -> None:
    data.rename(data.parent / "aside")
    data.mkdir()
    (data / "foreign").write_bytes(b"foreign")


def a_file(data: Path) -> None:
    data.rename(data.parent / "aside")
    data.write_bytes(b"")


def gone(data: Path) -> None:
    data.rename(data.parent / "aside")


WAYS = [symlink_to_another, symlink_to_nowhere, empty, another, a_file, gone]


def back(data: Path) -> None:
    if data.is_symlink() or data.is_file():
        data.unlink()
    elif data.exists():
        shutil.rmtree(data)
    (data.parent / "aside").rename(data)


def household(tmp_path: Path) -> tuple[Host, Host]:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    for name in NAMES:
        anna.write(name, name.encode())
    return anna, bert


@pytest.mark.parametrize("live", [True, False], ids=["while running", "while down"])
@pytest.mark.parametrize("replaced", WAYS)
async def test_a_datadir_replaced_by_something_else_is_offline_and_deletes_nothing(
    tmp_path: Path, replaced: Callable[[Path], None], live: bool
) -> None:
    anna, bert = household(tmp_path)
    async with bert.up():
        await bert.mark("", Mark.OWN)
        async with anna.up(), linked(anna, bert):
            await until(lambda: len(bert.real()) == len(NAMES))
            await anna.idle()
            if live:
                replaced(anna.data)
                await until(lambda: bool(anna.arena.offline))
                await bert.idle()
        if not live:
            replaced(anna.data)
        async with anna.up(), linked(anna, bert):
            await until(lambda: bool(anna.arena.offline))
            # What others do meanwhile does not reach what is in the datadir's place.
            bert.write("new", b"new")
            await anna.mark("", Mark.OWN)
            await until(lambda: anna.node("new") is not None)
            await bert.idle()
            await anna.idle()
            for place in (anna.data, anna.data.parent / "other"):
                assert not place.is_dir() or set(os.listdir(place)) <= {"foreign"}
            assert len(bert.real()) == len(NAMES) + 1
            assert "foreign" not in {path.decode() for path in await bert.entries()}

            back(anna.data)
            await until(lambda: not anna.arena.offline)
            await until(lambda: len(anna.real()) == len(NAMES) + 1)
            await anna.idle()
            await bert.idle()
            assert anna.real() == bert.real()
            assert await anna.tree() == await bert.tree()
            assert not await bert.service.trash_list()


async def test_two_directories_exchanged_while_down_are_two_renames(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    for number in range(20):
        anna.write(f"left/{number}", b"left %d" % number)
        anna.write(f"right/{number}", b"right %d" % number)
    async with bert.up():
        async with anna.up(), linked(anna, bert):
            await bert.mark("", Mark.OWN)
            await until(lambda: len(bert.real()) == 40)
            await bert.idle()
        for source, target in (("left", "aside"), ("right", "left"), ("aside", "right")):
            (anna.data / source).rename(anna.data / target)
        served: list[object] = []
        async with anna.up():
            read_small = anna.running.provider.read_small

            async def counted(arena: str, contents: list[object]) -> object:
                served.extend(contents)
                return await read_small(arena, contents)  # type: ignore[arg-type]

            anna.running.provider.read_small = counted  # type: ignore[assignment,method-assign]
            async with linked(anna, bert):
                await until(lambda: (bert.data / "left/0").read_bytes() == b"right 0")
                await anna.idle()
                await bert.idle()
        assert bert.real() == anna.real()
        assert len(bert.real()) == 40
        assert served == [], "no content is transferred"
        # Names that are taken by each other are not renamed but copied from each other, here.
        assert {row.why for row in await bert.service.trash_list()} <= {"replaced"}


# -- clocks


@pytest.mark.parametrize("years", [-30, 30])
async def test_clocks_years_apart_change_nothing_of_the_order(
    tmp_path: Path, years: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    shift_ns = years * YEAR_NS
    anna.write("f", b"first")
    async with anna.up():
        wrong = SimpleNamespace(time_ns=lambda: time.time_ns() + shift_ns)
        monkeypatch.setattr("core.engine.time", wrong)  # bert's engine takes its clock from here
        async with bert.up(), linked(anna, bert):
            await bert.mark("", Mark.OWN)
            await anna.mark("", Mark.OWN)
            await until(lambda: bert.real() == {b"f": b"first"})
            os.utime(anna.data / "f", ns=(0, time.time_ns()))
            for number in range(4):
                # Each edits what the other wrote last; the times of the files say the contrary.
                host, other = (bert, anna) if number % 2 == 0 else (anna, bert)
                await host.idle()
                await other.idle()
                data = b"edit %d" % number
                path = host.write("f", data)
                mtime_ns = time.time_ns() - (number + 1) * YEAR_NS + (shift_ns if host is bert else 0)
                os.utime(path, ns=(mtime_ns, mtime_ns))
                await until(lambda o=other, d=data: o.real() == {b"f": d})  # type: ignore[misc]
            (bert.data / "f").unlink()
            await until(lambda: anna.real() == {})
            await anna.idle()
            assert not await anna.service.conflicts()
            assert not await bert.service.conflicts()


# -- unusual trees


async def test_names_of_255_bytes_and_300_levels_travel_and_become_real(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    deep = anna.data
    for level in range(300):
        deep = deep / f"{level % 10}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"deep")
    longest = "ü" * 127 + "x"
    assert len(longest.encode()) == 255
    anna.write(f"{longest}/{longest}", b"long")
    bottom, long = str((deep / "bottom").relative_to(anna.data)), f"{longest}/{longest}"
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node(bottom) is not None and bert.node(long) is not None)
        await anna.idle()
        await bert.idle()
        await bert.mark(bottom, Mark.OWN)
        await bert.mark(long, Mark.OWN)
        await until(lambda: (bert.data / bottom).exists() and (bert.data / long).exists())
        await bert.idle()
        assert bert.real() == anna.real()
        shutil.rmtree(anna.data / "0")
        await until(lambda: not (bert.data / bottom).exists())
        await until(lambda: bert.node("0") is None)


async def test_ten_thousand_files_in_one_directory_travel_and_go(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    count = 10_000
    for number in range(count):
        anna.write(f"d/{number:05d}", b"%d" % (number % 50))
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node(f"d/{count - 1:05d}") is not None)
        await anna.idle()
        await bert.idle()
        page = await bert.service.listdir(_at("d"), limit=10_000)
        assert all(entry.kind is Kind.FILE and entry.hash is not None for entry in page.entries)
        await bert.mark("d/00007", Mark.OWN)
        await until(lambda: (bert.data / "d/00007").exists())


# -- files that become something else


async def test_a_file_that_becomes_a_symlink_or_directory_is_never_followed_out(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_bytes(b"secret")
    anna.write("d/f", b"shared")
    anna.write("g", b"shared as well")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("d/f") is not None and bert.node("g") is not None)
        await anna.idle()
        # Before the index can look: the paths that peers ask for lead out of the arena.
        async with anna.arena.exclusive():
            (anna.data / "d").rename(anna.base / "d aside")
            (anna.data / "d").symlink_to(secret)
            (anna.data / "g").unlink()
            (anna.data / "g").symlink_to(secret / "f")
            contents = [entry.hash for entry in (await bert.entries()).values() if entry.hash]
            assert len(contents) == 2
            provider = anna.running.provider
            assert await provider.read_small("docs", contents) == [None, None]  # type: ignore[arg-type]
            for content in contents:
                with pytest.raises(ChangedError):
                    provider.open_content("docs", content)  # type: ignore[arg-type]
        await bert.mark("", Mark.OWN)
        await until(lambda: (bert.data / "d").is_symlink() and (bert.data / "g").is_symlink())
        await bert.idle()
        assert b"secret" not in bert.real().values()
        # And the other way: what is to become real here is not put where a link leads.
        (bert.data / "d").unlink()
        await until(lambda: not (anna.data / "d").is_symlink())
        anna.write("d/new", b"new")
        (bert.data / "d").symlink_to(secret)
        await anna.idle()
        await bert.idle()
        assert os.listdir(secret) == ["f"]
        assert (secret / "f").read_bytes() == b"secret"


def _at(path: str) -> ArenaPath:
    return ArenaPath("docs", path.encode())
