"""The audit log of an arena: what was done to its files, by whom and why, durable (spec 4 §Events).

JSON lines in ``<workdir>/audit/audit.jsonl``, rotated by size and age. A subscriber of the event stream
and of nothing else; writing a line never waits for the disk. Engine thread.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from core.events import AnyEvent, ConflictChanged, Evicted, FileChanged, FilesChanged, MarkChanged
from core.paths import to_str

_log = logging.getLogger("realize.core.audit")

MAX_BYTES = 10 * 1024 * 1024
"""LIMIT: size at which the file is rotated (spec 4 §Events)."""
KEEP_NS = 90 * 24 * 3600 * 1_000_000_000
"""LIMIT: age at which the file is rotated however small it is, and a rotated one goes (spec 4 §Events)."""
_LONGEST_LINE = 1 << 20
CURRENT = "audit.jsonl"
"""Name of the file that is written to; rotated ones are ``audit-NS.jsonl``, by the time of their end."""


class AuditLog:
    """Writes the audit log of one arena."""

    def __init__(self, directory: Path, arena: str) -> None:
        """Log to ``directory``, which is made, what happens in ``arena``.

        Raises:
            OSError: the directory or file cannot be made.
        """
        self.directory = directory
        self._arena = arena
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: BinaryIO | None = self._open()
        self._began_ns = self._first_ns()

    def _open(self) -> BinaryIO:
        return open(self.directory / CURRENT, "ab", buffering=0)

    def _first_ns(self) -> int | None:
        """Return the time of the first line; None if there is none that can be read."""
        try:
            with open(self.directory / CURRENT, "rb") as file:
                return int(json.loads(file.readline(_LONGEST_LINE))["at_ns"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def on_event(self, event: AnyEvent) -> None:
        """Write down an event that changed a file, blob or mark of the arena; others are ignored."""
        lines = [_line(event.at_ns, self._arena, record) for record in _records(event, self._arena)]
        if not lines or self._file is None:
            return
        try:
            if self._began_ns is not None and event.at_ns - self._began_ns > KEEP_NS:
                self._rotate(event.at_ns)
            self._file.write(b"".join(lines))
            self._began_ns = self._began_ns or event.at_ns
            if self._file.tell() >= MAX_BYTES:
                self._rotate(event.at_ns)
        except OSError as error:
            # A full disk must not stop the sync; what is lost is said where it can be seen.
            _log.warning("audit log of %s not written: %s", self._arena, error.strerror)

    def _rotate(self, at_ns: int) -> None:
        if self._file is not None:
            self._file.close()
        os.rename(self.directory / CURRENT, self.directory / f"audit-{at_ns}.jsonl")
        self._file, self._began_ns = self._open(), None
        for old in self.directory.glob("audit-*.jsonl"):
            made_ns = old.stem.removeprefix("audit-")
            if made_ns.isdigit() and at_ns - int(made_ns) > KEEP_NS:
                old.unlink()

    def close(self) -> None:
        """Close the file; later events are ignored."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(at_ns: int, arena: str, record: dict[str, Any]) -> bytes:
    whole = {"at_ns": at_ns, "arena": arena, **record}
    try:
        return msgspec.json.encode(whole) + b"\n"
    except UnicodeEncodeError:  # a name that is not UTF-8: as escapes of surrogates
        return json.dumps(whole).encode() + b"\n"


def _records(event: AnyEvent, arena: str) -> Iterator[dict[str, Any]]:
    match event:
        case FileChanged(arena=name) if name == arena and event.cause:
            yield {
                "what": event.what,
                "path": to_str(event.path),
                "cause": event.cause,
                "peer": event.peer,
                "before": _hex(event.before),
                "after": _hex(event.after),
                "from": to_str(event.origin),
            }
        case FilesChanged(arena=name) if name == arena:
            columns = zip_longest(event.paths, event.befores, event.contents, event.origins)
            for path, before, after, origin in columns:
                yield {
                    "what": event.what,
                    "path": to_str(path),
                    "cause": event.cause,
                    "peer": event.peer,
                    "before": _hex(before),
                    "after": _hex(after),
                    "from": to_str(origin or b""),
                }
        case MarkChanged(arena=name) if name == arena:
            yield {"what": "mark", "path": to_str(event.path), "cause": "user", "mark": event.mark}
        case Evicted(arena=name) if name == arena:
            yield {
                "what": "evicted",
                "path": to_str(event.path),
                "cause": event.cause,
                "before": _hex(event.content),
                "reason": event.reason,
            }
        case ConflictChanged(arena=name) if name == arena:
            what = "resolved" if event.resolved else "revived" if event.revived else "conflict"
            cause = "peer" if event.peers or not event.resolved else "user"
            yield {"what": what, "path": to_str(event.path), "cause": cause, "peers": list(event.peers)}
        case _:
            return


def _hex(content: bytes | None) -> str | None:
    return content.hex() if content else None
