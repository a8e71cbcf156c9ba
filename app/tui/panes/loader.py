"""Reads what the arenas pane shows: pages of directories and sums over them, as they come into view.

asyncio side. A directory is read by one task at a time; one that keeps changing is read again only
now and then, however often it changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from app.bridge import Bridge
from app.tui.present import name, path_text
from app.tui.tree import Node, Tree, last_name
from core.api import Api, ArenaPath, Page, Usage
from core.errors import RealizeError
from core.paths import join, split

AHEAD = 200
"""LIMIT: rows below the visible ones that are loaded too, so that scrolling does not wait."""

PAGE = 1000
"""LIMIT: entries asked for at once; a page is drawn in a few ms."""

REREAD_PAUSE_S = 0.5
"""LIMIT: a directory that changes all the time, and the sums, are read again at most this often."""


class Loader:
    """Keeps a `Tree` right where it is looked at."""

    def __init__(
        self,
        tree: Tree,
        bridge: Callable[[], Bridge],
        start: Callable[[Coroutine[Any, Any, None], str], object],
        visible: Callable[[], range],
        changing: Callable[[Callable[[], None]], None],
    ) -> None:
        """Make a loader.

        ``start`` runs a task guarded; ``visible`` says which rows are on the screen; ``changing``
        calls what changes the tree and then draws it.
        """
        self._tree, self._bridge, self._start = tree, bridge, start
        self._visible, self._changing = visible, changing
        self._loading: set[ArenaPath] = set()
        self._read_at: dict[ArenaPath, float] = {}
        self._summing = False
        self._sums_due = 0.0

    @property
    def settled(self) -> bool:
        """Whether nothing is being read."""
        return not (self._loading or self._summing)

    def look(self) -> None:
        """Read what is missing or old of the visible rows."""
        visible = self._visible()
        ahead = range(visible.start, min(len(self._tree.rows), visible.stop + AHEAD))
        for node, after in self._tree.wanted(ahead):
            if node.at not in self._loading:
                self._loading.add(node.at)
                self._start(self._load(node, after), f"listing {path_text(node.at)}")
        if not self._summing and self._old_sums():
            self._summing = True
            self._start(self._read_sums(), "reading sizes")

    # Pages

    async def _load(self, node: Node, after: bytes) -> None:
        try:
            again = after < last_name(node) or not last_name(node)
            due = self._read_at.get(node.at, 0.0) + REREAD_PAUSE_S if again else 0.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._read_at[node.at] = time.monotonic()
            await self.read_page(node, after)
        finally:
            self._loading.discard(node.at)

    async def read_page(self, node: Node, after: bytes) -> None:
        """Read the page of a directory after a name into the tree."""
        generation = node.listing.generation if node.listing is not None else 0

        def ask(api: Api) -> Awaitable[Page]:
            return api.listdir(node.at, after=after, limit=PAGE)

        try:
            page = await self._bridge().call(ask)
        except RealizeError as error:
            reason = f"cannot be read: {name(str(error))}"
            self._changing(lambda: self._tree.fail(node, reason))
        else:
            self._loading.discard(node.at)
            self._changing(lambda: self._put(node, after, page, generation))

    def _put(self, node: Node, after: bytes, page: Page, generation: int) -> None:
        listing = node.listing
        if self._tree.node(node.at) is not node or listing is None:
            return
        # RACE: the directory may have changed after the page was read; then the page is old at once.
        newer, listing.generation = listing.generation, generation
        self._tree.put(node, after, page.entries, page.more)
        listing.generation = newer

    async def open_path(self, at: ArenaPath) -> Node | None:
        """Open the directories that lead to a path, reading what is missing; None if it is not there."""
        node = self._tree.node(ArenaPath(at.arena))
        path = b""
        for part in at.path.split(b"/") if at.path else ():
            if node is None:
                break
            self._tree.expand(node)
            path = join(path, part)
            node = await self._read_until(node, ArenaPath(at.arena, path))
        return node

    async def _read_until(self, parent: Node, at: ArenaPath) -> Node | None:
        """Read pages of a directory until the path is among them."""
        wanted = split(at.path)[1]
        while (node := self._tree.node(at)) is None:
            after = last_name(parent)
            if parent.listing is None or not parent.listing.more or after >= wanted:
                return None
            await self.read_page(parent, after)
        return node

    # Sums

    def _old_sums(self) -> list[Node]:
        visible = self._visible()
        rows = self._tree.rows[visible.start : visible.stop]
        return [row for row in rows if isinstance(row, Node) and row.is_dir and row.usage_stale]

    async def _read_sums(self) -> None:
        """Ask for the sums of the visible directories until none is old, with pauses between."""
        try:
            while self._old_sums():
                await asyncio.sleep(max(0.0, self._sums_due - time.monotonic()))
                nodes = self._old_sums()
                for node in nodes:
                    node.usage_stale = False
                sums = await self._sums([node.at for node in nodes])
                self._sums_due = time.monotonic() + REREAD_PAUSE_S
                self._changing(lambda: self._tree.set_sums(zip(nodes, sums, strict=True)))  # noqa: B023 - called at once
        finally:
            self._summing = False

    async def _sums(self, paths: Sequence[ArenaPath]) -> list[Usage | None]:
        async def ask(api: Api) -> list[Usage | None]:
            sums: list[Usage | None] = []
            for at in paths:
                try:
                    sums.append(await api.usage(at))
                except RealizeError:  # RACE: the directory may have gone; the next listing says so.
                    sums.append(None)
            return sums

        return await self._bridge().call(ask)
