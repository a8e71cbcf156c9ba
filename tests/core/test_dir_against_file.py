"""A directory that one host replaced by a file, while another changed something in it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blake3 import blake3

from core.api import ArenaPath
from core.arena_reader import ArenaReader
from core.choice import Flag
from core.conflicts import Resolver
from core.errors import ChangedError
from core.types import Kind, Mark
from tests.core.caches import H2, A, B, deleted, file, folder, hear, kinds, memory_cache, node
from tests.core.engines import Host, linked, until

AT = ArenaPath("docs", b"p")
BEFORE = {b"p/changed": b"common", b"p/same": b"the same", b"other": b"other"}


def _flags(host: Host) -> int:
    found = host.node("p")
    return host.arena.cache.shown(found).flags if found is not None else -1


@asynccontextmanager
async def _disagreeing(base: Path, *, new: bool = False) -> AsyncIterator[list[Host]]:
    """Give anna, who made a file of the directory, bert, who changed something in it, and carl."""
    names = ("anna", "bert", "carl")
    anna, bert, carl = hosts = [
        Host(base, name, [n for n in names if n != name], mark=Mark.OWN) for name in names
    ]
    for path, data in BEFORE.items():
        anna.write(path.decode(), data)
    async with anna.up(), bert.up(), carl.up():
        async with linked(*hosts):
            await until(lambda: all(host.real() == BEFORE for host in hosts))
            for host in hosts:
                await host.idle()
        shutil.rmtree(anna.data / "p")
        anna.write("p", b"a file now")
        bert.write("p/new/one" if new else "p/changed", b"changed by bert")
        for host in hosts:
            await host.idle()
        async with linked(*hosts):
            await until(lambda: all(_flags(host) & Flag.CONFLICT for host in hosts))
            for host in hosts:
                await host.idle()
            yield hosts


async def _all_agree(*hosts: Host) -> None:
    async def agreed() -> bool:
        trees = [await host.tree() for host in hosts]
        return all(tree == trees[0] for tree in trees) and not any(_flags(host) & 5 for host in hosts)

    await until(agreed)
    for host in hosts:
        await host.idle()
        assert await host.service.conflicts() == ()


@pytest.mark.trio
@pytest.mark.parametrize("new", [False, True])
async def test_the_directory_is_shown_with_what_was_changed_and_the_file_is_a_conflict(
    tmp_path: Path, new: bool
) -> None:
    inside = b"p/new/one" if new else b"p/changed"
    async with _disagreeing(tmp_path, new=new) as hosts:
        for host in hosts:
            shown = await host.entries()
            assert shown[b"p"].kind is Kind.DIR
            assert shown[inside].hash == blake3(b"changed by bert").digest()
            assert b"p/same" not in shown, "nobody changed it, so it is deleted"
            (row,) = [row for row in await host.service.conflicts() if not row.revived]
            assert row.at == AT
            assert {(one.kind, one.shown) for one in row.versions} == {(Kind.FILE, False), (Kind.DIR, True)}
        anna, bert, carl = hosts
        assert anna.real() == {b"p": b"a file now", b"other": b"other"}, "no host's own file is touched"
        assert bert.real() == {inside: b"changed by bert", b"other": b"other"}
        assert carl.real() in (anna.real(), bert.real()), "as whom he heard first"
        held = anna.arena.blobs.held(blake3(b"changed by bert").digest())  # type: ignore[arg-type]
        assert held, "what cannot become real on anna's disk is cached"
        for host in hosts:
            reader = ArenaReader(host.arena.db_path, Mark.OWN, host.connected, "docs")
            found = reader.alternatives(host.node("p") or 0)
            assert {one.meta.hash for one in found} == {blake3(b"a file now").digest(), None}
            reader.close()


@pytest.mark.trio
@pytest.mark.parametrize("who", [0, 1, 2])
@pytest.mark.parametrize("keep", ["file", "directory", "both"])
async def test_either_or_both_can_be_kept_on_any_host(tmp_path: Path, who: int, keep: str) -> None:
    async with _disagreeing(tmp_path) as hosts:
        host = hosts[who]
        (row,) = [row for row in await host.service.conflicts() if not row.revived]
        kind = Kind.FILE if keep == "file" else Kind.DIR
        version = next(one for one in row.versions if one.kind is kind)
        name = "both" if keep == "both" else "local" if version.here else version.peers[0]
        resolved = await host.service.conflict_resolve(AT, name)
        for revived in [row for row in await host.service.conflicts() if row.revived]:
            one = next(one for one in revived.versions if one.kind is not Kind.NONE)
            await host.service.conflict_resolve(revived.at, "local" if one.here else one.peers[0])
        expected = {b"other": b"other"}
        if keep == "file":
            expected |= {b"p": b"a file now"}
        else:
            expected |= {b"p/changed": b"changed by bert"}
        for at in resolved.beside:
            assert at.path.startswith(b"p.conflict-anna-") or host is hosts[0]
            expected[bytes(at.path)] = b"a file now"
        assert len(resolved.beside) == (keep == "both")
        await until(lambda: all(host.real() == expected for host in hosts))
        await _all_agree(*hosts)
        everything = {blake3(data).digest() for host in hosts for data in host.real().values()}
        everything |= {row.hash for host in hosts for row in await host.service.trash_list()}
        assert everything >= {blake3(b"a file now").digest(), blake3(b"changed by bert").digest()}


@pytest.mark.trio
async def test_what_was_saved_in_the_directory_after_the_decision_does_not_go_with_it(tmp_path: Path) -> None:
    async with _disagreeing(tmp_path) as hosts:
        bert = hosts[1]
        decision = Resolver(bert.running, bert.arena, bert.node("p") or 0)
        bert.write("p/changed", b"saved a moment ago")
        new = blake3(b"saved a moment ago").digest()
        await until(lambda: bert.arena.cache.shown(bert.node("p/changed") or 0).hash == new)
        with pytest.raises(ChangedError):
            await decision.resolve("anna")
        assert bert.real()[b"p/changed"] == b"saved a moment ago"


@pytest.mark.parametrize("order", itertools.permutations(range(4)))
def test_it_is_shown_the_same_in_whatever_order_it_is_heard(order: tuple[int, ...]) -> None:
    words = [
        (A, [file(b"p", a=2, b=1)]),
        (A, [deleted(b"p/f", a=1, b=1)]),
        (B, [folder(b"p", b=1)]),
        (B, [file(b"p/f", H2, b=2)]),
    ]
    with memory_cache() as cache:
        for seq, at in enumerate(order, 1):
            peer, items = words[at]
            hear(cache, peer, *items, seq=seq)
        assert kinds(cache) == {b"p": Kind.DIR, b"p/f": Kind.FILE}
        assert cache.shown(node(cache, b"p")).flags == Flag.CONFLICT
        hear(cache, B, deleted(b"p/f", a=1, b=3), seq=9)
        assert kinds(cache) == {b"p": Kind.FILE}
        assert cache.shown(node(cache, b"p")).flags == 0


@pytest.mark.trio
async def test_a_directory_made_a_file_while_nothing_in_it_changed_is_a_file(tmp_path: Path) -> None:
    anna, bert = hosts = [
        Host(tmp_path, name, [other], mark=Mark.OWN) for name, other in (("anna", "bert"), ("bert", "anna"))
    ]
    anna.write("p/d/one", b"one")
    anna.write("p/two", b"two")
    async with anna.up(), bert.up():
        async with linked(*hosts):
            await until(lambda: len(bert.real()) == 2)
            for host in hosts:
                await host.idle()
        shutil.rmtree(anna.data / "p")
        anna.write("p", b"a file now")
        await anna.idle()
        with anna.arena.cache.write():
            while anna.arena.cache.history.trim(anna.arena.cache.history.last):
                pass  # so that bert is told by a listing, the file before what was in the directory
        async with linked(*hosts):
            await until(lambda: bert.real() == {b"p": b"a file now"})
            await bert.idle()
            assert await bert.tree() == await anna.tree()
            assert await bert.service.conflicts() == ()
