"""A great many files: a start with all of them indexed, and the memory of who holds and who lists them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from app.demo.household import Peer
from bench.report import Row
from bench.rig import (
    LIMIT_S,
    MEMORY,
    Size,
    cpu_seconds,
    load,
    make_tree,
    memory_has_room,
    peak_mib,
    resident_mib,
    two_peers,
)

FILE_BYTES = 16
FILES_PER_DIRECTORY = 1000


def rows(size: Size) -> Iterator[Row]:
    """Measure the first start, memory, and a start with everything indexed."""
    files = size.many_files
    in_memory = memory_has_room(files)
    tree = f"{FILE_BYTES} B each, {FILES_PER_DIRECTORY} a directory, {'tmpfs' if in_memory else 'disk'}"
    with two_peers(directory=MEMORY if in_memory else None) as (_, source, reader):
        creates = make_tree(source.datadir(), files, FILE_BYTES, FILES_PER_DIRECTORY)
        for peer, what, beside in (
            (
                source,
                f"first scan and hash of {files} files",
                {"plain loop creates": f"{creates:.0f} files/s"},
            ),
            (reader, f"names of {files} files at the peer", {}),
        ):
            peer.start()
            started_s = time.perf_counter()
            peer.wait_idle(LIMIT_S)
            took_s = time.perf_counter() - started_s
            yield Row(what, files / took_s, "files/s", beside=beside | _note(peer, tree))
            yield _memory(peer, files, "just made known to it")
        for peer in (source, reader):
            peer.stop(LIMIT_S)
        for peer in (source, reader):
            ready_s = peer.start(timeout_s=LIMIT_S)
            note = _note(
                peer, "metadata warm; database, mount and peers answer, the datadir is not compared yet"
            )
            yield Row(
                f"restart of the {peer.name} with {files} files until ready", ready_s, "s", 10, beside=note
            )
            started_s = time.perf_counter()
            peer.wait_idle(LIMIT_S)
            compared_s = ready_s + time.perf_counter() - started_s
            yield Row("the same until its datadir is compared", compared_s, "s", beside=_note(peer))
            yield _memory(peer, files, "after a restart")


def _memory(peer: Peer, files: int, when: str) -> Row:
    peak = {"peak": f"{peak_mib(peer):.0f} MiB"}
    return Row(
        f"memory of the {peer.name}, {files} files {when}", resident_mib(peer), "MiB", 300, beside=peak
    )


def _note(peer: Peer, text: str = "") -> dict[str, str]:
    used = {"processor time": f"{cpu_seconds(peer):.1f} s", "load": load()}
    return ({"note": text} if text else {}) | used
