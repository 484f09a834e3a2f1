"""What a person stops is with a replica, the next master perhaps, or it is said."""

import logging
from collections.abc import Iterator
from contextlib import closing

import pytest

from guardrails import Guard, SessionStopped
from guardrails.stores.redis.health.rights import LEDGER, rules
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.servers.waiting import until

STOPS = "gr:{default}:stops"


@pytest.fixture(scope="module", params=BINARIES)
def shared_replica(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    binary = BINARIES[request.param]
    with (
        Server(binary, repl_diskless_sync_delay="0") as master,
        Server(binary, replicaof=f"127.0.0.1 {master.port}") as replica,
    ):
        yield master, replica


@pytest.fixture
def pair(shared_replica: tuple[Server, Server]) -> tuple[Server, Server]:
    """A master without data, and its replica."""
    master, replica = shared_replica
    master.ask("FLUSHALL")
    until(lambda: is_in_step(master, replica), "the replica")
    return shared_replica


def is_in_step(master: Server, replica: Server) -> bool:
    sent, got = master.ask("INFO", "replication"), replica.ask("INFO", "replication")
    is_up = got["master_link_status"] == "up"
    return is_up and sent["master_repl_offset"] == got["slave_repl_offset"]


def stop_all(url: str) -> None:
    with closing(Guard({}, store=url)) as guard:
        guard.stop(everything=True, by="ops")
        guard.stop("s", by="ops")


def is_stopped(url: str) -> bool:
    with closing(Guard({}, store=url)) as guard, guard.session():
        try:
            with guard.call(tool="t"):
                return False
        except SessionStopped:
            return True


def test_a_stop_is_with_the_replica_when_it_is_acknowledged(
    pair: tuple[Server, Server], caplog: pytest.LogCaptureFixture
) -> None:
    master, replica = pair
    stop_all(master.url)

    assert replica.ask("HLEN", STOPS) == 2
    assert "no replica" not in caplog.text


def test_a_stop_that_no_replica_has_is_in_force_and_said(
    pair: tuple[Server, Server], caplog: pytest.LogCaptureFixture
) -> None:
    master, replica = pair
    with replica.paused():
        stop_all(master.url)
        assert is_stopped(master.url)

    assert [
        (record.levelno, "no replica has yet" in record.getMessage())
        for record in caplog.records
        if "replica" in record.getMessage()
    ] == [(logging.WARNING, True)] * 2


def test_without_replicas_nothing_is_said(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    stop_all(server.url)

    assert is_stopped(server.url)
    assert "replica" not in caplog.text


def test_a_user_who_may_not_wait_stops_all_the_same(
    pair: tuple[Server, Server],
) -> None:
    """The access list may be older than this."""
    master, _ = pair
    rights = rules({name: why for name, why in LEDGER.items() if name != "wait"})
    master.ask("ACL", "SETUSER", "old", "on", ">old", *rights.split())
    url = f"redis://old:old@127.0.0.1:{master.port}/0"
    stop_all(url)

    assert is_stopped(url)


@pytest.mark.parametrize("binary", BINARIES)
def test_a_server_that_lets_nobody_wait_stops_all_the_same(binary: str) -> None:
    """Some that are rented out know no WAIT."""
    with (
        Server(BINARIES[binary], rename_command='WAIT ""') as master,
        Server(BINARIES[binary], replicaof=f"127.0.0.1 {master.port}"),
    ):
        until(
            lambda: master.ask("INFO", "replication")["connected_slaves"], "the replica"
        )
        stop_all(master.url)

        assert is_stopped(master.url)
