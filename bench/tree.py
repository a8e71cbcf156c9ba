"""Many files: the first scan, announcing, listing on the mount, memory and idle CPU."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

from app.demo.household import Peer
from bench.report import UP, Row
from bench.rig import ARENA, LIMIT_S, Size, cpu_seconds, make_tree, resident_mib, timed, two_peers
from tests.e2e.terminal import Terminal

FILE_BYTES = 4096
KEYS = ("\r", *["\x1b[B"] * 5, "z", "z", "2", "1")
"""Open the arena, go down, zoom and back, to the next pane and back."""


def rows(size: Size) -> Iterator[Row]:
    """Measure a tree of many files."""
    files = size.tree_files
    with two_peers() as (household, source, reader):
        creates = make_tree(source.datadir(), files, FILE_BYTES)
        plain = {"plain loop creates": f"{creates:.0f} files/s"}
        started_s = time.perf_counter()
        source.start()
        source.wait_idle(LIMIT_S)
        yield Row(
            f"first scan and hash of {files} files",
            files / (time.perf_counter() - started_s),
            "files/s",
            14_000,
            UP,
            plain,
        )

        # Ready comes before the connection: from here on the reader dials, asks, and takes it all in.
        reader.start()
        started_s = time.perf_counter()
        reader.wait_idle(LIMIT_S)
        yield Row(
            f"names of {files} files visible at the peer",
            files / (time.perf_counter() - started_s),
            "files/s",
            40_000,
            UP,
        )

        for what, options, cold_s, warm_s in (
            ("find", [], 1.5, 0.2),
            ("find with sizes", ["-printf", "%s\n"], 2.5, 0.5),
        ):
            command = ["find", str(reader.view(ARENA)), "-type", "f", *options]
            yield Row(f"{what} over {files} files, cold", _find_s(command, files), "s", cold_s)
            yield Row(f"{what} over {files} files, warm", _find_s(command, files), "s", warm_s)
            reader.stop()
            reader.start()
        household.wait_connected()
        for peer in (source, reader):
            peer.wait_idle(LIMIT_S)
        yield Row(f"memory of the reader with {files} files", resident_mib(reader), "MiB", 120)
        yield Row(f"memory of the source with {files} files", resident_mib(source), "MiB", 120)
        yield from _dashboard(reader, files)
        before_s = cpu_seconds(source) + cpu_seconds(reader)
        time.sleep(size.idle_s)
        used_s = cpu_seconds(source) + cpu_seconds(reader) - before_s
        yield Row("idle CPU of a daemon", 100 * used_s / size.idle_s / 2, "%", 0.1)


def _dashboard(reader: Peer, files: int) -> Iterator[Row]:
    """Measure the dashboard attached to a daemon, in a terminal of its own."""
    started_s = time.perf_counter()
    with Terminal(reader.daemon_command(), dict(os.environ) | reader.environment()) as screen:
        screen.wait_for(rf"{ARENA}\b")
        yield Row(f"dashboard of {files} files, first screen", time.perf_counter() - started_s, "s", 2)
        took_s = [screen.time_key(key) for key in KEYS]
        yield Row("slowest of its keys, until the screen changes", 1000 * max(took_s), "ms", 100)
        screen.press("q")
        screen.wait_end()


def _find_s(command: list[str], files: int) -> float:
    found: list[int] = []

    def run() -> None:
        done = subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
        found.append(done.stdout.count(b"\n"))

    took_s = timed(run)
    assert found == [files], f"{found} of {files} files found"
    return took_s
