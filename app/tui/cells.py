"""What a table shows: rows of cells, and how they are cut to the width there is.

Pure. Text in cells is plain, never markup; whoever makes a cell has sanitised names that come from
elsewhere. A *tone* is the name of a style that the table looks up in the theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len, set_cell_size

Span = tuple[str, str]
"""Text and its tone ("" for the row's own)."""

SPARKS = " ▁▂▃▄▅▆▇█"
ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Text:
    """Spans in one line, cut at the end; a ``path`` (last span: its last name) is cut so that the end stays.

    The first ``lead`` spans of a path stay too. ``wide``: takes the rest of the row.
    """

    spans: tuple[Span, ...]
    path: bool = False
    lead: int = 0
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A progress bar with its percentage. ``fraction`` 0 … 1, None while the total is unknown."""

    fraction: float | None
    tone: str = "accent"


@dataclass(frozen=True, slots=True)
class Fill:
    """Text over a bar that fills the cell's background up to ``fraction``; no longer than the cell."""

    fraction: float
    text: Text


@dataclass(frozen=True, slots=True)
class Spark:
    """A sparkline of the newest values, newest at the right."""

    values: tuple[float, ...]
    tone: str = "accent"


Cell = Text | Bar | Spark | Fill
BLANK = Text(())


def text(content: str, tone: str = "") -> Text:
    """Make a cell of one span."""
    return Text(((content, tone),))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. ``key`` names it across updates; ``marked`` rows are selected."""

    key: object
    cells: tuple[Cell, ...]
    marked: bool = False
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``width`` in terminal cells; columns with the greatest ``rank`` are dropped first.

    A ``flex`` column is at least ``width`` wide and shares what is left.
    """

    key: str
    title: str
    width: int
    rank: int = 0
    flex: int = 0
    align: Literal["left", "right"] = "left"
    sortable: bool = False


GAP = 2
"""Blank cells between columns."""


def draw_row(
    row: Row, layout: Sequence[tuple[int, int]], columns: Sequence[Column]
) -> list[tuple[Span, ...]]:
    """Return the spans of each cell that is shown, gaps aside; a wide one takes what comes after it."""
    drawn: list[tuple[Span, ...]] = []
    left = sum(width for _, width in layout) + GAP * max(0, len(layout) - 1)
    for index, width in layout:
        cell = row.cells[index]
        if isinstance(cell, Text) and cell.wide:
            drawn.append(draw(cell, left))
            break
        drawn.append(draw(cell, width, columns[index].align))
        left -= width + GAP
    return drawn


def fit_columns(columns: Sequence[Column], width: int) -> tuple[tuple[int, int], ...]:
    """Choose the columns that fit: pairs of column index and width, in order."""
    kept = list(range(len(columns)))

    def need() -> int:
        return sum(columns[i].width for i in kept) + GAP * max(0, len(kept) - 1)

    while len(kept) > 1 and need() > width:
        # The last of those with the highest rank goes first.
        kept.remove(max(kept, key=lambda i: (columns[i].rank, i)))
    spare = max(0, width - need())
    flexes = sum(columns[i].flex for i in kept)
    widths: list[tuple[int, int]] = []
    for i in kept:
        share = spare * columns[i].flex // flexes if flexes else 0
        widths.append((i, min(columns[i].width + share, width)))
    if flexes:
        first = next(n for n, (i, _) in enumerate(widths) if columns[i].flex)
        rest = width - sum(w for _, w in widths) - GAP * (len(widths) - 1)
        widths[first] = (widths[first][0], widths[first][1] + max(0, rest))
    return tuple(widths)


def draw(cell: Cell, width: int, align: str = "left") -> tuple[Span, ...]:
    """Return spans of exactly ``width`` terminal cells."""
    match cell:
        case Text():
            return _draw_text(cell, width, align)
        case Bar():
            return _draw_bar(cell, width)
        case Spark():
            return _draw_spark(cell, width)
        case Fill():
            return _draw_fill(cell, width)


def _draw_text(cell: Text, width: int, align: str) -> tuple[Span, ...]:
    spans = cell.spans
    length = sum(cell_len(part) for part, _ in spans)
    if length > width:
        spans = _cut_path(spans, width, cell.lead) if cell.path else _cut(spans, width)
        length = sum(cell_len(part) for part, _ in spans)
    pad = (" " * (width - length), "")
    if not pad[0]:
        return spans
    return (pad, *spans) if align == "right" else (*spans, pad)


def _cut(spans: tuple[Span, ...], width: int) -> tuple[Span, ...]:
    if width <= 0:
        return ()
    left = width - 1
    cut: list[Span] = []
    for part, tone in spans:
        size = cell_len(part)
        if size <= left:
            cut.append((part, tone))
            left -= size
            continue
        cut.append((set_cell_size(part, left) + ELLIPSIS, tone))
        break
    return tuple(cut)


def _cut_path(spans: tuple[Span, ...], width: int, lead: int) -> tuple[Span, ...]:
    """Keep the end: what leads to the last span goes first, from its start; then that span's middle."""
    if lead:
        width -= sum(cell_len(part) for part, _ in spans[:lead])
        return (*spans[:lead], *_cut_path(spans[lead:], width, 0))
    *head, (part, tone) = spans
    room = width - cell_len(part) - 1
    if room >= 0 and head:
        kept: list[Span] = [(part, tone)]
        for before, before_tone in reversed(head):
            tail = _suffix(before, room)
            room -= cell_len(tail)
            if len(tail) < len(before):
                kept.append((ELLIPSIS + tail, before_tone))
                break
            kept.append((tail, before_tone))
        return tuple(reversed(kept))
    if width < 8:
        return _cut(((part, tone),), width)
    tail = _suffix(part, (width - 1) // 2)
    return ((set_cell_size(part, width - 1 - cell_len(tail)) + ELLIPSIS + tail, tone),)


def _suffix(part: str, width: int) -> str:
    """Return the longest end of ``part`` that is at most ``width`` cells wide."""
    start = max(0, len(part) - max(0, width))
    while start < len(part) and cell_len(part[start:]) > width:
        start += 1
    return part[start:]


def _draw_bar(cell: Bar, width: int) -> tuple[Span, ...]:
    if cell.fraction is None:
        return _draw_text(text("…", "dim"), width, "left")
    fraction = min(1.0, max(0.0, cell.fraction))
    label = f"{int(fraction * 100):3d}%"
    room = width - 5
    if room < 3:
        return _draw_text(text(label, cell.tone), width, "right")
    halves = int(fraction * room * 2)
    full, half = divmod(halves, 2)
    done = "━" * full + ("╸" if half else "")
    return ((done, cell.tone), ("─" * (room - len(done)), "trough"), (f" {label}", cell.tone))


def _draw_spark(cell: Spark, width: int) -> tuple[Span, ...]:
    values = cell.values[-width:] if width else ()
    peak = max(values, default=0.0)
    line = "".join(SPARKS[_level(value, peak)] for value in values).rjust(width)
    return ((line, cell.tone),)


def _level(value: float, peak: float) -> int:
    if value <= 0 or peak <= 0:
        return 0
    return 1 + min(7, int(value / peak * 7.999))


def _draw_fill(cell: Fill, width: int) -> tuple[Span, ...]:
    """Mark the spans up to the fraction with a ``|fill`` tone, which the table draws on the bar's colour."""
    room = int(min(1.0, max(0.0, cell.fraction)) * width)
    done: list[Span] = []
    for part, tone in _draw_text(cell.text, width, "left"):
        inside = _prefix(part, room)
        room -= cell_len(inside)
        if inside:
            done.append((inside, f"{tone}|fill"))
        if len(inside) < len(part):
            done.append((part[len(inside) :], tone))
            room = 0
    return tuple(done)


def _prefix(part: str, width: int) -> str:
    """Return the longest start of ``part`` that is at most ``width`` cells wide."""
    if cell_len(part) <= width:
        return part
    end = min(len(part), width)
    while end and cell_len(part[:end]) > width:
        end -= 1
    return part[:end]
