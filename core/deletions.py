"""Deletions in a datadir: counted, held back by the brake, checked once more, and recorded.

INVARIANT: a tombstone is made only for a path that was looked at, and was not there, while the
index's lock was held and after the datadir itself was found in its place.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import trio
from trio import to_thread

from core.brake import DeleteBrake, Verdict
from core.disk import examine
from core.paths import join
from core.ports import LocalStore
from core.types import Kind, RelPath

_log = logging.getLogger("realize.core.deletions")

EMPTIED_FILES = 10
"""LIMIT: a burst of more deletions than this that leaves the datadir empty takes the arena offline."""

_CHUNK = 500


class Deletions:
    """What was seen to be gone and is not recorded yet. Engine thread."""

    def __init__(
        self,
        store: LocalStore,
        root_fd: int,
        *,
        check: Callable[[bool], Awaitable[None]],
        held: Callable[[int], None],
        look_again: Callable[[RelPath], None],
        forget: Callable[[RelPath], None],
        wake: Callable[[], None],
    ) -> None:
        """Make it.

        ``check(emptied)`` raises when the datadir is not in its place, or, if ``emptied``, has
        nothing left. ``held(files)`` is told what waits for confirmation. ``look_again`` gets paths
        that are there as another kind; ``forget`` those that were recorded as deleted. ``wake()``:
        `due` may have changed.
        """
        self._store = store
        self._root_fd = root_fd
        self._check = check
        self._on_held = held
        self._look_again = look_again
        self._forget = forget
        self._wake = wake
        self._brake = DeleteBrake()
        self._confirmed = False

    @property
    def undecided(self) -> bool:
        """Say whether deletions wait for the end of their burst."""
        return self._brake.undecided

    @property
    def held_files(self) -> int:
        """Return how many files are held for confirmation."""
        return self._brake.held_files

    def due(self) -> float | None:
        """Return when `settle` is to be called next, None if nothing waits for time."""
        return self._brake.due() if self._brake.undecided else None

    def waits(self, path: RelPath) -> bool:
        """Say whether the path, or a directory above it, is seen as gone but not recorded."""
        return self._brake.covers(path)

    def came_back(self, paths: Iterable[RelPath]) -> None:
        """Forget deletions of paths that are there."""
        was_held = self._brake.held_files
        if self._brake.came_back(paths) and was_held:
            self._on_held(self._brake.held_files)

    async def offer(self, gone: Iterable[RelPath]) -> None:
        """Add paths that are not there; those that the store does not know are dropped."""
        counted: dict[RelPath, int] = {}
        for path in sorted(gone):
            row = self._store.local_row(path)
            if row is None or self._brake.covers(path) or _has_ancestor(path, counted):
                continue
            counted[path] = 1 if row.kind is Kind.FILE else 0
            if row.kind is Kind.DIR:
                counted[path] = await self._files_below(path, counted)
        if not counted:
            return
        now = trio.current_time()
        files = self._store.local_file_count() if self._brake.new_burst(now) else None
        held = self._brake.held_files
        self._brake.offer(counted, now, files)
        self._wake()
        if held:
            self._on_held(self._brake.held_files)

    async def _files_below(self, directory: RelPath, counted: dict[RelPath, int]) -> int:
        files = 0
        stack = [directory]
        while stack:
            at = stack.pop()
            for name, row in self._store.local_children(at).items():
                path = join(at, name)
                if self._brake.is_waiting(path) or path in counted:
                    continue  # counted already, with all below it
                if row.kind is Kind.DIR:
                    stack.append(path)
                elif row.kind is Kind.FILE:
                    files += 1
            await trio.lowlevel.checkpoint()
        return files

    async def settle(self) -> None:
        """Record what the brake lets go. The caller holds the index's lock."""
        verdict = self._brake.judge(trio.current_time())
        if verdict is Verdict.HOLD and self._confirmed:
            verdict = Verdict.RELEASE
        if verdict is Verdict.HOLD:
            await self._check(False)
            files = self._brake.held_files
            _log.warning("deletion of %d files is held until it is confirmed", files)
            self._on_held(files)
        elif verdict is Verdict.RELEASE:
            emptied = self._brake.burst_files() > EMPTIED_FILES and not self._confirmed
            await self._check(emptied)
            self._confirmed = False
            await self.record(self._brake.take())

    async def confirm(self) -> int:
        """Record what is held; returns the number of files. The caller holds the index's lock."""
        files = self._brake.held_files
        if files:
            await self._check(False)
            await self.record(self._brake.take())
            self._on_held(0)
        return files

    def confirm_next(self) -> None:
        """Let the next burst pass unheld, because the user confirmed it before it was seen."""
        self._confirmed = True

    async def record(self, paths: list[RelPath]) -> None:
        """Look once more and make tombstones of what is not there. The caller holds the index's lock."""
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            seen = await to_thread.run_sync(lambda part: examine(self._root_fd, part, try_open=False), chunk)
            gone: list[RelPath] = []
            for path, found in zip(chunk, seen, strict=True):
                if found is None:
                    gone.append(path)
                elif not isinstance(found, OSError) and self._other_kind(path, found.kind):
                    gone.append(path)
                    self._look_again(path)
            if gone:
                self._store.remove(gone)
                for path in gone:
                    self._forget(path)

    def _other_kind(self, path: RelPath, kind: Kind) -> bool:
        row = self._store.local_row(path)
        return row is not None and row.kind is not kind


def _has_ancestor(path: RelPath, paths: dict[RelPath, int]) -> bool:
    at = path.rpartition(b"/")[0]
    while at:
        if at in paths:
            return True
        at = at.rpartition(b"/")[0]
    return False
