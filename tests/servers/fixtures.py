"""Fixtures that start real servers: one per binary for the whole run."""

from collections.abc import Iterator

import pytest

from tests.servers.configured import ConfiguredServer
from tests.servers.processes import Cluster, Server, binaries

BINARIES = binaries()


@pytest.fixture(scope="session", params=BINARIES)
def shared_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(BINARIES[request.param]) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    """A server without data, of each kind that this machine has."""
    shared_server.ask("FLUSHALL")
    return shared_server


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
