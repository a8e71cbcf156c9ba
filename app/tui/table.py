"""The table that every pane shows its rows in: virtual, drawn line by line.

Only the visible rows are asked for, and only lines whose row changed are drawn again, so that the
cost of an update does not depend on how many rows there are. Line 0 is the header and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from app.tui.cells import GAP, Column, Row, Span, Text, draw, draw_row, fit_columns

TONES = (
    *("dim", "bold", "ok", "warn", "bad", "accent", "info", "trough", "fill", "mark"),
    *("online", "partial", "cached", "kept", "real", "fetching", "conflict", "unavailable", "only_here"),
)
"""Styles a cell can name; each is the component class ``table--NAME``."""


class RowSource(Protocol):
    """Rows by index, cheap to ask for."""

    def count(self) -> int:
        """Return the number of rows."""
        ...

    def row(self, index: int) -> Row:
        """Return the row at ``index``, 0 ≤ index < count."""
        ...

    def find(self, key: object) -> int | None:
        """Return the index of the row with a key."""
        ...


class RowList:
    """Rows that are all there already."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        """Hold ``rows``."""
        self.rows = rows

    def count(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def row(self, index: int) -> Row:
        """Return a row."""
        return self.rows[index]

    def find(self, key: object) -> int | None:
        """Return the index of the row with a key."""
        return next((index for index, row in enumerate(self.rows) if row.key == key), None)


class Table(ScrollView, can_focus=True):
    """Columns, a cursor line, and a `RowSource`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"table--{tone}" for tone in TONES),
        "table--header",
        "table--header-sorted",
        "table--cursor",
        "table--cursor-blur",
        "table--hover",
        "table--marked",
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False, id="table.up"),
        Binding("down", "move(1)", "Down", show=False, id="table.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="table.page_up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="table.page_down"),
        Binding("home", "edge(0)", "First", show=False, id="table.home"),
        Binding("end", "edge(1)", "Last", show=False, id="table.end"),
    ]

    class CursorMoved(Message):
        """The cursor is on another row."""

    class ViewChanged(Message):
        """Other rows are visible, or the visible ones may be others."""

    class Chosen(Message):
        """A second click on the cursor's row; ``x`` is the column of the terminal within the table."""

        def __init__(self, x: int) -> None:
            """Make the message."""
            super().__init__()
            self.x = x

    class HeaderClicked(Message):
        """A click on the title of a column that can be sorted by."""

        def __init__(self, key: str) -> None:
            """Make the message."""
            super().__init__()
            self.key = key

    def __init__(self, columns: Sequence[Column], *, id: str | None = None) -> None:  # noqa: A002 - Textual's
        """Make an empty table."""
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.source: RowSource = RowList()
        self.cursor = 0
        self._hover = -1
        self._to_end = False
        """Whether the cursor goes with the last row, while more rows are loaded."""
        self._sort: tuple[str, bool] | None = None
        self._layout: tuple[tuple[int, int], ...] = ()
        self._shown: dict[int, tuple[Row | None, bool]] = {}
        self._styles_of: dict[tuple[str, str], Style] = {}

    # What is shown

    def show(self, source: RowSource, *, hold: bool = True) -> None:
        """Show other rows; the cursor stays on its row (by its key; ``hold`` false: where it is)."""
        key = self.key if hold else None
        self.source = source
        self.update_rows(key)

    @property
    def key(self) -> object:
        """The key of the row under the cursor."""
        return None if self.current is None else self.current.key

    def update_rows(self, key: object = None) -> None:
        """The source's rows may have changed: draw what differs. The cursor goes to the row with ``key``."""
        count = self.source.count()
        found = self.source.find(key) if key is not None and key != self.key else None
        shift = 0 if found is None else found - self.cursor
        self.cursor = min(self.cursor + shift, max(0, count - 1))
        if self._to_end:
            self.cursor = max(0, count - 1)
        size = Size(self._width, count + 1)
        if self.virtual_size != size:
            self.virtual_size = size
        if shift:
            # What is looked at stays where it is when rows come and go above it.
            self.scroll_to(y=self.scroll_offset.y + shift, animate=False, force=True, immediate=True)
        for y in range(1, self.size.height):
            if self._shown.get(y) != self._state(y):
                self.refresh(Region(0, y, self.size.width, 1))
        if self._to_end:
            self.call_after_refresh(self.scroll_to_cursor)
        self.post_message(self.ViewChanged())

    def sort_by(self, key: str, descending: bool) -> None:
        """Show in the header what the rows are sorted by."""
        if self._sort != (key, descending):
            self._sort = (key, descending)
            self.refresh(Region(0, 0, self.size.width, 1))

    def visible_rows(self) -> range:
        """Return the indices of the rows on the screen."""
        top = self.scroll_offset.y
        return range(min(top, self.source.count()), min(self.source.count(), top + self._page_rows()))

    @property
    def _width(self) -> int:
        """Cells beside the scrollbar, whose place is always kept free."""
        return self.scrollable_content_region.width

    def _page_rows(self) -> int:
        return max(1, self.size.height - 1)

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self.source.row(self.cursor) if self.cursor < self.source.count() else None

    # The cursor

    def move_to(self, index: int) -> None:
        """Put the cursor on a row and scroll it into view."""
        self._to_end = False
        index = max(0, min(index, self.source.count() - 1))
        if index != self.cursor:
            old, self.cursor = self.cursor, index
            self._refresh_row(old)
            self._refresh_row(index)
            self.post_message(self.CursorMoved())
        self.scroll_to_cursor()

    def scroll_to_cursor(self) -> None:
        """Scroll so that the cursor's row is visible."""
        top, page = self.scroll_offset.y, self._page_rows()
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True, immediate=True)
        elif self.cursor >= top + page:
            self.scroll_to(y=self.cursor - page + 1, animate=False, force=True, immediate=True)

    def action_move(self, by: int) -> None:
        """Move the cursor by rows."""
        self.move_to(self.cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by pages."""
        self.move_to(self.cursor + by * max(1, self._page_rows() - 1))

    def action_edge(self, end: int) -> None:
        """Move the cursor to the first (0) or last (1) row."""
        self.move_to(self.source.count() - 1 if end else 0)
        self._to_end = bool(end)

    def _refresh_row(self, index: int) -> None:
        y = index - self.scroll_offset.y + 1
        if 1 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    # Mouse

    def _index_at(self, y: int) -> int:
        index = self.scroll_offset.y + y - 1
        return index if y >= 1 and index < self.source.count() else -1

    def on_click(self, event: events.Click) -> None:
        """Header: sort. Row: the cursor goes there; a second click chooses it."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y == 0:
            self._click_header(offset.x)
            return
        index = self._index_at(offset.y)
        if index < 0:
            return
        if index == self.cursor and event.chain > 1:
            self.post_message(self.Chosen(offset.x))
        else:
            self.move_to(index)

    def _click_header(self, x: int) -> None:
        left = 0
        for index, width in self._layout:
            if left <= x < left + width + GAP and self.columns[index].sortable:
                self.post_message(self.HeaderClicked(self.columns[index].key))
            left += width + GAP

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Show which row is under the mouse."""
        self._set_hover(self._index_at(event.y))

    def on_leave(self, event: events.Leave) -> None:
        """The mouse has gone."""
        self._set_hover(-1)

    def _set_hover(self, index: int) -> None:
        if index != self._hover:
            old, self._hover = self._hover, index
            self._refresh_row(old)
            self._refresh_row(index)

    # Drawing

    def notify_style_update(self) -> None:
        """Forget the styles of the old theme."""
        super().notify_style_update()
        self._styles_of.clear()

    def on_resize(self) -> None:
        """Fit the columns to the new width."""
        self.virtual_size = Size(self._width, self.source.count() + 1)
        self._layout = fit_columns(self.columns, self._width)
        self.refresh()
        self.scroll_to_cursor()
        self.post_message(self.ViewChanged())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Tell the pane that other rows are visible."""
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.post_message(self.ViewChanged())

    def _state(self, y: int) -> tuple[Row | None, bool]:
        index = self._index_at(y)
        return (self.source.row(index) if index >= 0 else None, index == self.cursor)

    def render_line(self, y: int) -> Strip:
        """Draw the header or a row."""
        width = self._width
        if y == 0:
            return self._header(width)
        self._shown[y] = row, at_cursor = self._state(y)
        if row is None:
            return Strip.blank(width, self.rich_style)
        kind = self._row_kind(row, at_cursor, self._index_at(y) == self._hover)
        segments: list[Segment] = []
        base = self._style(kind, row.tone)
        for cell in draw_row(row, self._layout, self.columns):
            if segments:
                segments.append(Segment(" " * GAP, base))
            segments += [Segment(part, self._style(kind, tone or row.tone)) for part, tone in cell]
        return Strip(segments).adjust_cell_length(width, base)

    def _row_kind(self, row: Row, at_cursor: bool, hovered: bool) -> str:
        if at_cursor:
            return "cursor" if self.has_focus else "cursor-blur"
        if row.marked:
            return "marked"
        return "hover" if hovered else ""

    def _header(self, width: int) -> Strip:
        segments: list[Segment] = []
        plain = self._style("header", "")
        for index, cell_width in self._layout:
            column = self.columns[index]
            if segments:
                segments.append(Segment(" " * GAP, plain))
            spans: tuple[Span, ...] = ((column.title, ""),)
            if self._sort is not None and self._sort[0] == column.key:
                spans = ((column.title + ("▼" if self._sort[1] else "▲"), "header-sorted"),)
            cell = draw(Text(spans), cell_width, column.align)
            segments += [Segment(part, self._style("header", tone)) for part, tone in cell]
        return Strip(segments).adjust_cell_length(width, plain)

    def _style(self, kind: str, tone: str) -> Style:
        """Return the style of a tone on a kind of row (cached until the theme changes)."""
        style = self._styles_of.get((kind, tone))
        if style is None:
            style = self.rich_style
            if kind:
                style += self.get_component_rich_style(f"table--{kind}", partial=True)
            for name in filter(None, tone.split("|")):
                style += self.get_component_rich_style(f"table--{name}", partial=True)
            self._styles_of[kind, tone] = style
        return style
