"""``.realize/conflicts`` and ``.realize/trash``, without a kernel."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from core.displaced import Why
from core.errors import PathNotFoundError
from core.reader import TreeReader
from core.trashrows import Reason
from core.types import Kind, RelPath
from fuse.generated import CONFLICTS_INODE, TRASH_INODE
from fuse.view import REALIZE_INODE, View
from tests.core.engines import Host

NS = 1_600_000_000_000_000_000


def _fill(base: Path, *contents: tuple[bytes, bytes]) -> Host:
    """Put contents into the trash of a host, each a second after the one before."""
    host = Host(base, "anna", [])

    async def run() -> None:
        async with host.up():
            arena = host.arena
            for number, (path, data) in enumerate(contents):
                source = arena.work_path / f"old-unhashed-0-{number}"
                source.write_bytes(data)

                os.utime(source, ns=(NS + number * 10**9, NS + number * 10**9))
                assert await arena.displaced.settle(source, RelPath(path), Why(Reason.REPLACED))

    trio.run(run)
    return host


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    host = _fill(
        tmp_path,
        (b"a.txt", b"one"),
        (b"a.txt", b"second"),
        (b"a.txt", b"the third"),
        (b"d", b"a file"),
        (b"d/inside", b"of what became a directory"),
        (b"\xff\xfe", b"no text"),
    )
    tree = TreeReader(host.config.cache_db, host.config.arenas)
    yield View(tree, NS)
    tree.close()


def _names(view: View, directory: int) -> list[bytes]:
    return [row.name for row in view.listing(directory, 0, 100)]


def test_the_newest_has_the_name_and_older_ones_their_time(view: View) -> None:
    assert _names(view, REALIZE_INODE) == [b"conflicts", b"status.json", b"trash"]
    docs = view.child(TRASH_INODE, b"docs")
    assert (docs.kind, docs.mode) == (Kind.DIR, 0o555)
    assert _names(view, docs.id) == [
        b"a.txt",
        b"a~20200913-122640.txt",
        b"a~20200913-122641.txt",
        b"d",
        b"d~20200913-122643",
        b"\xff\xfe",
    ]
    sizes = {row.name: row.size for row in view.listing(docs.id, 0, 100) if row.kind == Kind.FILE}
    assert sizes[b"a.txt"] == 9
    assert sizes[b"a~20200913-122640.txt"] == 3
    assert _names(view, view.child(docs.id, b"d").id) == [b"inside"]
    file = view.generated(view.child(docs.id, b"d~20200913-122643").id)
    assert file is not None
    assert (file.arena, file.size, file.hash is not None) == ("docs", 6, True)


def test_an_inode_stays_and_a_listing_goes_on_where_it_was(view: View) -> None:
    docs = view.child(TRASH_INODE, b"docs")
    assert view.child(TRASH_INODE, b"docs").id == docs.id
    assert view.attrs(docs.id).name == b"docs"
    names: list[bytes] = []
    offset = 0
    while rows := view.listing(docs.id, offset, 2):
        names += [row.name for row in rows]
        offset = rows[-1].id
    assert names == _names(view, docs.id)


def test_what_is_not_there_is_not_found(view: View) -> None:
    docs = view.child(TRASH_INODE, b"docs").id
    for name in (b"b.txt", b"a~20200913-122649.txt", b"a~.txt", b"~", b"a~20200913-122642.txt"):
        with pytest.raises(PathNotFoundError):
            view.child(docs, name)
    with pytest.raises(PathNotFoundError):
        view.child(TRASH_INODE, b"photos")
    assert _names(view, CONFLICTS_INODE) == [b"docs"]
    assert _names(view, view.child(CONFLICTS_INODE, b"docs").id) == []
    assert view.place(docs) is None
