"""All keys, by pane, and what the words and glyphs mean."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from app import words
from app.tui.actions import PANES, Command, commands_of, key_name
from app.tui.present import TAB_WORDS
from core.types import FileState

_MEANINGS = {
    FileState.ONLINE: "no content here; a read fetches it",
    FileState.PARTIAL: "part of the content is cached",
    FileState.CACHED: "the whole content is cached, may be evicted",
    FileState.KEPT: "cached and never evicted",
    FileState.REAL: "a real file in the datadir",
    FileState.FETCHING: "content is on its way",
    FileState.CONFLICT: "two versions, neither newer: choose one",
    FileState.UNAVAILABLE: "no connected peer holds it",
    FileState.ONLY_HERE: "changed here, no other peer holds it yet",
}


class HelpScreen(ModalScreen[None]):
    """The help; esc leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,f1", "dismiss", "Close", id="help.close"),
    ]

    def __init__(self, focused: str) -> None:
        """Make the help; the keys of the ``focused`` pane come first."""
        super().__init__()
        self._focused = focused

    def compose(self) -> ComposeResult:
        """Sections of keys."""
        with Vertical(classes="dialog wide help"):
            yield Static("Keys and words", classes="question", markup=False)
            with VerticalScroll():
                yield Static(help_text(self._focused))
            yield Static("esc closes · ↑ ↓ scroll", classes="hint", markup=False)

    def on_mount(self) -> None:
        """Keys scroll."""
        self.query_one(VerticalScroll).focus()


def help_text(focused: str) -> Content:
    """Return the whole help: the focused pane, everywhere, moving, the other panes, the words."""
    parts: list[Content | str | tuple[str, str]] = []
    order = [focused, "", *(pane for pane in PANES if pane != focused)]
    for pane in order:
        title = f"{TAB_WORDS[pane][0]}" if pane else "Everywhere"
        parts += [(f"{title}\n", "bold $accent"), *_keys(commands_of(pane))]
        if not pane:
            parts += _line("↑ ↓ PgUp PgDn Home End", "Move")
            parts += _line("tab", "Next pane")
        parts.append("\n")
    parts.append(("Words\n", "bold $accent"))
    for state in FileState:
        parts += _line(words.label(state), _MEANINGS[state])
    return Content.assemble(*parts)


def _keys(commands: tuple[Command, ...]) -> list[tuple[str, str] | str]:
    parts: list[tuple[str, str] | str] = []
    for command in commands:
        keys = " ".join(key_name(key) for key in command.keys.split(","))
        parts += _line(keys, command.help)
    return parts


def _line(left: str, right: str) -> list[tuple[str, str] | str]:
    return [("  " + left + " " * max(1, 16 - cell_len(left)), "bold"), right + "\n"]
