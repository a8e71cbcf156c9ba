"""The question before what is hard to undo; No is the default."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class ConfirmScreen(ModalScreen[bool]):
    """Asks; returns whether the answer was yes. Esc and n are no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n,q", "answer(False)", "No", id="confirm.no"),
        Binding("y", "answer(True)", "Yes", id="confirm.yes"),
        Binding("left,right,up,down", "app.focus_next", "Other", show=False, id="confirm.other"),
    ]

    def __init__(self, question: str, detail: str, yes: str) -> None:
        """Make the question; ``yes`` says what happens then."""
        super().__init__()
        self._question, self._detail, self._yes = question, detail, yes

    def compose(self) -> ComposeResult:
        """The question, what it means, and the two answers."""
        with Vertical(classes="dialog"):
            yield Static(self._question, classes="question", markup=False)
            with VerticalScroll(can_focus=False):
                yield Static(self._detail, classes="detail", markup=False)
            with Horizontal(classes="answers"):
                yield Button("No", id="no", variant="primary", flat=True)
                yield Button(self._yes, id="yes", variant="warning", flat=True)

    def on_mount(self) -> None:
        """No is the default."""
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """A button was chosen."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """A key was chosen."""
        self.dismiss(yes)
