"""Evict, verify, the audit log and held deletions, on whole engines linked in memory."""

import os
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from blake3 import blake3

from core import audit
from core.api import ArenaPath, EvictStep, LogLine, VerifyStep
from core.choice import Flag
from core.events import JobChanged
from core.types import FileState, Hash, Mark
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio

ROOT = ArenaPath("docs")


def at(path: str) -> ArenaPath:
    return ArenaPath("docs", path.encode())


def _hash(data: bytes) -> Hash:
    return Hash(blake3(data).digest())


async def _evicted(host: Host, *paths: str) -> list[EvictStep]:
    return [step async for step in host.service.evict([at(path) for path in paths])]


async def _verified(host: Host, *, repair: bool = True) -> list[VerifyStep]:
    return [step async for step in host.service.verify(ROOT, repair=repair)]


async def _fetched(host: Host, path: str) -> None:
    steps = [step async for step in host.service.get([at(path)])]
    assert [step.error for step in steps if step.done] == [""]


async def _state(host: Host, path: str) -> FileState:
    return (await host.service.lookup(at(path))).state


# evict


async def test_cached_content_is_given_up_when_a_peer_confirms_it(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    anna.write("d/small", b"x" * 5000)
    anna.write("d/large", os.urandom(3_000_000))
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("d/large"))
        await anna.idle()
        await _fetched(bert, "d/small")
        await _fetched(bert, "d/large")
        steps = await _evicted(bert, "d")
        assert sorted((step.at.path, step.error) for step in steps) == [(b"d/large", ""), (b"d/small", "")]
        assert sum(step.bytes_freed for step in steps) >= 3_000_000
        assert [await _state(bert, path) for path in ("d/small", "d/large")] == [FileState.ONLINE] * 2
        assert bert.arena.blobs.quota.used_bytes == 0
        assert await _evicted(bert, "d") == [], "nothing is held any more"
        await bert.idle()
        assert not anna.arena.cache.conn.execute("SELECT 1 FROM entry WHERE peer > 0 AND holding = 2").get


async def test_the_last_copy_is_not_given_up(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    path = anna.write("f", b"only two copies")
    async with anna.up(), bert.up():
        async with linked(anna, bert):
            await until(lambda: bert.node("f"))
            await anna.idle()
            await _fetched(bert, "f")
        (step,) = await _evicted(bert, "f")
        assert "last copy" in step.error
        assert step.hint
        # And no word is taken for it that is not true any more: anna still claims what she has lost.
        anna.arena.cache.conn.execute("UPDATE entry SET hash = ? WHERE peer = 0", (b"\1" * 32,))
        path.write_bytes(b"only one copy now!")
        async with linked(anna, bert):
            (step,) = await _evicted(bert, "f")
            assert "last copy" in step.error
            assert bert.arena.blobs.held(_hash(b"only two copies"))


async def test_two_hosts_never_give_up_the_last_two_copies_on_each_others_word(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", ["bert", "carl"])
    bert = Host(tmp_path, "bert", ["anna", "carl"], datadir=None)
    carl = Host(tmp_path, "carl", ["anna", "bert"], datadir=None)
    anna.write("f", b"shared")
    async with bert.up(), carl.up():
        async with anna.up(), linked(anna, bert, carl):
            await until(lambda: bert.node("f") and carl.node("f"))
            await anna.idle()
            await _fetched(bert, "f")
            await _fetched(carl, "f")
            for host in (anna, bert, carl):
                await host.idle()
        async with linked(bert, carl):
            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_evicted, bert, "f")
                    nursery.start_soon(_evicted, carl, "f")
                held = [host for host in (bert, carl) if host.arena.blobs.held(_hash(b"shared"))]
                assert held, "somebody still has it"
                for host in (bert, carl):
                    if host not in held:
                        await _fetched(host, "f")
                    await host.idle()


async def test_real_kept_and_owned_content_is_refused_with_the_reason(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    for name in ("keep/f", "twin", "mine"):
        anna.write(name, b"same" if name != "mine" else b"other")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.node("mine"))
        await anna.idle()
        await bert.mark("keep", Mark.KEEP)
        await until(lambda: bert.arena.blobs.held(_hash(b"same")))
        await bert.idle()
        await _fetched(bert, "twin")
        (kept,) = await _evicted(bert, "keep/f")
        assert "marked keep" in kept.error
        assert kept.hint == "realize mark unset docs/keep"
        (twin,) = await _evicted(bert, "twin")
        assert "the same content at docs/keep/f is marked keep" in twin.error
        (real,) = await _evicted(anna, "mine")
        assert "real file" in real.error
        assert bert.arena.blobs.held(_hash(b"same"))


# verify


async def _owned_by_both(anna: Host, bert: Host) -> None:
    await bert.mark("", Mark.OWN)
    await until(lambda: len(bert.real()) == len(anna.real()))
    await anna.idle()
    await bert.idle()


def _rot(path: Path) -> None:
    """Change a byte as a failing disk would: nothing but the content differs."""
    found = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


async def test_a_file_that_rotted_is_repaired_from_a_peer_and_its_bytes_are_kept(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    for number in range(5):
        anna.write(f"{number}.bin", bytes([number]) * 300_000)
    async with anna.up(), bert.up(), linked(anna, bert):
        await _owned_by_both(anna, bert)
        assert {step.outcome for step in await _verified(bert)} == {"ok"}
        before = bert.arena.cache.shown(bert.node("3.bin") or 0)
        async with bert.arena.exclusive():
            _rot(bert.data / "3.bin")
        rotten = (bert.data / "3.bin").read_bytes()
        steps = await _verified(bert)
        assert [(step.at.path, step.outcome) for step in steps if step.outcome != "ok"] == [
            (b"3.bin", "repaired")
        ]
        assert (steps[-1].files_done, steps[-1].files_total) == (5, 5)
        assert (bert.data / "3.bin").read_bytes() == bytes([3]) * 300_000
        assert bert.arena.cache.shown(bert.node("3.bin") or 0) == before, "it is the same version"
        (row,) = await bert.service.trash_list()
        assert (row.at, row.why, row.hash) == (at("3.bin"), "damaged", _hash(rotten))
        await bert.idle()
        assert {step.outcome for step in await _verified(bert)} == {"ok"}
        assert await anna.tree() == await bert.tree()


async def test_a_rotten_file_without_a_good_copy_stays_marked_and_is_told_each_time(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    anna.write("f", b"precious" * 1000)
    anna.write("g", b"fine")
    async with anna.up():
        await anna.idle()
        async with anna.arena.exclusive():
            _rot(anna.data / "f")
        node = anna.node("f") or 0
        for repair in (False, True):
            steps = await _verified(anna, repair=repair)
            assert sorted((step.at.path, step.outcome) for step in steps) == [
                (b"f", "damaged"),
                (b"g", "ok"),
            ]
            assert anna.arena.cache.shown(node).flags & Flag.DAMAGED
            jobs = [event for event in anna.events if isinstance(event, JobChanged)]
            assert [(job.phase, job.files, job.bytes_total) for job in jobs if job.phase != "progress"] == [
                ("started", 2, 8004),
                ("failed", 2, 8004),
            ]
            assert "1 file could not be repaired" in jobs[-1].reason
            anna.events.clear()
        assert "damaged" in dict((await anna.service.why(at("f"))).lines)
        assert not anna.running.provider.have("docs", _hash(b"precious" * 1000)), "it is not offered to peers"
        assert len((anna.data / "f").read_bytes()) == 8000, "it is left as it is"
        anna.write("f", b"written anew")
        await anna.idle()
        assert not anna.arena.cache.shown(node).flags & Flag.DAMAGED
        assert {step.outcome for step in await _verified(anna)} == {"ok"}
        assert [event.phase for event in anna.events if isinstance(event, JobChanged)][-1] == "finished"
        under_way = anna.service.verify()
        await anext(under_way)
        (row,) = (await anna.service.jobs()).rows
        assert (row.action, row.files, row.state) == ("verify", 2, "active")
        await under_way.aclose()  # type: ignore[attr-defined]  # an async generator
        assert (await anna.service.jobs()).rows == ()
        assert [event.phase for event in anna.events if isinstance(event, JobChanged)][-1] == "cancelled"


async def test_a_file_that_is_being_changed_is_not_damaged(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    path = anna.write("f", b"first")
    async with anna.up():
        await anna.idle()
        async with anna.arena.exclusive():
            path.write_bytes(b"second, unseen")
            assert [step.outcome for step in await _verified(anna)] == ["changed"]
        await anna.idle()
        assert [step.outcome for step in await _verified(anna)] == ["ok"]


async def test_corrupted_and_cut_blobs_are_fetched_again(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    contents = {
        name: os.urandom(size) for name, size in (("a", 2000), ("b", 2_000_000), ("c", 700_000), ("d", 50))
    }
    for name, data in contents.items():
        anna.write(name, data)
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.KEEP)
        await until(lambda: all(bert.arena.blobs.held(_hash(data)) for data in contents.values()))
        await bert.idle()
        blob = bert.arena.blobs.file_path
        _rot(blob(_hash(contents["a"])))
        _rot(blob(_hash(contents["b"])))
        os.truncate(blob(_hash(contents["c"])), 1000)
        blob(_hash(contents["d"])).unlink()
        steps = await _verified(bert)
        assert sorted((step.at.path, step.outcome) for step in steps) == [
            (b"a", "repaired"),
            (b"b", "repaired"),
            (b"c", "repaired"),
            (b"d", "repaired"),
        ]
        for data in contents.values():
            assert blob(_hash(data)).read_bytes() == data
        await bert.idle()
        assert [await _state(bert, name) for name in contents] == [FileState.KEPT] * 4


async def test_a_corrupted_blob_nobody_else_holds_is_not_served_any_more(tmp_path: Path) -> None:
    anna, bert = Host(tmp_path, "anna", ["bert"]), Host(tmp_path, "bert", ["anna"])
    data = os.urandom(400_000)
    anna.write("f", data)
    async with anna.up(), bert.up():
        async with linked(anna, bert):
            await until(lambda: bert.node("f"))
            await anna.idle()
            await _fetched(bert, "f")
            await bert.idle()
        _rot(bert.arena.blobs.file_path(_hash(data)))
        (step,) = await _verified(bert)
        assert (step.at.path, step.outcome) == (b"f", "damaged")
        assert not bert.arena.blobs.held(_hash(data))
        assert await _state(bert, "f") is not FileState.CACHED


# the audit log


async def _seen(host: Host, path: str) -> None:
    await until(lambda: host.node(path))


async def _log(host: Host, path: str | None = None, since_ns: int = 0) -> list[LogLine]:
    place = at(path) if path is not None else None
    return [line async for batch in host.service.log(place, since_ns=since_ns) for line in batch]


async def test_the_log_is_read_across_rotations_in_the_order_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 600)
    anna = Host(tmp_path, "anna", [])
    async with anna.up():
        for number in range(12):
            name = f"d{number % 2}/{number:02}"
            anna.write(name, b"%d" % number)
            await _seen(anna, name)
        await anna.idle()
        assert len(list((anna.base / "work/audit").iterdir())) >= 3
        lines = [line for line in await _log(anna) if line.what == "added" and b"/" in line.at.path]
        assert [line.at.path for line in lines] == [b"d%d/%02d" % (n % 2, n) for n in range(12)]
        assert [line.at_ns for line in lines] == sorted(line.at_ns for line in lines)
        assert {line.cause for line in lines} == {"user"}
        below = {line.at.path for line in await _log(anna, "d1")} - {b"d1"}
        assert below == {b"d1/%02d" % n for n in range(1, 12, 2)}
        young = await _log(anna, since_ns=lines[8].at_ns)
        assert [line for line in young if line in lines] == lines[8:]


async def test_the_log_is_followed_past_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 400)
    anna = Host(tmp_path, "anna", [])
    anna.write("before", b"")
    async with anna.up():
        await anna.idle()
        seen: list[bytes] = []
        with trio.fail_after(20):
            async with aclosing(anna.service.log(follow=True)) as batches:  # type: ignore[type-var]
                async for batch in batches:
                    seen += [line.at.path for line in batch if line.what == "added"]
                    if len(seen) >= 10:
                        break
                    anna.write(f"{len(seen):02}", b"")
        assert seen == [b"before", *(b"%02d" % n for n in range(1, 10))]


async def test_a_torn_line_of_the_log_does_not_hide_the_others(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    (anna.base / "work/audit").mkdir(parents=True)
    (anna.base / "work/audit/audit-5.jsonl").write_bytes(
        b'{"at_ns": 1, "arena": "docs", "what": "added", "path": "old"}\n{"at_ns": 2, "wh\n[]\nnonsense\n'
        b'{"at_ns": 3, "what": "removed", "path": "ol\\udcff"}\n'
    )
    async with anna.up():
        lines = await _log(anna)
        assert [(line.at_ns, line.what, line.at.path) for line in lines[:2]] == [
            (1, "added", b"old"),
            (3, "removed", b"ol\xff"),
        ]


# held deletions


async def test_held_deletions_are_shown_and_confirmed(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [])
    for number in range(150):
        anna.write(f"d/{number}", b"%d" % number)
    anna.write("stays", b"here")
    async with anna.up():
        await until(lambda: anna.node("d/149"))
        await anna.idle()
        for number in range(150):
            (anna.data / f"d/{number}").unlink()
        await until(lambda: anna.arena.index and anna.arena.index.held_files == 150)
        status = await anna.service.status()
        assert status.arenas[0].held_deletes == 150
        assert [line for line in status.health if "150" in line and "confirm-deletes docs" in line]
        lines = dict((await anna.service.why(at("d/7"))).lines)
        assert "150 files" in lines["deletion held"]
        assert await anna.service.arena_confirm_deletes("docs") == 150
        await until(lambda: not anna.node("d/7"))
        status = await anna.service.status()
        assert (status.arenas[0].held_deletes, status.health) == (0, ())
        assert await anna.service.arena_confirm_deletes("docs") == 0
