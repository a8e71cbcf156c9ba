"""Databases that were deleted, on either side: all converges again, nothing is invented or lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from core.announce import Phase
from core.cache import ArenaCache
from core.choice import Flag
from core.local import LocalEntries
from core.ports import Found, Hashed
from core.types import Hash, Kind, Mark, RelPath, Vector
from core.versions import decode
from tests.core.caches import H1, H2, SELF, UUID, A, B, deleted, file, hear, memory_cache, node, vector
from tests.core.engines import Host, linked, until

trio_test = pytest.mark.trio

ROOT = RelPath(b"")
_NS = 1_600_000_000_000_000_000


def _wipe(host: Host, what: str) -> None:
    """Delete databases of a host that is stopped."""
    if what in ("arena", "both"):
        for suffix in ("", "-wal", "-shm"):
            (host.base / "work" / f"arena.db{suffix}").unlink(missing_ok=True)
    if what in ("cache", "both"):
        for suffix in ("", "-wal", "-shm"):
            host.config.cache_db.with_name(host.config.cache_db.name + suffix).unlink(missing_ok=True)


def _on_disks(*hosts: Host) -> set[bytes]:
    """Return the hash of every content that is on a disk of a host in some form."""
    found: set[bytes] = set()
    for host in hosts:
        for root in (host.data, host.base / "work" / "blobs"):
            for at, _, names in os.walk(root):
                found |= {blake3(Path(at, name).read_bytes()).digest() for name in names}
    return found


def _own_counters(host: Host) -> dict[bytes, int]:
    """Return the counter of a host in the shown version of each path."""
    cache = host.arena.cache
    rows: list[Any] = cache.conn.execute("SELECT id, vector FROM node WHERE kind = 1").fetchall()
    return {bytes(cache.tree.path(id_)): decode(Vector(found)).get(host.key, 0) for id_, found in rows}


def _flags(host: Host, path: str) -> int:
    found = host.node(path)
    return host.arena.cache.shown(found).flags if found is not None else -1


@trio_test
@pytest.mark.parametrize("what", ["arena", "cache", "both"])
@pytest.mark.parametrize("victim_is", ["holder", "receiver"])
async def test_a_host_without_its_databases_finds_everything_again(
    tmp_path: Path, what: str, victim_is: str
) -> None:
    anna, bert = hosts = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN), Host(tmp_path, "bert", ["anna"])
    contents = {"a": b"anna's", "d/a": b"also anna's", "edited": b"one", "gone": b"to be deleted"}
    for path, data in contents.items():
        anna.write(path, data)
    bert.write("b", b"bert's")
    (anna.data / "empty").mkdir()
    async with anna.up(), bert.up(), linked(*hosts):
        await until(lambda: bert.node("d/a") and bert.node("a"))
        await bert.mark("", Mark.KEEP)
        await bert.mark("a", Mark.OWN)
        await until(lambda: "a" in os.listdir(bert.data))
        for data in (b"two", b"three"):
            anna.write("edited", data)
            await anna.idle()
        (anna.data / "gone").unlink()
        await until(lambda: bert.node("gone") is None)
        for host in hosts:
            await host.idle()
        before, counters = await bert.tree(), _own_counters(anna) | _own_counters(bert)
        assert await anna.tree() == before
    written = _on_disks(*hosts)
    victim = anna if victim_is == "holder" else bert
    _wipe(victim, what)
    async with anna.up(), bert.up():
        for host in hosts:
            await host.idle()
        async with linked(*hosts):
            for host in hosts:
                await until(lambda host=host: host.running.waiting_for() == "")  # type: ignore[misc]
                await host.idle()
            assert await anna.tree() == await bert.tree() == before
            assert _on_disks(*hosts) >= written - {blake3(b"to be deleted").digest()}
            assert await anna.service.conflicts() == await bert.service.conflicts() == ()
            victim.write("b" if victim is bert else "edited", b"and goes on")
            await victim.idle()
            for host in hosts:
                await until(lambda host=host: host.running.waiting_for() == "")  # type: ignore[misc]
            path = "b" if victim is bert else "edited"
            assert (await anna.tree())[path.encode()] == blake3(b"and goes on").digest()
            assert await anna.tree() == await bert.tree()
            assert _own_counters(victim)[path.encode()] > counters[path.encode()]


@trio_test
@pytest.mark.parametrize("victim_is", ["holder", "receiver"])
async def test_what_changed_while_a_database_was_gone_is_new_or_a_conflict(
    tmp_path: Path, victim_is: str
) -> None:
    anna, bert = hosts = [
        Host(tmp_path, name, [other], mark=Mark.OWN) for name, other in (("anna", "bert"), ("bert", "anna"))
    ]
    victim, other = (anna, bert) if victim_is == "holder" else (bert, anna)
    async with anna.up(), bert.up(), linked(*hosts):
        for data in (b"one", b"two", b"three"):
            victim.write("mine", data)
            victim.write("ours", data)
            await victim.idle()
            await until(lambda data=data: other.real().get(b"ours") == data)  # type: ignore[misc]
        other.write("ours", b"four")
        other.write("theirs", b"five")
        await until(lambda: victim.real().get(b"ours") == b"four" and b"theirs" in victim.real())
        for host in hosts:
            await host.idle()
    _wipe(victim, "both")
    victim.write("mine", b"changed by its author")
    victim.write("ours", b"changed by one of two")
    victim.write("theirs", b"changed by the other")
    async with anna.up(), bert.up():
        for host in hosts:
            await host.idle()
        async with linked(*hosts):
            await until(lambda: other.real()[b"mine"] == b"changed by its author")
            for path in ("ours", "theirs"):
                await until(lambda path=path: all(_flags(host, path) & Flag.CONFLICT for host in hosts))  # type: ignore[misc]
            for host in hosts:
                await host.idle()
            assert victim.real() == {
                b"mine": b"changed by its author",
                b"ours": b"changed by one of two",
                b"theirs": b"changed by the other",
            }, "nothing was taken for older than what a peer had"
            assert {b"ours": b"four", b"theirs": b"five"}.items() <= other.real().items()
            assert [row.hash for row in await victim.service.trash_list()] == []


@trio_test
async def test_a_deletion_is_not_undone_by_a_host_that_lost_its_database(tmp_path: Path) -> None:
    anna, bert = hosts = [
        Host(tmp_path, name, [other], mark=Mark.OWN) for name, other in (("anna", "bert"), ("bert", "anna"))
    ]
    anna.write("f", b"to be deleted")
    anna.write("g", b"stays")
    async with anna.up():
        async with bert.up(), linked(*hosts):
            await until(lambda: bert.real() == {b"f": b"to be deleted", b"g": b"stays"})
            for host in hosts:
                await host.idle()
        (anna.data / "f").unlink()
        await anna.idle()
        _wipe(bert, "both")
        async with bert.up():
            await bert.idle()
            async with linked(*hosts):
                await until(lambda: all(_flags(host, "f") == Flag.REVIVED for host in hosts))
                assert bert.real()[b"f"] == b"to be deleted", "bert cannot know; the user is asked"
                await anna.service.conflict_resolve((await anna.service.conflicts())[0].at, "local")
                await until(lambda: bert.real() == anna.real() == {b"g": b"stays"})


@trio_test
async def test_both_hosts_without_databases_begin_anew(tmp_path: Path) -> None:
    anna, bert = hosts = [
        Host(tmp_path, name, [other], mark=Mark.OWN) for name, other in (("anna", "bert"), ("bert", "anna"))
    ]
    anna.write("a", b"anna's")
    bert.write("b", b"bert's")
    async with anna.up(), bert.up(), linked(*hosts):
        await until(lambda: anna.real() == bert.real() == {b"a": b"anna's", b"b": b"bert's"})
        for host in hosts:
            await host.idle()
    for host in hosts:
        _wipe(host, "both")
    bert.write("b", b"changed")
    async with anna.up(), bert.up(), linked(*hosts):
        await until(lambda: all(_flags(host, "b") & Flag.CONFLICT for host in hosts))
        assert (anna.real()[b"b"], bert.real()[b"b"]) == (b"bert's", b"changed")
        assert all(_flags(host, "a") == 0 for host in hosts)


# -- with a clock that has gone back as well


@pytest.fixture
def cache() -> Iterator[ArenaCache]:
    """Give a new database on a host whose clock says 1970."""
    with memory_cache() as cache:
        yield cache


def _find(cache: ArenaCache, path: bytes, content: bytes = H1) -> None:
    store = LocalEntries(cache)
    store.record([Found(ROOT, path, Kind.FILE, 7, 1, 0o644, 7)])
    store.hashed([Hashed(RelPath(path), 7, 1, 7, Hash(content), None)])


def test_an_older_version_of_our_own_does_not_replace_a_file_that_is_here(cache: ArenaCache) -> None:
    for path in (b"first", b"second", b"shared"):
        _find(cache, path)
    listed = [file(b"first", H2, me=900), file(b"second", H2, me=300), file(b"shared", H2, a=1, me=400)]
    hear(cache, A, *listed, phase=Phase.CATCHUP_START)
    shown = {path: cache.shown(node(cache, path)) for path in (b"first", b"second", b"shared")}
    assert {path: row.hash for path, row in shown.items()} == dict.fromkeys(shown, H1)
    assert decode(Vector(shown[b"first"].vector))[SELF] > 900
    assert shown[b"first"].flags == shown[b"second"].flags == 0
    assert shown[b"shared"].flags == Flag.CONFLICT
    _find(cache, b"later")
    own = cache.local_entry(node(cache, b"later"))
    assert own is not None
    assert decode(Vector(own.vector))[SELF] > 900, "no counter that was given out before is given again"


def test_the_same_content_of_our_own_is_the_same_version(cache: ArenaCache) -> None:
    _find(cache, b"f")
    hear(cache, A, file(b"f", H1, me=9), phase=Phase.CATCHUP_START)
    assert cache.shown(node(cache, b"f")).vector == vector(me=9)


def test_a_newer_version_of_our_own_replaces_a_file_where_the_database_is_the_old_one(
    cache: ArenaCache,
) -> None:
    _find(cache, b"f")
    hear(cache, A, phase=Phase.CATCHUP_START)
    hear(cache, A, phase=Phase.CATCHUP_COMPLETE)
    hear(cache, A, file(b"f", H2, me=9), seq=2)
    assert cache.shown(node(cache, b"f")).hash == H2
    hear(cache, B, phase=Phase.CATCHUP_START)


@pytest.mark.parametrize("anew", [False, True])
def test_what_a_peer_deleted_before_it_lost_its_database_is_known_elsewhere_or_not_at_all(
    cache: ArenaCache, anew: bool
) -> None:
    _find(cache, b"written here meanwhile")
    hear(cache, A, deleted(b"gone", a=2, b=1), deleted(b"written here meanwhile", a=2, b=1))
    hear(cache, A, phase=Phase.CATCHUP_START, uuid=b"v" * 16 if anew else UUID)
    hear(cache, A, phase=Phase.CATCHUP_COMPLETE, uuid=b"v" * 16 if anew else UUID)
    hear(cache, B, file(b"gone", b=1), file(b"written here meanwhile", H2, b=1))
    gone, written = (node(cache, path) for path in (b"gone", b"written here meanwhile"))
    own = cache.local_entry(gone)
    assert cache.shown(gone).kind == Kind.NONE
    assert (own is not None and own.vector == vector(a=2, b=1)) is anew, "B has to hear of it from us"
    assert bool(cache.shown(written).flags & Flag.CONFLICT) is anew, "as on the hosts that never heard of it"
