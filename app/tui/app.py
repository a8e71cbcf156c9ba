"""The dashboard's app: puts panes, feed and commands together (spec 7).

Runs in the main thread. Never waits for the engine: everything it asks is a task whose outcome is
shown as a toast and kept in the activity pane.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.events import Resize
from textual.worker import Worker

from app.bridge import Bridge
from app.tui import uistate
from app.tui.actions import BY_ID, PANES, Facts
from app.tui.chrome import KeyBar, PaneTabs, StatusBar
from app.tui.commands import Commands
from app.tui.feed import Feed
from app.tui.journal import Changes, Severity
from app.tui.marking import Marking
from app.tui.messages import CommandChosen, EventsWaiting, PaneChosen, Reveal, StopRequested
from app.tui.panes.activity import ActivityPane
from app.tui.panes.arenas import ArenasPane
from app.tui.panes.churten import ChurtenPane
from app.tui.panes.connections import ConnectionsPane
from app.tui.panes.marks import MarksPane
from app.tui.panes.pane import Pane, bindings
from app.tui.present import Snapshot
from app.tui.present import name as present_name
from app.tui.themes import THEMES, shades
from core.api import Api
from core.errors import EngineStoppedError, NetError, NoDaemonError, RealizeError, chain
from core.events import AnyEvent

_log = logging.getLogger("realize.app.tui")

GRID_WIDTH, GRID_HEIGHT = 110, 28
"""LIMIT: the smallest terminal that shows all panes at once; below, one pane and tabs."""

BARE_HEIGHT = 16
"""LIMIT: below this a single pane has no frame, its tab names it."""


class RealizeApp(Commands, App[int]):
    """The dashboard. ``run()`` returns the exit code."""

    CSS_PATH = "dashboard.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = bindings("")

    def __init__(
        self,
        bridge: Bridge,
        *,
        title: str,
        attached: bool,
        now_ns: Callable[[], int] = time.time_ns,
        polling: bool = True,
        remembering: bool = True,
        keymap: dict[str, str] | None = None,
    ) -> None:
        """Make the dashboard.

        ``attached``: the daemon is another process, which goes on when the dashboard is left.
        ``keymap``: other keys by the ids of `app.tui.actions`. ``polling``: read the status now and then.
        ``remembering``: keep focus, order and theme between runs.
        """
        super().__init__()
        self.title = title
        self.bridge = bridge
        self.attached = attached
        self.marking = Marking(self)
        self._now_ns, self._polling, self._keys = now_ns, polling, keymap or {}
        self._state_file = uistate.state_file() if remembering else None
        self.remembered = uistate.load(self._state_file) if self._state_file else uistate.UiState()
        self.front = self.remembered.pane if self.remembered.pane in PANES else PANES[0]
        self.zoomed = self.remembered.zoomed
        self.arenas, self.connections, self.churten = ArenasPane(), ConnectionsPane(), ChurtenPane()
        self.marks, self.activity = MarksPane(), ActivityPane()
        self.panes: dict[str, Pane] = {
            pane.pane: pane
            for pane in (self.arenas, self.connections, self.churten, self.marks, self.activity)
        }
        self.status_bar, self.tabs, self.key_bar = StatusBar(), PaneTabs(), KeyBar()
        self._stop_following: Callable[[], None] | None = None
        self.feed = Feed(
            bridge, start=lambda work: self.run_guarded(work, "reading the state"),
            wake=lambda: self.post_message(EventsWaiting()), on_events=self._on_events,
            on_snapshot=self._on_snapshot, now_ns=now_ns,
        )  # fmt: skip
        for theme in THEMES:
            self.register_theme(theme)

    def get_css_variables(self) -> dict[str, str]:
        """Return the theme's colours and the shades of the tables."""
        variables = super().get_css_variables()
        return variables | shades(variables)

    def compose(self) -> ComposeResult:
        """Status bar, tabs, panes, keys."""
        yield self.status_bar
        yield self.tabs
        with Container(id="panes"):
            yield from self.panes.values()
        yield self.key_bar

    def on_mount(self) -> None:
        """Show what was remembered, then follow the engine."""
        self.set_keymap(self._keys)
        if self.remembered.theme in self.available_themes:
            self.theme = self.remembered.theme
        self.theme_changed_signal.subscribe(self, lambda _: self.remember())
        self.status_bar.title = self.title + (" (attached)" if self.attached else "")
        for pane in self.panes.values():
            if pane.pane in self.remembered.sorts and self.remembered.sorts[pane.pane][0] in pane.sorts:
                pane.set_sort(*self.remembered.sorts[pane.pane])
        self.focus_pane(self.front)
        self._stop_following = self.bridge.follow(
            self.feed.on_batch, lambda error: self.call_soon(self._engine_gone, error)
        )
        self.feed.read_all()
        if self._polling:
            self.run_guarded(self.feed.poll(), "reading the state")

    def on_unmount(self) -> None:
        """Follow no more."""
        self.feed.stop()
        if self._stop_following is not None:
            self._stop_following()

    # Engine

    @property
    def snapshot(self) -> Snapshot:
        """What is known now."""
        return self.feed.snapshot

    def on_events_waiting(self) -> None:
        """Events are there."""
        self.feed.flush_soon()

    @property
    def settled(self) -> bool:
        """Whether nothing is being read, loaded or waiting to be drawn."""
        return not self.bridge.pending and self.feed.settled and self.arenas.settled

    def _on_events(self, batch: list[AnyEvent], changes: Changes) -> None:
        if self.activity.journal.take(batch):
            self.activity.refresh_lines()
        for pane in self.panes.values():
            pane.apply(changes)

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        for pane in self.panes.values():
            pane.update_from(snapshot)
        self.status_bar.show(snapshot)
        self.tabs.show(snapshot)
        self._show_facts()

    def call_soon(self, fn: Callable[..., object], *args: object) -> None:
        """Call ``fn`` in the app's thread; any thread, never blocks."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self.call_later(fn, *args))

    def request_stop(self) -> None:
        """Leave without asking; any thread, and signal handlers."""
        # The loop may be asleep when a signal comes: this wakes it.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.post_message, StopRequested())

    def on_stop_requested(self) -> None:
        """Leave."""
        self.exit(0)

    def _engine_gone(self, error: BaseException) -> None:
        if not self.status_bar.problem:
            self.status_bar.problem = "the daemon is gone: what you see is old. q leaves"
            self.status_bar.rebuild()
            self.fail("following the engine", error)

    # Work and its outcome

    def run_guarded(self, work: Coroutine[Any, Any, object], what: str) -> Worker[None]:
        """Run ``work``; a failure becomes a toast that says what, why and what next."""
        return self.run_worker(self._guarded(work, what), exit_on_error=False)

    async def _guarded(self, work: Coroutine[Any, Any, object], what: str) -> None:
        try:
            await work
        except RealizeError as error:
            if isinstance(error, EngineStoppedError | NoDaemonError):
                self._engine_gone(error)
            else:
                self.fail(what, error)
        except Exception as error:  # noqa: BLE001 - the UI's top: a bug in one task is shown, the screen stays
            _log.exception("%s failed", what)
            self.fail(what, error)

    def ask(self, fn: Callable[[Api], Awaitable[object]], what: str, *, done: str = "") -> None:
        """Run ``fn`` in the engine; say ``done`` when it is."""

        async def work() -> None:
            await self.bridge.call(fn)
            if done:
                self.say(done)

        self.run_guarded(work(), what)

    def say(self, text: str, severity: Severity = "information", hint: str = "") -> None:
        """Show a toast and keep it in the activity pane. ``text`` is sanitised already."""
        self.activity.journal.say(self._now_ns(), text, severity, hint)
        self.activity.refresh_lines()
        self.notify(f"{text}\n{hint}" if hint else text, severity=severity, markup=False)

    def fail(self, what: str, error: BaseException) -> None:
        """Say what failed, why, and what to do next."""
        hint = error.hint if isinstance(error, RealizeError) else ""
        why = ": ".join(chain(error)) if isinstance(error, RealizeError) else f"internal error: {error!r}"
        if not hint:
            expected = isinstance(error, NetError)
            hint = (
                "it is tried again by itself"
                if expected
                else "the log says more (realize log, --log-level debug)"
            )
        self.say(f"{what} failed: {present_name(why)}", "error", present_name(hint))

    # Focus and layout

    @property
    def pane(self) -> Pane:
        """The focused pane."""
        return self.panes[self.front]

    def focus_pane(self, name: str) -> None:
        """Bring a pane to the front and give it the keys."""
        self.front = name
        self._arrange()
        self.pane.table.focus()
        self._show_facts()

    def on_resize(self, event: Resize) -> None:
        """Grid or tabs."""
        self._arrange(event.size.width, event.size.height)

    def _arrange(self, width: int = 0, height: int = 0) -> None:
        width, height = width or self.size.width, height or self.size.height
        single = self.zoomed or width < GRID_WIDTH or height < GRID_HEIGHT
        root = self.screen_stack[0]
        root.set_class(single, "-single")
        self.set_class(height < BARE_HEIGHT, "-bare")
        for name, pane in self.panes.items():
            pane.set_class(name == self.front, "-front")
        self.tabs.focused = self.front
        self.tabs.rebuild()

    def facts(self) -> Facts:
        """Return what commands depend on now."""
        facts = self.pane.facts()
        status = self.snapshot.status
        held = sum(arena.held_deletes for arena in status.arenas) if status is not None else 0
        return replace(facts, undo=self.marking.undo_label, held=held)

    def _show_facts(self) -> None:
        self.key_bar.show(self.facts())

    def on_facts_changed(self) -> None:
        """The cursor moved, the focus moved: other keys can act."""
        focused = self.screen_stack[0].focused
        for name, pane in self.panes.items():
            if focused is not None and pane in focused.ancestors_with_self and name != self.front:
                self.front = name
                self._arrange()
        self._show_facts()

    def on_pane_chosen(self, message: PaneChosen) -> None:
        """A tab was clicked."""
        self.focus_pane(message.pane)

    def on_command_chosen(self, message: CommandChosen) -> None:
        """A key in the footer was clicked."""
        self.run_command(message.command)

    def on_reveal(self, message: Reveal) -> None:
        """A pane wants a path shown in the tree."""
        self.reveal(message.at)

    def remember(self) -> None:
        """Keep the state of the dashboard for the next time."""
        sorts = {name: (pane.sort, pane.reverse) for name, pane in self.panes.items() if pane.sorts}
        state = uistate.UiState(pane=self.front, theme=self.theme, sorts=sorts, zoomed=self.zoomed)
        if state != self.remembered and self._state_file is not None:
            # Some 200 bytes: writing them here takes less than handing them to a thread.
            uistate.save(self._state_file, state)
        self.remembered = state

    # Commands

    def action_command(self, command: str) -> None:
        """Run a command by its id (key bindings)."""
        self.run_command(command)

    def run_command(self, command: str, *, from_palette: bool = False) -> None:
        """Run a command on the focused pane; say why if it cannot act now."""
        chosen = BY_ID[command]
        if from_palette and chosen.panes and self.front not in chosen.panes:
            self.focus_pane(chosen.panes[0])
        reason = chosen.why_not(self.facts())
        if reason:
            self.notify(f"{chosen.label}: {reason}", severity="warning", markup=False, timeout=4)
            return
        do = getattr(self.pane, f"do_{chosen.run}", None) or getattr(self, f"do_{chosen.run}")
        if chosen.argument:
            do(chosen.argument)
        else:
            do()
        self._show_facts()
