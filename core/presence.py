"""Whether the datadir is there, and is the one that was indexed (spec 4 §Index, Brake).

A datadir is recognised by its inode number, on the device it had or on the device of the workdir:
both lie on one filesystem, and device numbers may change when a machine starts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from core.disk import open_root
from core.ignore import Ignore
from core.types import RelPath


@dataclass(frozen=True, slots=True)
class Presence:
    """What a look at the datadir gave. ``reason`` "" : it is right, and has ``device`` and ``ino``."""

    reason: str
    device: int = 0
    ino: int = 0
    empty: bool = False
    """Nothing in it could be announced."""


def look_at(
    datadir: Path, workdir: Path, known: tuple[int, int] | None, ignore: Ignore, *, list_it: bool
) -> Presence:
    """Look whether the datadir is there and the ``known`` one (device, inode number; None: any); in a worker.

    Unless ``list_it`` it is not read, and ``empty`` says nothing.
    """
    try:
        root_fd = open_root(datadir)
    except OSError as error:
        return Presence(f"datadir {datadir} cannot be opened: {error.strerror}")
    try:
        found = os.fstat(root_fd)
        if known is not None and not _same(found, known, workdir):
            return Presence(f"datadir {datadir} is another directory than the one that was indexed")
        empty = list_it and _is_empty(root_fd, ignore)
        return Presence("", found.st_dev, found.st_ino, empty)
    except OSError as error:
        return Presence(f"datadir {datadir} cannot be read: {error.strerror}")
    finally:
        os.close(root_fd)


def _same(found: os.stat_result, known: tuple[int, int], workdir: Path) -> bool:
    device, ino = known
    if found.st_ino != ino:
        return False
    return found.st_dev == device or found.st_dev == os.stat(workdir).st_dev


def _is_empty(root_fd: int, ignore: Ignore) -> bool:
    root = RelPath(b"")
    with os.scandir(root_fd) as entries:
        for entry in entries:
            is_dir = entry.is_dir(follow_symlinks=False)
            if not ignore.ignored_here(root, os.fsencode(entry.name), is_dir=is_dir):
                return False
    return True
