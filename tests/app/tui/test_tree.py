"""The tree of the arenas pane against a directory that changes under it."""

from __future__ import annotations

import random

import msgspec
import pytest

from app.tui.cells import Text
from app.tui.rows import entry_row
from app.tui.tree import Node, Notice, Tree
from core.api import ArenaPath, Entry
from core.paths import join
from core.types import FileState, Kind, Mark

PAGE = 10


def entry(path: bytes, *, directory: bool = False, size: int = 0) -> Entry:
    return Entry(
        arena="a", path=path, kind=Kind.DIR if directory else Kind.FILE, size=size, mtime_ns=0, mode=0o644,
        hash=None, state=FileState.ONLINE, mark=Mark.WATCH, mark_explicit=False, holders=(), conflict=False,
    )  # fmt: skip


class Directory:
    """What `Api.listdir` does, for one directory of files."""

    def __init__(self, names: set[bytes]) -> None:
        self.names = names
        self.asked = 0

    def serve(self, tree: Tree, rows: range) -> bool:
        """Answer what the tree wants for these rows to be right; says whether it wanted something."""
        wanted = tree.wanted(rows)
        for node, after in wanted:
            self.asked += 1
            later = sorted(name for name in self.names if name > after)
            page = [entry(join(node.at.path, name), size=len(name)) for name in later[:PAGE]]
            tree.put(node, after, page, len(later) > PAGE)
        return bool(wanted)

    def settle(self, tree: Tree, rows: range | None = None) -> None:
        for _ in range(200):
            visible = range(len(tree.rows)) if rows is None else rows
            if not self.serve(tree, range(visible.start, min(visible.stop, len(tree.rows)))):
                return
        pytest.fail("the tree never has enough")


def names(tree: Tree) -> list[bytes]:
    return [row.at.path for row in tree.rows if isinstance(row, Node) and row.at.path]


def opened(directory: Directory) -> Tree:
    tree = Tree()
    tree.set_arenas(["a"])
    tree.expand(tree.roots[0])
    return tree


def test_a_conflict_is_what_the_row_of_a_path_says_first() -> None:
    conflicting = msgspec.structs.replace(entry(b"plan.txt"), state=FileState.ONLY_HERE, conflict=True)
    row = entry_row(conflicting, Text(()), None, marked=False, progress={})
    assert "conflict" in str(row.cells[1])


def test_only_what_is_looked_at_is_loaded() -> None:
    directory = Directory({b"%05d" % n for n in range(10_000)})
    tree = opened(directory)
    directory.settle(tree, range(0, 30))
    assert directory.asked <= 5
    assert names(tree)[:3] == [b"00000", b"00001", b"00002"]
    last = tree.rows[-1]
    assert isinstance(last, Notice)
    assert last.loads


@pytest.mark.parametrize("seed", range(12))
def test_the_visible_part_is_right_after_any_change(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tui.tree.WINDOW", 3)
    rng = random.Random(seed)
    pool = [b"%03d" % n for n in range(300)]
    directory = Directory(set(rng.sample(pool, 120)))
    tree = opened(directory)
    for _ in range(40):
        if rng.random() < 0.5:
            directory.names ^= set(rng.sample(pool, rng.randrange(1, 40)))
        tree.touch(ArenaPath("a"))
        top = rng.randrange(max(1, len(tree.rows)))
        visible = range(top, top + 15)
        directory.settle(tree, visible)
        rows = tree.rows[visible.start : visible.stop]
        seen = [row.at.path for row in rows if isinstance(row, Node) and row.at.path]
        assert all(name in directory.names for name in seen)
        if seen:
            between = sorted(name for name in directory.names if seen[0] <= name <= seen[-1])
            assert seen == between
    tree.touch(ArenaPath("a"))
    directory.settle(tree)
    assert names(tree) == sorted(directory.names)


def test_a_directory_that_becomes_a_file_loses_what_was_in_it() -> None:
    tree = Tree()
    tree.set_arenas(["a"])
    root = tree.roots[0]
    tree.expand(root)
    tree.put(root, b"", [entry(b"x", directory=True)], False)
    x = tree.node(ArenaPath("a", b"x"))
    assert x is not None
    tree.expand(x)
    tree.put(x, b"", [entry(b"x/y")], False)
    assert names(tree) == [b"x", b"x/y"]
    tree.put(root, b"", [entry(b"x")], False)
    assert names(tree) == [b"x"]
    assert tree.node(ArenaPath("a", b"x/y")) is None


def test_sorting_by_size_loads_all_and_shows_the_greatest_first() -> None:
    directory = Directory({b"x" * n for n in range(1, 60)})
    tree = opened(directory)
    tree.sort_by("size", False)
    directory.settle(tree, range(0, 5))
    sizes = [row.size for row in tree.rows if isinstance(row, Node) and row.at.path]
    assert sizes == sorted(range(1, 60), reverse=True)
    tree.sort_by("size", True)
    assert isinstance(tree.rows[1], Node)
    assert tree.rows[1].size == 1


def test_an_empty_directory_says_so_until_something_is_in_it() -> None:
    directory = Directory(set())
    tree = opened(directory)
    directory.settle(tree)
    assert [row.text for row in tree.rows if isinstance(row, Notice)] == ["empty"]
    directory.names.add(b"new")
    tree.touch(ArenaPath("a"))
    directory.settle(tree)
    assert names(tree) == [b"new"]


def test_a_directory_that_cannot_be_read_says_why_and_is_tried_again_after_a_change() -> None:
    directory = Directory({b"x"})
    tree = opened(directory)
    tree.fail(tree.roots[0], "gone")
    assert [row.text for row in tree.rows if isinstance(row, Notice)] == ["gone"]
    tree.touch_arena("a")
    directory.settle(tree)
    assert names(tree) == [b"x"]


def test_arenas_come_and_go() -> None:
    directory = Directory({b"x"})
    tree = opened(directory)
    directory.settle(tree)
    tree.set_arenas(["b", "a"])
    assert [row.at for row in tree.rows if isinstance(row, Node)] == [
        ArenaPath("b"), ArenaPath("a"), ArenaPath("a", b"x"),
    ]  # fmt: skip
    tree.set_arenas(["b"])
    assert tree.node(ArenaPath("a", b"x")) is None


def test_three_hundred_levels_are_shown() -> None:
    tree = Tree()
    tree.set_arenas(["a"])
    node, path = tree.roots[0], b""
    for _ in range(300):
        tree.expand(node)
        path = join(path, b"d")
        tree.put(node, b"", [entry(path, directory=True)], False)
        found = tree.node(ArenaPath("a", path))
        assert found is not None
        node = found
    assert len(names(tree)) == 300
