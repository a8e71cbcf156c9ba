"""The trash: what was replaced or deleted is listed as long as it is held, and comes back."""

import os
from pathlib import Path

import pytest
from blake3 import blake3

from core.api import ArenaPath
from core.displaced import Why
from core.errors import PathNotFoundError, PathReadOnlyError
from core.events import AnyEvent, FilesChanged
from core.trashrows import Reason
from core.types import Mark, RelPath
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio

NS = 1_600_000_000_123_456_789


def at(path: str) -> ArenaPath:
    return ArenaPath("docs", path.encode())


async def _listed(host: Host, path: str | None = None) -> list[tuple[bytes, str, str, bytes]]:
    rows = await host.service.trash_list(at(path) if path is not None else None)
    return [(row.at.path, row.why, row.by, row.hash) for row in rows]


def _hash(data: bytes) -> bytes:
    return blake3(data).digest()


async def test_content_replaced_and_deleted_by_a_peer_is_in_the_trash_and_comes_back(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    anna.write("notes/a.txt", b"first")
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.OWN)
        await until(lambda: bert.real() == {b"notes/a.txt": b"first"})
        anna.write("notes/a.txt", b"second!")
        await until(lambda: bert.real() == {b"notes/a.txt": b"second!"})
        await until(lambda: bert.arena.cache.trash.at(b"notes/a.txt"))
        assert await _listed(bert) == [(b"notes/a.txt", "replaced", "anna", _hash(b"first"))]
        (anna.data / "notes/a.txt").unlink()
        await until(lambda: not bert.real())
        await bert.idle()
        assert [row[1:3] for row in await _listed(bert, "notes")] == [
            ("deleted", "anna"),
            ("replaced", "anna"),
        ]
        assert await _listed(anna) == [], "what its own user deleted is not held by us"

        (restored,) = await bert.service.trash_restore(at("notes/a.txt"))
        assert (restored.at, restored.size, restored.error) == (at("notes/a.txt"), 7, "")
        assert bert.real() == {b"notes/a.txt": b"second!"}
        await until(lambda: anna.node("notes/a.txt"))
        assert (await anna.tree())[b"notes/a.txt"] == _hash(b"second!")

        await bert.service.trash_restore(at("notes/a.txt"), content=_hash(b"first")[:4])
        assert bert.real() == {b"notes/a.txt": b"first"}
        assert await _listed(bert) == [(b"notes/a.txt", "replaced", "bert", _hash(b"second!"))]
        await bert.idle()
        await anna.idle()
        assert await anna.tree() == await bert.tree()
        assert not (await anna.entries())[b"notes/a.txt"].conflict


async def test_a_restored_file_has_its_time_and_mode(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    path = anna.write("tool.sh", b"#!/bin/sh\n")
    path.chmod(0o750)
    os.utime(path, ns=(NS, NS))
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.OWN)
        await until(lambda: bert.real())
        path.unlink()
        await until(lambda: not bert.real())
        await bert.idle()
        (row,) = await bert.service.trash_list()
        assert (row.mtime_ns, row.mode, row.size) == (NS, 0o750, 10)
        await bert.service.trash_restore(at("tool.sh"))
        found = (bert.data / "tool.sh").stat()
        assert (found.st_mtime_ns, found.st_mode & 0o777) == (NS, 0o750)


async def test_a_directory_comes_back_without_touching_what_is_there_again(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    for name in ("d/one", "d/sub/two", "d/three"):
        anna.write(name, name.encode())
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.OWN)
        await until(lambda: len(bert.real()) == 3)
        for name in ("d/one", "d/sub/two", "d/three"):
            (anna.data / name).unlink()
        await until(lambda: not bert.real())
        anna.write("d/three", b"new")
        await until(lambda: bert.real() == {b"d/three": b"new"})
        await bert.idle()
        restored = await bert.service.trash_restore(at("d"))
        assert sorted((row.at.path, row.error) for row in restored) == [(b"d/one", ""), (b"d/sub/two", "")]
        assert bert.real() == {b"d/one": b"d/one", b"d/sub/two": b"d/sub/two", b"d/three": b"new"}
        with pytest.raises(PathNotFoundError, match="not in the trash"):
            await bert.service.trash_restore(at("nothing"))


async def test_an_outdated_cached_copy_goes_to_the_trash_and_can_not_be_restored_without_a_datadir(
    tmp_path: Path,
) -> None:
    anna = Host(tmp_path, "anna", ["viewer"])
    viewer = Host(tmp_path, "viewer", ["anna"], datadir=None)
    anna.write("f", b"old content")
    async with anna.up(), viewer.up(), linked(anna, viewer):
        await viewer.mark("", Mark.KEEP)
        await until(lambda: viewer.arena.blobs.held(_hash(b"old content")))  # type: ignore[arg-type]
        await viewer.idle()
        anna.write("f", b"newer content")
        await until(lambda: viewer.arena.blobs.held(_hash(b"newer content")))  # type: ignore[arg-type]
        await viewer.idle()
        assert await _listed(viewer) == [(b"f", "replaced", "anna", _hash(b"old content"))]
        with pytest.raises(PathReadOnlyError, match="no datadir"):
            await viewer.service.trash_restore(at("f"))


async def test_the_row_goes_with_the_content(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    anna.write("f", b"content")
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.OWN)
        await until(lambda: bert.real())
        (anna.data / "f").unlink()
        await until(lambda: bert.arena.cache.trash.at(b"f"))
        await bert.idle()
        await bert.arena.blobs.remove([row.hash for row in bert.arena.cache.trash.at(b"f")])
        assert await bert.service.trash_list() == ()
    async with bert.up():
        count = bert.arena.cache.conn.execute("SELECT count(*) FROM trash").get
        assert count == 0, "a row without content is removed at the start"


async def test_a_file_that_a_crash_left_displaced_is_found_in_the_trash(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    anna.write("gone.txt", b"still wanted")
    anna.write("other.txt", b"here")
    async with anna.up():
        await anna.idle()
        node = anna.node("gone.txt")
    (anna.data / "gone.txt").rename(anna.base / f"work/work/old-unhashed-{node}-7")
    async with anna.up():
        await anna.idle()
        (row,) = await anna.service.trash_list()
        assert (row.at, row.hash) == (at("gone.txt"), _hash(b"still wanted"))
        await anna.service.trash_restore(at("gone.txt"))
        assert anna.real() == {b"gone.txt": b"still wanted", b"other.txt": b"here"}


async def test_what_was_replaced_goes_to_the_trash_though_churten_is_stopped_before_it_is_there(
    tmp_path: Path,
) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    path = anna.write("f", b"old")

    def stop_churten(event: AnyEvent) -> None:
        if isinstance(event, FilesChanged) and event.what == "replaced":
            bert.running.churten.stop()

    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.OWN)
        await until(bert.real)
        await bert.idle()
        bert.running.events.tap(stop_churten)
        path.write_bytes(b"new")
        await until(lambda: bert.real() == {b"f": b"new"})
        await until(lambda: not bert.running.churten.running)  # told once the swap is recorded

        async def in_trash() -> bool:
            await bert.arena.displaced.settle_waiting()
            return await _listed(bert) == [(b"f", "replaced", "anna", _hash(b"old"))]

        await until(in_trash)
        assert not list(bert.arena.work_path.iterdir())


async def test_a_deleted_file_with_another_name_is_copied_to_the_trash(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    path = anna.write("f", b"content")
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.OWN)
        await until(lambda: bert.real())
        other = tmp_path / "other"
        os.link(bert.data / "f", other)
        path.unlink()
        await until(lambda: bert.arena.cache.trash.at(b"f"))
        await bert.idle()
        other.write_bytes(b"changed by its other name")
        assert await bert.arena.blobs.verify(_hash(b"content"))  # type: ignore[arg-type]
        assert other.stat().st_mode & 0o777 != 0o600, "nor is its mode changed"


async def test_what_a_directory_of_the_trash_holds_is_found_name_by_name(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    async with anna.up():
        arena = anna.arena
        for number, path in enumerate([b"a", b"a-b", b"a.b", b"a/x", b"a/y/z", b"b/c", b"\xff"]):
            source = arena.work_path / f"old-unhashed-0-{number}"
            source.write_bytes(path)
            assert await arena.displaced.settle(source, RelPath(path), Why(Reason.DELETED))
        trash = arena.cache.trash
        assert list(trash.names_in(b"")) == [
            (b"a", True, True),
            (b"a-b", True, False),
            (b"a.b", True, False),
            (b"b", False, True),
            (b"\xff", True, False),
        ]
        assert list(trash.names_in(b"a")) == [(b"x", True, False), (b"y", False, True)]
        assert [row.path for row in trash.below(b"a")] == [b"a/x", b"a/y/z"]
