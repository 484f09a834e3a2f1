"""Fixtures that start real servers: one per binary for the whole run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails.stores.redis.connection import attempts, client, stream
from tests.servers.configured import ConfiguredServer
from tests.servers.processes import Cluster, Server, binaries

BINARIES = binaries()

ON_EACH = ("test_conformance.py", "test_against_ledger.py", "test_redis_rights.py")
"""What runs on each server of this machine; all else on the first, unless
`ALL_SERVERS` is set, as `make soak` does: ten minutes have to do for everything."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leaves out what tells the servers of this machine apart a second time."""
    if os.environ.get("ALL_SERVERS"):
        return
    others = set(list(BINARIES)[1:])
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        is_other = item.path.name not in ON_EACH and _names_of(item) & others
        (left if is_other else kept).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def _names_of(item: pytest.Item) -> set[object]:
    spec = getattr(item, "callspec", None)
    values = spec.params.values() if spec is not None else ()
    return {value for value in values if isinstance(value, str)}


@pytest.fixture(scope="session", params=BINARIES)
def shared_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(BINARIES[request.param]) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    """A server without data, of each kind that this machine has."""
    shared_server.ask("FLUSHALL")
    return shared_server


@pytest.fixture(params=["sqlite", "a server"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where several processes can have one ledger."""
    if request.param == "a server":
        with Server(next(iter(BINARIES.values()))) as server:
            yield server.url
        return
    yield f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


PATIENT_S = 10.0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the store wait for a server that is slow because the whole machine is.

    For what is not about time. Half a second is little while all else is tested.
    """
    for name in ("DEADLINE_S", "CALL_DEADLINE_S"):
        for of in (name, f"LOOP_{name}"):
            monkeypatch.setattr(client, of, PATIENT_S)
        monkeypatch.setattr(stream, name, PATIENT_S)
    monkeypatch.setattr(attempts, "AGAIN_DEADLINE_S", PATIENT_S)


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    with Cluster(next(iter(BINARIES.values()))) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """Three masters without data."""
    shared_cluster.flush()
    return shared_cluster


@pytest.fixture(scope="session", params=BINARIES)
def shared_configured(request: pytest.FixtureRequest) -> Iterator[ConfiguredServer]:
    with ConfiguredServer(BINARIES[request.param]) as server:
        yield server


@pytest.fixture
def configured(shared_configured: ConfiguredServer) -> ConfiguredServer:
    """A server without data that runs with the files of examples/redis."""
    shared_configured.ask("FLUSHALL")
    return shared_configured
