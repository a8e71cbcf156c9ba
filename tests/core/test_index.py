"""The index on real directories, with a store in memory."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from blake3 import blake3
from inotify_simple import Event, INotify, flags

from core.api import HashingRow
from core.config import ArenaConfig
from core.index import Index, IndexCalls
from core.ports import Found, Hashed, LocalRow
from core.types import Hash, Kind, RelPath
from core.watch import Noticed, Watcher
from tests.fakes.local_store import MemoryStore

PATIENCE_S = 60.0
"""LIMIT: of a whole test; the machine may be busy with others."""


@dataclass
class Told:
    """What the index said to the engine."""

    offline: list[str] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    warned: list[tuple[str, str]] = field(default_factory=list)
    progress: list[HashingRow] = field(default_factory=list)

    def calls(self) -> IndexCalls:
        return IndexCalls(
            progress=self.progress.append,
            offline=self.offline.append,
            online=lambda: self.offline.append(""),
            held=self.held.append,
            warned=lambda text, hint: self.warned.append((text, hint)),
        )


class Arena:
    """A datadir, its store, and an index that can be started and stopped."""

    def __init__(self, base: Path, *, debounce_s: float = 0.05, ignore: tuple[str, ...] = ()) -> None:
        self.base = base
        self.data = base / "data"
        self.data.mkdir()
        (base / "work").mkdir()
        self.store = MemoryStore()
        self.watched = 0
        self.told = Told()
        self.config = ArenaConfig("a", base / "work", self.data, debounce_s=debounce_s, ignore=ignore)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Index]:
        """Run a new index, idle at the start of the context."""
        index = Index(self.config, self.store, self.told.calls(), check_s=0.1, retry_s=0.02)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(index.run)
                await self.settled(index)
                yield index
                nursery.cancel_scope.cancel()

    async def settled(self, index: Index) -> None:
        await until(index.idle)

    def write(self, name: str, data: bytes = b"data") -> None:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def is_in_step(self) -> bool:
        """Say whether the store has exactly what is in the datadir, all hashed."""
        real: dict[bytes, bytes | None] = {}
        for at, directories, files in os.walk(os.fsencode(self.data)):
            for name in (*directories, *files):
                path = os.path.join(at, name)
                plain = os.path.isfile(path) and not os.path.islink(path)
                real[os.path.relpath(path, os.fsencode(self.data))] = (
                    blake3(Path(os.fsdecode(path)).read_bytes()).digest() if plain else None
                )
        return real == {path: self.store.hash_of(path) for path in self.store.paths()}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that has no event of its own."""
    with trio.fail_after(PATIENCE_S):
        pause_s = 0.002
        while not condition():
            # A look at a whole tree takes its time from the index: ever longer pauses.
            await trio.sleep(pause_s)
            pause_s = min(0.05, pause_s * 1.2)


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    return Arena(tmp_path)


# -- the first scan


@pytest.mark.trio
async def test_the_first_scan_indexes_and_hashes_everything(arena: Arena) -> None:
    arena.write("a/b/c/deep", b"deep")
    arena.write("empty", b"")
    arena.write("large", os.urandom(3_000_000))
    (arena.data / "hollow").mkdir()
    os.symlink("../nowhere", arena.data / "link")
    async with arena.running():
        assert arena.is_in_step()
        link = arena.store.local_row(RelPath(b"link"))
        assert link is not None
        assert (link.kind, link.target) == (Kind.SYMLINK, b"../nowhere")
        large = arena.store.hash_of(b"large")
        assert large is not None
        assert len(arena.store.blocks[large].hashes) == 32 * 23


@pytest.mark.trio
async def test_names_of_any_bytes(arena: Arena) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"c:\\d", b".hidden", b"x" * 255, b"\xe2\x80\xae"):
        arena.write(os.fsdecode(name))
        arena.write("dir/" + os.fsdecode(name))
    async with arena.running() as index:
        assert arena.is_in_step()
        arena.write(os.fsdecode(b"later\n\xff"))
        await until(arena.is_in_step)
        assert index.held_files == 0


@pytest.mark.trio
async def test_progress_is_told_until_it_is_complete(arena: Arena) -> None:
    for number in range(50):
        arena.write(f"d/{number}", os.urandom(1000))
        os.utime(arena.data / f"d/{number}", (1, 1))  # not so fresh that its hash would have to wait
    async with arena.running() as index:
        last = arena.told.progress[-1]
        assert (last.files_done, last.files_total) == (50, 50)
        assert (last.bytes_done, last.bytes_total) == (50_000, 50_000)
        assert index.progress() is None


@pytest.mark.trio
async def test_a_restart_finds_what_changed_meanwhile_and_only_that(arena: Arena) -> None:
    for name in ("same", "changed", "gone", "d/same"):
        arena.write(name)
    async with arena.running():
        pass
    arena.store.log.clear()
    arena.write("changed", b"other data")
    arena.write("new")
    (arena.data / "gone").unlink()
    async with arena.running():
        assert arena.is_in_step()
    assert sorted(arena.store.log) == [
        ("added", b"new"),
        ("hashed", b"changed"),
        ("hashed", b"new"),
        ("removed", b"gone"),
        ("replaced", b"changed"),
    ]


@pytest.mark.trio
async def test_hashing_that_a_stop_interrupted_goes_on(arena: Arena) -> None:
    arena.write("f")
    async with arena.running():
        pass
    stored = arena.store.stored(b"f")
    assert stored is not None
    stored.row = stored.row._replace(hashed=False)
    stored.hash = None
    async with arena.running():
        assert arena.is_in_step()


@pytest.mark.trio
async def test_files_and_directories_renamed_while_stopped_are_not_hashed_again(arena: Arena) -> None:
    for number in range(5):
        arena.write(f"d/{number}", b"%d" % number)
    arena.write("f", b"file")
    async with arena.running():
        pass
    arena.store.log.clear()
    (arena.data / "d").rename(arena.data / "e")
    (arena.data / "f").rename(arena.data / "g")
    async with arena.running():
        assert arena.is_in_step()
    assert [what for what, _ in arena.store.log if what == "hashed"] == []


# -- following


@pytest.mark.trio
async def test_new_files_directories_and_deletions_are_followed(arena: Arena) -> None:
    async with arena.running():
        arena.write("x/y/z", b"one")
        os.symlink("z", arena.data / "x" / "link")
        await until(arena.is_in_step)
        shutil.rmtree(arena.data / "x" / "y")
        await until(arena.is_in_step)
        assert arena.store.paths() == {b"x", b"x/link"}


@pytest.mark.trio
async def test_a_tree_that_is_copied_in_is_found_completely(arena: Arena, tmp_path: Path) -> None:
    for number in range(300):
        path = tmp_path / "source" / f"{number % 7}" / f"{number % 11}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    async with arena.running() as index:
        await trio.to_thread.run_sync(shutil.copytree, tmp_path / "source", arena.data / "copy")
        await until(arena.is_in_step)
        await arena.settled(index)
    added = [path for what, path in arena.store.log if what == "added"]
    assert len(added) == len(set(added))


@pytest.mark.trio
async def test_directories_made_faster_than_they_can_be_watched(arena: Arena) -> None:
    async with arena.running():
        for number in range(30):
            arena.write(f"{number}/" + "d/" * 20 + "f", b"%d" % number)
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_idle_is_false_from_the_moment_of_a_change(arena: Arena) -> None:
    async with arena.running() as index:
        assert index.idle()
        arena.write("f")
        assert index.waiting_for()
        await until(index.idle)
        assert arena.is_in_step()


@pytest.mark.trio
@pytest.mark.timed
async def test_a_known_file_is_announced_when_it_is_closed_and_hashed_when_it_is_quiet(
    tmp_path: Path,
) -> None:
    arena = Arena(tmp_path, debounce_s=1.0)
    arena.write("f", b"one")
    async with arena.running():
        arena.store.log.clear()
        start = trio.current_time()
        arena.write("f", b"other")
        await arena.store.until(lambda: arena.store.changes(b"f") == ["replaced"])
        announced = trio.current_time() - start
        await arena.store.until(lambda: arena.store.changes(b"f") == ["replaced", "hashed"])
        assert announced < 0.5
        assert trio.current_time() - start >= 0.95
        assert arena.is_in_step()


@pytest.mark.trio
async def test_changed_mode_is_metadata(arena: Arena) -> None:
    arena.write("f")
    async with arena.running() as index:
        arena.store.log.clear()
        (arena.data / "f").chmod(0o600)
        await arena.store.until(lambda: bool(arena.store.log))
        await arena.settled(index)
        assert arena.store.changes(b"f") == ["meta"]
        row = arena.store.local_row(RelPath(b"f"))
        assert row is not None
        assert row.mode == 0o600


# -- the ways in which editors save


def _write_over(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _temp_and_rename(path: Path, data: bytes) -> None:
    temp = path.with_name("." + path.name + ".swp")
    temp.write_bytes(data)
    temp.rename(path)


def _delete_and_create(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def _backup_and_write(path: Path, data: bytes) -> None:
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_bytes(data)
    backup.unlink()


def _write_then_set_times(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o640)


@pytest.mark.trio
@pytest.mark.parametrize(
    "save", [_write_over, _temp_and_rename, _delete_and_create, _backup_and_write, _write_then_set_times]
)
async def test_each_way_of_saving_is_one_change_of_the_same_file(
    tmp_path: Path, save: Callable[[Path, bytes], None]
) -> None:
    arena = Arena(tmp_path, debounce_s=0.2)
    arena.write("d/doc", b"before")
    async with arena.running() as index:
        arena.store.log.clear()
        save(arena.data / "d" / "doc", b"after!")
        await until(arena.is_in_step)
        await arena.settled(index)
    changes = arena.store.changes(b"d/doc")
    assert changes == ["replaced", "hashed"]
    assert {path for _, path in arena.store.log} == {b"d/doc"}


# -- renames


@pytest.mark.trio
async def test_a_renamed_file_is_not_hashed_again(arena: Arena) -> None:
    arena.write("a/f", b"content")
    (arena.data / "b").mkdir()
    async with arena.running() as index:
        arena.store.log.clear()
        (arena.data / "a" / "f").rename(arena.data / "b" / "g")
        await until(arena.is_in_step)
        await arena.settled(index)
    assert arena.store.log == [("renamed", b"b/g")]


@pytest.mark.trio
async def test_a_chain_of_renames_ends_with_the_last_name(arena: Arena) -> None:
    arena.write("1", b"content")
    async with arena.running() as index:
        arena.store.log.clear()
        for number in range(1, 4):
            (arena.data / f"{number}").rename(arena.data / f"{number + 1}")
        await until(arena.is_in_step)
        await arena.settled(index)
    assert arena.store.log == [("renamed", b"4")]


@pytest.mark.trio
async def test_two_files_that_swap_names(arena: Arena) -> None:
    arena.write("a", b"of a")
    arena.write("b", b"of b")
    async with arena.running():
        (arena.data / "a").rename(arena.data / "t")
        (arena.data / "b").rename(arena.data / "a")
        (arena.data / "t").rename(arena.data / "b")
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_a_renamed_directory_is_neither_hashed_nor_braked(arena: Arena) -> None:
    for number in range(250):
        arena.write(f"d/{number % 5}/{number}", b"%d" % number)
    async with arena.running() as index:
        arena.store.log.clear()
        (arena.data / "d").rename(arena.data / "e")
        arena.write("e/0/late", b"written after the rename")
        await until(arena.is_in_step)
        await arena.settled(index)
        assert arena.told.held == []
    assert [path for what, path in arena.store.log if what == "hashed"] == [b"e/0/late"]


@pytest.mark.trio
async def test_a_directory_renamed_twice_and_one_in_its_place(arena: Arena) -> None:
    for number in range(20):
        arena.write(f"d/{number}", b"%d" % number)
    async with arena.running():
        (arena.data / "d").rename(arena.data / "e")
        (arena.data / "e").rename(arena.data / "f")
        arena.write("d/other", b"new")
        await until(arena.is_in_step)
        assert b"d/other" in arena.store.paths()


@pytest.mark.trio
async def test_what_is_moved_out_is_deleted_and_what_is_moved_in_is_found(arena: Arena) -> None:
    arena.write("d/f")
    async with arena.running():
        (arena.data / "d").rename(arena.base / "outside")
        await until(lambda: not arena.store.paths())
        (arena.base / "outside" / "g").write_bytes(b"more")
        (arena.base / "outside").rename(arena.data / "d")
        await until(lambda: arena.is_in_step() and len(arena.store.paths()) == 3)


# -- lost events


@pytest.mark.trio
async def test_an_overflow_of_the_queue_is_made_up_by_a_scan(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("changed", "gone", "d/same"):
        arena.write(name)
    translate = Watcher.translate

    def overflowing(self: Watcher, events: list[Event]) -> list[Noticed]:
        return translate(self, [Event(-1, int(flags.Q_OVERFLOW), 0, "")])

    async with arena.running() as index:
        monkeypatch.setattr(Watcher, "translate", overflowing)
        arena.write("changed", b"other data")
        arena.write("d/e/new")
        (arena.data / "gone").unlink()
        await until(arena.is_in_step)
        monkeypatch.setattr(Watcher, "translate", translate)
        await index.rescan()
        arena.write("d/e/later")
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_beyond_the_limit_of_watches_directories_are_listed_now_and_then_and_the_remedy_is_told(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_watch = INotify.add_watch
    allowed: list[int] = [3]

    def limited(self: INotify, path: str, mask: int) -> int:
        # What the kernel says with fs.inotify.max_user_watches=3; those that are watched already count once.
        if arena.watched >= allowed[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        arena.watched += 1
        return int(add_watch(self, path, mask))

    monkeypatch.setattr(INotify, "add_watch", limited)
    monkeypatch.setattr("core.scanner.UNWATCHED_S", 0.05)
    for number in range(6):
        arena.write(f"d{number}/f")
    async with arena.running() as index:
        assert arena.watched == 3
        for number in range(6):
            arena.write(f"d{number}/unseen")
            arena.write(f"d{number}/sub/unseen")
            (arena.data / f"d{number}" / "f").unlink()
        await until(arena.is_in_step)
        assert "10 directories are not watched" in index.unwatched
        assert "sysctl fs.inotify.max_user_watches=" in index.unwatched
        [(text, hint)] = arena.told.warned
        assert "inotify" in text
        assert hint.startswith("run: sysctl fs.inotify.max_user_watches=")
        assert int(hint.rpartition("=")[2]) > 13, "enough for all"
        allowed[0] = 1000  # the user ran it
        await until(lambda: not index.unwatched)
        arena.write("d5/sub/seen")
        await until(arena.is_in_step)
    assert len(arena.told.warned) == 1


@pytest.mark.trio
async def test_a_rescan_of_one_directory(arena: Arena) -> None:
    arena.write("d/f")
    async with arena.running() as index:
        del arena.store.directories[RelPath(b"d")][b"f"]
        await index.rescan(RelPath(b"d"))
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_without_any_inotify_instance_the_arena_is_offline_and_says_why(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Watcher) -> None:
        raise OSError(24, "Too many open files")

    arena.write("f")
    with monkeypatch.context() as patched:
        patched.setattr(Watcher, "__init__", refused)
        async with arena.running() as index:
            assert "max_user_instances" in index.offline
    async with arena.running():
        assert arena.is_in_step()


# -- the engine's own changes


@pytest.mark.trio
async def test_what_the_engine_does_while_it_holds_the_index_is_no_local_change(arena: Arena) -> None:
    arena.write("old")
    async with arena.running() as index:
        async with index.exclusive():
            arena.write("f", b"from a peer")
            found = os.stat(arena.data / "f")
            arena.store.record([_found("f", found)])
            (arena.data / "old").unlink()
            arena.store.remove([RelPath(b"old")])
            arena.store.log.clear()
        await until(index.idle)
        assert [what for what, _ in arena.store.log] == ["hashed"]
        assert arena.is_in_step()


@pytest.mark.trio
@pytest.mark.parametrize("change", ["none", "written", "replaced", "deleted", "moved away and back"])
async def test_what_the_user_does_to_a_file_that_was_just_placed_is_seen(arena: Arena, change: str) -> None:
    arena.data.parent.joinpath("blob").write_bytes(b"from a peer")
    arena.data.parent.joinpath("other").write_bytes(b"another's")
    file = arena.data / "f"
    async with arena.running() as index:
        async with index.exclusive():
            (arena.base / "blob").rename(file)
            found = _found("f", file.stat())
            arena.store.record([found])
            content = Hash(blake3(b"from a peer").digest())
            arena.store.hashed([Hashed(RelPath(b"f"), found.size, found.mtime_ns, found.ino, content, None)])
            arena.store.log.clear()
            match change:
                case "written":
                    file.write_bytes(b"by the user")
                case "replaced":
                    (arena.base / "other").rename(file)
                case "deleted":
                    file.unlink()
                case "moved away and back":
                    file.rename(arena.base / "away")
                    (arena.base / "away").rename(file)
        await until(index.idle)
        assert arena.is_in_step()
        if change in ("none", "moved away and back"):
            assert arena.store.log == []


def _found(name: str, found: os.stat_result) -> Found:
    mode = found.st_mode & 0o777
    return Found(RelPath(b""), name.encode(), Kind.FILE, found.st_size, found.st_mtime_ns, mode, found.st_ino)


# -- ignored names


@pytest.mark.trio
async def test_ignored_names_are_neither_indexed_nor_deleted(tmp_path: Path) -> None:
    arena = Arena(tmp_path, ignore=("*.tmp", "/build/"))
    arena.write("a.tmp")
    arena.write("build/x")
    arena.write("keep")
    async with arena.running() as index:
        arena.write("b.tmp")
        arena.write("build/y")
        arena.write("sub/c.tmp")
        arena.write("sub/keep")
        await until(lambda: b"sub/keep" in arena.store.paths())
        await arena.settled(index)
        assert arena.store.paths() == {b"keep", b"sub", b"sub/keep"}


@pytest.mark.trio
async def test_an_ignore_file_takes_effect_when_it_changes(arena: Arena) -> None:
    arena.write("d/.realizeignore", b"*.o\n")
    arena.write("d/x.o")
    arena.write("d/x.c")
    async with arena.running() as index:
        assert arena.store.paths() == {b"d", b"d/.realizeignore", b"d/x.c"}
        arena.write("d/.realizeignore", b"*.c\n")
        await until(lambda: b"d/x.o" in arena.store.paths())
        await arena.settled(index)
        (arena.data / "d" / "x.c").unlink()
        arena.write("d/marker")
        await until(lambda: b"d/marker" in arena.store.paths())
        await arena.settled(index)
        # Indexed before it was ignored: its entry is left alone, whatever happens to it.
        assert b"d/x.c" in arena.store.paths()


@pytest.mark.trio
async def test_negated_patterns_hold_at_run_time_and_the_last_line_decides(tmp_path: Path) -> None:
    arena = Arena(tmp_path, ignore=("*.o",))
    arena.write(".realizeignore", b"*.log\n!keep.log\n/tmp/*\n!/tmp/keep/\n/gone/\n!/gone/back\n!special.o\n")
    arena.write("d/.realizeignore", b"!d.log\n")
    async with arena.running() as index:
        for name in (
            *("a.log", "keep.log", "d/b.log", "d/keep.log", "d/d.log", "plain.o", "special.o"),
            *("tmp/x", "tmp/keep/y", "gone/back"),
        ):
            arena.write(name)
        shown = {b"keep.log", b"d/keep.log", b"d/d.log", b"special.o", b"tmp/keep/y"}
        directories = {b"d", b"tmp", b"tmp/keep"}
        files = {b".realizeignore", b"d/.realizeignore"}
        await until(lambda: shown <= arena.store.paths())
        await arena.settled(index)
        assert arena.store.paths() == shown | directories | files
        await index.rescan()
        assert arena.store.paths() == shown | directories | files, "a scan says the same as the events"


def _saved(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _replaced(path: Path, data: bytes) -> None:
    temporary = path.with_name("4913")
    temporary.write_bytes(data)
    temporary.rename(path)


@pytest.mark.trio
@pytest.mark.parametrize("write", [_saved, _replaced])
async def test_what_becomes_ignored_is_no_deletion_and_what_is_ignored_no_more_is_indexed(
    arena: Arena, write: Callable[[Path, bytes], None]
) -> None:
    patterns = arena.data / ".realizeignore"
    for number in range(5):
        arena.write(f"build/{number}")
    arena.write("other")
    before = {b"build", b"other", *(b"build/%d" % number for number in range(5))}
    async with arena.running() as index:
        # It ignores itself too; what it says is followed all the same.
        write(patterns, b"/build/\n.realizeignore\n")
        arena.write("marker")
        await until(lambda: b"marker" in arena.store.paths())
        await arena.settled(index)
        await index.rescan()
        assert arena.store.paths() - {b".realizeignore"} == before | {b"marker"}
        (arena.data / "build/0").unlink()
        arena.write("build/new")
        await index.rescan()
        await arena.settled(index)
        assert arena.store.paths() - {b".realizeignore"} == before | {b"marker"}

        write(patterns, b".realizeignore\n# nothing else\n")
        await until(lambda: b"build/new" in arena.store.paths())
        await arena.settled(index)
        now = before - {b"build/0"} | {b"marker", b"build/new"}
        assert arena.store.paths() - {b".realizeignore"} == now, "what went meanwhile is a deletion now"

        write(patterns, b"*\n")
        await index.rescan()
        patterns.unlink()
        arena.write("last")
        await until(lambda: b"last" in arena.store.paths())
        await arena.settled(index)
        assert arena.store.paths() - {b".realizeignore"} == now | {b"last"}


# -- races


@pytest.mark.trio
async def test_a_directory_swapped_for_a_link_is_a_link(arena: Arena) -> None:
    arena.write("d/f")
    (arena.base / "outside").mkdir()
    (arena.base / "outside" / "secret").write_bytes(b"secret")
    async with arena.running():
        (arena.data / "d").rename(arena.base / "old")
        os.symlink("../outside", arena.data / "d")
        await until(lambda: arena.store.paths() == {b"d"})
        row = arena.store.local_row(RelPath(b"d"))
        assert row is not None
        assert row.kind is Kind.SYMLINK


@pytest.mark.trio
async def test_kinds_that_take_each_others_place(arena: Arena) -> None:
    arena.write("p", b"file")
    async with arena.running():
        (arena.data / "p").unlink()
        arena.write("p/inside", b"in a directory")
        await until(arena.is_in_step)
        shutil.rmtree(arena.data / "p")
        arena.write("p", b"file again")
        await until(arena.is_in_step)
        (arena.data / "p").unlink()
        os.mkfifo(arena.data / "p")
        await until(lambda: not arena.store.paths())
        (arena.data / "p").unlink()
        arena.write("p", b"and again")
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_a_file_that_changes_all_the_time_is_right_in_the_end(arena: Arena) -> None:
    arena.write("f", b"start")
    async with arena.running() as index:
        for number in range(60):
            arena.write("f", b"%d" % number * (number + 1))
            await trio.lowlevel.checkpoint()
            if number % 20 == 0:
                await arena.settled(index)
        await until(arena.is_in_step)


# -- what cannot be read


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """Be a user whom permissions stop, and give a directory of his."""
    base = Path(tempfile.mkdtemp(prefix="realize-test-"))
    if os.geteuid() == 0:
        os.chown(base, 65534, 65534)
        os.setegid(65534)
        os.seteuid(65534)
        try:
            yield base
        finally:
            os.seteuid(0)
            os.setegid(0)
            shutil.rmtree(base)
    else:
        yield base
        shutil.rmtree(base)


@pytest.mark.trio
async def test_a_file_that_cannot_be_read_any_more_keeps_its_entry(ordinary_user: Path) -> None:
    arena = Arena(ordinary_user)
    arena.write("f")
    async with arena.running() as index:
        (arena.data / "f").chmod(0)
        await arena.store.until(lambda: "unreadable" in arena.store.changes(b"f"))
        await arena.settled(index)
        assert arena.store.hash_of(b"f") is not None
        await index.rescan()
        (arena.data / "f").chmod(0o200)  # it is looked at again
        await arena.settled(index)
        [(text, _)] = arena.told.warned
        assert text.startswith("f cannot be read"), "told once"
        (arena.data / "f").chmod(0o644)
        await until(lambda: not _row(arena, b"f").unreadable)
        await arena.settled(index)
        assert arena.is_in_step()


@pytest.mark.trio
async def test_a_directory_that_becomes_unreadable_is_told_without_a_scan(ordinary_user: Path) -> None:
    arena = Arena(ordinary_user)
    arena.write("d/f")
    async with arena.running() as index:
        (arena.data / "d").chmod(0)
        await until(lambda: index.unreadable_directories == 1)
        await arena.settled(index)
        [(text, _)] = arena.told.warned
        assert text.startswith("directory d is left out")
        assert arena.store.paths() == {b"d", b"d/f"}
        (arena.data / "d").chmod(0o755)
        await until(lambda: index.unreadable_directories == 0)
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_many_unreadable_files_are_told_once(ordinary_user: Path) -> None:
    arena = Arena(ordinary_user)
    for number in range(300):
        arena.write(f"f{number}")
        (arena.data / f"f{number}").chmod(0)
    async with arena.running() as index:
        await until(lambda: all(_row(arena, path).unreadable for path in arena.store.paths()))
        await arena.settled(index)
        [(text, _)] = arena.told.warned
        assert "cannot be read" in text


@pytest.mark.trio
async def test_a_new_file_that_cannot_be_read_is_flagged_and_hashed_when_it_can(ordinary_user: Path) -> None:
    arena = Arena(ordinary_user)
    arena.write("f")
    (arena.data / "f").chmod(0)
    async with arena.running():
        assert _row(arena, b"f").unreadable
        (arena.data / "f").chmod(0o644)
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_a_file_made_readable_while_stopped_is_hashed_at_the_next_start(ordinary_user: Path) -> None:
    arena = Arena(ordinary_user)
    arena.write("f")
    (arena.data / "f").chmod(0)
    async with arena.running():
        pass
    (arena.data / "f").chmod(0o644)
    async with arena.running():
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_an_unreadable_directory_is_told_once_and_loses_nothing(ordinary_user: Path) -> None:
    arena = Arena(ordinary_user)
    arena.write("d/f")
    arena.write("g")
    async with arena.running() as index:
        (arena.data / "d").chmod(0)
        await index.rescan()
        await index.rescan()
        await arena.settled(index)
        assert arena.store.paths() == {b"d", b"d/f", b"g"}
        assert len(arena.told.warned) == 1
        assert index.unreadable_directories == 1
        (arena.data / "d").chmod(0o755)
        (arena.data / "d" / "f").write_bytes(b"changed")
        await until(arena.is_in_step)


def _row(arena: Arena, path: bytes) -> LocalRow:
    row = arena.store.local_row(RelPath(path))
    assert row is not None
    return row


# -- offline and the brake


@pytest.mark.trio
async def test_a_missing_datadir_takes_the_arena_offline_until_it_is_back(arena: Arena) -> None:
    arena.write("d/f")
    async with arena.running() as index:
        arena.data.rename(arena.base / "away")
        await until(lambda: bool(index.offline))
        assert index.idle()
        (arena.base / "away" / "late").write_bytes(b"written while offline")
        (arena.base / "away").rename(arena.data)
        await until(lambda: not index.offline)
        await until(arena.is_in_step)
    assert "removed" not in {what for what, _ in arena.store.log}
    assert len(arena.told.offline) == 3
    assert arena.told.offline[0] == arena.told.offline[2] == ""


@pytest.mark.trio
async def test_a_deleted_datadir_takes_the_arena_offline(arena: Arena) -> None:
    for number in range(20):
        arena.write(f"d/{number}")
    async with arena.running() as index:
        await trio.to_thread.run_sync(shutil.rmtree, arena.data)
        await until(lambda: bool(index.offline))
    assert "removed" not in {what for what, _ in arena.store.log}


@pytest.mark.trio
async def test_another_directory_in_its_place_is_not_the_datadir(arena: Arena) -> None:
    arena.write("f")
    async with arena.running():
        pass
    arena.data.rename(arena.base / "away")
    arena.write("other")
    async with arena.running() as index:
        assert "another directory" in index.offline
    assert arena.store.paths() == {b"f"}


@pytest.mark.trio
async def test_a_datadir_found_empty_is_offline_until_something_is_there(arena: Arena) -> None:
    arena.write("f")
    async with arena.running():
        pass
    (arena.data / "f").unlink()
    async with arena.running() as index:
        assert "empty" in index.offline
        assert arena.store.paths() == {b"f"}
        arena.write("f")
        await until(arena.is_in_step)


@pytest.mark.trio
async def test_an_empty_datadir_can_be_confirmed(arena: Arena) -> None:
    for number in range(150):
        arena.write(f"d/{number}")
    async with arena.running():
        pass
    shutil.rmtree(arena.data / "d")
    async with arena.running() as index:
        assert "empty" in index.offline
        assert await index.confirm_deletes() == 150
        await until(lambda: not arena.store.paths())
        assert arena.told.held == []


@pytest.mark.trio
async def test_a_datadir_emptied_under_the_index_is_offline(arena: Arena) -> None:
    for number in range(20):
        arena.write(f"{number}")
    async with arena.running() as index:
        for path in arena.data.iterdir():
            path.unlink()
        await until(lambda: bool(index.offline))
        assert len(arena.store.paths()) == 20


@pytest.mark.trio
async def test_deleting_the_only_file_is_a_deletion(arena: Arena) -> None:
    arena.write("f")
    async with arena.running() as index:
        (arena.data / "f").unlink()
        await until(lambda: not arena.store.paths())
        assert not index.offline


@pytest.mark.trio
@pytest.mark.parametrize("live", [True, False])
async def test_a_mass_deletion_is_held_until_it_is_confirmed(arena: Arena, live: bool) -> None:
    for number in range(150):
        arena.write(f"d/{number % 3}/{number}")
    for number in range(20):
        arena.write(f"e/{number}")

    def delete() -> None:
        shutil.rmtree(arena.data / "d")

    async with arena.running() as index:
        if live:
            delete()
            await until(lambda: bool(arena.told.held))
    if not live:
        delete()
    async with arena.running() as index:
        await until(lambda: index.held_files == 150)
        assert arena.told.held[-1] == 150
        assert b"d/0/0" in arena.store.paths()
        (arena.data / "e" / "1").unlink()
        arena.write("e/new")
        await until(lambda: b"e/new" in arena.store.paths())
        held = index.held_files
        assert await index.confirm_deletes() == held
        await until(arena.is_in_step)
        assert arena.told.held[-1] == 0


@pytest.mark.trio
async def test_held_files_that_come_back_are_not_deleted(arena: Arena) -> None:
    for number in range(150):
        arena.write(f"d/{number}")
    arena.write("keep")
    async with arena.running() as index:
        (arena.data / "d").rename(arena.base / "away")
        await until(lambda: index.held_files == 150)
        (arena.base / "away").rename(arena.data / "d")
        await until(lambda: index.held_files == 0)
        await arena.settled(index)
        assert arena.is_in_step()
    assert "removed" not in {what for what, _ in arena.store.log}


@pytest.mark.trio
async def test_deleting_less_than_half_goes_on_by_itself(arena: Arena) -> None:
    for number in range(110):
        arena.write(f"d/{number}")
    for number in range(120):
        arena.write(f"e/{number}")
    async with arena.running():
        shutil.rmtree(arena.data / "d")
        await until(arena.is_in_step)
        assert arena.told.held == []


# -- anything, in any order


class Chaos:
    """Random operations in a datadir, reproducible by their seed."""

    NAMES = ("a", "b", "c", "d", "e")

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)

    def path(self) -> Path:
        return self.root.joinpath(*self.random.choices(self.NAMES, k=self.random.randint(1, 3)))

    def step(self) -> None:
        operation = self.random.choice(
            (self.write, self.write, self.rename, self.delete, self.mkdir, self.link)
        )
        try:
            operation()
        except OSError:
            return  # not possible in this state

    def write(self) -> None:
        path = self.path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.random.randbytes(self.random.randint(0, 300)))

    def rename(self) -> None:
        self.path().rename(self.path())

    def delete(self) -> None:
        path = self.path()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def mkdir(self) -> None:
        self.path().mkdir(parents=True)

    def link(self) -> None:
        os.symlink(self.random.choice(self.NAMES), self.path())


@pytest.mark.trio
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_the_index_ends_with_what_is_there(arena: Arena, seed: int) -> None:
    arena.write("keep")
    chaos = Chaos(arena.data, seed)
    async with arena.running() as index:
        for _ in range(6):
            for _ in range(40):
                chaos.step()
                if chaos.random.random() < 0.2:
                    # Nothing is waited for: this spreads the operations over the debounce.
                    await trio.sleep(chaos.random.random() * 0.01)
            arena.write("keep")
            await until(lambda: index.idle() and not index.offline)
            assert arena.is_in_step(), f"seed {seed}"
