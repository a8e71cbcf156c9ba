"""Names and values in a dialog: what is known of a peer, why a path is as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static


class DetailsScreen(ModalScreen[None]):
    """Shows lines of (name, value); any of esc, enter, q closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,i", "dismiss", "Close", id="details.close"),
    ]

    def __init__(self, title: str, lines: Sequence[tuple[str, str]]) -> None:
        """Make the dialog; the texts are sanitised already."""
        super().__init__()
        self._title, self._lines = title, lines

    def compose(self) -> ComposeResult:
        """The lines below the title."""
        with Vertical(classes="dialog wide"):
            yield Static(self._title, classes="question", markup=False)
            with VerticalScroll():
                for label, value in self._lines:
                    with Horizontal(classes="pair"):
                        yield Static(label, classes="label", markup=False)
                        yield Static(value, classes="value", markup=False)
            yield Static("esc closes", classes="hint", markup=False)

    def on_mount(self) -> None:
        """Keys scroll."""
        self.query_one(VerticalScroll).focus()
