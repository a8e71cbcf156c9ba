"""Reading of the whole tree of a host: from an inode to its arena, and the directories above arenas.

Owns read-only connections, one set per thread: the mount has one `TreeReader`, workers of the
engine have others. Nothing here writes or waits for the engine.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.arena_reader import ArenaReader
from core.config import ArenaConfig
from core.connected import ConnectedPeers
from core.db import Connection, connect_readonly
from core.errors import PathNotFoundError
from core.types import Inode, PeerKey

_log = logging.getLogger("realize.core.reader")

ROOT_INODE = Inode(1)
"""Root of the mount; the parent of the first directories in table ``directory``."""

ARENA_DB = "arena.db"
"""Name of an arena's database in its workdir (spec 4 §Databases)."""


class DirectoryRow(NamedTuple):
    """A row of table ``directory``: an arena root, or (``arena`` None) a directory above arenas."""

    id: int
    parent: int
    name: bytes
    arena: str | None


class TreeReader:
    """The tree of a host for one thread, the one that makes it."""

    def __init__(
        self, global_db: Path, arenas: Sequence[ArenaConfig], connected: ConnectedPeers | None = None
    ) -> None:
        """Open the global database; those of the arenas are opened when first needed.

        Raises:
            StoreError: it is not there or cannot be opened.
        """
        self._conn: Connection = connect_readonly(global_db)
        self._configs = {arena.name: arena for arena in arenas}
        self._connected = connected or ConnectedPeers()
        self._readers: dict[str, ArenaReader] = {}
        self._lasts: list[int] = []
        self._owners: list[str] = []
        self._directories: dict[int, DirectoryRow] = {}
        self._peer_names: dict[PeerKey, str] = {}
        self._load()

    def close(self) -> None:
        """Close all connections."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._conn.close()

    def _load(self) -> None:
        ranges = list(self._conn.execute("SELECT last, owner FROM inode_range ORDER BY last"))
        self._lasts = [last for last, _ in ranges]
        self._owners = [owner for _, owner in ranges]
        rows = self._conn.execute("SELECT id, parent, name, arena FROM directory")
        found = map(DirectoryRow._make, rows)
        self._directories = {row.id: row for row in found if row.arena is None or row.arena in self._configs}
        self._peer_names = {
            PeerKey(key): name for name, key in self._conn.execute("SELECT name, key FROM peer")
        }

    @property
    def arenas(self) -> Sequence[ArenaConfig]:
        """The configured arenas."""
        return tuple(self._configs.values())

    def config(self, arena: str) -> ArenaConfig:
        """Return the configuration of an arena."""
        return self._configs[arena]

    def arena_of(self, inode: int) -> str:
        """Return the arena whose range holds an inode; "" for the directories above arenas.

        Raises:
            PathNotFoundError: it was never handed out, or belongs to an arena that is not configured.
        """
        at = bisect.bisect_left(self._lasts, inode)
        if at == len(self._lasts):
            self._load()
            at = bisect.bisect_left(self._lasts, inode)
        if at < len(self._owners):
            owner = self._owners[at]
            if not owner or owner in self._configs:
                return owner
        raise PathNotFoundError(f"no inode {inode}")

    def arena(self, name: str) -> ArenaReader:
        """Return the reader of an arena.

        Raises:
            PathNotFoundError: no such arena.
            StoreError: its database cannot be opened.
        """
        reader = self._readers.get(name)
        if reader is None:
            config = self._configs.get(name)
            if config is None:
                raise PathNotFoundError(f"no arena {name!r}")
            reader = ArenaReader(config.workdir / ARENA_DB, config.mark, self._connected, name)
            self._readers[name] = reader
        return reader

    def reader_of(self, inode: int) -> tuple[str, ArenaReader]:
        """Return name and reader of the arena an inode belongs to.

        Raises:
            PathNotFoundError: it belongs to none.
        """
        name = self.arena_of(inode)
        return name, self.arena(name)

    def directory(self, inode: int) -> DirectoryRow | None:
        """Return an arena root or a directory above arenas."""
        row = self._directories.get(inode)
        if row is None:
            self._load()
            row = self._directories.get(inode)
        return row

    def directories_in(self, parent: int) -> list[DirectoryRow]:
        """Return what is directly in a directory above arenas, sorted by name."""
        self._load()
        rows = [row for row in self._directories.values() if row.parent == parent and self._leads(row)]
        return sorted(rows, key=lambda row: row.name)

    def _leads(self, row: DirectoryRow) -> bool:
        # A directory stays in the database when the arenas below it leave the config.
        if row.arena is not None:
            return True
        return any(self._leads(below) for below in self._directories.values() if below.parent == row.id)

    def peer_name(self, key: PeerKey) -> str:
        """Return the name of a peer, or its key in hex when it has none any more."""
        name = self._peer_names.get(key)
        if name is None:
            self._load()
            name = self._peer_names.get(key, key.hex())
        return name
