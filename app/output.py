"""How the command line prints: tables, JSON, colours and progress. Names are sanitised by the caller.

Plain text unless stdout is a terminal; NO_COLOR (no-color.org) is honoured.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from app import words
from core.paths import display
from core.types import FileState

if TYPE_CHECKING:
    from core.errors import RealizeError

_RESET = "\x1b[0m"
_STYLES = {
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "blue": "\x1b[34m",
}
_STATE_STYLES = {
    FileState.ONLINE: "dim",
    FileState.PARTIAL: "blue",
    FileState.CACHED: "blue",
    FileState.KEPT: "green",
    FileState.REAL: "green",
    FileState.FETCHING: "blue",
    FileState.CONFLICT: "red",
    FileState.UNAVAILABLE: "red",
    FileState.ONLY_HERE: "yellow",
}


def styled(text: str, style: str) -> str:
    """Return ``text`` in a style, where stdout shows styles."""
    return f"{_STYLES[style]}{text}{_RESET}" if style and has_colours() else text


def has_colours() -> bool:
    """Say whether stdout is a terminal whose user wants colours."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Say whether a stream is a terminal; a closed one is not."""
    return not stream.closed and stream.isatty()


def state_label(state: FileState) -> str:
    """Return glyph and word of a state, coloured on a terminal."""
    return styled(words.label(state), _STATE_STYLES[state])


def width(text: str) -> int:
    """Return the cells that ``text`` takes on a terminal, styles not counted."""
    cells = 0
    for char in _unstyled(text):
        if unicodedata.combining(char) or char == "\ufe0f":
            continue
        cells += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return cells


def _unstyled(text: str) -> str:
    if "\x1b" in text:
        for code in (*_STYLES.values(), _RESET):
            text = text.replace(code, "")
    return text


def table(
    rows: Iterable[Sequence[str]],
    *,
    head: Sequence[str] = (),
    right: Sequence[int] = (),
    least: Sequence[int] = (),
) -> None:
    """Print rows in aligned columns.

    Args:
        rows: as many cells in each.
        head: names of the columns.
        right: numbers of the columns aligned to the right.
        least: least cells of the first columns, so that several tables in a row look like one.
    """
    body = [list(row) for row in rows]
    if head:
        body.insert(0, [styled(name, "dim") for name in head])
    if not body:
        return
    widths = [max(width(row[column]) for row in body) for column in range(len(body[0]))]
    widths[: len(least)] = map(max, widths, least)
    for row in body:
        cells = [
            _padded(cell, widths[column], to_the_right=column in right) for column, cell in enumerate(row)
        ]
        print("  ".join(cells).rstrip())


def _padded(cell: str, cells: int, *, to_the_right: bool) -> str:
    blanks = " " * (cells - width(cell))
    return blanks + cell if to_the_right else cell + blanks


def emit_json(value: object, *, now: bool = False) -> None:
    """Print one JSON value on a line; names that are not UTF-8 come out as escaped surrogates.

    Args:
        value: what to print.
        now: more follows only after a while, and whoever reads is not to wait for it.
    """
    print(json.dumps(value, ensure_ascii=True), flush=now)


def note(text: str) -> None:
    """Print a line about the run itself, on stderr."""
    print(display(text), file=sys.stderr)


def print_error(error: BaseException) -> None:
    """Print an error on stderr: one line, or one for each problem of a config."""
    for line in error_lines(error):
        print(f"realize: {line}", file=sys.stderr)


def error_lines(error: BaseException) -> list[str]:
    """Return the lines that tell an error: the chain of its causes, then the next step in brackets."""
    from core.errors import ConfigError, chain

    hint = _hint(error)
    lines = error.problems if isinstance(error, ConfigError) else [": ".join(chain(error))]
    shown = [display(line) for line in lines]
    if hint:
        shown[-1] += f" ({display(hint)})"
    return shown


def _hint(error: BaseException) -> str:
    """Return the first hint in the chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        hint = getattr(cause, "hint", "")
        if hint:
            return str(hint)
        cause = cause.__cause__
    return ""


def fail(where: str, error: RealizeError) -> None:
    """Tell that one of several things failed, while the others go on."""
    line = error_lines(error)[0]
    print(f"realize: {display(where)}: {line}", file=sys.stderr)


class ProgressLine:
    """One line on a terminal's stderr that is written over; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        """Make a line that shows nothing yet."""
        self._is_on = is_terminal(sys.stderr)
        self._cells = 0

    def show(self, text: str) -> None:
        """Replace the line."""
        if not self._is_on:
            return
        columns = max(20, os.get_terminal_size(sys.stderr.fileno()).columns) - 1
        shown = display(text)
        while width(shown) > columns:
            shown = shown[:-1]
        blanks = " " * max(0, self._cells - width(shown))
        print(f"\r{shown}{blanks}", end="", file=sys.stderr, flush=True)
        self._cells = width(shown)

    def clear(self) -> None:
        """Take the line away, so that others can be printed."""
        if self._cells:
            print("\r" + " " * self._cells + "\r", end="", file=sys.stderr, flush=True)
            self._cells = 0
