"""The marks pane: the explicit marks and what they cover (spec 7, pane 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.binding import BindingType

from app.tui import rows
from app.tui.actions import Facts
from app.tui.messages import Reveal
from app.tui.panes.pane import Pane, bindings
from app.tui.present import Snapshot, plural
from app.tui.table import RowList, Table
from core.api import ArenaPath, MarkRow

NO_MARKS = """No explicit mark: everything follows the default of its arena.

Go to a file or directory in the arenas pane (1) and press

    w   watch: cached when used
    k   keep: always cached, updated on change
    o   own: a real file here, updated on change"""

_KEYS: dict[str, Callable[[MarkRow], object]] = {
    "path": lambda row: row.at,
    "mark": lambda row: (row.mark, row.at),
    "files": lambda row: (-row.files, row.at),
    "held": lambda row: (-row.bytes_held, row.at),
    "wanted": lambda row: (-row.bytes_wanted, row.at),
}


class MarksPane(Pane):
    """The explicit marks."""

    pane = "marks"
    columns = rows.MARK_COLUMNS
    sorts = tuple(_KEYS)
    BINDINGS: ClassVar[list[BindingType]] = bindings("marks")

    def about(self, snapshot: Snapshot) -> object:
        """Return what is shown of a snapshot."""
        return snapshot.marks

    def show(self, snapshot: Snapshot) -> None:
        """Show the marks in the order chosen."""
        super().show(snapshot)
        if snapshot.marks is None:
            return
        marks = sorted(snapshot.marks, key=_KEYS[self.sort], reverse=self.reverse)  # type: ignore[arg-type]
        self.table.show(
            RowList([rows.mark_row(mark) for mark in marks]),
        )
        self.set_empty("" if marks else NO_MARKS)
        self.set_title(plural(len(marks), "explicit mark") if marks else "")

    def facts(self) -> Facts:
        """Say whether the cursor is on a mark."""
        here = bool(self.targets())
        return Facts(pane=self.pane, on="mark" if here else "", has_path=here)

    def targets(self) -> tuple[ArenaPath, ...]:
        """Return the path of the mark."""
        row = self.table.current
        return (row.key,) if row is not None and isinstance(row.key, ArenaPath) else ()

    def do_reveal(self) -> None:
        """Show the path in the tree."""
        for at in self.targets():
            self.post_message(Reveal(at))

    def on_table_chosen(self, _: Table.Chosen) -> None:
        """A double click shows the path in the tree."""
        self.do_reveal()
