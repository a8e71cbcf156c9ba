"""A datadir while it is online: events become paths to look at, and looks become records of the store.

Every event is only a hint that a path is to be looked at; what is recorded is what ``lstat`` says
then. Renames are hints where a hash may come from. Owned by `core.index`, one for each time the
datadir is there. Engine thread; the looking runs in workers.

INVARIANT: a look, a step of a scan or a recording of deletions holds ``lock`` from the first ``lstat``
to the last write of the store. So a stale look never overwrites a later one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Collection, Sequence

import trio
from trio import to_thread

from core import markattr
from core.api import HashingRow
from core.config import ArenaConfig
from core.debounce import Change, Debouncer
from core.deletions import Deletions
from core.disk import Seen, examine
from core.hashqueue import HashQueue
from core.ignore import IGNORE_FILE, Ignore
from core.paths import display, split
from core.ports import Found, LocalRow, LocalStore, Marked, Unhashed
from core.scan import difference, is_unchanged
from core.scanner import Scanner
from core.types import Kind, RelPath
from core.watch import Noticed, Watcher, What

_log = logging.getLogger("realize.core.datadir")

LOOK_PATHS = 400
"""LIMIT: paths looked at in one go: some milliseconds of work for the engine thread."""


UNREADABLE_S = 60.0
"""LIMIT: how often it is told that files cannot be read."""


class Datadir:
    """Follows one datadir for as long as it is online."""

    def __init__(
        self,
        config: ArenaConfig,
        store: LocalStore,
        ignore: Ignore,
        root_fd: int,
        lock: trio.Lock,
        *,
        parallel: int,
        check: Callable[[bool], Awaitable[None]],
        held: Callable[[int], None],
        warned: Callable[[str, str], None],
        progress: Callable[[HashingRow], None],
    ) -> None:
        """Make it; nothing runs before `run`. ``root_fd`` stays the caller's; ``check``: see `Deletions`."""
        self._config = config
        self._store = store
        self._ignore = ignore
        self._root_fd = root_fd
        self._lock = lock
        self._check = check
        self.watcher = Watcher()
        self._changes = Debouncer(config.debounce_s)
        self._settling = Debouncer(config.debounce_s)
        self._unknown: set[RelPath] = set()
        self._renames: dict[RelPath, RelPath] = {}
        self._rename_targets: dict[RelPath, RelPath] = {}
        self._renamed_away: set[RelPath] = set()
        self._written_anew: set[RelPath] = set()
        """Files of the present look that are where they were.

        What was renamed away from there is a backup, as editors make it: the file itself, with its node, is
        the one that was written anew.
        """
        self._warned = warned
        self._unknown_marks: set[RelPath] = set()
        self._tell_unreadable_at = float("-inf")
        self._busy = 0
        self._wake = trio.Event()
        self.deletions = Deletions(
            store,
            root_fd,
            check=check,
            held=held,
            look_again=self.look_soon,
            forget=self._forget,
            wake=self._rouse,
        )
        self.hashes = HashQueue(
            config.name,
            store,
            root_fd,
            parallel,
            postponed=lambda path: path in self._settling or path in self._changes,
            again=self.look_soon,
            progress=progress,
            marked=self.marked,
            unreadable=self._tell_unreadable,
        )
        self.scanner = Scanner(
            store,
            ignore,
            self.watcher,
            root_fd,
            lock,
            self,
            deletions=self.deletions,
            hashes=self.hashes,
            check=check,
            warned=warned,
        )

    # -- running

    async def run(self) -> None:
        """Scan and follow, until cancelled or ``check`` raises."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._notice_all)
                nursery.start_soon(self._look_at_due)
                nursery.start_soon(self.scanner.run)
                nursery.start_soon(self.hashes.run)
        finally:
            self.watcher.close()

    def waiting_for(self) -> str:
        """Return what is still to be done, for people; "" if nothing."""
        if self.scanner.busy:
            return "scan of the datadir"
        if len(self._changes) or self._busy or self.watcher.waiting():
            return "changed files to be looked at"
        if self.deletions.undecided:
            return "the end of a burst of deletions"
        if len(self._settling) or not self.hashes.idle:
            return "files to be hashed"
        return ""

    def look_soon(self, path: RelPath) -> None:
        """Look at a path after the debounce, whatever happened to it."""
        self._changes.push(path, Change.MODIFIED, trio.current_time())
        self._rouse()

    def added(self, path: RelPath) -> None:
        """Look at a path that is new, after the time that new paths wait."""
        self._changes.push(path, Change.ADDED, trio.current_time())
        self._rouse()

    def marked(self, found: Sequence[Marked]) -> None:
        """Take over attributes that were read; warn once of each path whose value is no mark."""
        for path in self._store.marked(found):
            if path not in self._unknown_marks:
                self._unknown_marks.add(path)
                text = f"{display(path) or '.'}: user.realize.mark is not watch, keep or own; it is ignored"
                _log.warning("%s: %s", self._config.name, text)
                self._warned(text, f"setfattr -n {markattr.ATTRIBUTE} -v keep FILE")

    def _is_unreadable(self, path: RelPath) -> bool:
        row = self._store.local_row(path)
        return row is not None and row.unreadable

    def _tell_unreadable(self, paths: Sequence[RelPath]) -> None:
        """Tell of files that could not be read just now and were not known for it; once for many."""
        now = trio.current_time()
        if not paths or now < self._tell_unreadable_at:
            return  # how many there are is part of the status
        self._tell_unreadable_at = now + UNREADABLE_S
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        text = f"{display(paths[0])}{more} cannot be read; what is known of it stays as it is"
        _log.warning("%s: %s", self._config.name, text)
        self._warned(text, "make it readable for the user that Realize runs as")

    def _rouse(self) -> None:
        self._wake.set()

    def _forget(self, path: RelPath) -> None:
        self._ignore.forget(path)
        self.scanner.forget(path)

    # -- events

    async def _notice_all(self) -> None:
        while True:
            events = await self.watcher.next()
            self._busy += 1
            try:
                now = trio.current_time()
                recorded = await self._already_recorded(events)
                for event in events:
                    if event not in recorded:
                        await self._notice(event, now)
                self._rouse()
            finally:
                self._busy -= 1
            await trio.lowlevel.checkpoint()

    async def _already_recorded(self, events: Sequence[Noticed]) -> set[Noticed]:
        """Return the arrivals of files that the store has just as they are: those that the engine placed.

        That is a look at each, without a worker: thousands come at once, and all there is to do is nothing.
        Whatever happens to such a file from here on has an event of its own.
        """
        arrived = [event for event in events if self._may_be_ours(event)]
        if not arrived:
            return set()
        async with self._lock:  # who places files records them before it lets go
            return {event for event in arrived if self._is_as_recorded(event.path)}

    def _may_be_ours(self, event: Noticed) -> bool:
        path = event.path
        return (
            event.what is What.MOVED_HERE
            and not event.is_dir
            and event.moved_from is None
            and not (path in self._changes or path in self._settling or path in self._renamed_away)
        )

    def _is_as_recorded(self, path: RelPath) -> bool:
        if self.deletions.waits(path):
            return False
        row = self._store.local_row(path)
        if row is None or not row.hashed or row.unreadable:
            return False
        try:
            return is_unchanged(row, os.stat(path, dir_fd=self._root_fd, follow_symlinks=False))
        except OSError:
            return False

    async def _notice(self, event: Noticed, now: float) -> None:
        path, what, is_dir, _ = event
        if what is What.ROOT_GONE:
            await self._check(False)
            self.scanner.rescan(RelPath(b""))
            return
        if what is What.LOST:
            self.scanner.rescan(path)
            return
        if not path:
            await self._look_at_root()
            return
        if not is_dir and path.endswith(IGNORE_FILE) and what is not What.CREATED:
            # Also one that is ignored itself: it says all the same what is.
            directory, name = split(path)
            if name == IGNORE_FILE and not (directory and self._ignore.ignored(directory, is_dir=True)):
                self.scanner.rescan(directory)
        if self._ignore.ignored(path, is_dir=is_dir):
            return
        if is_dir:
            self._notice_dir(event, now)
        else:
            self._notice_file(event, now)

    async def _look_at_root(self) -> None:
        async with self._lock:
            value = markattr.read(self._root_fd)
            if value is not None:
                self.marked([Marked(RelPath(b""), 0, value)])

    def _notice_dir(self, event: Noticed, now: float) -> None:
        path, what, _, moved_from = event
        match what:
            case What.CREATED:
                self.scanner.adopt(path)
                self._changes.push(path, Change.ADDED, now)
            case What.MOVED_HERE:
                self.scanner.adopt(path, moved_from)
                self._changes.push(path, Change.ADDED, now)
            case What.GONE:
                self._changes.push(path, Change.GONE, now)
            case _:
                self._changes.push(path, Change.ATTRIBUTES, now)

    def _notice_file(self, event: Noticed, now: float) -> None:
        path, what, _, moved_from = event
        match what:
            case What.GONE:
                self._changes.push(path, Change.GONE, now)
                return
            case What.ATTRIBUTES:
                self._changes.push(path, Change.ATTRIBUTES, now)
                return
            case What.MODIFIED:
                change = Change.MODIFIED
            case What.CREATED:
                change = Change.ADDED
            case _:
                change = Change.WRITTEN if self._is_known(path) else Change.ADDED
                if moved_from is not None and self._note_rename(path, moved_from):
                    change = Change.WRITTEN if change is Change.WRITTEN else Change.MODIFIED
        self._changes.push(path, change, now)
        self._settling.push(path, Change.MODIFIED, now)

    def _is_known(self, path: RelPath) -> bool:
        if path in self._unknown and path in self._changes:
            return False
        row = self._store.local_row(path)
        if row is None or row.kind is not Kind.FILE:
            self._unknown.add(path)
            return False
        return True

    def _note_rename(self, path: RelPath, moved_from: RelPath) -> bool:
        """Remember where a file came from, if the store knows it there; says whether it does."""
        origin = self._renames.pop(moved_from, moved_from)
        if self._store.local_row(origin) is None:
            return False
        self._renames[path] = origin
        self._rename_targets[origin] = path
        return True

    # -- looking

    async def _look_at_due(self) -> None:
        while True:
            await self._wait_for_due()
            now = trio.current_time()
            self._busy += 1
            try:
                due = self._changes.due(now, LOOK_PATHS)
                if due:
                    await self.look(due)
                for path in self._settling.due(now, LOOK_PATHS):
                    self._settled(path)
                if self.deletions.undecided:
                    async with self._lock:
                        await self.deletions.settle()
            finally:
                self._busy -= 1
            await trio.lowlevel.checkpoint()

    async def _wait_for_due(self) -> None:
        times = (self._changes.next_due(), self._settling.next_due(), self.deletions.due())
        next_due = min((at for at in times if at is not None), default=float("inf"))
        with trio.move_on_at(next_due):
            await self._wake.wait()
        if self._wake.is_set():
            self._wake = trio.Event()

    def _settled(self, path: RelPath) -> None:
        """Hash a file that was quiet long enough, unless a look at it is still due."""
        if path in self._changes:
            return  # that look asks for the hash
        row = self._store.local_row(path)
        if row is not None:
            self._hash_if_needed(path, row)

    def _hash_if_needed(self, path: RelPath, row: LocalRow) -> None:
        if row.kind is Kind.FILE and not row.hashed and not row.unreadable:
            self.hashes.add(Unhashed(path, row.size, row.mtime_ns, row.ino, b""))

    async def look(self, paths: Collection[RelPath]) -> None:
        """Look at paths now and record what differs; parents that the store lacks are included."""
        async with self._lock:
            todo = self._with_parents(paths)
            self._unknown.difference_update(todo)
            seen = await to_thread.run_sync(examine, self._root_fd, todo)
            self._written_anew = {
                path
                for path, sight in zip(todo, seen, strict=True)
                if isinstance(sight, Seen) and sight.kind is Kind.FILE and path not in self._renames
            }
            found: list[Found] = []
            gone: list[RelPath] = []
            unreadable: list[RelPath] = []
            marks: list[Marked] = []
            for path, sight in zip(todo, seen, strict=True):
                if isinstance(sight, OSError):
                    _log.warning("%s: %r: %s", self._config.name, display(path), sight.strerror)
                    continue
                self._judge(path, sight, found, gone, unreadable)
                if sight is not None and sight.mark is not None:
                    marks.append(Marked(path, sight.ino, sight.mark))
            self._tell_unreadable([path for path in unreadable if not self._is_unreadable(path)])
            await self._apply(found, gone, unreadable)
            if marks:
                self.marked(marks)

    def _with_parents(self, paths: Collection[RelPath]) -> list[RelPath]:
        todo = set(paths)
        # A renamed file is recorded in its new place before it is missed in the old one.
        targets = {self._rename_targets.pop(path) for path in paths if path in self._rename_targets}
        self._changes.discard(targets)
        todo |= targets
        checked: set[bytes] = {b""}
        for path in tuple(todo):
            parent = path.rpartition(b"/")[0]
            while parent not in checked:
                checked.add(parent)
                if self._store.local_row(RelPath(parent)) is None:
                    todo.add(RelPath(parent))
                parent = parent.rpartition(b"/")[0]
        return sorted(todo)

    def _judge(
        self,
        path: RelPath,
        seen: Seen | None,
        found: list[Found],
        gone: list[RelPath],
        unreadable: list[RelPath],
    ) -> None:
        row = self._store.local_row(path)
        if seen is None or seen.kind is Kind.NONE:
            self._renames.pop(path, None)
            if row is not None and not self.scanner.is_renaming(path):
                gone.append(path)
            return
        self._renamed_away.discard(path)
        self.deletions.came_back([path])
        if row is not None and row.kind is Kind.DIR and seen.kind is not Kind.DIR:
            gone.append(path)  # everything below goes first; then the path is looked at again
            return
        if seen.kind is Kind.DIR:
            self.scanner.seen_dir(path, readable=seen.readable)
        elif not seen.readable:
            unreadable.append(path)
        directory, name = split(path)
        changed = difference(directory, name, row, seen)
        if changed is None and row is not None and row.unreadable and seen.readable:
            changed = Found(directory, name, *seen[:6], same_content=row.hashed)
        if changed is not None:
            found.append(self._with_origin(path, changed))
        elif row is not None and path not in self._settling:
            self._hash_if_needed(path, row)

    def _with_origin(self, path: RelPath, found: Found) -> Found:
        """Add where a renamed file's hash is, if what was there is this very file."""
        origin = self._renames.pop(path, None)
        if origin is None or found.kind is not Kind.FILE:
            return found
        row = self._store.local_row(origin)
        if row is None or (row.ino, row.size, row.mtime_ns) != (found.ino, found.size, found.mtime_ns):
            return found
        if origin not in self._written_anew:
            self._renamed_away.add(origin)
        return found._replace(hash_from=origin)

    async def _apply(self, found: list[Found], gone: list[RelPath], unreadable: list[RelPath]) -> None:
        anew = self._written_anew
        renamed = {
            item.hash_from
            for item in found
            if item.hash_from and item.hash_from not in anew and self._store.renamed(item)
        }
        # A backup takes its hash from the file that it was, before that one is replaced.
        found.sort(key=lambda item: item.hash_from not in anew)
        gone = [path for path in gone if path not in renamed]
        if found:
            # What was renamed equals the store now; the others are recorded, also with a hash to take.
            self._store.record(found)
        if unreadable:
            self._store.unreadable(unreadable)
        for item in found:
            self._after_record(item)
        if gone:
            # A rename is no deletion: what moved inside the datadir does not count for the brake.
            moved = [path for path in gone if path in self._renamed_away]
            self._renamed_away.difference_update(gone)
            if moved:
                await self.deletions.record(moved)
            await self.deletions.offer(set(gone).difference(moved))
            await self.deletions.settle()

    def _after_record(self, item: Found) -> None:
        if item.kind is not Kind.FILE:
            return
        path = RelPath(item.directory + b"/" + item.name if item.directory else item.name)
        if path not in self._settling:
            row = self._store.local_row(path)
            if row is not None:
                self._hash_if_needed(path, row)
