"""The command palette: every command, arena, peer and file."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from app.tui.actions import COMMANDS, Command, key_name
from app.tui.present import TAB_WORDS, name, path_text
from core.api import ArenaPath
from core.errors import RealizeError

if TYPE_CHECKING:
    from app.tui.app import RealizeApp

FILES_MOST = 30
"""LIMIT: files offered for what was typed."""


def relevance(query: str, title: str) -> float:
    """Return how well a title answers, 0 for not at all: beginnings of words before other parts.

    Letters scattered over a title do not answer: a command must not come up, first in the list, for
    what was meant as the name of a file.
    """
    query, title = query.casefold(), title.casefold()
    if f" {query}" in f" {title}" or f"/{query}" in title:
        return 4.0
    if query in title:
        return 3.0
    return 2.0 if all(f" {word}" in f" {title}" for word in query.split()) else 0.0


class _RealizeProvider(Provider):
    """A provider that knows the dashboard."""

    @property
    def dashboard(self) -> RealizeApp:
        """The app, as what it is."""
        return cast("RealizeApp", self.app)


class CommandProvider(_RealizeProvider):
    """The commands of all panes."""

    async def discover(self) -> Hits:
        """Offer everything."""
        for command in COMMANDS:
            yield DiscoveryHit(_title(command), self._run(command), text=_title(command), help=_help(command))

    async def search(self, query: str) -> Hits:
        """Offer what matches."""
        for command in COMMANDS:
            title = _title(command)
            score = relevance(query, title)
            if score > 0:
                yield Hit(score, Content(title), self._run(command), text=title, help=_help(command))

    def _run(self, command: Command) -> partial[None]:
        return partial(self.dashboard.run_command, command.id, from_palette=True)


def _title(command: Command) -> str:
    pane = TAB_WORDS[command.panes[0]][0] + ": " if len(command.panes) == 1 else ""
    return pane + command.help


def _help(command: Command) -> str:
    return f"key {key_name(command.keys)}"


class PlaceProvider(_RealizeProvider):
    """Arenas and peers: go there."""

    def _places(self) -> list[tuple[str, partial[None]]]:
        status = self.dashboard.snapshot.status
        if status is None:
            return []
        return [
            *(
                (f"arena {name(a.name)}", partial(self.dashboard.reveal, ArenaPath(a.name)))
                for a in status.arenas
            ),
            *((f"peer {name(p.name)}", partial(self.dashboard.go_to_peer, p.name)) for p in status.peers),
        ]

    async def discover(self) -> Hits:
        """Offer all."""
        for title, go in self._places():
            yield DiscoveryHit(Content(title), go, text=title, help="go there")

    async def search(self, query: str) -> Hits:
        """Offer what matches."""
        for title, go in self._places():
            score = relevance(query, title)
            if score > 0:
                yield Hit(score, Content(title), go, text=title, help="go there")


class FileProvider(_RealizeProvider):
    """Files and directories of all arenas."""

    async def search(self, query: str) -> Hits:
        """Offer what the engine finds; the palette cancels the search when another letter is typed."""
        await asyncio.sleep(0.1)
        try:
            found = await self.dashboard.bridge.call(lambda api: api.search(query, limit=FILES_MOST))
        except RealizeError as error:
            self.dashboard.log.warning(f"palette: {error}")
            return
        for rank, entry in enumerate(found):
            at = ArenaPath(entry.arena, entry.path)
            title = path_text(at)
            score = max(1.0, relevance(query, title)) - rank / 10_000
            yield Hit(score, Content(title), partial(self.dashboard.reveal, at), text=title)
