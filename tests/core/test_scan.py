from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.disk import Seen, open_root
from core.ignore import Ignore
from core.ports import LocalRow
from core.scan import Directory, Walked, difference, walk
from core.types import Kind, RelPath
from core.watch import Watcher

ROOT = RelPath(b"")
FILE = Seen(Kind.FILE, 5, 100, 0o644, 7)
DIR = Seen(Kind.DIR, 0, 100, 0o755, 8)
LINK = Seen(Kind.SYMLINK, 0, 100, 0o777, 9, b"to")


def row(seen: Seen, *, hashed: bool = True) -> LocalRow:
    kind, size, mtime_ns, mode, ino, target = seen[:6]
    return LocalRow(kind, size, mtime_ns, mode, ino, hashed, False, target)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (None, FILE, "content"),
        (FILE, FILE, None),
        (FILE, FILE._replace(size=6), "content"),
        (FILE, FILE._replace(mtime_ns=101), "content"),
        (FILE, FILE._replace(ino=70), "content"),
        (FILE, FILE._replace(mode=0o600), "metadata"),
        (FILE, FILE._replace(mode=0o600, size=6), "content"),
        (None, DIR, "content"),
        (DIR, DIR._replace(mtime_ns=200, ino=80), None),
        (DIR, DIR._replace(mode=0o700), "metadata"),
        (LINK, LINK._replace(ino=90), None),
        (LINK, LINK._replace(target=b"from"), "content"),
        (LINK, LINK._replace(mtime_ns=200), "metadata"),
        (FILE, DIR, "content"),
        (DIR, LINK, "content"),
        (LINK, FILE, "content"),
    ],
)
def test_what_counts_as_a_change(before: Seen | None, after: Seen, change: str | None) -> None:
    found = difference(RelPath(b"d"), b"n", row(before) if before else None, after)
    if change is None:
        assert found is None
        return
    assert found is not None
    assert (found.directory, found.name) == (b"d", b"n")
    assert found[2:8] == after[:6]
    assert found.same_content is (change == "metadata")


class Tree:
    """A directory to be listed, with what a store would know of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root_fd = open_root(root)
        self.watcher = Watcher()
        self.ignore = Ignore(["*.tmp"])

    def walk(self, known: dict[bytes, LocalRow] | None = None, path: bytes = b"") -> Walked:
        return walk(self.root_fd, [Directory(RelPath(path), known or {})], self.watcher, self.ignore)

    def row(self, name: str, *, hashed: bool = True) -> LocalRow:
        found = os.lstat(self.root / name)
        return LocalRow(
            Kind.FILE, found.st_size, found.st_mtime_ns, found.st_mode & 0o777, found.st_ino, hashed, False
        )


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "root").mkdir()
    made = Tree(tmp_path / "root")
    yield made
    made.watcher.close()
    os.close(made.root_fd)


def test_everything_new_is_found(tree: Tree) -> None:
    (tree.root / "f").write_bytes(b"data")
    (tree.root / "d").mkdir()
    os.symlink("../outside", tree.root / "link")
    walked = tree.walk()
    assert {(item.name, item.kind) for item in walked.found} == {
        (b"f", Kind.FILE),
        (b"d", Kind.DIR),
        (b"link", Kind.SYMLINK),
    }
    assert walked.below == [b"d"]
    assert (walked.unhashed_files, walked.unhashed_bytes) == (1, 4)
    assert tree.watcher.count() == 1


def test_sockets_fifos_and_ignored_names_are_left_out(tree: Tree) -> None:
    os.mkfifo(tree.root / "fifo")
    (tree.root / "x.tmp").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tree.root)
        try:
            listener.bind("sock")
        finally:
            os.chdir(here)
    assert tree.walk().found == []


def test_what_did_not_change_is_not_reported(tree: Tree) -> None:
    (tree.root / "f").write_bytes(b"data")
    (tree.root / "g").write_bytes(b"data")
    walked = tree.walk({b"f": tree.row("f"), b"g": tree.row("g", hashed=False)})
    assert (walked.found, walked.gone) == ([], [])
    assert (walked.files, walked.unhashed_files) == (2, 1)


def test_known_names_that_are_missing_are_gone_unless_ignored(tree: Tree) -> None:
    walked = tree.walk({b"f": row(FILE), b"x.tmp": row(FILE)})
    assert walked.gone == [b"f"]


def test_a_fifo_in_the_place_of_a_file_is_a_deletion(tree: Tree) -> None:
    os.mkfifo(tree.root / "f")
    assert tree.walk({b"f": row(FILE)}).gone == [b"f"]


def test_a_directory_that_became_something_else_is_told_apart(tree: Tree) -> None:
    os.symlink("elsewhere", tree.root / "d")
    walked = tree.walk({b"d": row(DIR)})
    assert walked.replaced == [b"d"]
    assert walked.below == []


def test_a_directory_that_vanished_fails_and_loses_nothing(tree: Tree) -> None:
    walked = tree.walk({b"f": row(FILE)}, b"none")
    assert [path for path, _ in walked.failed] == [b"none"]
    assert walked.gone == []


def test_a_link_in_the_place_of_a_directory_is_not_entered(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    os.symlink("../outside", tree.root / "d")
    walked = tree.walk(path=b"d")
    assert walked.found == []
    assert [path for path, _ in walked.failed] == [b"d"]


def test_odd_names_are_found(tree: Tree) -> None:
    names = {b"\xff\xfe", b"a\nb", b"c:\\d", b".hidden", b"x" * 255}
    for name in names:
        (tree.root / os.fsdecode(name)).touch()
    assert {item.name for item in tree.walk().found} == names


def test_a_step_ends_when_it_found_enough(tree: Tree) -> None:
    for number in range(3):
        (tree.root / f"d{number}").mkdir()
        for file in range(600):
            (tree.root / f"d{number}" / f"{file}").touch()
    directories = [Directory(RelPath(b"d%d" % number), {}) for number in range(3)]
    walked = walk(tree.root_fd, directories, tree.watcher, tree.ignore)
    assert walked.rest
    found = len(walked.found)
    while walked.rest:  # a step ends by time as well
        walked = walk(tree.root_fd, walked.rest, tree.watcher, tree.ignore)
        found += len(walked.found)
    assert found == 1800


def test_ignore_files_are_read_as_directories_are_listed(tree: Tree) -> None:
    (tree.root / ".realizeignore").write_text("*.o\n")
    (tree.root / "a.o").touch()
    (tree.root / "a.c").touch()
    assert {item.name for item in tree.walk().found} == {b".realizeignore", b"a.c"}
