"""A recursive inotify watcher: what happened, as paths of the datadir (inotify(7)).

Knows which directories are watched and what renames did to their paths. It decides nothing: events
are hints that a path is to be looked at. Directories are added by descriptor, so no symlink is
followed; `add` is called in workers, everything else in the engine thread.

A path is watched *before* its directory is listed; so what comes into being around that time is in
the listing, in an event, or in both.
"""

from __future__ import annotations

import array
import enum
import errno
import fcntl
import logging
import os
import termios
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

import trio
from inotify_simple import Event, INotify, flags, parse_events

from core.paths import is_below, join
from core.types import RelPath

_log = logging.getLogger("realize.core.watch")

_MASK = int(
    flags.CREATE
    | flags.DELETE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.MODIFY
    | flags.CLOSE_WRITE
    | flags.ATTRIB
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
    | flags.EXCL_UNLINK
)

_READ_BYTES = 64 * 1024
"""LIMIT: events taken at once, about 1500: some milliseconds of work for the engine thread."""


class What(enum.Enum):
    """What an event says about a path."""

    CREATED = enum.auto()
    MODIFIED = enum.auto()
    CLOSED = enum.auto()
    MOVED_HERE = enum.auto()
    GONE = enum.auto()
    ATTRIBUTES = enum.auto()
    LOST = enum.auto()
    """Events below this directory may have been missed: it is to be scanned again."""
    ROOT_GONE = enum.auto()
    """The watched root itself was deleted, moved or unmounted."""


class Noticed(NamedTuple):
    """One event. ``moved_from`` is the old path where a rename stayed inside the datadir."""

    path: RelPath
    what: What
    is_dir: bool = False
    moved_from: RelPath | None = None


@dataclass(slots=True)
class _Moving:
    """A name that was moved away and has not arrived: its watches, by their path below it."""

    path: RelPath
    watches: dict[int, bytes] = field(default_factory=dict)


class Watcher:
    """Watches directories of one datadir. Close it."""

    def __init__(self) -> None:
        """Open an inotify instance.

        Raises:
            OSError: the limit of instances is reached (EMFILE).
        """
        self._inotify = INotify(nonblocking=True)
        self._lock = threading.Lock()  # RACE: a worker adds a watch while its first events are read
        self._paths: dict[int, RelPath] = {}
        self._moving: dict[int, _Moving] = {}
        self.unwatched: set[RelPath] = set()
        """Directories that could not be watched because the kernel's limit is reached."""

    def close(self) -> None:
        """Drop all watches; idempotent."""
        self._inotify.close()

    def add(self, directory: RelPath, dir_fd: int) -> bool:
        """Watch a directory open as ``dir_fd``; says whether that was possible. Any thread."""
        with self._lock:
            try:
                wd = self._inotify.add_watch(f"/proc/self/fd/{dir_fd}", _MASK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    _log.debug("cannot watch %r: %s", directory, error)
                self.unwatched.add(directory)
                return False
            self._paths[wd] = directory
            self.unwatched.discard(directory)
            return True

    def count(self) -> int:
        """Return the number of watched directories."""
        return len(self._paths)

    def waiting(self) -> bool:
        """Say whether the kernel holds events that were not read yet; once closed it does not."""
        if self._inotify.closed:
            return False
        available = array.array("i", [0])
        fcntl.ioctl(self._inotify.fileno(), termios.FIONREAD, available)
        return available[0] > 0

    async def next(self) -> list[Noticed]:
        """Wait for events and return some, in the order in which they happened."""
        while True:
            await trio.lowlevel.wait_readable(self._inotify.fileno())
            try:
                data = os.read(self._inotify.fileno(), _READ_BYTES)
            except BlockingIOError:
                continue
            return self.translate(parse_events(data))

    def translate(self, events: list[Event]) -> list[Noticed]:
        """Turn what the kernel reported in one read into paths."""
        stale = list(self._moving)
        out: list[Noticed] = []
        with self._lock:
            for event in events:
                noticed = self._translate(event)
                if noticed is not None:
                    out.append(noticed)
            for cookie in stale:
                self._drop_moved_away(cookie)
        return out

    def _translate(self, event: Event) -> Noticed | None:
        mask = event.mask
        if mask & flags.Q_OVERFLOW:
            return Noticed(RelPath(b""), What.LOST, True)
        directory = self._paths.get(event.wd)
        if directory is None:
            return None  # of a directory that was moved away, or whose watch is already dropped
        if not event.name:
            return self._translate_self(event.wd, directory, mask)
        path = join(directory, os.fsencode(event.name))
        is_dir = bool(mask & flags.ISDIR)
        if mask & flags.MOVED_FROM:
            self._moved_from(path, is_dir, event.cookie)
            return Noticed(path, What.GONE, is_dir)
        if mask & flags.MOVED_TO:
            return Noticed(path, What.MOVED_HERE, is_dir, self._moved_to(path, event.cookie))
        for flag, what in _WHAT:
            if mask & flag:
                return Noticed(path, what, is_dir)
        return None

    def _translate_self(self, wd: int, directory: RelPath, mask: int) -> Noticed | None:
        if mask & (flags.IGNORED | flags.DELETE_SELF):
            del self._paths[wd]
        if not directory:
            gone = flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED
            if mask & flags.ATTRIB and not mask & gone:
                return Noticed(directory, What.ATTRIBUTES, True)
            return Noticed(directory, What.ROOT_GONE, True) if mask & gone else None
        if mask & (flags.UNMOUNT | flags.IGNORED):
            return Noticed(directory, What.LOST, True)
        return None

    def _moved_from(self, path: RelPath, is_dir: bool, cookie: int) -> None:
        moving = self._moving[cookie] = _Moving(path)
        if is_dir:
            below = {wd: at[len(path) :] for wd, at in self._paths.items() if is_below(at, path)}
            moving.watches = {wd: bytes(rest) for wd, rest in below.items()}
            for wd in below:
                del self._paths[wd]
            self.unwatched = {at for at in self.unwatched if not is_below(at, path)}

    def _moved_to(self, path: RelPath, cookie: int) -> RelPath | None:
        moving = self._moving.pop(cookie, None)
        if moving is None:
            return None
        for wd, rest in moving.watches.items():
            self._paths[wd] = RelPath(path + rest)
        return moving.path

    def _drop_moved_away(self, cookie: int) -> None:
        """Stop watching what left the datadir.

        RACE: the two events of a rename are queued one after the other, but may fall into two reads;
        a name that did not arrive by the end of the second one went elsewhere.
        """
        moving = self._moving.pop(cookie, None)
        if moving is None:
            return
        for wd in moving.watches:
            if wd in self._paths:
                continue  # came back and was added again meanwhile
            try:
                self._inotify.rm_watch(wd)
            except OSError as error:
                _log.debug("watch %d was gone: %s", wd, error)


_WHAT = (
    (int(flags.DELETE), What.GONE),
    (int(flags.CLOSE_WRITE), What.CLOSED),
    (int(flags.CREATE), What.CREATED),
    (int(flags.MODIFY), What.MODIFIED),
    (int(flags.ATTRIB), What.ATTRIBUTES),
)
