"""The in-memory store of the index's tests keeps the contract of the real one."""

from __future__ import annotations

import pytest

from tests.core.local_store_contract import LocalStoreContract
from tests.fakes.local_store import MemoryStore


class TestMemoryStore(LocalStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
