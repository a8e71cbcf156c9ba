"""The lines around the panes: status bar, tabs, and the keys of the focused pane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from app.tui.actions import Facts, footer_of, key_name
from app.tui.cells import Span
from app.tui.messages import CommandChosen, PaneChosen
from app.tui.present import Snapshot, badges_of, status_spans, tab_labels
from app.tui.table import TONES

Piece = tuple[str, str, Message | None]
"""Text, tone, and what a click on it means."""


class Line(Widget):
    """One line of styled pieces; draws only when they change."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"table--{tone}" for tone in TONES} | {
        "line--key", "line--label", "line--dead", "line--tab", "line--tab-on",
    }  # fmt: skip

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's
        """Make an empty line."""
        super().__init__(id=id)
        self._pieces: tuple[Piece, ...] = ()

    def set_pieces(self, pieces: Sequence[Piece]) -> None:
        """Show other pieces."""
        shown = [(text, tone) for text, tone, _ in self._pieces]
        self._pieces = tuple(pieces)
        if [(text, tone) for text, tone, _ in pieces] != shown:
            self.refresh()

    def rebuild(self) -> None:
        """Compute the pieces for the width there is now."""

    def on_resize(self) -> None:
        """Fit to the width."""
        self.rebuild()

    def render_line(self, y: int) -> Strip:
        """Draw the pieces."""
        base = self.rich_style
        if y:
            return Strip.blank(self.size.width, base)
        segments = [Segment(text, self._style(base, tone)) for text, tone, _ in self._pieces]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _style(self, base: Style, tone: str) -> Style:
        style = base
        for name in filter(None, tone.split("|")):
            kind = name if name.startswith("line--") else f"table--{name}"
            style += self.get_component_rich_style(kind, partial=True)
        return style

    def on_click(self, event: events.Click) -> None:
        """A click on a piece means its message."""
        left = 0
        for text, _, message in self._pieces:
            left += cell_len(text)
            if event.x < left:
                if message is not None:
                    self.post_message(message)
                return


class StatusBar(Line):
    """Peers, rates, cache, what is waited for, what exists only here."""

    def __init__(self) -> None:
        """Make the bar; it waits for a snapshot."""
        super().__init__(id="status")
        self.problem = ""
        self.title = ""
        self._snapshot = Snapshot()

    def show(self, snapshot: Snapshot) -> None:
        """Show a newer snapshot."""
        self._snapshot = snapshot
        self.rebuild()

    def rebuild(self) -> None:
        """Fit what matters most into the width."""
        spans: tuple[Span, ...] = status_spans(self._snapshot, self.title, self.size.width, self.problem)
        self.set_pieces([(text, tone, None) for text, tone in spans])


class PaneTabs(Line):
    """A tab for each pane, where there is room for only one."""

    def __init__(self) -> None:
        """Make the tabs."""
        super().__init__(id="tabs")
        self._snapshot = Snapshot()
        self.focused = "arenas"

    def show(self, snapshot: Snapshot) -> None:
        """Show what needs a look."""
        self._snapshot = snapshot
        self.rebuild()

    def rebuild(self) -> None:
        """Fit the labels into the width."""
        labels = tab_labels(badges_of(self._snapshot), self.focused, self.size.width)
        self.set_pieces(
            [
                (label, "line--tab-on" if pane == self.focused else "line--tab", PaneChosen(pane))
                for pane, label in labels
            ]
        )


class KeyBar(Line):
    """The keys of the focused pane; what cannot act now is dim."""

    def __init__(self) -> None:
        """Make the bar."""
        super().__init__(id="keys")
        self._facts = Facts()

    def show(self, facts: Facts) -> None:
        """Show the keys for these facts."""
        self._facts = facts
        self.rebuild()

    def rebuild(self) -> None:
        """Fit as many keys as the width has room for; help and quit stay."""
        commands = footer_of(self._facts)
        room = self.size.width
        stay = ("app.help", "app.quit", "app.palette") if room >= 60 else ("app.help", "app.quit")
        last = [item for item in commands if item[0].id in stay]
        first = [item for item in commands if item not in last]
        room -= sum(_width(command.keys, command.label) for command, _ in last)
        pieces: list[Piece] = []
        for command, reason in [*first, *last]:
            if (command, reason) in first:
                if room < _width(command.keys, command.label):
                    continue
                room -= _width(command.keys, command.label)
            message = CommandChosen(command.id)
            pieces.append((f" {key_name(command.keys)}", "line--dead" if reason else "line--key", message))
            pieces.append((f" {command.label} ", "line--dead" if reason else "line--label", message))
        self.set_pieces(pieces)


def _width(keys: str, label: str) -> int:
    return cell_len(key_name(keys)) + cell_len(label) + 3
