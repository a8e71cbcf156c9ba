"""The arenas pane: a lazily loaded tree of arenas, directories and files (spec 7, pane 1)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.timer import Timer
from textual.widgets import Input
from textual.worker import Worker

from app.tui import rows as present_rows
from app.tui.actions import Facts
from app.tui.cells import Row
from app.tui.journal import Changes
from app.tui.panes.pane import Pane, bindings
from app.tui.present import Snapshot, name, path_text
from app.tui.table import Table
from app.tui.tree import SORTS, Node, Tree
from core.api import Api, ArenaPath, ArenaStatus, Entry, Page, Usage
from core.errors import RealizeError
from core.paths import join, split
from core.types import Kind

AHEAD = 200
"""LIMIT: rows below the visible ones that are loaded too, so that scrolling does not wait."""

PAGE = 1000
"""LIMIT: entries asked for at once; a page is drawn in a few ms."""

SEARCH_DELAY_S = 0.12
"""LIMIT: quiet time after a key before a search is asked for."""

FOUND_MOST = 500
"""LIMIT: rows of a search; who needs more types another letter."""

USAGE_PAUSE_S = 0.5
"""LIMIT: the sums of visible directories are asked for at most this often while they change."""


class TreeSource:
    """Rows of the tree, or of what a search found."""

    def __init__(self) -> None:
        """Make it empty."""
        self.tree = Tree()
        self.found: tuple[Entry, ...] | None = None
        self.selected: set[ArenaPath] = set()
        self.progress: present_rows.Progress = {}
        self.arenas: dict[str, ArenaStatus] = {}

    def count(self) -> int:
        """Return the number of rows."""
        return len(self.tree.rows) if self.found is None else len(self.found)

    def row(self, index: int) -> Row:
        """Return a row."""
        if self.found is not None:
            entry = self.found[index]
            marked = ArenaPath(entry.arena, entry.path) in self.selected
            return present_rows.found_row(entry, marked=marked, progress=self.progress)
        row = self.tree.rows[index]
        arena, marked = None, False
        if isinstance(row, Node):
            marked = row.at in self.selected
            arena = self.arenas.get(row.at.arena) if row.entry is None else None
        return present_rows.tree_row(row, marked=marked, progress=self.progress, arena=arena)


class ArenasPane(Pane):
    """The tree. Reads pages and sums as they come into view."""

    pane = "arenas"
    columns = present_rows.TREE_COLUMNS
    sorts = SORTS
    filter_hint = "fuzzy: letters in order; esc leaves"
    BINDINGS: ClassVar[list[BindingType]] = bindings("arenas")

    def __init__(self) -> None:
        """Make an empty tree."""
        super().__init__()
        self.source = TreeSource()
        self._loading: set[ArenaPath] = set()
        self._reading_sums = False
        self._sums_due = 0.0
        self._quiet: Timer | None = None
        self._search: Worker[None] | None = None
        self._filter_arena: str | None = None

    @property
    def nodes(self) -> Tree:
        """The tree that is shown."""
        return self.source.tree

    def on_mount(self) -> None:
        """Show the tree, empty at first."""
        super().on_mount()
        self.table.show(self.source)

    @property
    def settled(self) -> bool:
        """Whether nothing that is visible is being read."""
        return not (self._loading or self._reading_sums or self._quiet or self._search)

    # Snapshots and changes

    def about(self, snapshot: Snapshot) -> object:
        """Return what is shown of a snapshot."""
        arenas = snapshot.status.arenas if snapshot.status is not None else None
        return arenas, snapshot.jobs.rows if snapshot.jobs is not None else None

    def show(self, snapshot: Snapshot) -> None:
        """Take the arenas, their figures and the progress of downloads."""
        super().show(snapshot)
        if snapshot.status is not None:
            self.source.arenas = {arena.name: arena for arena in snapshot.status.arenas}
            self.nodes.set_arenas([arena.name for arena in snapshot.status.arenas])
            self.set_empty("" if snapshot.status.arenas else NO_ARENAS)
        if snapshot.jobs is not None:
            self.source.progress = {
                job.at: job
                for job in snapshot.jobs.rows
                if job.state == "active" and job.action == "download"
            }
        self.refresh_rows()

    def apply(self, changes: Changes) -> None:
        """Make what changed old; what is visible of it is read again."""
        key = self._key()
        if changes.reset:
            for root in self.nodes.roots:
                self.nodes.touch_arena(root.at.arena)
        for arena in changes.arenas:
            self.nodes.touch_arena(arena)
        for directory in changes.directories:
            self.nodes.touch(directory)
        self.table.update_rows(key=key)
        if self.source.found is not None:
            self._search_soon()

    def _key(self) -> object:
        row = self.table.current
        return row.key if row is not None else None

    def refresh_rows(self) -> None:
        """Draw what is different, and the title."""
        self.table.update_rows(key=self._key())
        self._retitle()

    def _retitle(self) -> None:
        found, selected = self.source.found, self.source.selected
        note = ""
        if found is not None:
            note = f"{len(found)}{'+' if len(found) >= FOUND_MOST else ''} found"
        below = [f"{len(selected)} selected"] if selected else []
        if self.sort != "name" or self.reverse:
            below.append(f"by {self.sort}{', reversed' if self.reverse else ''}")
        self.set_title(note, " · ".join(below))

    # Loading what is visible

    def on_table_view_changed(self) -> None:
        """Read what is missing or old of the visible rows."""
        if self.source.found is not None:
            return
        visible = self.table.visible_rows()
        ahead = range(visible.start, min(len(self.nodes.rows), visible.stop + AHEAD))
        for node, after in self.nodes.wanted(ahead):
            self._load(node, after)
        if not self._reading_sums and self._old_sums(visible):
            self._reading_sums = True
            self.dashboard.run_guarded(self._read_sums(), "reading sizes")

    def _load(self, node: Node, after: bytes) -> None:
        if node.at not in self._loading:
            self._loading.add(node.at)
            self.dashboard.run_guarded(self._read_page(node, after), f"listing {path_text(node.at)}")

    async def _read_page(self, node: Node, after: bytes) -> None:
        generation = node.listing.generation if node.listing is not None else 0

        def ask(api: Api) -> Awaitable[Page]:
            return api.listdir(node.at, after=after, limit=PAGE)

        try:
            page = await self.dashboard.bridge.call(ask)
        except RealizeError as error:
            self.nodes.fail(node, f"cannot be read: {error}")
        else:
            self._put(node, after, page, generation)
        finally:
            self._loading.discard(node.at)
        self.refresh_rows()

    def _put(self, node: Node, after: bytes, page: Page, generation: int) -> None:
        listing = node.listing
        if self.nodes.node(node.at) is not node or listing is None:
            return
        # RACE: the directory may have changed after the page was read; then the page is old at once.
        newer, listing.generation = listing.generation, generation
        self.nodes.put(node, after, page.entries, page.more)
        listing.generation = newer

    def _old_sums(self, visible: range) -> list[Node]:
        rows = self.nodes.rows[visible.start : visible.stop]
        return [row for row in rows if isinstance(row, Node) and row.is_dir and row.usage_stale]

    async def _read_sums(self) -> None:
        """Ask for the sums of the visible directories until none is old, with pauses between."""
        try:
            while self._old_sums(self.table.visible_rows()):
                await asyncio.sleep(max(0.0, self._sums_due - time.monotonic()))
                nodes = self._old_sums(self.table.visible_rows())
                for node in nodes:
                    node.usage_stale = False
                for node, usage in zip(nodes, await self._sums([node.at for node in nodes]), strict=True):
                    node.usage = usage or node.usage
                self._sums_due = time.monotonic() + USAGE_PAUSE_S
                if self.sort in ("size", "held"):
                    self.nodes.flatten()
                self.refresh_rows()
        finally:
            self._reading_sums = False

    async def _sums(self, paths: Sequence[ArenaPath]) -> list[Usage | None]:
        async def ask(api: Api) -> list[Usage | None]:
            sums: list[Usage | None] = []
            for at in paths:
                try:
                    sums.append(await api.usage(at))
                except RealizeError:  # RACE: the directory may have gone; the next listing says so.
                    sums.append(None)
            return sums

        return await self.dashboard.bridge.call(ask)

    # Opening and closing

    def _node(self) -> Node | None:
        if self.source.found is not None or self.table.cursor >= len(self.nodes.rows):
            return None
        row = self.nodes.rows[self.table.cursor]
        return row if isinstance(row, Node) else None

    def do_toggle(self) -> None:
        """Open or close a directory; show something found in the tree."""
        if self.source.found is not None:
            for at in self.targets()[:1]:
                self.reveal(at)
            return
        node = self._node()
        if node is not None and node.expanded:
            self.nodes.collapse(node)
        elif node is not None:
            self.nodes.expand(node)
        self._moved()

    def do_expand(self) -> None:
        """Open a directory; if it is open, go to its first entry."""
        node = self._node()
        if node is None or not node.is_dir:
            return
        if node.expanded:
            self.table.move_to(self.table.cursor + 1)
        else:
            self.nodes.expand(node)
            self._moved()

    def do_collapse(self) -> None:
        """Close a directory; if it is closed, or a file, go to its parent."""
        node = self._node()
        if node is None:
            return
        if node.expanded:
            self.nodes.collapse(node)
            self._moved()
            return
        parent = self.nodes.parent(node)
        if parent is not None:
            self.table.move_to(self.nodes.rows.index(parent))

    def _moved(self) -> None:
        self.refresh_rows()
        self.changed()

    def on_table_chosen(self, _: Table.Chosen) -> None:
        """A double click opens and closes."""
        self.do_toggle()

    def resort(self) -> None:
        """Show the tree in another order, the cursor on the same path."""
        key = self._key()
        self.nodes.sort_by(self.sort, self.reverse)
        self._seek(key)
        self.refresh_rows()

    def _seek(self, key: object) -> None:
        for index, row in enumerate(self.nodes.rows):
            if isinstance(row, Node) and row.at == key:
                self.table.move_to(index)
                return

    # Showing a path

    def reveal(self, at: ArenaPath) -> None:
        """Open what leads to a path, and go there."""
        self.close_filter()
        self.dashboard.run_guarded(self._reveal(at), f"showing {path_text(at)}")

    async def _reveal(self, at: ArenaPath) -> None:
        node = self.nodes.node(ArenaPath(at.arena))
        path = b""
        for part in at.path.split(b"/") if at.path else ():
            if node is None:
                break
            self.nodes.expand(node)
            path = join(path, part)
            node = await self._load_until(node, ArenaPath(at.arena, path))
        if node is None:
            self.dashboard.say(f"{path_text(at)} is not there any more", "warning")
            return
        self.refresh_rows()
        self._seek(node.at)
        self.table.focus()
        self.changed()

    async def _load_until(self, parent: Node, at: ArenaPath) -> Node | None:
        """Read pages of a directory until the path is among them."""
        wanted = split(at.path)[1]
        while (node := self.nodes.node(at)) is None:
            children = parent.listing.children if parent.listing else []
            after = split(children[-1].at.path)[1] if children else b""
            if parent.listing is None or not parent.listing.more or after >= wanted:
                return None
            await self._read_page(parent, after)
        return node

    # Selecting

    def do_select(self) -> None:
        """Select the path under the cursor, or not any more; go down."""
        row = self.table.current
        if row is not None and isinstance(row.key, ArenaPath):
            self.source.selected ^= {row.key}
            self.table.action_move(1)
            self.refresh_rows()
            self.changed()

    def targets(self) -> tuple[ArenaPath, ...]:
        """Return the selected paths, else the one under the cursor."""
        if self.source.selected:
            return tuple(sorted(self.source.selected))
        row = self.table.current
        return (row.key,) if row is not None and isinstance(row.key, ArenaPath) else ()

    def clear_selection(self) -> None:
        """Select nothing."""
        self.source.selected.clear()
        self.refresh_rows()
        self.changed()

    def facts(self) -> Facts:
        """Say what the cursor is on."""
        entry = self._entry()
        row = self.table.current
        on = ""
        if row is not None and isinstance(row.key, ArenaPath):
            on = "arena" if not row.key.path else "dir" if entry and entry.kind == Kind.DIR else "file"
        return Facts(
            pane=self.pane, on="dir" if on and self.source.found is not None else on,
            selected=len(self.source.selected), has_path=bool(on),
            explicit=entry.mark_explicit if entry is not None else True,
            filtered=self.source.found is not None,
        )  # fmt: skip

    def _entry(self) -> Entry | None:
        if self.source.found is not None:
            return (
                self.source.found[self.table.cursor] if self.table.cursor < len(self.source.found) else None
            )
        node = self._node()
        return node.entry if node is not None else None

    # Filter

    def on_input_changed(self, _: Input.Changed) -> None:
        """Search once the keys are quiet."""
        self._search_soon()

    def _search_soon(self) -> None:
        """Search when no key has been pressed for a while; what was searched for before is given up."""
        self._give_up_search()
        if self.input.value:
            self._quiet = self.set_timer(SEARCH_DELAY_S, self._start_search)
        else:
            self._show_found(None)

    def _give_up_search(self) -> None:
        if self._quiet is not None:
            self._quiet.stop()
            self._quiet = None
        if self._search is not None:
            self._search.cancel()
            self._search = None

    def _start_search(self) -> None:
        self._quiet = None
        query, arena = self.input.value, self._filter_arena

        async def find() -> None:
            found = await self.dashboard.bridge.call(
                lambda api: api.search(query, arena=arena, limit=FOUND_MOST)
            )
            self._search = None
            self._show_found(found)

        self._search = self.dashboard.run_guarded(find(), "searching")

    def _show_found(self, found: tuple[Entry, ...] | None) -> None:
        if found is None and self.source.found is None:
            return
        self.source.found = found
        self.table.cursor = 0
        nothing = f"Nothing matches {name(self.input.value)!r}." if found == () else ""
        self.set_empty(nothing or ("" if self.source.arenas else NO_ARENAS))
        self.refresh_rows()
        self.changed()

    def do_filter(self) -> None:
        """Open the filter; it searches the arena the cursor is in."""
        targets = self.targets()
        if self.source.found is None:
            self._filter_arena = targets[0].arena if targets else None
        super().do_filter()

    def close_filter(self) -> bool:
        """Leave the search: the tree again."""
        self._give_up_search()
        closed = super().close_filter()
        self._show_found(None)
        return closed

    def back(self) -> bool:
        """Leave the filter, then the selection."""
        if self.close_filter():
            return True
        if self.source.selected:
            self.clear_selection()
            return True
        return False


NO_ARENAS = """No arena yet.

An arena is a named collection of files that the peers share. Add one:

    realize arena add docs

and add the same name on another peer."""
