"""Conflicts: found, listed, and ended so that all hosts are equal and nothing is lost."""

import os
from pathlib import Path

import pytest
from blake3 import blake3

from core.api import ArenaPath
from core.blobrows import Area
from core.choice import Flag
from core.conflicts import Resolver
from core.errors import ChangedError, NoHolderError, PathReadOnlyError, UsageError
from core.events import ConflictChanged
from core.paths import conflict_name
from core.types import Hash, Kind, Mark
from tests.core.engines import Host, linked, until

trio_test = pytest.mark.trio

AT = ArenaPath("docs", b"plan.txt")
NS = 1_600_000_000_000_000_000


def _hash(data: bytes) -> bytes:
    return blake3(data).digest()


def _household(base: Path, *names: str, **arena: object) -> list[Host]:
    settings = {"mark": Mark.OWN} | arena
    return [Host(base, name, [other for other in names if other != name], **settings) for name in names]


def _disagree(*hosts: Host) -> None:
    """Let each host write its own version, the later the further to the right."""
    for number, host in enumerate(hosts):
        path = host.write("plan.txt", f"{host.name}'s plan".encode())
        os.utime(path, ns=(NS + number * 10**9, NS + number * 10**9))


def _flags(host: Host) -> int:
    node = host.node("plan.txt")
    return host.arena.cache.shown(node).flags if node is not None else 0


async def _all_conflict(*hosts: Host) -> None:
    await until(lambda: all(_flags(host) & 1 for host in hosts))


async def _all_agree(*hosts: Host) -> None:
    async def agreed() -> bool:
        trees = [await host.tree() for host in hosts]
        return all(tree == trees[0] for tree in trees)

    await until(agreed)
    for host in hosts:
        await host.idle()
    assert await agreed()
    vectors = {host.arena.cache.shown(host.node("plan.txt") or 0).vector for host in hosts}
    assert len(vectors) == 1
    for host in hosts:
        assert await host.service.conflicts() == ()
        assert not any(entry.conflict for entry in (await host.entries()).values())


@trio_test
@pytest.mark.parametrize("keep", ["local", "bert"])
async def test_one_version_is_kept_everywhere_and_the_other_is_in_the_trash(
    tmp_path: Path, keep: str
) -> None:
    anna, bert = hosts = _household(tmp_path, "anna", "bert")
    _disagree(*hosts)
    async with anna.up(), bert.up():
        await anna.idle()
        await bert.idle()
        async with linked(*hosts):
            await _all_conflict(*hosts)
            (row,) = await anna.service.conflicts()
            assert (row.at, row.revived) == (AT, False)
            mine, theirs = row.versions
            assert (mine.here, mine.shown, mine.peers, mine.hash) == (True, True, (), _hash(b"anna's plan"))
            assert (theirs.here, theirs.shown, theirs.peers, theirs.hash) == (
                False,
                False,
                ("bert",),
                _hash(b"bert's plan"),
            )
            resolved = await anna.service.conflict_resolve(AT, keep)
            assert (resolved.kept, resolved.beside) == (keep, ())
            await _all_agree(*hosts)
            kept, lost, loser = (anna, bert, bert) if keep == "local" else (bert, anna, anna)
            content = f"{kept.name}'s plan".encode()
            assert anna.real() == bert.real() == {b"plan.txt": content}
            (row_in_trash,) = await loser.service.trash_list()
            assert (row_in_trash.hash, row_in_trash.by) == (_hash(f"{lost.name}'s plan".encode()), "anna")
            assert (anna.data / "plan.txt").stat().st_mtime_ns == (bert.data / "plan.txt").stat().st_mtime_ns
    async with anna.up():
        await anna.idle()
        assert await anna.service.conflicts() == (), "and it stays so, alone after a restart"


@trio_test
async def test_what_came_after_the_decision_is_not_decided_about(tmp_path: Path) -> None:
    anna, bert = hosts = _household(tmp_path, "anna", "bert")
    _disagree(*hosts)
    async with anna.up(), bert.up(), linked(*hosts):
        await _all_conflict(*hosts)
        node = anna.node("plan.txt")
        assert node is not None
        decision = Resolver(anna.running, anna.arena, node)
        bert.write("plan.txt", b"nobody has seen this")
        new = _hash(b"nobody has seen this")
        await until(lambda: any(entry.hash == new for entry in anna.arena.cache.entries(node)))
        await decision.resolve("local")
        await anna.idle()
        await bert.idle()
        assert _flags(anna) & 1
        assert _flags(bert) & 1
        assert bert.real()[b"plan.txt"] == b"nobody has seen this"


@trio_test
async def test_what_was_saved_here_after_the_decision_is_not_replaced(tmp_path: Path) -> None:
    anna, bert = hosts = _household(tmp_path, "anna", "bert")
    _disagree(*hosts)
    async with anna.up(), bert.up(), linked(*hosts):
        await _all_conflict(*hosts)
        node = anna.node("plan.txt")
        assert node is not None
        decision = Resolver(anna.running, anna.arena, node)
        anna.write("plan.txt", b"saved a moment ago")
        new = _hash(b"saved a moment ago")
        await until(lambda: any(entry.hash == new for entry in anna.arena.cache.entries(node)))
        with pytest.raises(ChangedError):
            await decision.resolve("bert")
        assert anna.real()[b"plan.txt"] == b"saved a moment ago"


@trio_test
async def test_both_are_kept_side_by_side(tmp_path: Path) -> None:
    anna, bert = hosts = _household(tmp_path, "anna", "bert", mark=Mark.OWN)
    _disagree(*hosts)
    async with anna.up(), bert.up():
        await anna.idle()
        await bert.idle()
        async with linked(*hosts):
            await _all_conflict(*hosts)
            resolved = await anna.service.conflict_resolve(AT, "both")
            name = b"plan.conflict-bert-20200913-122641.txt"
            assert resolved.beside == (ArenaPath("docs", name),)
            await _all_agree(*hosts)
            expected = {b"plan.txt": b"anna's plan", name: b"bert's plan"}
            await until(lambda: anna.real() == bert.real() == expected)


@trio_test
@pytest.mark.parametrize("keep", ["local", "bert", "both"])
async def test_three_versions_on_three_hosts_end_as_one(tmp_path: Path, keep: str) -> None:
    hosts = anna, bert, carl = _household(tmp_path, "anna", "bert", "carl")
    _disagree(*hosts)
    async with anna.up(), bert.up(), carl.up():
        for host in hosts:
            await host.idle()
        async with linked(*hosts):
            await _all_conflict(*hosts)
            await until(lambda: len(anna.arena.cache.entries(anna.node("plan.txt") or 0)) == 3)
            (row,) = await anna.service.conflicts()
            assert [(one.here, one.peers) for one in row.versions] == [
                (True, ()),
                (False, ("bert",)),
                (False, ("carl",)),
            ]
            resolved = await anna.service.conflict_resolve(AT, keep)
            assert len(resolved.beside) == (2 if keep == "both" else 0)
            await _all_agree(*hosts)
            shown = (await carl.tree())[b"plan.txt"]
            assert shown == _hash(b"bert's plan" if keep == "bert" else b"anna's plan")
            everything = {_hash(data) for host in hosts for data in host.real().values()}
            everything |= {row.hash for host in hosts for row in await host.service.trash_list()}
            assert everything >= {_hash(f"{host.name}'s plan".encode()) for host in hosts}


@trio_test
async def test_a_host_that_holds_nothing_can_decide(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", ["bert", "viewer"], mark=Mark.OWN)
    bert = Host(tmp_path, "bert", ["anna", "viewer"], mark=Mark.OWN)
    viewer = Host(tmp_path, "viewer", ["anna", "bert"], datadir=None)
    hosts = anna, bert, viewer
    _disagree(anna, bert)
    async with anna.up(), bert.up(), viewer.up():
        await anna.idle()
        await bert.idle()
        async with linked(*hosts):
            await _all_conflict(*hosts)
            with pytest.raises(UsageError, match="holds no version"):
                await viewer.service.conflict_resolve(AT, "local")
            with pytest.raises(PathReadOnlyError, match="no datadir"):
                await viewer.service.conflict_resolve(AT, "both")
            content = Hash(_hash(b"anna's plan"))
            link = viewer.running.subscriptions.links[anna.key]
            await viewer.arena.fetcher.download(content, len(b"anna's plan"), [link])
            viewer.arena.blobs.set_area([content], Area.PENDING)
            await viewer.service.conflict_resolve(AT, "anna")
            await _all_agree(*hosts)
            assert anna.real() == bert.real() == {b"plan.txt": b"anna's plan"}
            blob = viewer.arena.blobs.info(content)
            assert blob is not None
            assert blob.area is Area.WORKING, "what was in the trash is not to be evicted first any more"


@trio_test
@pytest.mark.parametrize("keep", ["bert", "local"])
async def test_deletion_against_change_is_flagged_and_either_can_win(tmp_path: Path, keep: str) -> None:
    anna, bert = hosts = _household(tmp_path, "anna", "bert")
    anna.write("plan.txt", b"common")
    async with anna.up(), bert.up():
        async with linked(*hosts):
            await bert.mark("", Mark.OWN)
            await until(lambda: bert.real() == {b"plan.txt": b"common"})
            for host in hosts:
                await host.idle()
        await bert.mark("", Mark.WATCH)
        anna.write("plan.txt", b"changed by anna")
        (bert.data / "plan.txt").unlink()
        await anna.idle()
        await bert.idle()
        async with linked(*hosts):
            await until(lambda: bert.node("plan.txt"))
            for host in hosts:
                await host.idle()
                (row,) = await host.service.conflicts()
                assert (row.at, row.revived) == (AT, True)
                deletion = next(one for one in row.versions if one.kind is Kind.NONE)
                assert deletion.here if host is bert else deletion.peers == ("bert",)
                assert "revived" in dict((await host.service.why(AT)).lines)
                found = [event for event in host.events if isinstance(event, ConflictChanged)]
                assert [event.revived for event in found] == [True]
                assert (await host.service.status()).arenas[0].conflicts == 1, "as many as are listed"
            await anna.service.conflict_resolve(AT, keep)
            if keep == "bert":
                await until(lambda: not anna.node("plan.txt") and not bert.node("plan.txt"))
                assert anna.real() == {}
                assert [row.why for row in await anna.service.trash_list()] == ["deleted"]
            else:
                await until(lambda: not _flags(bert))
                assert anna.real() == {b"plan.txt": b"changed by anna"}
            for host in hosts:
                await host.idle()
                assert await host.service.conflicts() == ()
                assert (await host.service.status()).arenas[0].conflicts == 0
                found = [event for event in host.events if isinstance(event, ConflictChanged)]
                assert found[-1].resolved, "who looks at the dashboard of either hears that it is over"


@trio_test
async def test_a_deletion_that_lost_is_no_question_where_the_changed_file_is_owned(tmp_path: Path) -> None:
    anna, bert = hosts = _household(tmp_path, "anna", "bert", mark=Mark.OWN)
    anna.write("plan.txt", b"common")
    async with anna.up(), bert.up():
        async with linked(*hosts):
            await until(lambda: bert.real() == {b"plan.txt": b"common"})
            for host in hosts:
                await host.idle()
        anna.write("plan.txt", b"changed by anna")
        (bert.data / "plan.txt").unlink()
        await anna.idle()
        await bert.idle()
        async with linked(*hosts):
            await until(lambda: bert.real() == {b"plan.txt": b"changed by anna"})
            await _all_agree(*hosts)
            assert any(isinstance(event, ConflictChanged) and event.revived for event in bert.events)


@trio_test
async def test_nothing_is_decided_over_a_version_that_nobody_can_have_looked_at(tmp_path: Path) -> None:
    anna, bert = hosts = _household(tmp_path, "anna", "bert", mark=Mark.WATCH)
    async with anna.up(), bert.up():
        for host in hosts:
            host.write("plan.txt", b"common")
            await host.idle()
        (bert.data / "plan.txt").unlink()
        await until(lambda: not bert.node("plan.txt"))
        async with linked(*hosts):
            await until(lambda: _flags(bert) & Flag.REVIVED)
        node = bert.node("plan.txt") or 0
        # As anna's next version is announced, before she has hashed it.
        bert.arena.cache.conn.execute("UPDATE entry SET hash = NULL WHERE node = ? AND peer > 0", (node,))
        with pytest.raises(ChangedError, match="not hashed yet"):
            await bert.service.conflict_resolve(AT, "local")
        assert _flags(bert) & Flag.REVIVED


@trio_test
async def test_what_cannot_be_kept_is_refused_with_the_reason(tmp_path: Path) -> None:
    anna, bert = hosts = _household(tmp_path, "anna", "bert")
    _disagree(*hosts)
    async with anna.up():
        async with bert.up():
            await anna.idle()
            await bert.idle()
            async with linked(*hosts):
                await _all_conflict(*hosts)
        with pytest.raises(UsageError, match="carl holds no version") as caught:
            await anna.service.conflict_resolve(AT, "carl")
        assert "local, bert, both" in caught.value.hint
        with pytest.raises(NoHolderError, match="no connected peer"):
            await anna.service.conflict_resolve(AT, "bert")
        assert anna.real() == {b"plan.txt": b"anna's plan"}
        assert len(await anna.service.conflicts()) == 1
        await anna.service.conflict_resolve(AT, "local")
        with pytest.raises(UsageError, match="in no conflict"):
            await anna.service.conflict_resolve(AT, "local")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"plan.txt", b"plan.conflict-bert-20200913-122640.txt"),
        (b"plan", b"plan.conflict-bert-20200913-122640"),
        (b".hidden", b".hidden.conflict-bert-20200913-122640"),
        (b"a" * 250 + b".txt", b"a" * (255 - 38 + 4 - 4) + b".conflict-bert-20200913-122640.txt"),
        (b"\xff\xfe.txt", b"\xff\xfe.conflict-bert-20200913-122640.txt"),
    ],
)
def test_the_name_of_the_other_version(name: bytes, expected: bytes) -> None:
    made = conflict_name(name, "bert", NS)
    assert len(made) <= 255
    if len(name) < 200:
        assert made == expected
    assert made.endswith(b".conflict-bert-20200913-122640" + os.path.splitext(name)[1])
    assert conflict_name(b"plan.txt", "a/b", NS, 2) == b"plan.conflict-a_b-20200913-122640-2.txt"
