"""A rename in a datadir is a rename: here, on every peer, after downtime, and whenever somebody dies."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from blake3 import blake3

from core.announce import Batch, Phase
from core.datadir import Datadir
from core.events import FileChanged, JobChanged
from core.placing import move, place
from core.scanner import Scanner
from core.types import FileState, Mark, RelPath
from tests.core.engines import PATIENCE_S, Host, linked, until
from tests.sim.world import World


class DeadError(BaseException):
    """The process died."""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Host, Host]:
    return Host(tmp_path, "a", ["b"], mark=Mark.OWN), Host(tmp_path, "b", ["a"])


@asynccontextmanager
async def both(a: Host, b: Host, mark: Mark = Mark.WATCH) -> AsyncIterator[None]:
    """Run both hosts, linked and at rest, with a mark on the arena of the second."""
    async with a.up(), b.up(), linked(a, b):
        await b.mark("", mark)
        await a.idle()
        await b.idle()
        yield


def sent(host: Host) -> int:
    """Return how many jobs fetched something."""
    return len(
        {event.job for event in host.events if isinstance(event, JobChanged) and event.action == "download"}
    )


async def same(a: Host, b: Host) -> bool:
    return await a.tree() == await b.tree()


# -- at the host where it happens


@pytest.mark.trio
async def test_a_renamed_file_keeps_its_inode_mark_and_hash(pair: tuple[Host, Host]) -> None:
    a, _ = pair
    file = a.write("d/f", b"content")
    async with a.up():
        await a.idle()
        await a.mark("d/f", Mark.KEEP)
        node = a.node("d/f")
        file.rename(a.data / "g")
        await until(lambda: a.node("g"))
        await a.idle()
        assert (a.node("g"), a.node("d/f")) == (node, None)
        assert (a.explicit("g"), a.explicit("d/f")) == (Mark.KEEP, None)
        assert set(await a.tree()) == {b"d", b"g"}
        changes = [event.what for event in a.events if isinstance(event, FileChanged)]
        assert changes.count("renamed") == 1
        assert "removed" not in changes


@pytest.mark.trio
@pytest.mark.parametrize("running", [True, False])
async def test_a_renamed_directory_is_one_moved_node(pair: tuple[Host, Host], running: bool) -> None:
    a, _ = pair
    names = [f"{top}/{number}" for top in ("x", "y/z") for number in range(5)]
    for name in names:
        a.write(f"old/{name}", name.encode())
    async with a.up():
        await a.idle()
        await a.mark("old/y", Mark.OWN)
        nodes = {name: a.node(f"old/{name}") for name in [*names, "x", "y", "y/z"]}
        directory = a.node("old")
        if running:
            (a.data / "old").rename(a.data / "new")
    if not running:
        (a.data / "old").rename(a.data / "new")
    async with a.up():
        await until(lambda: a.node("new"))
        await a.idle()
        assert a.node("new") == directory
        assert {name: a.node(f"new/{name}") for name in nodes} == nodes
        assert a.node("old") is None
        assert (a.explicit("new/y"), a.explicit("old/y")) == (Mark.OWN, None)
        assert all(entry.hash for entry in (await a.entries()).values() if entry.path.endswith(b"1"))
        (a.data / "new").rename(a.data / "old")
        await until(lambda: a.node("old"))
        await a.idle()
        assert a.node("old") == directory
        assert {name: a.node(f"old/{name}") for name in nodes} == nodes
        assert a.node("new") is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("running", [True, False])
def test_two_directories_that_change_places(tmp_path: Path, seed: int, running: bool) -> None:
    a = Host(tmp_path, "a", [], debounce_s=0.02)
    names = ["x/one", "x/both", "y/two", "y/both", "y/z/deep"]
    for name in names:
        a.write(name, name.encode())

    def exchange() -> None:
        (a.data / "x").rename(a.data / "between")
        (a.data / "y").rename(a.data / "x")
        (a.data / "between").rename(a.data / "y")

    async def main() -> None:
        async with a.up():
            await a.idle()
            if running:
                exchange()
                await until(lambda: a.node("x/two"))
                await a.idle()
        if not running:
            exchange()
        async with a.up():
            await a.idle()
            tree = {path: content for path, content in (await a.tree()).items() if content is not None}
            assert tree == {path: blake3(data).digest() for path, data in a.real().items()}
            assert len(tree) == len(names)

    with World(seed, late=0.4) as world:
        trio.run(main, clock=world.clock)


@pytest.mark.trio
async def test_modes_that_changed_with_a_rename_while_nobody_looked_are_seen(tmp_path: Path) -> None:
    a = Host(tmp_path, "a", [])
    a.write("old/in/f", b"content")
    async with a.up():
        await a.idle()
        node = a.node("old/in/f")
    (a.data / "old/in/f").chmod(0o600)
    (a.data / "old/in").chmod(0o750)
    (a.data / "old").rename(a.data / "new")
    async with a.up():
        await a.idle()
        entries = await a.entries()
        assert a.node("new/in/f") == node
        assert (entries[b"new/in/f"].mode, entries[b"new/in"].mode) == (0o600, 0o750)


@pytest.mark.trio
async def test_what_is_not_on_this_disk_stays_where_it_is(tmp_path: Path) -> None:
    a, b = Host(tmp_path, "a", ["b"]), Host(tmp_path, "b", ["a"])
    a.write("d/here", b"of a")
    b.write("d/there", b"of b")
    async with both(a, b):
        await until(lambda: a.node("d/there"))
        (a.data / "d").rename(a.data / "e")
        await until(lambda: b.node("e/here"))
        await a.idle()
        await b.idle()
        assert set(await a.tree()) == {b"d", b"d/there", b"e", b"e/here"}
        assert await same(a, b)


@pytest.mark.trio
async def test_a_rename_over_another_file_replaces_it(pair: tuple[Host, Host]) -> None:
    a, b = pair
    a.write("f", b"new")
    a.write("g", b"old")
    async with both(a, b, Mark.OWN):
        (a.data / "f").rename(a.data / "g")
        await until(lambda: b.real() == {b"g": b"new"})
        await a.idle()
        await b.idle()
        assert await same(a, b)
        assert not (await a.entries())[b"g"].conflict


# -- at the peers


@pytest.mark.trio
@pytest.mark.parametrize("mark", [Mark.WATCH, Mark.KEEP, Mark.OWN])
async def test_a_rename_by_a_peer_is_told_as_one_and_not_as_deletions(
    pair: tuple[Host, Host], mark: Mark
) -> None:
    a, b = pair
    for number in range(5):
        a.write(f"old/{number}", os.urandom(100))
    a.write("file", b"file")
    a.write("stays", b"stays")
    async with both(a, b, mark):
        b.events.clear()
        (a.data / "old").rename(a.data / "new")
        (a.data / "file").rename(a.data / "elsewhere")
        (a.data / "stays").unlink()
        await until(lambda: b.node("new/0") and b.node("elsewhere") and not b.node("stays"))
        await a.idle()
        await b.idle()
        told = {
            (event.what, event.origin, event.path)
            for event in b.events
            if isinstance(event, FileChanged) and event.peer == "a" and event.what != "dropped"
        }
        assert told == {
            ("renamed", b"old", b"new"),
            ("renamed", b"file", b"elsewhere"),
            ("removed", b"", b"stays"),
        }


@pytest.mark.trio
async def test_a_peer_renames_its_real_files_and_fetches_nothing(pair: tuple[Host, Host]) -> None:
    a, b = pair
    contents = {f"old/{number % 3}/{number}": os.urandom(100 + number) for number in range(60)}
    for name, data in contents.items():
        a.write(name, data)
    async with both(a, b, Mark.OWN):
        assert len(b.real()) == 60
        inodes = {name: (b.data / name).stat().st_ino for name in contents}
        nodes = {name: b.node(name) for name in contents}
        await b.mark("old/1", Mark.OWN)
        before = sent(b)
        (a.data / "old").rename(a.data / "new")
        await until(
            lambda: len(b.real()) == 60 and (b.data / "new/1/1").exists() and not (b.data / "old").exists()
        )
        await a.idle()
        await b.idle()
        moved = {name: name.replace("old", "new") for name in contents}
        assert b.real() == {moved[name].encode(): data for name, data in contents.items()}
        assert {name: (b.data / moved[name]).stat().st_ino for name in contents} == inodes
        assert {name: b.node(moved[name]) for name in contents} == nodes
        assert sent(b) == before
        assert b.explicit("new/1") is Mark.OWN
        assert await same(a, b)
        assert not [event for event in b.events if isinstance(event, FileChanged) and event.cause == "user"]


@pytest.mark.trio
async def test_a_peer_keeps_its_cached_copy(pair: tuple[Host, Host]) -> None:
    a, b = pair
    a.write("old/f", os.urandom(3_000_000))
    a.write("old/g", b"small")
    async with both(a, b, Mark.KEEP):
        nodes = b.node("old/f"), b.node("old/g")
        before = sent(b)
        (a.data / "old").rename(a.data / "new")
        await until(lambda: b.node("new/g") and b.node("old") is None)
        await a.idle()
        await b.idle()
        assert (b.node("new/f"), b.node("new/g")) == nodes
        entries = await b.entries()
        assert [entries[path].state for path in (b"new/f", b"new/g")] == [FileState.KEPT, FileState.KEPT]
        assert sent(b) == before
        assert entries[b"new/f"].holders == ("a",)
        assert (await a.entries())[b"new/f"].holders == ("b",)


@pytest.mark.trio
async def test_many_renames_while_a_peer_was_away_end_with_the_last(pair: tuple[Host, Host]) -> None:
    a, b = pair
    a.write("p/f", b"content")
    a.write("swap1", b"one")
    a.write("swap2", b"two")
    async with both(a, b, Mark.OWN):
        pass
    async with a.up():
        for old, new in (
            ("p/f", "p/g"),
            ("p", "q"),
            ("q/g", "h"),
            ("swap1", "t"),
            ("swap2", "swap1"),
            ("t", "swap2"),
        ):
            (a.data / old).rename(a.data / new)
            await until(partial(a.node, new))
            await a.idle()
        (a.data / "h").write_bytes(b"edited")
        await a.idle()
    expected = {b"h": b"edited", b"swap1": b"two", b"swap2": b"one"}
    async with both(a, b, Mark.OWN):
        await until(lambda: b.real() == expected)
        await a.idle()
        await b.idle()
        assert await same(a, b)
        assert a.real() == expected


@pytest.mark.trio
async def test_an_edit_meets_a_rename_and_nothing_is_lost(pair: tuple[Host, Host]) -> None:
    a, b = pair
    a.write("f", b"content")
    async with both(a, b, Mark.OWN):
        pass
    async with a.up():
        (a.data / "f").rename(a.data / "g")
        await until(lambda: a.node("g"))
        await a.idle()
    async with b.up():
        (b.data / "f").write_bytes(b"edited at b")
        await b.idle()
    async with both(a, b, Mark.OWN):
        await until(lambda: b.real() == {b"f": b"edited at b", b"g": b"content"})
        await a.idle()
        await b.idle()
        assert await same(a, b)


@pytest.mark.trio
async def test_a_peer_that_knows_nothing_of_it_gets_the_new_path_only(pair: tuple[Host, Host]) -> None:
    a, b = pair
    a.write("old/f", b"content")
    async with a.up():
        await a.idle()
        (a.data / "old").rename(a.data / "new")
        await until(lambda: a.node("new/f"))
        await a.idle()
    async with both(a, b, Mark.OWN):
        await until(lambda: b.real() == {b"new/f": b"content"})
        assert await same(a, b)


@pytest.mark.trio
async def test_a_peer_that_missed_the_history_ends_the_same(pair: tuple[Host, Host]) -> None:
    a, b = pair
    for number in range(5):
        a.write(f"old/{number}", b"%d" % number)
    async with both(a, b, Mark.OWN):
        pass
    async with a.up():
        (a.data / "old").rename(a.data / "new")
        await until(lambda: a.node("new/4"))
        await a.idle()
        with a.arena.cache.write():
            a.arena.cache.conn.execute("DELETE FROM history")
    async with both(a, b, Mark.OWN):
        await until(lambda: sorted(b.real()) == [b"new/%d" % number for number in range(5)])
        await a.idle()
        await b.idle()
        assert await same(a, b)


@pytest.mark.trio
async def test_a_rename_while_the_old_path_becomes_real_leaves_nothing_behind(
    pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    a.write("f", b"content")
    async with both(a, b, Mark.KEEP):

        def place_meanwhile(*args: Any, **options: Any) -> object:  # noqa: ANN401 - as the real one
            placed = place(*args, **options)
            if not (a.data / "g").exists():
                (a.data / "f").rename(a.data / "g")
                trio.from_thread.run(until, lambda: b.node("g"))
            return placed

        monkeypatch.setattr("core.realizer.place", place_meanwhile)
        await b.mark("", Mark.OWN)
        await until(lambda: b.real() == {b"g": b"content"})
        await a.idle()
        await b.idle()
        assert await same(a, b)
        assert set(await b.tree()) == {b"g"}


# -- twice, late, and killed


@pytest.mark.trio
async def test_batches_applied_again_change_nothing(pair: tuple[Host, Host]) -> None:
    a, b = pair
    for number in range(4):
        a.write(f"old/{number}", b"%d" % number)
    async with both(a, b, Mark.OWN):
        uuid, seq = b.arena.cache.position(a.key)
        (a.data / "old").rename(a.data / "new")
        await until(lambda: not (b.data / "old").exists() and len(b.real()) == 4)
        await a.idle()
        await b.idle()
        tree, real = await b.tree(), b.real()
        rows = a.arena.cache.history.after(seq, 1000)
        groups = a.arena.announcer._groups_of_history(rows)
        for _ in range(2):
            b.arena.remote.apply(a.key, "a", Batch(uuid, rows[-1].seq, Phase.FOLLOW, groups))
            await b.idle()
        assert (await b.tree(), b.real()) == (tree, real)
        assert await same(a, b)


@pytest.mark.trio
@pytest.mark.parametrize("when", ["before the record", "before the disk", "after the disk"])
async def test_a_peer_that_dies_while_it_renames(
    pair: tuple[Host, Host], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at a point of the job; the database is as it was then."""
    a, b = pair
    contents = {f"old/{number}": b"%d" % number for number in range(6)}
    for name, data in contents.items():
        a.write(name, data)
    async with both(a, b, Mark.OWN):
        pass
    died = trio.Event()

    def die(*args: Any) -> object:  # noqa: ANN401 - stands in for functions of two kinds
        trio.from_thread.run_sync(died.set) if when != "before the record" else died.set()
        if when == "after the disk":
            move(*args)
        raise DeadError

    place = "core.remote.follow" if when == "before the record" else "core.realizer.move"
    with monkeypatch.context() as patch:
        patch.setattr(place, die)
        with pytest.raises(BaseExceptionGroup) as failure:  # noqa: PT012 - the whole life of two engines
            async with a.up(), b.up(), linked(a, b):
                (a.data / "old").rename(a.data / "new")
                with trio.fail_after(PATIENCE_S):
                    await died.wait()
                    await trio.sleep_forever()
    assert failure.value.split(DeadError)[0] is not None
    b.engine = a.engine = None
    async with both(a, b, Mark.OWN):
        expected = {f"new/{n}".encode(): b"%d" % n for n in range(6)}
        await until(lambda: b.real() == expected and not (b.data / "old").exists())
        await a.idle()
        await b.idle()
        assert await same(a, b)
        assert a.real() == b.real()


@pytest.mark.trio
async def test_a_host_that_dies_before_it_recorded_its_rename(pair: tuple[Host, Host]) -> None:
    a, b = pair
    for number in range(5):
        a.write(f"old/{number}", b"%d" % number)
    async with both(a, b, Mark.OWN):
        pass
    (a.data / "old").rename(a.data / "new")
    (a.data / "new/1").rename(a.data / "elsewhere")
    (a.data / "new/2").unlink()
    (a.data / "new/3").write_bytes(b"edited")
    async with both(a, b, Mark.OWN):
        await until(lambda: b.real() == a.real() and not (b.data / "old").exists())
        await a.idle()
        await b.idle()
        assert set(a.real()) == {b"new/0", b"elsewhere", b"new/3", b"new/4"}
        assert await same(a, b)


@pytest.mark.trio
async def test_what_left_a_renamed_directory_while_nobody_looked_is_elsewhere_or_gone(
    pair: tuple[Host, Host],
) -> None:
    a, _ = pair
    for number in range(4):
        a.write(f"old/in/deep/{number}", b"%d" % number)
    async with a.up():
        await a.idle()
        node = a.node("old/in/deep/1")
    (a.data / "old").rename(a.data / "new")
    (a.data / "new/in/deep/1").rename(a.data / "elsewhere")
    (a.data / "new/in/deep/2").unlink()
    (a.data / "new/in/deep/3").write_bytes(b"edited")
    async with a.up():
        await a.idle()
        files = {path: content for path, content in (await a.tree()).items() if content is not None}
        assert files == {path: blake3(data).digest() for path, data in a.real().items()}
        assert a.node("elsewhere") == node


@pytest.mark.trio
async def test_a_host_that_dies_before_it_looked_for_what_its_rename_left(
    pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = pair
    for number in range(3):
        a.write(f"top/old/in/{number}", b"%d" % number)
    async with a.up():
        await a.idle()
    (a.data / "top/old").rename(a.data / "new")
    (a.data / "new/in/1").unlink()
    (a.data / "new/in/2").write_bytes(b"edited")

    async def die(*_: object) -> None:
        raise DeadError

    with monkeypatch.context() as patch:
        patch.setattr("core.deletions.Deletions.offer", die)
        with pytest.raises(BaseExceptionGroup) as failure:
            async with a.up():
                await trio.sleep_forever()
    assert failure.value.split(DeadError)[0] is not None
    a.engine = None
    async with a.up():
        await a.idle()
        files = {path: content for path, content in (await a.tree()).items() if content is not None}
        assert files == {b"new/in/0": blake3(b"0").digest(), b"new/in/2": blake3(b"edited").digest()}


def _meanwhile(patch: pytest.MonkeyPatch, path: bytes, change: Callable[[], object]) -> None:
    """Have something changed, and looked at, after the first scan and before what it missed is recorded."""
    walk, look = Scanner._walk, Datadir.look
    looked: set[RelPath] = set()

    async def walk_and_change(scanner: Scanner, starts: Iterable[RelPath], take: Any) -> None:  # noqa: ANN401
        starts = list(starts)
        await walk(scanner, starts, take)
        if starts == [b""]:
            change()
            await until(lambda: path in looked)

    async def look_and_tell(datadir: Datadir, paths: Collection[RelPath]) -> None:
        await look(datadir, paths)
        looked.update(paths)

    patch.setattr(Scanner, "_walk", walk_and_change)
    patch.setattr(Datadir, "look", look_and_tell)


@pytest.mark.trio
async def test_a_directory_that_comes_back_while_its_rename_is_recognised_is_seen(
    pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = pair
    a.write("old/f", b"content")
    async with a.up():
        await a.idle()
    (a.data / "old").rename(a.data / "new")
    _meanwhile(monkeypatch, b"old", (a.data / "old").mkdir)
    async with a.up():
        await a.idle()
        assert set(await a.tree()) == {b"old", b"new", b"new/f"}


@pytest.mark.trio
async def test_a_file_that_changes_while_its_rename_is_recognised_is_seen_as_it_is(
    pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = pair
    a.write("old", b"content")
    async with a.up():
        await a.idle()
    (a.data / "old").rename(a.data / "new")
    _meanwhile(monkeypatch, b"new", lambda: (a.data / "new").write_bytes(b"edited"))
    async with a.up():
        await a.idle()
        assert await a.tree() == {b"new": blake3(b"edited").digest()}
