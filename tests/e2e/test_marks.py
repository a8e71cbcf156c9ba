"""Marks decide what is held: keep caches, own makes real files, changes replace both."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.household import (
    WAIT_S,
    Household,
    Peer,
    attribute,
    fails_with,
    hashed,
    household_of,
    put,
    reads,
    wait_until,
)

MARK = "user.realize.mark"
LONG_AGO_NS = 1_500_000_000_123_456_789


@pytest.fixture(scope="module")
def household() -> Iterator[Household]:
    with household_of("anna", "bert") as both:
        yield both


@pytest.fixture
def anna(household: Household) -> Peer:
    return household.peers[0]


@pytest.fixture
def bert(household: Household) -> Peer:
    return household.peers[1]


def in_state(path: Path, state: str) -> bool:
    return attribute(path, "state") == state


def shared(anna: Peer, bert: Peer, name: str, content: bytes) -> tuple[Path, Path, Path]:
    """Give a file to all: the real one at anna, the shown one at bert, the real one bert may get."""
    source = put(anna.datadir() / name, content, mtime_ns=LONG_AGO_NS)
    shown = bert.view() / name
    wait_until(partial(hashed, shown), WAIT_S, f"{name} with its hash")
    return source, shown, bert.datadir() / name


def test_keep_caches_without_a_reader_and_follows_changes(anna: Peer, bert: Peer) -> None:
    source, shown, here = shared(anna, bert, "keep/one.txt", b"first")
    bert.command("mark", "set", "keep", "docs/keep/one.txt")
    wait_until(partial(in_state, shown, "kept"), WAIT_S, "kept")
    assert attribute(shown, "progress") == "5/5"
    source.write_bytes(b"second, longer")
    wait_until(
        lambda: in_state(shown, "kept") and attribute(shown, "progress") == "14/14", WAIT_S, "the change"
    )
    assert shown.read_bytes() == b"second, longer"
    assert not here.exists(), "keep makes no real file"


def test_keep_on_a_directory_covers_all_below_and_what_comes_later(anna: Peer, bert: Peer) -> None:
    for number in range(30):
        put(anna.datadir() / f"album/{number % 3}/{number}.txt", b"%d" % number * 1000)
    bert.command("mark", "set", "keep", "docs/album")
    for number in range(30):
        wait_until(
            partial(in_state, bert.view() / f"album/{number % 3}/{number}.txt", "kept"), WAIT_S, str(number)
        )
    put(anna.datadir() / "album/new/later.txt", b"later")
    wait_until(partial(in_state, bert.view() / "album/new/later.txt", "kept"), WAIT_S, "the new one")


def test_own_makes_a_real_file_with_time_and_mode_and_follows_changes(anna: Peer, bert: Peer) -> None:
    source, shown, here = shared(anna, bert, "own/tool.sh", b"#!/bin/sh\n")
    source.chmod(0o750)
    bert.command("mark", "set", "own", "docs/own/tool.sh")
    wait_until(partial(in_state, shown, "real"), WAIT_S, "real")
    wait_until(lambda: here.stat().st_mode & 0o777 == 0o750, WAIT_S, "the mode")
    assert here.read_bytes() == b"#!/bin/sh\n"
    assert here.stat().st_mtime_ns == LONG_AGO_NS

    put(source, b"#!/bin/bash\n", mtime_ns=LONG_AGO_NS + 10**9)
    wait_until(partial(reads, here, b"#!/bin/bash\n"), WAIT_S, "the change in the datadir")
    wait_until(partial(reads, shown, b"#!/bin/bash\n"), WAIT_S, "the change on the mount")
    wait_until(lambda: here.stat().st_mtime_ns == LONG_AGO_NS + 10**9, WAIT_S, "its time")

    put(here, b"#!/bin/dash\n")
    wait_until(partial(reads, anna.view() / "own/tool.sh", b"#!/bin/dash\n"), WAIT_S, "the way back")


def test_a_large_file_becomes_real(anna: Peer, bert: Peer) -> None:
    content = os.urandom(24 * 1024 * 1024)
    _, shown, here = shared(anna, bert, "own/large.bin", content)
    bert.command("mark", "set", "own", "docs/own/large.bin")
    wait_until(partial(in_state, shown, "real"), WAIT_S, "real")
    assert here.read_bytes() == content


def test_marks_are_attributes_of_the_mount_and_inherited(anna: Peer, bert: Peer) -> None:
    _, shown, _ = shared(anna, bert, "inherit/deep/er/file.txt", b"x")
    directory = bert.view() / "inherit"
    subprocess.run(["setfattr", "-n", MARK, "-v", "keep", directory], check=True)
    assert (
        attribute(directory, "mark")
        == attribute(directory / "deep/er", "mark")
        == attribute(shown, "mark")
        == "keep"
    )
    wait_until(partial(in_state, shown, "kept"), WAIT_S, "kept by inheritance")

    os.setxattr(directory / "deep", MARK, b"watch")
    assert (attribute(directory, "mark"), attribute(shown, "mark")) == ("keep", "watch")
    os.setxattr(directory, MARK, b"own")
    assert attribute(shown, "mark") == "watch", (
        "an explicit mark of a child survives a change of its parent's"
    )
    os.removexattr(directory / "deep", MARK)
    assert attribute(shown, "mark") == "own"
    os.removexattr(directory, MARK)
    assert attribute(shown, "mark") == "watch"
    with fails_with(errno.EINVAL):
        os.setxattr(shown, MARK, b"nonsense")


def test_mark_get_and_list_say_where_a_mark_comes_from(anna: Peer, bert: Peer) -> None:
    shared(anna, bert, "listed/a/b.txt", b"x")
    bert.command("mark", "set", "keep", "docs/listed")
    bert.command("mark", "set", "own", str(bert.view() / "listed/a"))
    marks = bert.command("mark", "get", "docs/listed/a/b.txt", "docs/listed")
    assert "own" in marks
    assert "keep" in marks
    rows = [json.loads(line) for line in bert.command("mark", "list", "--json").splitlines()]
    found = {row["path"]: row["mark"] for row in rows}
    assert found["docs/listed"] == "keep"
    assert found["docs/listed/a"] == "own"
    bert.command("mark", "unset", "docs/listed", "docs/listed/a")
    left = [json.loads(line)["path"] for line in bert.command("mark", "list", "--json").splitlines()]
    assert "docs/listed" not in left
    assert attribute(bert.view() / "listed/a/b.txt", "mark") == "watch"


def test_a_datadir_path_names_the_same_mark(anna: Peer, bert: Peer) -> None:
    _, shown, here = shared(anna, bert, "by-path/file.txt", b"x")
    bert.command("mark", "set", "own", str(shown))
    wait_until(here.is_file, WAIT_S, "a real file")
    assert "own" in bert.command("mark", "get", str(here))


def test_a_mark_on_a_whole_arena(anna: Peer, bert: Peer) -> None:
    _, shown, _ = shared(anna, bert, "whole-arena.txt", b"x")
    bert.command("mark", "set", "keep", "docs")
    wait_until(partial(in_state, shown, "kept"), WAIT_S, "kept")
    bert.command("mark", "unset", "docs")
    assert attribute(shown, "mark") == "watch"
    assert shown.read_bytes() == b"x"


def test_no_change_is_lost_however_a_file_is_saved(anna: Peer, bert: Peer) -> None:
    source, shown, here = shared(anna, bert, "editor.txt", b"0")
    bert.command("mark", "set", "own", "docs/editor.txt")
    wait_until(here.is_file, WAIT_S, "a real file")

    source.write_bytes(b"written over")
    wait_until(partial(reads, here, b"written over"), WAIT_S, "written over")
    draft = source.with_name("editor.txt.new")
    draft.write_bytes(b"renamed over")
    draft.rename(source)
    wait_until(partial(reads, here, b"renamed over"), WAIT_S, "renamed over")
    source.unlink()
    source.write_bytes(b"deleted and made again")
    wait_until(partial(reads, here, b"deleted and made again"), WAIT_S, "made again")
    wait_until(partial(reads, shown, b"deleted and made again"), WAIT_S, "shown")


def test_a_real_file_is_given_up_and_taken_back_and_every_read_succeeds(anna: Peer, bert: Peer) -> None:
    content = os.urandom(300_000)
    source, shown, here = shared(anna, bert, "give/up.bin", content)
    bert.command("mark", "set", "own", "docs/give")
    wait_until(partial(in_state, shown, "real"), WAIT_S, "real")
    view = anna.view() / "give/up.bin"
    for _ in range(3):
        anna.command("mark", "set", "watch", "docs/give")
        wait_until(lambda: view.read_bytes() == content and not source.exists(), WAIT_S, "given up")
        wait_until(lambda: view.read_bytes() == content and in_state(view, "cached"), WAIT_S, "cached")
        anna.command("mark", "set", "own", "docs/give")
        wait_until(lambda: view.read_bytes() == content and source.exists(), WAIT_S, "real again")
    assert source.read_bytes() == here.read_bytes() == content
    assert source.stat().st_mtime_ns == LONG_AGO_NS
    logged = [json.loads(line) for line in anna.command("log", "--json", "docs/give/up.bin").splitlines()]
    assert [line["what"] for line in logged].count("unrealized") == 3


def test_an_open_file_is_not_given_up(anna: Peer, bert: Peer) -> None:
    source, shown, _ = shared(anna, bert, "busy/open.txt", b"being written")
    bert.command("mark", "set", "own", "docs/busy")
    wait_until(partial(in_state, shown, "real"), WAIT_S, "real")
    with source.open("ab"):
        anna.command("mark", "set", "keep", "docs/busy")
        wait_until(
            lambda: "has it open" in anna.command("why", "docs/busy/open.txt"), WAIT_S, "what it waits for"
        )
        assert source.exists()
    wait_until(lambda: in_state(anna.view() / "busy/open.txt", "kept"), WAIT_S, "kept once it is closed")
    assert not source.exists()
