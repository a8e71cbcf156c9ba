"""Setting and removing marks from any pane: what it would do is shown first, and it can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app import words
from app.tui.present import path_text, plural
from app.tui.screens.confirm import ConfirmScreen
from core.api import ArenaPath, MarkChange, MarkEffect
from core.types import Mark

if TYPE_CHECKING:
    from app.tui.app import RealizeApp

CONFIRM_BYTES = 1 << 30
"""LIMIT: a change that fetches or frees more than 1 GiB is asked about (spec 7)."""

UNDO_MOST = 100
"""LIMIT: changes that can be undone."""


class Marking:
    """Changes marks and remembers how to undo it; asyncio side."""

    def __init__(self, app: RealizeApp) -> None:
        """Make it for an app."""
        self._app = app
        self._undo: list[tuple[str, tuple[MarkChange, ...]]] = []

    @property
    def undo_label(self) -> str:
        """What `undo` would undo, "" for nothing."""
        return self._undo[-1][0] if self._undo else ""

    def set(self, paths: Sequence[ArenaPath], mark: Mark | None) -> None:
        """Set or remove (None) an explicit mark on paths."""
        if paths:
            self._app.run_guarded(self._set(tuple(paths), mark), "changing marks")

    async def _set(self, paths: tuple[ArenaPath, ...], mark: Mark | None) -> None:
        changes = tuple(MarkChange(at, mark) for at in paths)
        label = _label(paths, mark)
        effect = await self._app.bridge.call(lambda api: api.mark_effect(changes))
        if max(effect.bytes_to_fetch, effect.bytes_to_free) > CONFIRM_BYTES:
            screen = ConfirmScreen(_question(paths, mark), effect_text(effect), "Yes, do it")
            if not await self._app.push_screen_wait(screen):
                return
        undo = await self._app.bridge.call(lambda api: api.mark_apply(changes))
        self._undo = [*self._undo, (label, undo)][-UNDO_MOST:]
        self._app.say(f"{label}. ^z undoes it")
        self._app.marks_changed()

    def undo(self) -> None:
        """Undo the last change."""
        if self._undo:
            self._app.run_guarded(self._take_back(), "undoing a change of marks")

    async def _take_back(self) -> None:
        label, changes = self._undo.pop()
        try:
            await self._app.bridge.call(lambda api: api.mark_apply(changes))
        except BaseException:
            self._undo.append((label, changes))
            raise
        self._app.say(f"undone: {label}")
        self._app.marks_changed()


def _what(paths: Sequence[ArenaPath]) -> str:
    return path_text(paths[0]) if len(paths) == 1 else plural(len(paths), "path")


def _label(paths: Sequence[ArenaPath], mark: Mark | None) -> str:
    return f"{_what(paths)} marked {mark.value}" if mark is not None else f"mark of {_what(paths)} removed"


def _question(paths: Sequence[ArenaPath], mark: Mark | None) -> str:
    return f"Mark {_what(paths)} {mark.value}?" if mark is not None else f"Remove the mark of {_what(paths)}?"


def effect_text(effect: MarkEffect) -> str:
    """Say what a change would do."""
    parts = []
    if effect.bytes_to_fetch:
        parts.append(f"{words.human_bytes(effect.bytes_to_fetch)} to fetch")
    if effect.bytes_to_free:
        parts.append(f"{words.human_bytes(effect.bytes_to_free)} may be freed")
    return f"{plural(effect.files, 'file')}: {' and '.join(parts) or 'nothing to fetch or free'}."
