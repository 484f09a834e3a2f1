"""Every store passes the public battery."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails.stores.memory import MemoryStore
from guardrails.stores.redis import RedisStore
from guardrails.stores.sqlite import SQLiteStore
from guardrails.testing.conformance import StoreConformance
from tests.servers.processes import Cluster, Server

pytestmark = pytest.mark.usefixtures("patient")


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


class TestRedisStore(StoreConformance):
    """Scripts in a real server of each kind."""

    @pytest.fixture
    def store(self, server: Server) -> Iterator[RedisStore]:
        store = RedisStore(server.unix_url)
        yield store
        store.close()


class TestClusterStore(StoreConformance):
    """The same scripts in a cluster of three masters."""

    @pytest.fixture
    def store(self, cluster: Cluster) -> Iterator[RedisStore]:
        store = RedisStore(cluster.url)
        yield store
        store.close()
