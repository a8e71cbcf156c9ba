"""What the activity pane keeps: conflicts, events and toasts as lines, and what events change.

Pure. The number of lines is bounded; many alike events in one batch become one line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from app import words
from app.tui.present import name, path_text, plural
from core import events as ev
from core.api import ArenaPath
from core.paths import split

KEPT_LINES = 2000
"""LIMIT: lines of the event stream that are kept."""

ALIKE = 3
"""LIMIT: so many alike events of one directory in a batch are shown one by one; more become one line."""

Severity = Literal["information", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the activity pane. ``hint`` is the next step."""

    at_ns: int
    kind: str
    text: str
    tone: str = ""
    at: ArenaPath | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch of events makes old."""

    status: bool = False
    jobs: bool = False
    marks: bool = False
    reset: bool = False
    directories: frozenset[ArenaPath] = frozenset()
    arenas: frozenset[str] = frozenset()
    """Arenas in which anything may have changed."""


def changes_of(batch: Iterable[ev.AnyEvent]) -> Changes:
    """Say what is to be read again after these events."""
    status = jobs = marks = reset = False
    directories: set[ArenaPath] = set()
    arenas: set[str] = set()
    for event in batch:
        match event:
            case ev.Reset():
                status = jobs = marks = reset = True
            case ev.TreeChanged(directories=()):
                arenas.add(event.arena)
            case ev.TreeChanged():
                directories.update(ArenaPath(event.arena, path) for path in event.directories)
            case ev.FileChanged():
                directories.add(ArenaPath(event.arena, split(event.path)[0]))
            case ev.MarkChanged():
                marks = True
                arenas.add(event.arena)
            case ev.JobChanged():
                jobs = True
                status = status or event.phase != "progress"
            case ev.HashingProgress() | ev.ChurtenChanged():
                jobs = status = True
            case ev.PeerChanged() | ev.ConflictChanged() | ev.QuotaChanged() | ev.ArenaChanged():
                status = True
            case ev.Evicted() | ev.Warned() | ev.FilesChanged():
                status = True
            case _:
                assert_never(event)
    marks = marks or bool(directories or arenas)
    status = status or marks
    return Changes(status, jobs, marks, reset, frozenset(directories), frozenset(arenas))


@dataclass(slots=True)
class Journal:
    """The lines, newest last, and the conflicts that are open."""

    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    conflicts: dict[ArenaPath, Line] = field(default_factory=dict)

    def take(self, batch: Iterable[ev.AnyEvent]) -> bool:
        """Keep what people want to see of these events; says whether there was any."""
        fresh: list[Line] = []
        for event in batch:
            if isinstance(event, ev.ConflictChanged):
                self._conflict(event)
            line = line_of(event)
            if line is not None:
                fresh.append(line)
        self.lines.extend(_merged(fresh))
        return bool(fresh)

    def say(self, at_ns: int, text: str, severity: Severity, hint: str = "") -> None:
        """Keep a toast."""
        tone = {"information": "", "warning": "warn", "error": "bad"}[severity]
        kind = {"information": "done", "warning": "warning", "error": "error"}[severity]
        self.lines.append(Line(at_ns, kind, text, tone, hint=hint))

    def _conflict(self, event: ev.ConflictChanged) -> None:
        at = ArenaPath(event.arena, event.path)
        if event.resolved:
            self.conflicts.pop(at, None)
        else:
            what = f"versions of {_names(event.peers)}"
            if event.revived:
                what = "deleted by one, changed by another"
            text = f"{path_text(at)}: {what}"
            self.conflicts[at] = Line(event.at_ns, "conflict", text, "conflict", at)


def _names(peers: Sequence[str]) -> str:
    return ", ".join(name(peer) for peer in peers) or "this host"


def _merged(lines: list[Line]) -> list[Line]:
    """Make one line of many alike ones: same kind, same directory."""
    groups: dict[object, list[Line]] = {}
    for index, line in enumerate(lines):
        alike = line.at is not None and line.tone not in ("bad", "conflict")
        key = (
            (line.kind, line.at.arena, split(line.at.path)[0])
            if alike and line.at and line.at.path
            else index
        )
        groups.setdefault(key, []).append(line)
    merged: list[Line] = []
    for group in groups.values():
        if len(group) <= ALIKE:
            merged += group
            continue
        last = group[-1]
        assert last.at is not None
        parent = ArenaPath(last.at.arena, split(last.at.path)[0])
        merged.append(
            Line(last.at_ns, last.kind, f"{len(group)} files in {path_text(parent)}", last.tone, parent)
        )
    return merged


def line_of(event: ev.AnyEvent) -> Line | None:
    """Return the line for an event; None for what is shown elsewhere (progress, the tree)."""
    match event:
        case ev.JobChanged():
            return _job(event)
        case ev.PeerChanged():
            text = f"{name(event.peer)} is {event.state}" + (
                f": {name(event.reason)}" if event.reason else ""
            )
            tone = {"connected": "ok", "disconnected": "warn"}.get(event.state, "dim")
            return Line(event.at_ns, "peer", text, tone)
        case ev.FileChanged(what="dropped"):
            return None  # what it was outdated by is a line already
        case ev.FileChanged():
            by = f" by {name(event.peer)}" if event.peer else ""
            at = ArenaPath(event.arena, event.path)
            was = f"{path_text(ArenaPath(event.arena, event.origin))} → " if event.origin else ""
            return Line(event.at_ns, event.what, was + path_text(at) + by, "", at)
        case ev.FilesChanged(cause="user", what="added" | "replaced"):
            return None  # told when it happened (`FileChanged`); this is with the hash, for the record
        case ev.FilesChanged():
            first = ArenaPath(event.arena, event.paths[0]) if event.paths else ArenaPath(event.arena)
            more = f" and {len(event.paths) - 1} more" if len(event.paths) > 1 else ""
            return Line(event.at_ns, event.what, path_text(first) + more, "", first)
        case ev.ConflictChanged():
            at = ArenaPath(event.arena, event.path)
            word = "resolved" if event.resolved else "revived" if event.revived else "conflict"
            return Line(event.at_ns, word, path_text(at), "ok" if event.resolved else "conflict", at)
        case ev.MarkChanged():
            at = ArenaPath(event.arena, event.path)
            return Line(event.at_ns, "mark", f"{path_text(at)}: {name(event.mark or 'removed')}", "", at)
        case ev.Evicted():
            at = ArenaPath(event.arena, event.path)
            text = f"{path_text(at)}: {words.human_bytes(event.bytes_freed)} freed, {name(event.reason)}"
            return Line(event.at_ns, "evicted", text, "", at)
        case ev.ChurtenChanged():
            return Line(event.at_ns, "churten", "started" if event.running else "stopped")
        case ev.ArenaChanged():
            text = f"{name(event.arena)} is back" if event.online else (
                f"{name(event.arena)} is offline: {name(event.reason)}"
            )  # fmt: skip
            return Line(event.at_ns, "arena", text, "ok" if event.online else "bad", ArenaPath(event.arena))
        case ev.Warned():
            where = f"{name(event.arena)}: " if event.arena else ""
            return Line(event.at_ns, "warning", where + name(event.text), "warn", hint=name(event.hint))
        case ev.Reset():
            return Line(event.at_ns, "skipped", "too many events at once; the state was read again", "dim")
        case ev.HashingProgress():
            return _hashed(event)
        case ev.TreeChanged() | ev.QuotaChanged():
            return None
        case _:
            assert_never(event)


def _hashed(event: ev.HashingProgress) -> Line | None:
    if event.files_done < event.files_total or not event.files_total:
        return None
    return Line(
        event.at_ns, "hashed", f"{plural(event.files_total, 'file')} of {name(event.arena)}", "",
        ArenaPath(event.arena),
    )  # fmt: skip


def _job(event: ev.JobChanged) -> Line | None:
    at = ArenaPath(event.arena, event.path)
    match event.phase:
        case "finished":
            size = f" ({words.human_bytes(event.bytes_total)})" if event.bytes_total else ""
            return Line(event.at_ns, event.action, f"{path_text(at)}{size}", "ok", at)
        case "failed":
            again = f", again in {words.human_duration(event.retry_s)}" if event.retry_s else ""
            text = f"{path_text(at)}: {event.action} failed: {name(event.reason)}{again}"
            return Line(event.at_ns, "failed", text, "bad", at)
        case "cancelled":
            return Line(event.at_ns, event.action, f"{path_text(at)}: cancelled", "dim", at)
        case "queued" | "started" | "progress":
            return None
        case _:
            assert_never(event.phase)
