"""The arenas pane: a lazily loaded tree of arenas, directories and files (spec 7, pane 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.binding import BindingType
from textual.timer import Timer
from textual.widgets import Input
from textual.worker import Worker

from app.tui import rows as present_rows
from app.tui.actions import Facts
from app.tui.journal import Changes
from app.tui.panes.loader import Loader
from app.tui.panes.pane import Pane, bindings
from app.tui.panes.treesource import TreeSource
from app.tui.present import Snapshot, name, path_text
from app.tui.table import Table
from app.tui.tree import SORTS, Node, Tree
from core.api import ArenaPath, Entry
from core.types import Kind

SEARCH_DELAY_S = 0.12
"""LIMIT: quiet time after a key before a search is asked for."""

FOUND_MOST = 500
"""LIMIT: rows of a search; who needs more types another letter."""


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
        self.loader = Loader(
            self.source.tree,
            lambda: self.dashboard.bridge,
            lambda work, what: self.dashboard.run_guarded(work, what),
            self.table.visible_rows,
            self._change,
        )
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
        return self.loader.settled and not (self._quiet or self._search)

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
            self._change(lambda: self.nodes.set_arenas(list(self.source.arenas)))
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
        self._change(lambda: self._make_old(changes))
        if self.source.found is not None:
            self._search_soon()

    def _make_old(self, changes: Changes) -> None:
        reset = [root.at.arena for root in self.nodes.roots] if changes.reset else []
        for arena in (*reset, *changes.arenas):
            self.nodes.touch_arena(arena)
        for directory in changes.directories:
            self.nodes.touch(directory)

    def _change(self, change: Callable[[], object]) -> None:
        """Change the tree and draw what is different; the cursor stays on its path."""
        key = self.table.key
        change()
        self.table.update_rows(key)
        self._retitle()

    def refresh_rows(self) -> None:
        """Draw what is different, and the title."""
        self.table.update_rows()
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

    def on_table_view_changed(self) -> None:
        """Read what is missing or old of the visible rows."""
        if self.source.found is None:
            self.loader.look()

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
        self._change(lambda: self.nodes.sort_by(self.sort, self.reverse))
        self.table.scroll_to_cursor()

    def reveal(self, at: ArenaPath) -> None:
        """Open what leads to a path, and go there."""
        self.close_filter()
        self.dashboard.run_guarded(self._reveal(at), f"showing {path_text(at)}")

    async def _reveal(self, at: ArenaPath) -> None:
        node = await self.loader.open_path(at)
        if node is None:
            self.dashboard.say(f"{path_text(at)} is not there any more", "warning")
            return
        self.refresh_rows()
        index = self.nodes.index(node.at)
        if index is not None:
            self.table.move_to(index)
        self.table.focus()
        self.changed()

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
