"""Scans of a datadir and of parts of it, step by step, so that neither thread nor lock is held long.

Three kinds: a *rescan* compares with the store and records at once (at start, after a lost event,
when asked); an *adoption* of a new directory watches it and passes its names on as new; an adoption
after a rename inside the datadir records the new paths with the hashes of the old ones.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio
from trio import to_thread

from core.deletions import Deletions
from core.disk import examine, is_gone
from core.hashqueue import HashQueue
from core.ignore import Ignore
from core.paths import display, is_below, join, split
from core.ports import Found, LocalStore, Marked
from core.scan import Directory, Walked, walk
from core.types import Kind, RelPath
from core.watch import Watcher

_log = logging.getLogger("realize.core.scanner")

STEP_DIRECTORIES = 16
STEP_ROWS = 2000
"""LIMIT: directories and known rows that are fetched for one step."""

RECORD_PATHS = 300
"""LIMIT: paths recorded without letting the engine's other tasks run."""

UNWATCHED_S = 60.0
"""LIMIT: directories that cannot be watched are listed this often."""

CLOCK_NS = 1_000_000_000
"""LIMIT: the clock that files are stamped with is behind by some ticks, a network file server's by more."""

_WATCH_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")


class Follower(Protocol):
    """What a scanner asks of the datadir it belongs to."""

    async def look(self, paths: Collection[RelPath]) -> None:
        """Look at paths now and record what differs."""
        ...

    def look_soon(self, path: RelPath) -> None:
        """Look at a path after the debounce."""
        ...

    def added(self, path: RelPath) -> None:
        """Treat a path as one that was just made."""
        ...

    def marked(self, found: Sequence[Marked]) -> None:
        """Take over attributes that were read."""
        ...


def since(scanned_ns: int, now_ns: int) -> int:
    """Return from when on attributes are to be read; a clock that was set back makes that always."""
    return max(0, scanned_ns - CLOCK_NS) if scanned_ns <= now_ns else 0


@dataclass(slots=True)
class _Request:
    """Directories to scan; ``recursive`` False: only them and what is new in them."""

    starts: list[RelPath]
    done: trio.Event
    recursive: bool = True


class Scanner:
    """Runs the scans of one datadir, rescans one at a time and adoptions beside them."""

    def __init__(
        self,
        store: LocalStore,
        ignore: Ignore,
        watcher: Watcher,
        root_fd: int,
        lock: trio.Lock,
        follower: Follower,
        *,
        deletions: Deletions,
        hashes: HashQueue,
        check: Callable[[bool], Awaitable[None]],
        warned: Callable[[str, str], None],
    ) -> None:
        """Make it with a scan of everything queued. ``check`` as in `Deletions`; ``warned(text, hint)``."""
        self._store = store
        self._ignore = ignore
        self._watcher = watcher
        self._root_fd = root_fd
        self._lock = lock
        self._follower = follower
        self._deletions = deletions
        self._hashes = hashes
        self._check = check
        self._warned = warned
        self._requests: deque[_Request] = deque([_Request([RelPath(b"")], trio.Event())])
        self._adoptions: dict[RelPath, RelPath | None] = {}
        self._active = 0
        self._wake_scan = trio.Event()
        self._wake_adopt = trio.Event()
        self._unreadable: set[RelPath] = set()
        self._renaming: set[RelPath] = set()
        self._passed_over: set[RelPath] = set()
        self._limit_told = False
        self._since_ns = since(store.scanned_ns(), time.time_ns())

    @property
    def busy(self) -> bool:
        """Say whether a scan goes on or is queued."""
        return bool(self._active or self._requests or self._adoptions)

    # -- what to scan

    def rescan(self, directory: RelPath) -> trio.Event:
        """Compare a directory and all below it with the store; the event is set when that is done."""
        for request in self._requests:
            if request.recursive and any(is_below(directory, start) for start in request.starts):
                return request.done
        request = _Request([directory], trio.Event())
        self._requests.append(request)
        self._wake_scan.set()
        return request.done

    def adopt(self, directory: RelPath, moved_from: RelPath | None = None) -> None:
        """Watch and list a directory that is new, or was renamed inside the datadir."""
        if moved_from is not None and moved_from in self._adoptions:
            moved_from = self._adoptions.pop(moved_from) or moved_from
        self._adoptions[directory] = moved_from
        if moved_from is not None:
            self._renaming.add(moved_from)
        self._wake_adopt.set()

    def is_renaming(self, path: RelPath) -> bool:
        """Say whether the path is below a directory whose rename is being recorded.

        If so it is looked at again once that is done: of directories that change places, what was in one is
        not in the other.
        """
        renaming = any(is_below(path, old) for old in self._renaming)
        if renaming:
            self._passed_over.add(path)
        return renaming

    def seen_dir(self, path: RelPath, *, readable: bool) -> None:
        """Try a directory again that could be read and cannot, or the reverse: something about it changed."""
        if readable is (path in self._unreadable):
            self.rescan(path)

    @property
    def unreadable(self) -> int:
        """How many directories are left out because they cannot be read."""
        return len(self._unreadable)

    def forget(self, path: RelPath) -> None:
        """Drop what is remembered about a path that is gone and what was below it."""
        for remembered in (self._unreadable, self._watcher.unwatched):
            for below in [at for at in remembered if is_below(at, path)]:
                remembered.discard(below)

    # -- running

    async def run(self) -> None:
        """Scan for ever; the first scan is that of the whole datadir."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._rescan_all)
            nursery.start_soon(self._adopt_all)
            nursery.start_soon(self._list_unwatched)

    async def _rescan_all(self) -> None:
        while True:
            while self._requests:
                request = self._requests.popleft()
                self._active += 1
                try:
                    await self._rescan(request)
                finally:
                    self._active -= 1
                request.done.set()
            await self._wake_scan.wait()
            self._wake_scan = trio.Event()

    async def _adopt_all(self) -> None:
        while True:
            while self._adoptions:
                self._active += 1
                try:
                    await self._adopt_next()
                finally:
                    self._active -= 1
            await self._wake_adopt.wait()
            self._wake_adopt = trio.Event()

    async def _list_unwatched(self) -> None:
        while True:
            await trio.sleep(UNWATCHED_S)
            if self._watcher.unwatched:
                starts = sorted(self._watcher.unwatched)
                self._requests.append(_Request(starts, trio.Event(), recursive=False))
                self._wake_scan.set()

    async def _walk(self, starts: Iterable[RelPath], take: Callable[[Walked], Awaitable[None]]) -> None:
        """List directories depth first; ``take`` gets each step with the lock held."""
        stack = list(starts)
        while stack:
            async with self._lock:
                batch = self._next_directories(stack)
                walked = await to_thread.run_sync(
                    walk, self._root_fd, batch, self._watcher, self._ignore, self._since_ns
                )
                stack.extend(item.path for item in reversed(walked.rest))
                await take(walked)
                if walked.marks:
                    self._follower.marked(walked.marks)
            stack.extend(walked.below)
            await self._note(walked)

    def _next_directories(self, stack: list[RelPath]) -> list[Directory]:
        batch: list[Directory] = []
        rows = 0
        while stack and len(batch) < STEP_DIRECTORIES and rows < STEP_ROWS:
            path = stack.pop()
            row = self._store.local_row(path) if path else None
            marked = not path or (row is not None and row.marked)
            batch.append(Directory(path, self._store.local_children(path), marked))
            rows += len(batch[-1].known)
        return batch

    async def _note(self, walked: Walked) -> None:
        self._unreadable.difference_update(walked.listed)
        if self._watcher.unwatched and not self._limit_told:
            self._limit_told = True
            self._tell_limit()
        for path, error in walked.failed:
            await self._note_failed(path, error)

    async def _note_failed(self, path: RelPath, error: OSError) -> None:
        if not path:
            await self._check(False)
        if is_gone(error):
            if path:
                self._follower.look_soon(path)
        elif error.errno in (errno.EMFILE, errno.ENFILE):
            self._watcher.unwatched.add(path)  # listed again in a while
        elif path not in self._unreadable:
            self._unreadable.add(path)
            shown = display(path) or "."
            why = "another filesystem is mounted there" if error.errno == errno.EXDEV else error.strerror
            _log.warning("directory %r is left out: %s", shown, why)
            self._warned(f"directory {shown} is left out: {why}", "what was indexed below it stays as it is")

    def _tell_limit(self) -> None:
        text = f"too few inotify watches: changes in some directories are seen only every {UNWATCHED_S:.0f} s"
        hint = self._limit_hint()
        _log.warning("%s; run: %s", text, hint)
        self._warned(text, f"run: {hint}")

    def _limit_hint(self) -> str:
        need = 2 * (self._watcher.count() + len(self._watcher.unwatched))
        try:
            need = max(need, 2 * int(_WATCH_LIMIT.read_text()))
        except (OSError, ValueError) as error:
            _log.debug("limit of watches is unknown: %s", error)
        return f"sysctl fs.inotify.max_user_watches={need}"

    def unwatched(self) -> str:
        """Return what is to be said of directories that cannot be watched now, "" when all are."""
        count = len(self._watcher.unwatched)
        if not count:
            return ""
        which = "1 directory is" if count == 1 else f"{count} directories are"
        return (
            f"{which} not watched, changes there are seen only every {UNWATCHED_S:.0f} s;"
            f" run: {self._limit_hint()}"
        )

    # -- rescans

    async def _rescan(self, request: _Request) -> None:
        gone: list[RelPath] = []
        # New files are kept for recognising renames that happened while nobody watched.
        new_by_ino: dict[tuple[Kind, int], Found] | None = {} if self._store.local_file_count() else None

        async def take(walked: Walked) -> None:
            await self._record(walked, new_by_ino)
            gone.extend(walked.gone)
            gone.extend(walked.replaced)
            if not request.recursive:
                new = {join(item.directory, item.name) for item in walked.found if item.kind is Kind.DIR}
                walked.below = [path for path in walked.below if path in new]

        began_ns = time.time_ns()
        await self._walk(request.starts, take)
        if request.recursive and b"" in request.starts:
            self._store.set_scanned_ns(began_ns)
            self._since_ns = since(began_ns, began_ns)
            # Directories that are known to be gone are not listed: what the last scan, or who removed one,
            # had no time to look for in them.
            gone.extend(self._store.left_behind())
        if gone:
            async with self._lock:
                gone = await self._still_gone(gone)
                if new_by_ino:
                    await self._record_renames(gone, new_by_ino)
                await self._deletions.offer(gone)
                await self._deletions.settle()
        self._hashes.sweep()

    async def _record(self, walked: Walked, new_by_ino: dict[tuple[Kind, int], Found] | None) -> None:
        replaced = set(walked.replaced)
        found = walked.found
        if replaced:
            found = [item for item in found if join(item.directory, item.name) not in replaced]
        for start in range(0, len(found), RECORD_PATHS):
            self._store.record(found[start : start + RECORD_PATHS])
            await trio.lowlevel.checkpoint()
        for path in walked.doubtful:
            self._follower.look_soon(path)
        if new_by_ino is not None:
            new_by_ino.update(
                ((item.kind, item.ino), item)
                for item in found
                if item.kind in (Kind.FILE, Kind.DIR) and not item.same_content
            )
        self._hashes.expect(walked.unhashed_files, walked.unhashed_bytes)
        self._hashes.report()

    async def _still_gone(self, paths: Sequence[RelPath]) -> list[RelPath]:
        """Leave out what came back since it was missed: whoever recorded that may have looked at it before.

        With the lock held: what comes back from here on is looked at after what is recorded now.
        """
        gone: list[RelPath] = []
        for start in range(0, len(paths), STEP_ROWS):
            chunk = list(paths[start : start + STEP_ROWS])
            seen = await to_thread.run_sync(lambda part: examine(self._root_fd, part, try_open=False), chunk)
            for path, found in zip(chunk, seen, strict=True):
                row = self._store.local_row(path)
                if found is None or (not isinstance(found, OSError) and row and row.kind is not found.kind):
                    gone.append(path)
                else:
                    self._follower.look_soon(path)
        return gone

    async def _record_renames(self, gone: list[RelPath], new_by_ino: dict[tuple[Kind, int], Found]) -> None:
        """Move what is gone to where the same file or directory is found now.

        What was recognised is not gone any more; a rename does not count for the brake.
        """
        stack = list(reversed(gone))
        known = set(gone)
        moved_directory = False
        while stack:
            path = stack.pop()
            row = self._store.local_row(path)
            if row is not None:
                new = self._as_recorded(new_by_ino.get((row.kind, row.ino)))
                moved = new is not None and self._store.renamed(new._replace(hash_from=path), listed=True)
                if row.kind is Kind.DIR:
                    moved_directory |= moved
                    stack.extend(join(path, name) for name in self._store.local_children(path))
                await trio.lowlevel.checkpoint()
            if not stack and moved_directory:
                # Of directories that were renamed, what is not in them any more may be elsewhere, or is gone.
                stack = [left for left in self._store.left_behind() if left not in known]
                gone.extend(stack)
                known.update(stack)
                moved_directory = False

    def _as_recorded(self, found: Found | None) -> Found | None:
        """Return what was found as the store has it now; None if it was changed since, and looked at."""
        row = self._store.local_row(join(found.directory, found.name)) if found is not None else None
        if found is None or row is None or (row.kind, row.ino) != (found.kind, found.ino):
            return None
        if row.kind is not Kind.DIR and (row.size, row.mtime_ns) != (found.size, found.mtime_ns):
            return None
        return found._replace(mode=row.mode, mtime_ns=row.mtime_ns)

    # -- adoptions

    async def _adopt_next(self) -> None:
        """Adopt the first renamed directory, or else all that are plainly new."""
        renamed = next((item for item in self._adoptions.items() if item[1] is not None), None)
        if renamed is None:
            plain = list(self._adoptions)
            self._adoptions.clear()
            await self._walk(plain, self._pass_on)
            return
        directory, moved_from = renamed
        del self._adoptions[directory]
        if moved_from is not None:
            await self._adopt_moved(directory, moved_from)

    async def _adopt_moved(self, directory: RelPath, moved_from: RelPath) -> None:
        try:
            if await self._is_rename(directory, moved_from):
                await self._adopt_renamed(directory, moved_from)
            else:
                await self._walk([directory], self._pass_on)
        finally:
            self._renaming.discard(moved_from)
            again = {path for path in self._passed_over if is_below(path, moved_from)}
            self._passed_over -= again
            for path in (moved_from, *again):
                self._follower.look_soon(path)

    async def _pass_on(self, walked: Walked) -> None:
        for item in walked.found:
            self._follower.added(join(item.directory, item.name))
        for path in (*walked.gone, *walked.doubtful):
            self._follower.look_soon(path)
        await trio.lowlevel.checkpoint()

    async def _is_rename(self, directory: RelPath, moved_from: RelPath) -> bool:
        """Record a rename inside the datadir, if it is one; says whether it is."""
        async with self._lock:
            [seen] = await to_thread.run_sync(lambda: examine(self._root_fd, [directory], try_open=False))
            if seen is None or isinstance(seen, OSError) or seen.kind is not Kind.DIR:
                return False
            parent, name = split(directory)
            found = Found(parent, name, *seen[:6], hash_from=moved_from)
            return self._store.renamed(found)

    async def _adopt_renamed(self, directory: RelPath, moved_from: RelPath) -> None:
        """Compare a renamed directory with the store, which has its entries there now."""

        async def take(walked: Walked) -> None:
            for start in range(0, len(walked.found), RECORD_PATHS):
                self._store.record(walked.found[start : start + RECORD_PATHS])
                await trio.lowlevel.checkpoint()
            for path in (*walked.gone, *walked.doubtful, *walked.replaced):
                self._follower.look_soon(path)

        await self._walk([directory], take)
        async with self._lock:
            await self._deletions.record([moved_from])
        self._hashes.sweep()  # for what was not hashed yet at the old place
