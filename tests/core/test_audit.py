"""The audit log has every change of a file or blob, with its cause and the content before and after."""

import json
import os
from pathlib import Path

import pytest
from blake3 import blake3

from core import audit
from core.api import ArenaPath, LogLine
from core.audit import AuditLog
from core.config import DiskUsage
from core.events import FileChanged
from core.types import Mark, RelPath
from tests.core.engines import Host, linked, until

DAY_NS = 24 * 3600 * 1_000_000_000


def at(path: str) -> ArenaPath:
    return ArenaPath("docs", path.encode())


def _hex(data: bytes) -> str:
    return blake3(data).hexdigest()


async def _log(host: Host, path: str = "") -> list[LogLine]:
    return [line async for batch in host.service.log(at(path)) for line in batch]


async def _said(host: Host, path: str) -> list[tuple[str, str, str, str | None, str | None]]:
    """Return what the log says of a path: what, cause, peer, before, after."""
    return [
        (line.what, line.cause, line.peer, line.before, line.after)
        for line in await _log(host, path)
        if line.at.path == path.encode()
    ]


@pytest.mark.trio
async def test_each_change_by_the_user_is_one_line_with_both_contents(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    async with anna.up():
        anna.write("d/f", b"one")
        await anna.idle()
        anna.write("d/f", b"the second")
        await anna.idle()
        os.rename(anna.data / "d/f", anna.data / "d/g")
        await until(lambda: anna.node("d/g") and not anna.node("d/f"))
        (anna.data / "d/g").unlink()
        await until(lambda: not anna.node("d/g"))
        assert await _said(anna, "d/f") == [
            ("added", "user", "", None, _hex(b"one")),
            ("replaced", "user", "", _hex(b"one"), _hex(b"the second")),
        ]
        second = _hex(b"the second")
        assert await _said(anna, "d/g") == [
            ("renamed", "user", "", second, second),
            ("removed", "user", "", second, None),
        ]
        (renamed,) = [line for line in await _log(anna) if line.what == "renamed"]
        assert renamed.detail == "from d/f"


@pytest.mark.trio
async def test_changes_of_many_files_at_once_are_a_line_each(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    for number in range(300):
        anna.write(f"d/{number}", b"%d" % number)
    async with anna.up():
        await anna.idle()
        added = {line.at.path: line.after for line in await _log(anna, "d") if line.what == "added"}
        assert {path: after for path, after in added.items() if path != b"d"} == {
            b"d/%d" % n: _hex(b"%d" % n) for n in range(300)
        }
        for number in range(200):
            (anna.data / f"d/{number}").unlink()
        await until(lambda: anna.arena.index and anna.arena.index.held_files == 200)
        await anna.service.arena_confirm_deletes("docs")
        await until(lambda: not anna.node("d/7"))
        removed = {line.at.path: line.before for line in await _log(anna, "d") if line.what == "removed"}
        assert removed == {b"d/%d" % n: _hex(b"%d" % n) for n in range(200)}


@pytest.mark.trio
async def test_a_removed_directory_names_every_file_in_it(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    anna.write("d/a", b"a")
    anna.write("d/sub/b", b"b")
    async with anna.up():
        await anna.idle()
        os.rename(anna.data / "d", tmp_path / "elsewhere")
        await until(lambda: not anna.node("d"))
        removed = {line.at.path: line.before for line in await _log(anna) if line.what == "removed"}
        assert removed == {b"d": None, b"d/a": _hex(b"a"), b"d/sub": None, b"d/sub/b": _hex(b"b")}


@pytest.mark.trio
async def test_what_a_peer_causes_names_it(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN)
    bert = Host(tmp_path, "bert", ["anna"])
    anna.write("own", b"one")
    anna.write("kept", b"one kept")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("own") and bert.node("kept"))
        await bert.mark("own", Mark.OWN)
        await bert.mark("kept", Mark.KEEP)
        await bert.idle()
        anna.write("own", b"the second")
        anna.write("kept", b"the second kept")
        await until(lambda: bert.real() == {b"own": b"the second"})
        await bert.idle()
        await until(lambda: bert.arena.cache.cached.has(blake3(b"the second kept").digest(), 0))
        (anna.data / "own").unlink()
        await until(lambda: not bert.node("own"))
        await bert.idle()
        one, second = _hex(b"one"), _hex(b"the second")
        assert [line for line in await _said(bert, "own") if line[0] in ("added", "replaced", "removed")] == [
            ("added", "mark", "", None, one),
            ("replaced", "peer", "anna", one, second),
            ("removed", "peer", "anna", second, None),
        ]
        assert await _said(bert, "kept") == [
            ("mark", "user", "", None, None),
            ("available", "mark", "", None, _hex(b"one kept")),
            ("dropped", "peer", "anna", _hex(b"one kept"), None),
            ("available", "mark", "", None, _hex(b"the second kept")),
        ]


@pytest.mark.trio
async def test_what_is_given_up_says_why(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", ["bert"])
    bert = Host(tmp_path, "bert", ["anna"], disk_usage=DiskUsage(max=140_000))
    first, second, third = (os.urandom(45_000) for _ in range(3))
    anna.write("a", first)
    anna.write("b", second)
    async with anna.up(), bert.up(), linked(anna, bert):
        await anna.idle()
        await until(lambda: bert.node("b"))
        for path in ("a", "b"):
            _ = [step async for step in bert.service.get([at(path)])]
        _ = [step async for step in bert.service.evict([at("a")])]
        assert await _said(bert, "a") == [
            ("available", "user", "", None, _hex(first)),
            ("evicted", "user", "", _hex(first), None),
        ]
        anna.write("b", third)  # the old content goes to the trash
        await anna.idle()
        await until(lambda: bert.arena.cache.trash.at(b"b"))
        _ = [step async for step in bert.service.get([at("a"), at("b")])]
        said = await _said(bert, "b")
        assert ("evicted", "quota", "", _hex(second), None) in said
        (line,) = [line for line in await _log(bert, "b") if line.what == "evicted"]
        assert "in the trash" in line.detail


@pytest.mark.trio
async def test_damage_and_repair_are_recorded(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN)
    bert = Host(tmp_path, "bert", ["anna"])
    good = b"good " * 1000
    anna.write("real", good)
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("real"))
        await bert.mark("real", Mark.OWN)
        await until(lambda: bert.real() == {b"real": good})
        await bert.idle()
        path = bert.data / "real"
        found = path.stat()
        async with bert.arena.exclusive():
            path.write_bytes(b"BAD" + good[3:])
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        bad = b"BAD" + good[3:]
        _ = [step async for step in bert.service.verify(at("real"))]
        assert (await _said(bert, "real"))[-2:] == [
            ("damaged", "disk", "", _hex(good), _hex(bad)),
            ("repaired", "user", "", _hex(bad), _hex(good)),
        ]


def test_the_log_is_rotated_by_size_and_age_and_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 2000)
    log = AuditLog(tmp_path, "docs")

    def write(day: int) -> None:
        log.on_event(
            FileChanged(arena="docs", path=RelPath(b"f"), what="added", cause="user", at_ns=day * DAY_NS)
        )

    def days() -> list[int]:
        files = sorted(tmp_path.glob("*.jsonl"), key=lambda path: (path.name == audit.CURRENT, path.name))
        return [
            json.loads(line)["at_ns"] // DAY_NS for path in files for line in path.read_text().splitlines()
        ]

    def current() -> int:
        return len((tmp_path / audit.CURRENT).read_text().splitlines())

    for _ in range(20):
        write(1000)
    assert days() == [1000] * 20
    assert 0 < current() < 15
    log.close()
    log = AuditLog(tmp_path, "docs")  # a restart does not make the file young again
    write(1050)
    assert current() > 1
    write(1091)
    assert current() == 1, "the file had lines of more than 90 days ago"
    assert days()[-2:] == [1050, 1091]
    write(1182)
    assert days() == [1091, 1182]
    log.close()
