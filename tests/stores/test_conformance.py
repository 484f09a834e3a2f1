"""Every store passes the public battery."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails.stores.memory import MemoryStore
from guardrails.stores.sqlite import SQLiteStore
from guardrails.testing.conformance import StoreConformance


class TestMemoryStore(StoreConformance):
    """The pure ledger under a lock."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestSQLiteStore(StoreConformance):
    """One file, one transaction per operation."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SQLiteStore]:
        store = SQLiteStore(tmp_path / "ledger.sqlite3")
        yield store
        store.close()
