"""Attributes as the kernel wants them."""

from __future__ import annotations

import os
import stat

import pyfuse3

from core.arena_reader import AttrRow
from core.types import Kind
from fuse.generated import CONFLICTS_INODE, FIRST_INODE, TRASH_INODE
from fuse.view import STATUS_INODE

TIMEOUT_S = 86_400.0
"""LIMIT: how long the kernel may go without asking. Every change is invalidated, so this is never felt."""

_ALWAYS_ASKED = frozenset({STATUS_INODE, CONFLICTS_INODE, TRASH_INODE})
"""Reserved inodes that change without anybody telling the kernel, as do those from `FIRST_INODE` on."""

_BLOCK = 512
"""Unit of ``st_blocks``."""

_TYPES = {Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}
_FORMATS = [_TYPES.get(Kind(kind), stat.S_IFREG) for kind in sorted(Kind)]
_LINK_MODE = 0o777


class Attributes:
    """Makes attributes; all files belong to the user who mounts."""

    def __init__(self) -> None:
        """Take the owner from the process."""
        self._uid, self._gid = os.getuid(), os.getgid()

    def blank(self) -> pyfuse3.EntryAttributes:
        """Return attributes with what is the same for all."""
        entry = pyfuse3.EntryAttributes()
        entry.entry_timeout = TIMEOUT_S
        entry.attr_timeout = TIMEOUT_S
        entry.st_uid, entry.st_gid = self._uid, self._gid
        return entry

    def fill(self, entry: pyfuse3.EntryAttributes, row: AttrRow) -> pyfuse3.EntryAttributes:
        """Put a row into attributes from `blank`, which may be used again and again in a listing.

        A directory has one link: as on other filesystems that do not count them, programs then do not
        conclude how many directories are in it.
        """
        kind = row.kind
        entry.st_ino = row.id
        entry.st_mode = _FORMATS[kind] | (_LINK_MODE if kind == Kind.SYMLINK else row.mode)
        entry.st_size = row.size
        entry.st_blocks = (row.held + _BLOCK - 1) // _BLOCK
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = row.mtime_ns
        entry.attr_timeout = entry.entry_timeout = TIMEOUT_S
        if row.id in _ALWAYS_ASKED or row.id >= FIRST_INODE:
            entry.attr_timeout = entry.entry_timeout = 0.0
        return entry

    def of(self, row: AttrRow) -> pyfuse3.EntryAttributes:
        """Return the attributes of a row."""
        return self.fill(self.blank(), row)
