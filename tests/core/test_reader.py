"""Reading the tree through the databases that the writer makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core import arena_reader, db
from core.api import Usage
from core.byteranges import ByteRanges
from core.connected import ConnectedPeers
from core.errors import PathNotFoundError, StoreError
from core.inodes import allocate_range
from core.reader import ROOT_INODE, TreeReader
from core.types import FileState, Inode, Kind, Mark, RelPath
from tests.fuse.store import OTHER, THIRD, HostOnDisk, hash_of


@pytest.fixture
def host(tmp_path: Path) -> HostOnDisk:
    return HostOnDisk(tmp_path, ["docs", "media/music"])


@pytest.fixture
def tree(host: HostOnDisk) -> Iterator[TreeReader]:
    reader = TreeReader(host.global_db, host.configs, host.connected)
    yield reader
    reader.close()


def test_no_statement_scans_a_table(host: HostOnDisk) -> None:
    conn = db.connect_readonly(host.arenas["docs"].config.workdir / "arena.db")
    for statement in arena_reader.STATEMENTS:
        values = {"node": 1} if ":node" in statement else (1,) * statement.count("?")
        plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        scans = [
            line
            for line in plan
            if line.startswith("SCAN") and line.split()[1] not in ("up", "below", "b", "CONSTANT")
        ]
        assert not scans, (statement, plan)
        if "ORDER BY name" in statement:
            assert not any("TEMP B-TREE" in line for line in plan), plan


def test_an_inode_belongs_to_the_arena_whose_range_holds_it(host: HostOnDisk, tree: TreeReader) -> None:
    for name, arena in host.arenas.items():
        inode = arena.online(b"file", b"data")
        assert tree.arena_of(inode) == name
        assert tree.reader_of(inode)[1].path(inode) == b"file"
    above = tree.directories_in(ROOT_INODE)[1]
    assert (above.name, tree.arena_of(above.id)) == (b"media", "")


def test_a_range_that_was_handed_out_later_is_found(host: HostOnDisk, tree: TreeReader) -> None:
    later = allocate_range(host.conn, "docs", 1 << 40)
    assert tree.arena_of(later.start) == tree.arena_of(later.end - 1) == "docs"
    with pytest.raises(PathNotFoundError):
        tree.arena_of(later.end)


def test_directories_above_arenas_lead_to_configured_ones_only(host: HostOnDisk) -> None:
    tree = TreeReader(host.global_db, [host.arenas["docs"].config])
    assert [row.name for row in tree.directories_in(ROOT_INODE)] == [b"docs"]
    with pytest.raises(PathNotFoundError):
        tree.arena_of(host.arenas["media/music"].root)
    with pytest.raises(PathNotFoundError):
        tree.arena("media/music")


def test_paths_lead_both_ways(host: HostOnDisk, tree: TreeReader) -> None:
    docs, reader = host.arenas["docs"], tree.arena("docs")
    path = RelPath(b"a/\xff\n/c")
    inode = docs.online(path, b"data")
    found = reader.find(path)
    assert found is not None
    assert (found.id, reader.path(inode)) == (inode, path)
    assert reader.chain(inode) == [inode, docs.nodes[b"a/\xff\n"], docs.nodes[b"a"], docs.root]
    assert reader.path(docs.root) == b""
    assert reader.find(RelPath(b"a/missing")) is None
    assert reader.find(RelPath(b"missing/deeper")) is None


def test_listings_page_in_the_order_of_names_and_leave_out_what_is_deleted(
    host: HostOnDisk, tree: TreeReader
) -> None:
    docs, reader = host.arenas["docs"], tree.arena("docs")
    names = [b"A", b"a", b"b", b"\xc3\xa4", b"\xff"]
    for name in reversed(names):
        docs.online(name, name)
    docs.remove(b"b")
    names.remove(b"b")
    assert [row.name for row in reader.listing(docs.root, b"", 10)] == names
    assert [row.name for row in reader.listing(docs.root, b"A", 2)] == names[1:3]
    assert [node.name for node in reader.children(docs.root, b"a", 10)] == names[2:]
    assert reader.attrs(docs.nodes[b"b"]) is None
    assert reader.attrs_of_child(docs.root, b"b") is None


def test_a_mark_is_inherited_from_the_nearest_that_is_set(host: HostOnDisk, tree: TreeReader) -> None:
    docs, reader = host.arenas["docs"], tree.arena("docs")
    file = docs.online(b"a/b/c", b"data")
    assert reader.mark(file) == arena_reader.EffectiveMark(Mark.WATCH, None)
    docs.mark(b"a", Mark.KEEP)
    assert reader.mark(file) == arena_reader.EffectiveMark(Mark.KEEP, docs.nodes[b"a"])
    docs.mark(b"a/b", Mark.OWN)
    assert reader.mark(file).mark is Mark.OWN
    assert (reader.explicit_mark(file), reader.explicit_mark(docs.nodes[b"a"])) == (None, Mark.KEEP)


def test_holders_are_the_peers_with_the_shown_version(host: HostOnDisk, tree: TreeReader) -> None:
    docs, reader = host.arenas["docs"], tree.arena("docs")
    inode = docs.real(b"file", b"data", holders=[OTHER, THIRD])
    docs.conn.execute("UPDATE entry SET hash = ? WHERE node = ? AND peer = 2", (hash_of(b"else"), inode))
    node = reader.node(inode)
    assert node is not None
    assert [tree.peer_name(key) for key in reader.holders(node)] == ["other"]


def test_the_state_comes_from_content_holders_and_connections(host: HostOnDisk) -> None:
    connected = ConnectedPeers()
    docs = host.arenas["docs"]
    tree = TreeReader(host.global_db, host.configs, connected)
    reader = tree.arena("docs")

    def state(inode: Inode) -> FileState:
        node = reader.node(inode)
        assert node is not None
        return reader.state(node)

    online = docs.online(b"online", b"data")
    assert state(online) is FileState.UNAVAILABLE
    connected.add(OTHER)
    assert state(online) is FileState.ONLINE
    connected.remove(OTHER)
    assert state(online) is FileState.UNAVAILABLE
    assert state(docs.partial(b"partial", b"some data", ByteRanges([(0, 4)]))) is FileState.PARTIAL
    cached = docs.cached(b"keep/cached", b"all of it")
    assert state(cached) is FileState.CACHED
    docs.mark(b"keep", Mark.KEEP)
    assert state(cached) is FileState.KEPT
    assert state(docs.real(b"mine", b"mine", holders=[])) is FileState.ONLY_HERE
    assert state(docs.real(b"ours", b"ours")) is FileState.REAL
    assert state(docs.put(b"dir", Kind.DIR, local=1)) is FileState.REAL
    assert state(docs.nodes[b"keep"]) is FileState.ONLINE


def test_usage_sums_over_everything_below(host: HostOnDisk, tree: TreeReader) -> None:
    docs = host.arenas["docs"]
    docs.real(b"a/real", b"x" * 10)
    docs.online(b"a/b/online", b"y" * 20)
    docs.cached(b"a/b/c/cached", b"z" * 40)
    docs.online(b"other", b"w" * 80)
    assert tree.arena("docs").usage(docs.nodes[b"a"]) == Usage(3, 70, 50)


def test_a_missing_database_is_named(host: HostOnDisk, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nothing\.db"):
        TreeReader(tmp_path / "nothing.db", host.configs)
