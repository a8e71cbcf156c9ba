"""A small file changed at one peer until its new content can be read at the other."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.report import Row
from bench.rig import Size, two_peers, wait_for, wait_shown


def rows(size: Size) -> Iterator[Row]:
    """Measure edits one after the other, as an editor saves: written aside, renamed over."""
    with two_peers() as (household, source, reader):
        real = source.datadir() / "note.txt"
        real.write_bytes(b"before the first edit")
        household.start()
        household.wait_connected()
        shown = wait_shown(reader, real.name)
        took_ms: list[float] = []
        for number in range(size.edits):
            content = f"edit {number} ".encode() * 50
            draft = source.home / "draft"
            draft.write_bytes(content)
            os.rename(draft, real)
            took_ms.append(1000 * wait_for(partial(_reads, shown, content), "the change", every_s=0.001))
            source.wait_idle()
        yield Row("small file changed until readable, median", statistics.median(took_ms), "ms", 30)
        yield Row(
            "small file changed until readable, 95 %", sorted(took_ms)[int(len(took_ms) * 0.95)], "ms", 60
        )


def _reads(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False
