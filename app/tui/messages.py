"""Messages within the dashboard; what they carry is frozen."""

from __future__ import annotations

from textual.message import Message

from core.api import ArenaPath


class EventsWaiting(Message):
    """Posted from the engine's thread: the feed has events."""


class FactsChanged(Message):
    """What commands depend on may have changed: the cursor, the selection, a filter."""

    def can_replace(self, message: Message) -> bool:
        """One is enough."""
        return isinstance(message, FactsChanged)


class Reveal(Message):
    """Show this path in the arenas pane."""

    def __init__(self, at: ArenaPath) -> None:
        """Make the message."""
        super().__init__()
        self.at = at


class PaneChosen(Message):
    """A tab was clicked."""

    def __init__(self, pane: str) -> None:
        """Make the message."""
        super().__init__()
        self.pane = pane


class CommandChosen(Message):
    """A command was clicked in the footer."""

    def __init__(self, command: str) -> None:
        """Make the message."""
        super().__init__()
        self.command = command


class StopRequested(Message):
    """Leave without asking: a signal or the daemon wants it."""
