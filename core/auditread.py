"""Reading the audit logs of all arenas, in the order of time, rotated files included, to the end and on.

Blocking functions run in a worker; `follow` is woken by the event stream, after which the writer
(`core.audit`, in the engine thread too) has written what belongs to the event.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import trio

from core.api import ArenaPath, LogLine
from core.audit import CURRENT
from core.events import EventBus
from core.paths import is_below

_log = logging.getLogger("realize.core.auditread")

_BATCH = 500
_MAX_LINE_BYTES = 1024 * 1024
"""LIMIT: a longer line is none that we wrote."""


class AuditFiles:
    """The lines of one arena's log after those that were read before. Blocking."""

    def __init__(self, directory: Path, arena: str) -> None:
        """Read the log in ``directory`` from its beginning."""
        self._directory, self._arena = directory, arena
        self._file: BinaryIO | None = None
        self._rest = b""

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def all(self, since_ns: int) -> Iterator[LogLine]:
        """Yield all lines, without rotated files that ended before ``since_ns``."""
        # RACE: opened before the others are listed: rotated meanwhile, it is among those and read once.
        self._open()
        yield from self._old(since_ns)
        yield from self.more()

    def _open(self) -> BinaryIO | None:
        if self._file is None:
            try:
                self._file = open(self._directory / CURRENT, "rb")  # noqa: SIM115 - kept open
            except FileNotFoundError:
                return None
        return self._file

    def _old(self, since_ns: int) -> Iterator[LogLine]:
        rotated = []
        for path in self._directory.glob("audit-*.jsonl"):
            ended_ns = path.stem.removeprefix("audit-")
            if ended_ns.isdigit() and int(ended_ns) >= since_ns:
                rotated.append((int(ended_ns), path))
        for _, path in sorted(rotated):
            try:
                with open(path, "rb") as file:
                    if self._file is None or not os.path.sameopenfile(file.fileno(), self._file.fileno()):
                        for line in file:
                            yield from self._parsed(line)
            except FileNotFoundError:
                continue  # RACE: it had just reached its age

    def more(self) -> Iterator[LogLine]:
        """Yield what the current file has got since the last call, and what a rotation put after it."""
        while True:
            file = self._open()
            if file is None:
                return
            for line in file:
                self._rest += line
                if self._rest.endswith(b"\n"):
                    line, self._rest = self._rest, b""
                    yield from self._parsed(line)
            if not self._rotated(file):
                return
            self.close()

    def _rotated(self, file: BinaryIO) -> bool:
        try:
            return os.fstat(file.fileno()).st_ino != os.stat(self._directory / CURRENT).st_ino
        except FileNotFoundError:
            return False

    def _parsed(self, line: bytes) -> Iterator[LogLine]:
        try:
            record = json.loads(line) if len(line) < _MAX_LINE_BYTES else None
            if isinstance(record, dict):
                yield _line(self._arena, record)
        except (ValueError, KeyError, TypeError):
            # A crash in the middle of a line, or a hand that edited it: the others are as good as before.
            _log.warning("a line of the audit log of %s is not readable", self._arena)


def _line(arena: str, record: dict[str, Any]) -> LogLine:
    detail = record.get("mark") or record.get("reason") or ", ".join(record.get("peers", ()))
    if record.get("from"):
        detail = f"from {record['from']}"
    return LogLine(
        at_ns=int(record["at_ns"]),
        at=ArenaPath(arena, str(record["path"]).encode("utf-8", "surrogateescape")),
        what=str(record["what"]),
        cause=str(record.get("cause") or ""),
        peer=str(record.get("peer") or ""),
        before=record.get("before"),
        after=record.get("after"),
        detail=str(detail or ""),
    )


async def read_log(
    directories: Mapping[str, Path], events: EventBus, path: bytes, since_ns: int, *, follow: bool
) -> AsyncGenerator[list[LogLine], None]:
    """Yield the lines of these arenas' logs at and below a path; see `Api.log`. An async generator."""
    files = [AuditFiles(directory, arena) for arena, directory in directories.items()]

    def wanted(line: LogLine) -> bool:
        return line.at_ns >= since_ns and is_below(line.at.path, path)

    def more() -> list[LogLine]:
        new = sorted((line for one in files for line in one.more()), key=lambda line: line.at_ns)
        return [line for line in new if wanted(line)]

    def next_batch(lines: Iterator[LogLine]) -> list[LogLine]:
        batch: list[LogLine] = []
        for line in lines:
            if wanted(line):
                batch.append(line)
            if len(batch) >= _BATCH:
                break
        return batch

    try:
        # Subscribed before the end is reached, so that nothing falls between.
        with events.subscribe() as subscription:
            lines = heapq.merge(*(one.all(since_ns) for one in files), key=lambda line: line.at_ns)
            while batch := await trio.to_thread.run_sync(next_batch, lines):
                yield batch
            if not follow:
                return
            async for _ in subscription.batches():
                if batch := await trio.to_thread.run_sync(more):
                    yield batch
    finally:
        for one in files:
            one.close()
