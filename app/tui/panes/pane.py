"""What all panes have in common: a frame with a number, a table, a filter and a word when it is empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import DescendantBlur, DescendantFocus
from textual.widgets import Input, Static

from app.tui.actions import PANES, Facts, commands_of
from app.tui.cells import Column
from app.tui.journal import Changes
from app.tui.messages import FactsChanged
from app.tui.present import TAB_WORDS, Snapshot
from app.tui.table import Table
from core.api import ArenaPath

if TYPE_CHECKING:
    from app.tui.app import RealizeApp


GREATEST_FIRST = frozenset({"size", "held", "files", "wanted"})
"""Orders that begin with the greatest unless reversed."""


def bindings(pane: str) -> list[BindingType]:
    """Return the key bindings of a pane (of the app for ""), made from the list of commands."""
    return [
        Binding(
            command.keys, f"app.command('{command.id}')", command.help, id=command.id, show=command.footer
        )
        for command in commands_of(pane)
    ]  # fmt: skip


class Pane(Vertical):
    """A pane. ``pane`` is its id and the name by which commands refer to it."""

    pane: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    filter_hint: ClassVar[str] = ""
    sorts: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        """Make the pane; it shows nothing before `show`."""
        super().__init__(id=self.pane)
        self.snapshot = Snapshot()
        self._about: object = None
        self.table = Table(self.columns, id=f"{self.pane}-table")
        self.empty = Static(id=f"{self.pane}-empty", classes="empty", markup=False)
        self.input = Input(
            placeholder=self.filter_hint, classes="filter", compact=True, select_on_focus=False
        )
        self.sort = self.sorts[0] if self.sorts else ""
        self.reverse = False

    def compose(self) -> ComposeResult:
        """Filter, table, and what is shown instead of an empty table."""
        self.input.display = False
        self.empty.display = False
        yield self.input
        yield self.table
        yield self.empty

    def on_mount(self) -> None:
        """Show the title."""
        self.set_title()
        if self.sorts:
            self._show_sort()

    @property
    def dashboard(self) -> RealizeApp:
        """The app, as what it is."""
        return cast("RealizeApp", self.app)

    def update_from(self, snapshot: Snapshot) -> None:
        """Show a newer snapshot, if what this pane shows of it is another."""
        about = self.about(snapshot)
        if about != self._about:
            self._about = about
            self.show(snapshot)

    # What panes override

    def about(self, snapshot: Snapshot) -> object:
        """Return what this pane shows of a snapshot."""
        return snapshot

    def show(self, snapshot: Snapshot) -> None:
        """Show a newer snapshot; called at most ten times a second."""
        self.snapshot = snapshot

    def apply(self, changes: Changes) -> None:
        """Something changed in the engine."""

    def facts(self) -> Facts:
        """Return what commands depend on here; the app adds what it knows."""
        return Facts(pane=self.pane)

    def targets(self) -> tuple[ArenaPath, ...]:
        """Return the paths that a command is about: the selection, else the cursor's."""
        return ()

    def back(self) -> bool:
        """Leave a filter or a selection; says whether there was one."""
        return False

    # Frame

    def set_title(self, note: str = "", below: str = "") -> None:
        """Show the number and name of the pane, a note beside it and one below."""
        number = PANES.index(self.pane) + 1
        title = f"{number} {TAB_WORDS[self.pane][0]}" + (f" · {note}" if note else "")
        frame = (title, below)
        if getattr(self, "_frame", None) != frame:
            self._frame = frame
            # Content and not text: names are never markup.
            self.border_title = Content(title)
            self.border_subtitle = Content(below)

    def set_empty(self, words: str) -> None:
        """Show these words instead of the table; "" for the table."""
        if bool(words) != self.empty.display:
            self.empty.display = bool(words)
            self.table.set_class(bool(words), "-empty")
        if words:
            self.empty.update(words)

    def changed(self) -> None:
        """Tell the app that `facts` may have changed."""
        self.post_message(FactsChanged())

    def on_table_cursor_moved(self) -> None:
        """Commands depend on the cursor."""
        self.changed()

    def on_table_header_clicked(self, message: Table.HeaderClicked) -> None:
        """Sort by the column; again: the other way round."""
        if message.key in self.sorts:
            self.set_sort(message.key, not self.reverse if message.key == self.sort else False)

    def on_descendant_focus(self, _: DescendantFocus) -> None:
        """The pane has the keys now."""
        self.changed()
        self.table.refresh()

    def on_descendant_blur(self, _: DescendantBlur) -> None:
        """The cursor's row is drawn less bright."""
        self.table.refresh()

    # Sorting

    def set_sort(self, key: str, reverse: bool) -> None:
        """Sort by a column."""
        self.sort, self.reverse = key, reverse
        self._show_sort()
        self.resort()
        self.dashboard.remember()

    def _show_sort(self) -> None:
        self.table.sort_by(self.sort, self.reverse != (self.sort in GREATEST_FIRST))

    def resort(self) -> None:
        """Show the rows in the order of ``sort`` and ``reverse``."""
        self.show(self.snapshot)

    def do_sort(self) -> None:
        """Sort by the next column."""
        self.set_sort(self.sorts[(self.sorts.index(self.sort) + 1) % len(self.sorts)], False)

    def do_reverse(self) -> None:
        """Reverse the order."""
        self.set_sort(self.sort, not self.reverse)

    # Filter

    def do_filter(self) -> None:
        """Open the filter."""
        self.input.display = True
        self.input.focus()

    def close_filter(self) -> bool:
        """Clear and close the filter; says whether it was open."""
        if not self.input.display:
            return False
        self.input.value = ""
        self.input.display = False
        self.table.focus()
        return True

    def on_input_submitted(self) -> None:
        """Keep the filter, go to what it found."""
        if not self.input.value:
            self.close_filter()
        self.table.focus()
