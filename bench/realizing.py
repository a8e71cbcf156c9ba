"""Real files that become cached content and real files again, without any content being moved."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.demo.household import Peer
from bench.report import UP, Row
from bench.rig import ARENA, LIMIT_S, MARK, MIB, Size, load, make_tree, received_mib, two_peers, wait_for

FILE_BYTES = 6 * 1024


def rows(size: Size) -> Iterator[Row]:
    """Measure *unrealize* under watch, while the source holds the files, and *realize* under own."""
    files = size.small_files
    with two_peers(reader_options={"mark": "own"}) as (household, source, reader):
        creates = make_tree(source.datadir(), files, FILE_BYTES)
        household.start()
        household.wait_connected()
        _wait_real(reader, files)
        received, inodes = received_mib(reader), _inodes(reader.datadir())
        for mark, real, what in (("watch", 0, "unrealize"), ("own", files, "realize")):
            started_s = time.perf_counter()
            os.setxattr(reader.view(ARENA), MARK, mark.encode())
            _wait_real(reader, real)
            rate = files / (time.perf_counter() - started_s)
            (arena,) = reader.status()["arenas"]
            assert (arena["real"], arena["cached"]) == (real, files - real), arena
            beside = {"plain loop creates": f"{creates:.0f} files/s", "load": load()}
            yield Row(f"{what} {files} files", rate, "files/s", better=UP, beside=beside)
        assert _inodes(reader.datadir()) == inodes, "files were copied"
        content = {"content": f"{files * FILE_BYTES / MIB:.0f} MiB"}
        yield Row("received by the peer for both", received_mib(reader) - received, "MiB", beside=content)


def _wait_real(peer: Peer, files: int) -> None:
    wait_for(lambda: len(_inodes(peer.datadir())) == files, f"{files} real files", every_s=0.05)
    peer.wait_idle(LIMIT_S)


def _inodes(root: Path) -> set[int]:
    """Return the inode numbers of the files below a directory: a file that is renamed keeps its own."""
    found: set[int] = set()
    for directory in [root, *(entry for entry in root.iterdir() if entry.is_dir())]:
        with suppress(FileNotFoundError), os.scandir(directory) as entries:
            found.update(entry.inode() for entry in entries if entry.is_file(follow_symlinks=False))
    return found
