from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.disk import open_root, opened
from core.ignore import IGNORE_FILE, TEMP_PREFIX, Ignore
from core.types import RelPath

Load = Callable[[Ignore, bytes], None]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(ignore: Ignore, directory: bytes) -> None:
        root_fd = open_root(tmp_path)
        try:
            with opened(root_fd, directory, os.O_RDONLY | os.O_DIRECTORY) as fd:
                ignore.load(RelPath(directory), fd)
        finally:
            os.close(root_fd)

    return load


def write(tmp_path: Path, directory: str, text: bytes) -> None:
    (tmp_path / directory).mkdir(parents=True, exist_ok=True)
    (tmp_path / directory / os.fsdecode(IGNORE_FILE)).write_bytes(text)


@pytest.mark.parametrize(
    ("pattern", "path", "is_dir", "ignored"),
    [
        ("*.tmp", b"a.tmp", False, True),
        ("*.tmp", b"d/e/a.tmp", False, True),
        ("*.tmp", b"a.tmpx", False, False),
        ("/build/", b"build", True, True),
        ("/build/", b"build", False, False),
        ("/build/", b"build/x/y", False, True),
        ("/build/", b"sub/build", True, False),
        ("build", b"sub/build/x", False, True),
        ("doc/*.txt", b"doc/a.txt", False, True),
        ("doc/*.txt", b"doc/sub/a.txt", False, False),
        ("a/**/b", b"a/x/y/b", False, True),
        ("a/**/b", b"a/b", False, True),
        ("# note", b"# note", False, False),
        ("\\#x", b"#x", False, True),
        ("f?", b"fx", False, True),
        ("*.tmp", b"new\nline.tmp", False, True),
        ("*.tmp", b"name.tmp\n", False, False),
        ("*", b"\n", False, True),
        ("*.tmp", b"\xff\xfe.tmp", False, True),
        ("é*", "été".encode(), False, True),
        ("[ab]x", b"bx", False, True),
        ("*/", b"d", True, True),
        ("*/", b"f", False, False),
    ],
)
def test_patterns_of_the_config(pattern: str, path: bytes, is_dir: bool, ignored: bool) -> None:
    assert Ignore([pattern]).ignored(RelPath(path), is_dir=is_dir) is ignored


def test_the_last_pattern_decides() -> None:
    ignore = Ignore(["*.log", "!keep.log", "/old/keep.log"])
    assert ignore.ignored(RelPath(b"x.log"), is_dir=False)
    assert not ignore.ignored(RelPath(b"d/keep.log"), is_dir=False)
    assert ignore.ignored(RelPath(b"old/keep.log"), is_dir=False)


def test_nothing_comes_back_from_an_ignored_directory() -> None:
    ignore = Ignore(["out/", "!out/keep"])
    assert ignore.ignored(RelPath(b"out/keep"), is_dir=False)


def test_taking_back_a_directory_does_not_take_back_what_other_patterns_cover() -> None:
    ignore = Ignore(["*.tmp", "!d/"])
    assert ignore.ignored(RelPath(b"d/x.tmp"), is_dir=False)


def test_files_apply_to_their_directory_and_below(tmp_path: Path, load: Load) -> None:
    write(tmp_path, "a", b"*.o\n/top\n")
    ignore = Ignore([])
    load(ignore, b"a")
    assert ignore.ignored(RelPath(b"a/x.o"), is_dir=False)
    assert ignore.ignored(RelPath(b"a/b/c/x.o"), is_dir=False)
    assert ignore.ignored(RelPath(b"a/top"), is_dir=False)
    assert not ignore.ignored(RelPath(b"a/b/top"), is_dir=False)
    assert not ignore.ignored(RelPath(b"x.o"), is_dir=False)
    assert not ignore.ignored(RelPath(b"ab/x.o"), is_dir=False)


def test_deeper_files_win_over_higher_ones_and_over_the_config(tmp_path: Path, load: Load) -> None:
    write(tmp_path, "", b"*.o\n!x.bak\n")
    write(tmp_path, "a", b"!keep.o\n")
    ignore = Ignore(["*.bak"])
    load(ignore, b"")
    load(ignore, b"a")
    assert not ignore.ignored(RelPath(b"a/keep.o"), is_dir=False)
    assert ignore.ignored(RelPath(b"keep.o"), is_dir=False)
    assert not ignore.ignored(RelPath(b"a/x.bak"), is_dir=False)
    assert ignore.ignored(RelPath(b"a/y.bak"), is_dir=False)


def test_a_changed_file_is_taken_over_and_a_removed_one_forgotten(tmp_path: Path, load: Load) -> None:
    write(tmp_path, "", b"a\n")
    ignore = Ignore([])
    load(ignore, b"")
    write(tmp_path, "", b"b\n")
    load(ignore, b"")
    assert not ignore.ignored(RelPath(b"a"), is_dir=False)
    assert ignore.ignored(RelPath(b"b"), is_dir=False)
    (tmp_path / os.fsdecode(IGNORE_FILE)).unlink()
    load(ignore, b"")
    assert not ignore.ignored(RelPath(b"b"), is_dir=False)


def test_a_bad_line_is_logged_and_the_others_apply(caplog: pytest.LogCaptureFixture) -> None:
    ignore = Ignore(["trailing\\", "*.tmp"])
    assert ignore.ignored(RelPath(b"x.tmp"), is_dir=False)
    assert "is not a pattern" in caplog.text


def test_an_ignore_file_that_is_a_link_or_fifo_is_not_followed(tmp_path: Path, load: Load) -> None:
    (tmp_path / "secret").write_text("*")
    os.symlink("secret", tmp_path / os.fsdecode(IGNORE_FILE))
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / os.fsdecode(IGNORE_FILE))
    ignore = Ignore([])
    load(ignore, b"")
    load(ignore, b"d")
    assert not ignore.ignored(RelPath(b"d/x"), is_dir=False)


def test_names_of_our_own_are_always_ignored() -> None:
    ignore = Ignore([])
    assert ignore.ignored(RelPath(TEMP_PREFIX + b"1"), is_dir=False)
    assert ignore.ignored(RelPath(b"d/" + TEMP_PREFIX + b"1/x"), is_dir=False)
    assert not ignore.ignored(RelPath(b"d/x"), is_dir=False)
