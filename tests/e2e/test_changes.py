"""Changes, deletions and renames at one peer, as the other one's mount shows them."""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.household import WAIT_S, Household, Peer, attribute, household_of, put, reads, wait_until


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


def lists(directory: Path, names: list[str]) -> bool:
    return directory.is_dir() and sorted(os.listdir(directory)) == names


def gone(path: Path) -> bool:
    return not os.path.lexists(path) and path.name not in os.listdir(path.parent)


def test_a_change_replaces_what_was_read_and_cached(anna: Peer, bert: Peer) -> None:
    source, shown = put(anna.datadir() / "changing.txt", b"one"), bert.view() / "changing.txt"
    for content in (b"one", b"two!", b"3", b"four and a longer tail" * 10_000, b""):
        source.write_bytes(content)
        wait_until(partial(reads, shown, content), WAIT_S, f"{content[:10]!r}")
        assert shown.stat().st_size == len(content)


def test_a_change_of_the_same_size_is_a_change(anna: Peer, bert: Peer) -> None:
    source, shown = put(anna.datadir() / "sly.txt", b"AAAA", mtime_ns=10**18), bert.view() / "sly.txt"
    wait_until(partial(reads, shown, b"AAAA"), WAIT_S, "the first")
    put(source, b"BBBB", mtime_ns=10**18 + 1)
    wait_until(partial(reads, shown, b"BBBB"), WAIT_S, "the second")


def test_a_deleted_file_goes_and_a_new_one_comes(anna: Peer, bert: Peer) -> None:
    source, shown = put(anna.datadir() / "mortal/file.txt", b"1"), bert.view() / "mortal/file.txt"
    wait_until(partial(reads, shown, b"1"), WAIT_S, "the file")
    source.unlink()
    wait_until(partial(gone, shown), WAIT_S, "its end")
    put(source, b"again")
    wait_until(partial(reads, shown, b"again"), WAIT_S, "its return")


def test_a_deleted_tree_goes_as_a_whole(anna: Peer, bert: Peer) -> None:
    for number in range(20):
        put(anna.datadir() / f"forest/{number % 4}/deep/{number}.txt", b"tree")
    (anna.datadir() / "forest/clearing").mkdir()
    shown = bert.view() / "forest"
    wait_until(
        lambda: (shown / "3/deep/19.txt").exists() and (shown / "clearing").is_dir(), WAIT_S, "the tree"
    )
    shutil.rmtree(anna.datadir() / "forest")
    wait_until(partial(gone, shown), WAIT_S, "its end")


def test_an_owned_file_goes_when_the_other_deletes_it(anna: Peer, bert: Peer) -> None:
    source, here = put(anna.datadir() / "both.txt", b"both"), bert.datadir() / "both.txt"
    wait_until((bert.view() / "both.txt").exists, WAIT_S, "the file")
    for peer in (anna, bert):
        peer.command("mark", "set", "own", "docs/both.txt")
    wait_until(partial(reads, here, b"both"), WAIT_S, "a real file")
    # The realized copy has to be indexed at bert's before its deletion is bert's matter too.
    bert.wait_idle()
    source.unlink()
    wait_until(partial(gone, bert.view() / "both.txt"), WAIT_S, "its end on the mount")
    # The tree shows the deletion at once; taking the real copy away is a job: a program may have it open.
    wait_until(partial(gone, here), WAIT_S, "the end of the real copy")


def test_renames_of_files_and_directories_arrive(anna: Peer, bert: Peer) -> None:
    source = anna.datadir()
    put(source / "before.txt", b"renamed")
    put(source / "dir before/sub/file.txt", b"moved with it")
    wait_until(lambda: (bert.view() / "before.txt").exists(), WAIT_S, "the file")
    wait_until(
        lambda: attribute(bert.view() / "dir before/sub/file.txt", "version") != "", WAIT_S, "the directory"
    )
    os.rename(source / "before.txt", source / "after.txt")
    os.rename(source / "dir before", source / "dir after")
    wait_until(partial(reads, bert.view() / "after.txt", b"renamed"), WAIT_S, "the new name")
    wait_until(
        partial(reads, bert.view() / "dir after/sub/file.txt", b"moved with it"), WAIT_S, "the new place"
    )
    wait_until(partial(gone, bert.view() / "before.txt"), WAIT_S, "the end of the old name")
    wait_until(partial(gone, bert.view() / "dir before"), WAIT_S, "the end of the old place")


def test_a_file_becomes_a_directory_and_back(anna: Peer, bert: Peer) -> None:
    source, shown = put(anna.datadir() / "protean", b"file"), bert.view() / "protean"
    wait_until(partial(reads, shown, b"file"), WAIT_S, "a file")
    source.unlink()
    put(source / "inside.txt", b"inside")
    wait_until(partial(reads, shown / "inside.txt", b"inside"), WAIT_S, "a directory")
    shutil.rmtree(source)
    source.symlink_to("elsewhere")
    wait_until(shown.is_symlink, WAIT_S, "a link")
    source.unlink()
    put(source, b"file again")
    wait_until(partial(reads, shown, b"file again"), WAIT_S, "a file again")


def test_an_open_file_keeps_the_version_it_was_opened_with(anna: Peer, bert: Peer) -> None:
    old, new = b"old " * 1000, b"new " * 1500
    source, shown = put(anna.datadir() / "held open.txt", old), bert.view() / "held open.txt"
    wait_until(lambda: reads(shown, old) and attribute(shown, "version") != "", WAIT_S, "the old version")
    with open(shown, "rb", buffering=0) as held:
        assert held.read(4) == b"old "
        source.write_bytes(new)
        wait_until(partial(reads, shown, new), WAIT_S, "the new version for new readers")
        assert held.read() == old[4:], "never a mixture"


def test_many_files_at_once_arrive_in_both_directions(anna: Peer, bert: Peer) -> None:
    for number in range(300):
        put(anna.datadir() / f"from anna/{number:03}", b"a%d" % number)
        put(bert.datadir() / f"from bert/{number:03}", b"b%d" % number)
    names = [f"{number:03}" for number in range(300)]
    for peer in (anna, bert):
        for origin in ("anna", "bert"):
            directory = peer.view() / f"from {origin}"
            wait_until(partial(lists, directory, names), WAIT_S, f"all files from {origin} at {peer.name}")
            assert (directory / "299").read_bytes() == b"%c299" % ord(origin[0])
