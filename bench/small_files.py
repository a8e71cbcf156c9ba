"""Many small files from one peer to the other, complete and verified."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench import others
from bench.report import UP, Row
from bench.rig import ARENA, LIMIT_S, MARK, Size, count_files, make_tree, two_peers, wait_for

FILE_BYTES = 6 * 1024
TARGETS = {"keep": 9_000.0, "own": 6_500.0}


def rows(size: Size) -> Iterator[Row]:
    """Measure keep and own, each in a household of its own with files of its own."""
    files = size.small_files
    for mark, target in TARGETS.items():
        with two_peers() as (household, source, reader):
            creates = make_tree(source.datadir(), files, FILE_BYTES)
            household.start()
            household.wait_connected()
            source.wait_idle(LIMIT_S)
            reader.wait_idle(LIMIT_S)
            beside = {"plain loop creates": f"{creates:.0f} files/s"}
            started_s = time.perf_counter()
            os.setxattr(reader.view(ARENA), MARK, mark.encode())
            if mark == "own":
                wait_for(partial(_has, reader.datadir(), files), "all real files", every_s=0.05)
            reader.wait_idle(LIMIT_S)
            took_s = time.perf_counter() - started_s
            (arena,) = reader.status()["arenas"]
            assert arena["real" if mark == "own" else "cached"] == files, arena
            if mark == "own":
                beside |= others.copy_tree(source.datadir(), files)
            yield Row(f"{mark} {files} small files", files / took_s, "files/s", target, UP, beside)


def _has(root: Path, files: int) -> bool:
    return count_files(root) == files if any(root.iterdir()) else False
