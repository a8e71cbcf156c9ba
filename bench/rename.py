"""A directory of many files renamed in a datadir: recorded here, shown at a peer that has it cached."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from app.demo.household import Peer
from bench.report import Row
from bench.rig import (
    ARENA,
    LIMIT_S,
    MARK,
    MIB,
    Size,
    count_files,
    cpu_seconds,
    load,
    make_tree,
    received_mib,
    two_peers,
    wait_for,
)
from core.db import connect_readonly

FILE_BYTES = 1024


def rows(size: Size) -> Iterator[Row]:
    """Measure the rename of a directory, first with a peer that lists it, then with one that keeps it."""
    files = size.renamed_files
    with two_peers() as (household, source, reader):
        make_tree(source.datadir() / "first", files, FILE_BYTES)
        household.start()
        household.wait_connected()
        _wait_idle(source, reader)
        yield from _rename(source, reader, files, "first", "second", "listed")
        os.setxattr(reader.view(ARENA), MARK, b"keep")
        _wait_idle(source, reader)
        yield from _rename(source, reader, files, "second", "third", "cached")
        (arena,) = reader.status()["arenas"]
        assert arena["cached"] == files, arena


def _wait_idle(*peers: Peer) -> None:
    for _ in range(2):  # what one has done may be work for the other
        for peer in peers:
            peer.wait_idle(LIMIT_S)


def _rename(source: Peer, reader: Peer, files: int, old: str, new: str, held: str) -> Iterator[Row]:
    what = f"directory of {files} files renamed"
    before, received = _history(source), received_mib(reader)
    used_s = [cpu_seconds(peer) for peer in (source, reader)]
    started_s = time.perf_counter()
    os.rename(source.datadir() / old, source.datadir() / new)
    wait_for(lambda: _is_renamed(source.view(ARENA), old, new), "the rename in the source's tree")
    yield Row(f"{what}, until recorded", time.perf_counter() - started_s, "s", beside={"load": load()})
    wait_for(lambda: _is_renamed(reader.view(ARENA), old, new), "the rename in the peer's tree", every_s=0.02)
    shown_s = time.perf_counter() - started_s
    _wait_idle(source, reader)
    settled_s = time.perf_counter() - started_s
    assert count_files(reader.view(ARENA) / new) == files
    source_s, reader_s = (cpu_seconds(peer) - was for peer, was in zip((source, reader), used_s, strict=True))
    beside = {"both idle": f"{settled_s:.1f} s", "processor time": f"{source_s:.1f} and {reader_s:.1f} s"}
    beside |= {"load": load()}
    yield Row(f"the same until a peer shows it, {held} there", shown_s, "s", beside=beside)
    yield Row("records of history for each of them", (_history(source) - before) / files, "each", 1.02)
    content = {"content": f"{files * FILE_BYTES / MIB:.0f} MiB"}
    yield Row("received by the peer for that", received_mib(reader) - received, "MiB", beside=content)


def _is_renamed(view: Path, old: str, new: str) -> bool:
    """Say whether the new directory is there and the old one, with all in it, is not."""
    return (view / new).exists() and not (view / old).exists()


def _history(peer: Peer) -> int:
    """Return the number of the last record of a peer's history."""
    connection = connect_readonly(peer.home / ARENA / "arena.db")
    try:
        return int(connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'history'").get)
    finally:
        connection.close()
