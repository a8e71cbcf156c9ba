"""The activity pane: what waits for the user (held deletions, conflicts), then what happened, newest first.

Spec 7, pane 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.widgets import Input

from app.tui import rows
from app.tui.actions import Facts
from app.tui.cells import Row
from app.tui.journal import Journal, Line
from app.tui.messages import Reveal
from app.tui.panes.pane import Pane, bindings
from app.tui.present import Snapshot, name, plural
from app.tui.table import Table
from core.api import ArenaPath, Status

QUIET = "Nothing has happened since the dashboard was opened."


class ActivityPane(Pane):
    """Conflicts and the event stream."""

    pane = "activity"
    columns = rows.LINE_COLUMNS
    filter_hint = "words to look for; esc leaves"
    BINDINGS: ClassVar[list[BindingType]] = bindings("activity")

    def __init__(self) -> None:
        """Make an empty journal."""
        super().__init__()
        self.journal = Journal()
        self._lines: list[Line] = []

    def about(self, snapshot: Snapshot) -> object:
        """Return what is shown of a snapshot."""
        return snapshot.status.arenas if snapshot.status is not None else None

    def show(self, snapshot: Snapshot) -> None:
        """Show the conflicts that the status counts."""
        super().show(snapshot)
        self.refresh_lines()

    def refresh_lines(self) -> None:
        """Show the lines that the filter lets through; a cursor below the top stays on its line."""
        conflicts = [*self.journal.conflicts.values(), *_counted(self.snapshot, self.journal)]
        words = self.input.value.casefold().split()
        lines = [*_held(self.snapshot), *conflicts, *reversed(self.journal.lines)]
        self._lines = [line for line in lines if _matches(line, words)] if words else lines
        # At the top the cursor stays there and sees what is new.
        self.table.show(LineSource(self._lines), hold=self.table.cursor > 0)
        self.set_empty("" if self._lines else "Nothing matches." if words else QUIET)
        count = sum(arena.conflicts for arena in self.snapshot.status.arenas) if self.snapshot.status else 0
        self.set_title(plural(count, "conflict") if count else "")

    def facts(self) -> Facts:
        """Say whether the cursor's line is about a path."""
        line = self._line()
        return Facts(
            pane=self.pane, on="event" if line else "", has_path=line is not None and line.at is not None,
            filtered=self.input.display,
        )  # fmt: skip

    def _line(self) -> Line | None:
        return self._lines[self.table.cursor] if self.table.cursor < len(self._lines) else None

    def targets(self) -> tuple[ArenaPath, ...]:
        """Return the path that the line is about."""
        line = self._line()
        return (line.at,) if line is not None and line.at is not None else ()

    def do_reveal(self) -> None:
        """Show the path in the tree."""
        for at in self.targets():
            self.post_message(Reveal(at))

    def on_table_chosen(self, _: Table.Chosen) -> None:
        """A double click shows the path in the tree."""
        self.do_reveal()

    def on_input_changed(self, _: Input.Changed) -> None:
        """Filter."""
        self.refresh_lines()
        self.changed()

    def back(self) -> bool:
        """Leave the filter."""
        return self.close_filter()


class LineSource:
    """Lines that become rows when they are looked at."""

    def __init__(self, lines: Sequence[Line]) -> None:
        """Hold the lines."""
        self._lines = lines

    def count(self) -> int:
        """Return the number of rows."""
        return len(self._lines)

    def row(self, index: int) -> Row:
        """Return a row."""
        line = self._lines[index]
        return rows.line_row(line, line)

    def find(self, key: object) -> int | None:
        """Return the index of a line."""
        return next((index for index, line in enumerate(self._lines) if line is key), None)


def _matches(line: Line, words: list[str]) -> bool:
    text = f"{line.kind} {line.text}".casefold()
    return all(word in text for word in words)


def _held(snapshot: Snapshot) -> list[Line]:
    """Return a line per arena whose deletions wait for the user."""
    arenas = snapshot.status.arenas if snapshot.status is not None else ()
    return [
        Line(
            0, "held", f"{name(arena.name)}: {plural(arena.held_deletes, 'deletion')}", "warn",
            ArenaPath(arena.name), "D confirms, or put the files back",
        )
        for arena in arenas
        if arena.held_deletes
    ]  # fmt: skip


def _counted(snapshot: Snapshot, journal: Journal) -> list[Line]:
    """Return a line per arena with conflicts that were found before the dashboard was opened."""
    status: Status | None = snapshot.status
    lines = []
    for arena in status.arenas if status is not None else ():
        known = sum(at.arena == arena.name for at in journal.conflicts)
        if arena.conflicts > known:
            text = f"{name(arena.name)}: {plural(arena.conflicts - known, 'conflict')} found earlier"
            lines.append(
                Line(0, "conflict", text, "conflict", ArenaPath(arena.name), "realize conflicts list")
            )
    return lines
