"""``why``: what is said of a path is so, in words that lead on."""

import shutil
from pathlib import Path

import pytest

from core.api import ArenaPath
from core.types import Mark
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio


async def _why(host: Host, path: str) -> dict[str, str]:
    return dict((await host.service.why(ArenaPath("docs", path.encode()))).lines)


async def test_where_a_mark_comes_from_can_be_given_to_other_commands(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    anna.write("d/e/f")
    async with anna.up():
        await anna.idle()
        assert (await _why(anna, "d/e/f"))["mark"] == "watch, the default of the arena"
        await anna.mark("d", Mark.KEEP)
        assert (await _why(anna, "d"))["mark"] == "keep, set here"
        assert (await _why(anna, "d/e/f"))["mark"] == "keep, inherited from docs/d"
        await anna.mark("d", None)
        await anna.mark("", Mark.KEEP)
        assert (await _why(anna, "d/e/f"))["mark"] == "keep, inherited from docs"


async def test_sizes_are_for_people_and_exact(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    anna.write("small", b"x")
    anna.write("large", bytes(3 << 20))
    async with anna.up():
        await anna.idle()
        assert (await _why(anna, "small"))["shown"].startswith("1 byte, content ")
        assert (await _why(anna, "large"))["shown"].startswith("3.0 M (3145728 bytes), content ")
        assert (await _why(anna, ""))["cache"] == "0 B used"


async def test_a_read_of_what_is_gone_from_the_datadir_comes_from_elsewhere(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN)
    bert = Host(tmp_path, "bert", ["anna"])
    for number in range(150):
        anna.write(f"d/{number}", b"%d" % number)
    anna.write("stays")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("d/7") and bert.node("stays"))
        await bert.mark("d", Mark.OWN)
        await until(lambda: len(bert.real()) == 150)
        await bert.idle()
        await anna.idle()
        assert (await _why(anna, "d/7"))["a read now"] == "comes from the datadir"
        shutil.rmtree(anna.data / "d")
        await until(lambda: anna.arena.index and anna.arena.index.held_files == 150)
        lines = await _why(anna, "d/7")
        assert lines["a read now"] == "comes from bert"
        assert "150 files in all; `realize arena confirm-deletes docs`" in lines["deletion held"]
        assert "150 files" in (await _why(anna, ""))["deletion held"]
        assert (await _why(anna, "stays"))["a read now"] == "comes from the datadir"


async def test_while_the_datadir_is_away_what_is_to_be_real_waits_for_it(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN)
    bert = Host(tmp_path, "bert", ["anna"])
    anna.write("f", b"data")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("f"))
        await anna.idle()
        bert.data.rename(bert.base / "away")
        await until(lambda: bert.arena.offline)
        await bert.mark("f", Mark.OWN)
        await bert.idle()
        lines = await _why(bert, "f")
        assert "the datadir is not used" in lines["offline"]
        assert lines["next"] == "it becomes a real file when the datadir is back"
        (bert.base / "away").rename(bert.data)
        await until(lambda: bert.real() == {b"f": b"data"})
