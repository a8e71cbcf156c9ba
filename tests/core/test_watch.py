from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from inotify_simple import Event, flags

from core.disk import DIR_FLAGS, open_root, opened
from core.types import RelPath
from core.watch import Noticed, Watcher, What

ROOT = RelPath(b"")


class Watched:
    """A directory tree with a watcher on every directory of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root_fd = open_root(root)
        self.watcher = Watcher()
        self.watch(b"")

    def watch(self, directory: bytes) -> None:
        with opened(self.root_fd, directory, DIR_FLAGS) as fd:
            assert self.watcher.add(RelPath(directory), fd)

    def mkdir(self, name: str) -> None:
        (self.root / name).mkdir()
        self.watch(os.fsencode(name))

    async def seen(self) -> list[Noticed]:
        """Return everything that the kernel has reported so far."""
        out: list[Noticed] = []
        while self.watcher.waiting():
            out += await self.watcher.next()
        return out

    async def summary(self) -> list[tuple[bytes, What]]:
        return [(event.path, event.what) for event in await self.seen()]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "root").mkdir()
    watched = Watched(tmp_path / "root")
    yield watched
    watched.watcher.close()
    os.close(watched.root_fd)


@pytest.mark.trio
async def test_a_new_file_is_created_written_and_closed(tree: Watched) -> None:
    (tree.root / "f").write_bytes(b"data")
    assert await tree.summary() == [(b"f", What.CREATED), (b"f", What.MODIFIED), (b"f", What.CLOSED)]


@pytest.mark.trio
async def test_waiting_for_events_wakes_when_one_comes(tree: Watched) -> None:
    async def make() -> None:
        (tree.root / "f").touch()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make)
        with trio.fail_after(5):
            events = await tree.watcher.next()
    assert events[0] == Noticed(RelPath(b"f"), What.CREATED)


@pytest.mark.trio
async def test_odd_names_come_as_they_are(tree: Watched) -> None:
    names = [b"\xff\xfe", b"a\nb", b"c:\\d", b"x" * 255]
    for name in names:
        (tree.root / os.fsdecode(name)).mkdir()
    assert [event.path for event in await tree.seen()] == names


@pytest.mark.trio
async def test_deletions_and_attributes(tree: Watched) -> None:
    (tree.root / "f").touch()
    await tree.seen()
    (tree.root / "f").chmod(0o600)
    (tree.root / "f").unlink()
    assert (await tree.summary())[-1] == (b"f", What.GONE)


@pytest.mark.trio
async def test_a_rename_inside_names_where_it_came_from(tree: Watched) -> None:
    tree.mkdir("d")
    (tree.root / "f").touch()
    await tree.seen()
    (tree.root / "f").rename(tree.root / "d" / "g")
    assert await tree.seen() == [
        Noticed(RelPath(b"f"), What.GONE),
        Noticed(RelPath(b"d/g"), What.MOVED_HERE, moved_from=RelPath(b"f")),
    ]


@pytest.mark.trio
async def test_events_below_a_renamed_directory_have_the_new_path(tree: Watched) -> None:
    for name in ("a", "a/b", "ab"):
        tree.mkdir(name)
    await tree.seen()
    (tree.root / "a").rename(tree.root / "z")
    (tree.root / "z" / "b" / "f").touch()
    (tree.root / "ab" / "f").touch()
    paths = [event.path for event in await tree.seen()]
    assert paths[:2] == [b"a", b"z"]
    assert b"z/b/f" in paths
    assert b"ab/f" in paths


@pytest.mark.trio
async def test_a_directory_that_leaves_is_not_watched_any_more(tree: Watched, tmp_path: Path) -> None:
    tree.mkdir("d")
    await tree.seen()
    (tree.root / "d").rename(tmp_path / "elsewhere")
    assert await tree.summary() == [(b"d", What.GONE)]
    (tree.root / "f").touch()
    await tree.seen()
    (tmp_path / "elsewhere" / "x").touch()
    assert await tree.summary() == []
    assert tree.watcher.count() == 1


@pytest.mark.trio
async def test_a_file_moved_in_from_elsewhere_has_no_origin(tree: Watched, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "f").rename(tree.root / "f")
    assert await tree.seen() == [Noticed(RelPath(b"f"), What.MOVED_HERE)]


@pytest.mark.trio
async def test_the_root_moved_away_is_noticed(tree: Watched, tmp_path: Path) -> None:
    tree.root.rename(tmp_path / "other")
    assert (b"", What.ROOT_GONE) in await tree.summary()


@pytest.mark.trio
async def test_a_deleted_directory_is_one_event_and_its_watch_is_gone(tree: Watched) -> None:
    tree.mkdir("d")
    await tree.seen()
    (tree.root / "d").rmdir()
    assert await tree.summary() == [(b"d", What.GONE)]
    assert tree.watcher.count() == 1


@pytest.mark.trio
async def test_a_link_in_the_place_of_a_directory_is_not_watched(tree: Watched, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    os.symlink("../outside", tree.root / "link")
    with pytest.raises(OSError, match="link"), opened(tree.root_fd, b"link", DIR_FLAGS):
        pass


def test_an_overflow_means_that_anything_may_have_changed(tree: Watched) -> None:
    overflow = Event(-1, int(flags.Q_OVERFLOW), 0, "")
    assert tree.watcher.translate([overflow]) == [Noticed(ROOT, What.LOST, True)]


def test_a_lost_watch_means_that_its_directory_may_have_changed(tree: Watched) -> None:
    tree.mkdir("d")
    wd = tree.watcher._inotify.add_watch(tree.root / "d", int(flags.CREATE | flags.MASK_ADD))
    noticed = tree.watcher.translate([Event(wd, int(flags.IGNORED), 0, "")])
    assert noticed == [Noticed(RelPath(b"d"), What.LOST, True)]


def test_the_two_halves_of_a_rename_may_come_in_two_reads(tree: Watched) -> None:
    wd = tree.watcher._inotify.add_watch(tree.root, int(flags.CREATE | flags.MASK_ADD))
    assert tree.watcher.translate([Event(wd, int(flags.MOVED_FROM), 7, "a")]) == [
        Noticed(RelPath(b"a"), What.GONE)
    ]
    assert tree.watcher.translate([Event(wd, int(flags.MOVED_TO), 7, "b")]) == [
        Noticed(RelPath(b"b"), What.MOVED_HERE, moved_from=RelPath(b"a"))
    ]
    assert tree.watcher.translate([Event(wd, int(flags.MOVED_TO), 7, "c")]) == [
        Noticed(RelPath(b"c"), What.MOVED_HERE)
    ]


def test_when_the_limit_of_watches_is_reached_the_directory_is_remembered(
    tree: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    (tree.root / "d").mkdir()
    with opened(tree.root_fd, b"d", DIR_FLAGS) as fd:
        with monkeypatch.context() as patched:
            patched.setattr(tree.watcher._inotify, "add_watch", full)
            assert not tree.watcher.add(RelPath(b"d"), fd)
        assert tree.watcher.unwatched == {b"d"}
        assert tree.watcher.add(RelPath(b"d"), fd)
    assert not tree.watcher.unwatched
