"""The words, glyphs and human figures that users see, the same in every output (spec 1 §Words).

Pure. Shared by the command line and the dashboard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.types import FileState
from core.units import human_bytes as human_bytes

if TYPE_CHECKING:
    from core.api import Entry

_STATES: dict[FileState, tuple[str, str]] = {
    FileState.ONLINE: ("○", "online"),
    FileState.PARTIAL: ("◐", "partial"),
    FileState.CACHED: ("●", "cached"),
    FileState.KEPT: ("✔", "kept"),
    FileState.REAL: ("■", "real"),
    FileState.FETCHING: ("↓", "fetching"),
    FileState.CONFLICT: ("⚠", "conflict"),
    FileState.UNAVAILABLE: ("✖", "unavailable"),
    FileState.ONLY_HERE: ("⏳", "only here"),
}

_NS = 1_000_000_000


def glyph(state: FileState) -> str:
    """Return the one glyph of a state. ``⏳`` is two cells wide, the others one."""
    return _STATES[state][0]


def word(state: FileState) -> str:
    """Return the word of a state as people read it."""
    return _STATES[state][1]


def label(state: FileState) -> str:
    """Return glyph and word, ``○ online``."""
    return " ".join(_STATES[state])


def shown_state(entry: Entry) -> FileState:
    """Return the state that people are told first of a path: that its versions conflict."""
    return FileState.CONFLICT if entry.conflict else entry.state


def human_rate(x: float) -> str:
    """Return a rate given in bytes/s: ``3.2 M/s``; ``0 B/s`` below one byte a second."""
    return human_bytes(int(x)) + "/s"


def human_duration(s: float) -> str:
    """Return a time in its two largest units: ``0.3 s``, ``12 s``, ``4 m 05 s``, ``3 d 4 h``."""
    if s < 0:
        return "-" + human_duration(-s)
    if s < 9.95:
        return f"{s:.1f} s" if s % 1 >= 0.05 else f"{int(s)} s"
    whole = round(s)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} m"
    return f"{minutes} m {seconds:02} s" if minutes else f"{seconds} s"


def ago(ns: int, now_ns: int) -> str:
    """Return how long ago ``ns`` was: ``now``, ``12 s ago``; ``in 5 s`` when it lies ahead."""
    distance_s = (now_ns - ns) / _NS
    if abs(distance_s) < 1:
        return "now"
    text = human_duration(abs(int(distance_s)))
    return f"{text} ago" if distance_s > 0 else f"in {text}"


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: ``1 file``, ``2 files``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
