"""What is on the disks of a household now, by content."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from blake3 import blake3

from tests.sim.hosts import Host

_Signature = tuple[int, int, int, int]


class Disks:
    """Looks for contents on all disks; a file that seems unchanged is not hashed again."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._roots = [
            os.fsencode(root)
            for host in hosts
            for root in (
                *((host.datadir, host.away, host.emptied) if host.datadir is not None else ()),
                host.workdir / "blobs",
                host.workdir / "work",
            )
        ]
        self._files: dict[bytes, tuple[_Signature, bytes]] = {}
        self._places: dict[bytes, set[bytes]] = {}

    def holds(self, content: bytes, besides: bytes = b"") -> bool:
        """Say whether a content is a file on some disk, other than ``besides``."""
        if self._known(content, besides):
            return True
        self.refresh()
        if self._known(content, besides):
            return True
        # RACE: a file can change twice in one tick of the kernel's clock and look the same.
        self._files.clear()
        self._places.clear()
        self.refresh()
        return self._known(content, besides)

    def _known(self, content: bytes, besides: bytes) -> bool:
        for place in sorted(self._places.get(content, ())):
            known = self._files.get(place)
            if place != besides and known is not None and known[0] == _signature(place):
                return True
        return False

    def refresh(self) -> None:
        """Look at every file."""
        for path, signature in self._walk():
            known = self._files.get(path)
            if known is None or known[0] != signature:
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

    def _walk(self) -> Iterator[tuple[bytes, _Signature]]:
        below = [root for root in self._roots if os.path.isdir(root)]
        while below:
            with os.scandir(below.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        found = entry.stat(follow_symlinks=False)
                        yield (
                            entry.path,
                            (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
                        )


def _signature(path: bytes) -> _Signature | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
