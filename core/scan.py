"""Listing directories of a datadir and comparing them with what the store knows.

`walk` runs in a worker and does one step: some directories, until time or differences are enough.
Each directory is opened beneath the root, watched, then listed, in this order: what appears
meanwhile is in the listing or has an event. Sockets, fifos and devices are left out; so is what is
ignored. `difference` is pure and the one place that says what counts as a change.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field

from core import markattr
from core.disk import DIR_FLAGS, MODE_BITS, Seen, open_beneath, seen_of
from core.ignore import Ignore
from core.paths import join
from core.ports import Found, LocalRow, Marked
from core.types import Kind, RelPath
from core.watch import Watcher

STEP_S = 0.010
"""LIMIT: a step of a scan takes about this long, because changes wait for its end to be recorded."""

STEP_DIFFERENCES = 1000
"""LIMIT: differences after which a step ends: one transaction of the store."""


def difference(directory: RelPath, name: bytes, row: LocalRow | None, seen: Seen) -> Found | None:
    """Return what to record of a path that is there and announceable, None if nothing changed.

    Times of directories are no change: every new name in them sets them.
    """
    same = False
    if row is not None and row.kind is seen.kind:
        match seen.kind:
            case Kind.FILE:
                same = (row.size, row.mtime_ns, row.ino) == (seen.size, seen.mtime_ns, seen.ino)
                equal = same and row.mode == seen.mode
            case Kind.SYMLINK:
                same = row.target == seen.target
                equal = same and row.mtime_ns == seen.mtime_ns
            case _:
                same = True
                equal = row.mode == seen.mode
        if equal:
            return None
    return Found(
        directory,
        name,
        seen.kind,
        seen.size,
        seen.mtime_ns,
        seen.mode,
        seen.ino,
        seen.target,
        same_content=same,
    )


@dataclass(slots=True)
class Directory:
    """A directory to list, and what the store knows of it now. `walk` uses ``known`` up.

    ``marked``: as in `LocalRow`.
    """

    path: RelPath
    known: dict[bytes, LocalRow]
    marked: bool = False


@dataclass(slots=True)
class Walked:
    """What one step found.

    ``found``: differences to record. ``gone``: known names that are not there. ``replaced``: paths in
    ``found`` that are no directories any more. ``doubtful``: files whose readability is to be checked.
    ``below``: directories to list next. ``failed``: directories that could not be listed; what is
    known of them stays. ``rest``: directories that were not begun. ``marks``: attributes that may have
    changed; those of new files are read when they are hashed, if they are.
    """

    found: list[Found] = field(default_factory=list)
    gone: list[RelPath] = field(default_factory=list)
    replaced: list[RelPath] = field(default_factory=list)
    doubtful: list[RelPath] = field(default_factory=list)
    below: list[RelPath] = field(default_factory=list)
    failed: list[tuple[RelPath, OSError]] = field(default_factory=list)
    listed: list[RelPath] = field(default_factory=list)
    rest: list[Directory] = field(default_factory=list)
    marks: list[Marked] = field(default_factory=list)
    files: int = 0
    unhashed_files: int = 0
    unhashed_bytes: int = 0


def walk(
    root_fd: int, directories: list[Directory], watcher: Watcher, ignore: Ignore, since_ns: int = 0
) -> Walked:
    """List directories in order until the step is long enough; at least one. In a worker.

    Attributes that were not set after ``since_ns`` (wall clock) are known; 0: none is.
    """
    walked = Walked()
    until = time.monotonic() + STEP_S
    for index, directory in enumerate(directories):
        if index and (time.monotonic() >= until or len(walked.found) >= STEP_DIFFERENCES):
            walked.rest = directories[index:]
            break
        try:
            _list(root_fd, directory, watcher, ignore, walked, since_ns)
        except OSError as error:
            # RACE: it may have vanished or been swapped since its parent was listed.
            walked.failed.append((directory.path, error))
    return walked


def _list(
    root_fd: int, directory: Directory, watcher: Watcher, ignore: Ignore, walked: Walked, since_ns: int
) -> None:
    path, known = directory.path, directory.known
    fd = open_beneath(root_fd, path, DIR_FLAGS, one_device=True)
    try:
        watcher.add(path, fd)
        ignore.load(path, fd)
        value = markattr.read(fd)
        if value is not None and (value or directory.marked):
            walked.marks.append(Marked(path, os.fstat(fd).st_ino, value))
        with os.scandir(fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                try:
                    found = entry.stat(follow_symlinks=False)
                    _compare(directory, name, found, fd, ignore, walked, since_ns)
                except OSError:
                    # RACE: gone since it was listed (its deletion has an event of its own, or it is
                    # noticed as gone below), or a link replaced before it was read.
                    continue
    finally:
        os.close(fd)
    walked.listed.append(path)
    for name, row in known.items():
        if not ignore.ignored_here(path, name, is_dir=row.kind is Kind.DIR):
            walked.gone.append(join(path, name))


def _compare(
    directory: Directory,
    name: bytes,
    found: os.stat_result,
    fd: int,
    ignore: Ignore,
    walked: Walked,
    since_ns: int,
) -> None:
    mode = found.st_mode
    is_dir = stat.S_ISDIR(mode)
    path = directory.path
    if ignore.ignored_here(path, name, is_dir=is_dir):
        directory.known.pop(name, None)
        return
    row = directory.known.get(name)
    if stat.S_ISREG(mode):
        walked.files += 1
        hashing = row is None or not row.hashed
        if found.st_ctime_ns >= since_ns and (since_ns or not hashing):
            _read_mark(directory, name, found.st_ino, fd, walked)
        if row is not None and is_unchanged(row, found):
            del directory.known[name]
            if row.unreadable:
                walked.doubtful.append(join(path, name))
            elif not row.hashed:
                walked.unhashed_files += 1
                walked.unhashed_bytes += row.size
            return
    seen = seen_of(found, fd, name)
    if seen.kind is Kind.NONE:
        return  # a known name that is a fifo now counts as gone
    if row is not None:
        del directory.known[name]
        if row.kind is Kind.DIR and not is_dir:
            walked.replaced.append(join(path, name))
    if is_dir:
        walked.below.append(join(path, name))
    changed = difference(path, name, row, seen)
    if changed is None:
        return
    walked.found.append(changed)
    if seen.kind is Kind.FILE:
        if not changed.same_content:
            walked.unhashed_files += 1
            walked.unhashed_bytes += seen.size
        else:
            walked.doubtful.append(join(path, name))


def _read_mark(directory: Directory, name: bytes, ino: int, fd: int, walked: Walked) -> None:
    row = directory.known.get(name)
    value = markattr.read_at(fd, name)
    if value is not None and (value or (row is not None and row.marked)):
        walked.marks.append(Marked(join(directory.path, name), ino, value))


def is_unchanged(row: LocalRow, found: os.stat_result) -> bool:
    """Say whether what ``lstat`` found is the file that the store knows, and as it knows it."""
    return (
        row.mtime_ns == found.st_mtime_ns
        and row.size == found.st_size
        and row.ino == found.st_ino
        and row.kind is Kind.FILE
        and row.mode == found.st_mode & MODE_BITS
    )
