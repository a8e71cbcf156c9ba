"""The commands that are not one pane's own; mixed into the app."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from textual.command import CommandPalette

from app.tui.actions import PANES
from app.tui.palette import CommandProvider, FileProvider, PlaceProvider
from app.tui.present import name, only_here, path_text, plural
from app.tui.screens.confirm import ConfirmScreen
from app.tui.screens.details import DetailsScreen
from app.tui.screens.help import HelpScreen
from app.tui.themes import CYCLE
from core.api import Api, ArenaPath, Why
from core.types import Mark

if TYPE_CHECKING:
    from app.tui.app import RealizeApp


class Commands:
    """Methods ``do_NAME`` for `app.tui.actions.Command.run`."""

    @property
    def _me(self) -> RealizeApp:
        return cast("RealizeApp", self)

    # Marks and paths

    def do_mark(self, word: str) -> None:
        """Set (or unset) the mark of what is chosen in the focused pane."""
        mark = None if word == "unset" else Mark(word)
        self._me.marking.set(self._me.pane.targets(), mark)

    def do_undo(self) -> None:
        """Undo the last change of marks."""
        self._me.marking.undo()

    def marks_changed(self) -> None:
        """Marks were changed from here: no selection any more, show it."""
        self._me.arenas.clear_selection()
        self._me.feed.marks.touch()

    def do_why(self) -> None:
        """Say why a path is as it is."""
        app = self._me
        for at in app.pane.targets()[:1]:
            app.run_guarded(self._why(at), f"asking about {path_text(at)}")

    async def _why(self, at: ArenaPath) -> None:
        def ask(api: Api) -> Awaitable[Why]:
            return api.why(at)

        why = await self._me.bridge.call(ask)
        lines = [(name(rule), name(finding)) for rule, finding in why.lines]
        self._me.push_screen(DetailsScreen(f"Why {path_text(at)}", lines))

    def do_get(self) -> None:
        """Fetch the whole content of what is chosen."""
        app = self._me
        targets = app.pane.targets()
        what = path_text(targets[0]) if len(targets) == 1 else plural(len(targets), "path")
        app.say(f"fetching {what}")
        app.run_guarded(self._get(targets, what), f"fetching {what}")

    async def _get(self, targets: tuple[ArenaPath, ...], what: str) -> None:
        async def work(api: Api) -> tuple[int, list[str]]:
            done, errors = 0, []
            async with aclosing(api.get(targets)) as steps:  # type: ignore[type-var]  # an async generator
                async for step in steps:
                    if step.done and step.error:
                        errors.append(f"{path_text(step.at)}: {name(step.error)}")
                    elif step.done:
                        done += 1
            return done, errors

        done, errors = await self._me.bridge.call(work)
        if errors:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            self._me.say(
                f"not fetched: {errors[0]}{more}", "error", "connect a peer that holds it, then g again"
            )
        else:
            self._me.say(f"fetched {what}: {plural(done, 'file')}")

    def do_verify(self) -> None:
        """Read what is held of what is chosen again; how far it is shows among the jobs."""
        app = self._me
        targets = app.pane.targets()
        what = path_text(targets[0]) if len(targets) == 1 else plural(len(targets), "path")
        app.say(f"verifying {what}")
        app.run_guarded(self._verify(targets, what), f"verifying {what}")

    async def _verify(self, targets: tuple[ArenaPath, ...], what: str) -> None:
        async def work(api: Api) -> tuple[Counter[str], list[str]]:
            counts: Counter[str] = Counter()
            bad = []
            for at in targets:
                async with aclosing(api.verify(at)) as steps:  # type: ignore[type-var]  # an async generator
                    async for step in steps:
                        counts[step.outcome] += 1
                        if step.outcome in ("damaged", "unreadable"):
                            bad.append(f"{path_text(step.at)}: {name(step.detail)}")
            return counts, bad

        counts, bad = await self._me.bridge.call(work)
        if bad:
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            hint = "connect a peer that holds it, then v again"
            self._me.say(f"not as it should be: {bad[0]}{more}", "error", hint)
            return
        rest = [f"{counts[kind]} {kind}" for kind in ("repaired", "changed") if counts[kind]]
        found = ", ".join([f"{plural(counts['ok'], 'file')} as they should be", *rest])
        self._me.say(f"verified {what}: {found}")

    def do_confirm_deletes(self) -> None:
        """Let held deletions go on, of one arena after the other; asks."""
        status = self._me.snapshot.status
        for arena in status.arenas if status is not None else ():
            if arena.held_deletes:
                what = f"confirming deletions of {name(arena.name)}"
                self._me.run_guarded(self._confirm_deletes(arena.name, arena.held_deletes), what)
                return

    async def _confirm_deletes(self, arena: str, held: int) -> None:
        app = self._me
        yes = await app.push_screen_wait(
            ConfirmScreen(
                f"Delete {plural(held, 'file')} of {name(arena)} everywhere?",
                f"{'It is' if held == 1 else 'They are'} gone from the datadir of this host, so many at once "
                "that it may have been an accident. Yes: the other hosts delete them too, and keep what they "
                "held in their trash while there is room. To undo it instead, put the files back.",
                "Delete everywhere",
            )
        )
        if yes:
            count = await app.bridge.call(lambda api: api.arena_confirm_deletes(arena))
            app.say(f"{name(arena)}: {plural(count, 'file')} deleted")

    # Getting around

    def do_focus(self, pane: str) -> None:
        """Go to a pane."""
        self._me.focus_pane(pane)
        self._me.remember()

    def action_focus_next(self) -> None:
        """Tab: the next pane; in a dialog the next widget."""
        self._turn(1)

    def action_focus_previous(self) -> None:
        """Shift-tab: the pane before."""
        self._turn(-1)

    def _turn(self, by: int) -> None:
        app = self._me
        if len(app.screen_stack) > 1:
            if by > 0:
                app.screen.focus_next()
            else:
                app.screen.focus_previous()
            return
        self.do_focus(PANES[(PANES.index(app.front) + by) % len(PANES)])

    def reveal(self, at: ArenaPath) -> None:
        """Show a path in the tree."""
        self._me.focus_pane("arenas")
        self._me.arenas.reveal(at)

    def go_to_peer(self, peer: str) -> None:
        """Show a peer in the connections pane."""
        self._me.focus_pane("connections")
        self._me.connections.go_to(peer)

    def do_zoom(self) -> None:
        """One pane, or all of them."""
        app = self._me
        app.zoomed = not app.zoomed
        app.focus_pane(app.front)
        app.remember()

    def do_back(self) -> None:
        """Leave what is innermost: filter, selection, zoom."""
        app = self._me
        if not app.pane.back() and app.zoomed:
            self.do_zoom()

    def do_help(self) -> None:
        """Show the help."""
        self._me.push_screen(HelpScreen(self._me.front))

    def do_palette(self) -> None:
        """Find anything."""
        self._me.push_screen(
            CommandPalette(
                providers=[CommandProvider, PlaceProvider, FileProvider],
                placeholder="command, arena, peer or file …",
            )
        )

    def do_theme(self) -> None:
        """Take the next theme."""
        app = self._me
        index = CYCLE.index(app.theme) if app.theme in CYCLE else -1
        app.theme = CYCLE[(index + 1) % len(CYCLE)]
        app.notify(f"theme {app.theme}", timeout=2, markup=False)

    # Leaving

    def do_quit(self) -> None:
        """Leave; asks when that would leave work that exists only here."""
        app = self._me
        status = app.snapshot.status
        alone = only_here(status) if status is not None else 0
        if not alone or app.attached:
            self._leave(True)
            return
        app.push_screen(
            ConfirmScreen(
                f"{plural(alone, 'file')} only here",
                f"No other peer holds {'it' if alone == 1 else 'them'} yet. Quitting stops the daemon: "
                "nothing is lost, but others see the work only after the next start.",
                "Quit anyway",
            ),
            self._leave,
        )

    def _leave(self, yes: bool | None) -> None:
        if yes:
            self._me.remember()
            self._me.exit(0)
