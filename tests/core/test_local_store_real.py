"""The arena's own store keeps the contract that the index was tested against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core import db
from core.cache import ArenaCache
from core.inodes import ArenaInodes, allocate_range
from core.local import LocalEntries
from core.types import Mark, PeerKey
from tests.core.local_store_contract import LocalStoreContract


class TestLocalEntries(LocalStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[LocalEntries]:
        global_conn = db.open_global(tmp_path / "cache.db")
        conn = db.open_arena(tmp_path / "arena.db")
        inodes = ArenaInodes(conn, lambda end: allocate_range(global_conn, "a", end))
        yield LocalEntries(ArenaCache("a", conn, inodes, PeerKey(b"12345678"), Mark.WATCH))
        conn.close()
        global_conn.close()
