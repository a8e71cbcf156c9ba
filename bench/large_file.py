"""One large file: transferred whole, read through the mount, read in a few places."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

from bench import others
from bench.report import UP, Row
from bench.rig import (
    MARK,
    MIB,
    Size,
    attribute,
    drop_page_cache,
    make_large,
    read_all,
    timed,
    two_peers,
    wait_for,
    wait_shown,
)

READ_BYTES = 4096


def rows(size: Size) -> Iterator[Row]:
    """Measure a transfer, then reads, each of a file never seen before."""
    total = size.large_bytes
    mib = total / MIB
    with two_peers() as (household, source, reader):
        names = ("transferred.bin", "streamed.bin", "sampled.bin")
        for name in names:
            make_large(source.datadir() / name, total)
        household.start()
        household.wait_connected()
        transferred, streamed, sampled = (wait_shown(reader, name) for name in names)

        started_s = time.perf_counter()
        os.setxattr(transferred, MARK, b"keep")
        wait_for(lambda: attribute(transferred, "state") == "kept", "kept")
        took_s = time.perf_counter() - started_s
        beside = others.copy_file(source.datadir() / names[0])
        yield Row(f"{mib:.0f} MiB incompressible, kept", mib / took_s, "MiB/s", 280, UP, beside)

        yield Row(
            f"{mib:.0f} MiB read through the mount, never seen",
            mib / timed(lambda: read_all(streamed)),
            "MiB/s",
            200,
            UP,
        )
        wait_for(lambda: attribute(streamed, "state") == "cached", "cached")
        yield Row("read again, page cache warm", mib / timed(lambda: read_all(streamed)), "MiB/s", 4_000, UP)
        whole = drop_page_cache(streamed)
        note = {} if whole else {"note": "only the mount's pages were dropped: not root"}
        yield Row(
            "read again, page cache dropped", mib / timed(lambda: read_all(streamed)), "MiB/s", 600, UP, note
        )

        each_ms = 1000 * timed(lambda: _read_at_random(sampled, total, size.random_reads)) / size.random_reads
        held = int(attribute(sampled, "progress").split("/")[0])
        yield Row(f"{size.random_reads} random 4 KiB reads of {mib:.0f} MiB, each", each_ms, "ms", 2)
        yield Row("fetched for them", held / MIB, "MiB", 32)


def _read_at_random(path: os.PathLike[str], total: int, reads: int) -> None:
    places = random.Random(1)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(reads):
            assert (
                len(os.pread(descriptor, READ_BYTES, places.randrange(total // READ_BYTES) * READ_BYTES))
                == READ_BYTES
            )
    finally:
        os.close(descriptor)
