"""What is on the disks of a household now, by content."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from blake3 import blake3

from core.blobshelf import blob_name
from core.types import Hash
from tests.sim.hosts import Host

_Signature = tuple[int, int, int, int]
_Listing = tuple[int, int]
_TICK_NS = 50_000_000
"""More than a tick of the kernel's clock: what changes within one may not show in a directory's time."""


class Disks:
    """Looks for contents on all disks; a file that seems unchanged is not hashed again."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._users = [
            os.fsencode(root)
            for host in hosts
            for root in (
                *((host.datadir, host.away, host.emptied) if host.datadir is not None else ()),
                host.workdir / "work",
            )
        ]
        self._blobs = [os.fsencode(host.workdir / "blobs") for host in hosts]
        self._files: dict[bytes, tuple[_Signature, bytes]] = {}
        self._places: dict[bytes, set[bytes]] = {}
        self._listed: dict[bytes, tuple[_Listing, list[bytes], list[bytes]]] = {}
        """Directories and files in a directory, for as long as it looks as it did when it was listed."""

    def holds(self, content: bytes, besides: bytes = b"") -> bool:
        """Say whether a content is a file on some disk, other than ``besides``."""
        if self._known(content, besides):
            return True
        # Most have only moved: to look at the many directories of blobs takes longest.
        for root in self._blobs:
            self._look(os.path.join(root, os.fsencode(blob_name(Hash(content)))))
        if self._known(content, besides):
            return True
        self._refresh(self._users)
        if self._known(content, besides):
            return True
        self._refresh(self._blobs)
        if self._known(content, besides):
            return True
        # RACE: a file can change twice in one tick of the kernel's clock and look the same.
        self._files.clear()
        self._places.clear()
        self._listed.clear()
        self._refresh([*self._users, *self._blobs])
        return self._known(content, besides)

    def content(self, path: bytes) -> bytes | None:
        """Return the content of a file, None if there is none."""
        self._look(path)
        signature = _signature(path)
        known = self._files.get(path)
        return known[1] if known is not None and known[0] == signature else None

    def _known(self, content: bytes, besides: bytes) -> bool:
        for place in sorted(self._places.get(content, ())):
            known = self._files.get(place)
            if place != besides and known is not None and known[0] == _signature(place):
                return True
        return False

    def _refresh(self, roots: Sequence[bytes]) -> None:
        """Look at every file below some directories."""
        below = [root for root in roots if os.path.isdir(root)]
        while below:
            directories, files = self._list(below.pop())
            below += directories
            for path in files:
                self._look(path)

    def _look(self, path: bytes) -> None:
        """Look at what may be a file."""
        signature = _signature(path)
        if signature is not None and self._files.get(path, (None,))[0] != signature:
            self._note(path, signature)

    def _note(self, path: bytes, signature: _Signature) -> None:
        try:
            with open(path, "rb") as file:
                content = blake3(file.read()).digest()
        except OSError:
            return
        before = self._files.get(path)
        if before is not None:
            self._places[before[1]].discard(path)
        self._files[path] = signature, content
        self._places.setdefault(content, set()).add(path)

    def _list(self, directory: bytes) -> tuple[list[bytes], list[bytes]]:
        """Return the directories and the files in a directory; most are empty, for blobs."""
        found = os.lstat(directory)
        listing = found.st_ino, found.st_mtime_ns
        known = self._listed.get(directory)
        if known is not None and known[0] == listing:
            return known[1:]
        directories, files = [], []
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.path)
        if time.clock_gettime_ns(time.CLOCK_REALTIME) - found.st_mtime_ns > _TICK_NS:
            self._listed[directory] = listing, directories, files
        return directories, files


def _signature(path: bytes) -> _Signature | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
