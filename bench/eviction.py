"""Reads through the mount of a cache that is full: each gives up older content first."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.report import UP, Row
from bench.rig import ARENA, LIMIT_S, MIB, Size, load, read_all, two_peers

FILE_BYTES = 64 * 1024
LARGE_BYTES = 8 * MIB
LARGE_OF = 32
"""There is one large file for so many small ones."""
LARGE_LEAST = 10
"""Fewer large files than this say nothing: they are left out."""


def rows(size: Size) -> Iterator[Row]:
    """Measure reads of content never seen before, while there is room for it and when there is none."""
    kinds = [("64 KiB", FILE_BYTES, size.evicted_files)]
    if size.evicted_files // LARGE_OF >= LARGE_LEAST:
        kinds.append(("8 MiB", LARGE_BYTES, size.evicted_files // LARGE_OF))
    for what, bytes_each, files in kinds:
        # Half of the files fit; a fifth more for what the file system takes beside the bytes.
        limit = int(files * bytes_each * 1.2) // 2
        with two_peers(reader_options={"disk_usage": {"max": limit}}) as (household, source, reader):
            names = [f"{number:05}.bin" for number in range(files)]
            for name in names:
                (source.datadir() / name).write_bytes(os.urandom(bytes_each))
            household.start()
            household.wait_connected()
            for peer in (source, reader):
                peer.wait_idle(LIMIT_S)
            view = reader.view(ARENA)
            free = _rate(view, names[: files // 2])
            (arena,) = reader.status()["arenas"]
            assert arena["cached"] == files // 2, arena
            full = _rate(view, names[files // 2 :])
            (arena,) = reader.status()["arenas"]
            assert arena["cache"]["used"] <= limit, arena
            gone = files - arena["cached"]
            assert gone > files // 10, arena
            beside = {"MiB/s": f"{full * bytes_each / MIB:.0f}", "evicted": str(gone), "load": load()}
            yield Row(f"reads of {what} files while the cache has room", free, "files/s")
            yield Row("the same, each evicting older ones", full, "files/s", beside=beside)
            yield Row("the second by the first", full / free, "×", 0.5, UP)


def _rate(view: Path, names: Sequence[str]) -> float:
    started_s = time.perf_counter()
    for name in names:
        read_all(view / name)
    return len(names) / (time.perf_counter() - started_s)
