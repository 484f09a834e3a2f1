"""Judgements on answers that no server of the tests gives, and on file systems."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from guardrails.stores.diagnosis import Check, Status
from guardrails.stores.folders import file_system_of
from guardrails.stores.redis.connection.topology import Topology
from guardrails.stores.redis.health.answers import Answers, Refused, User
from guardrails.stores.redis.health.judgement import slots_check, verdicts
from guardrails.stores.redis.health.node import Node

INFO = {
    "redis_version": "7.2.4",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "used_memory": "1000",
    "maxmemory": "0",
    "aof_enabled": "1",
    "connected_slaves": "0",
}
CONFIG = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "min-replicas-to-write": "0",
    "save": "",
}
HEALTHY = Answers(
    name="h:6379",
    cli="redis-cli -h h",
    kind="server",
    info=INFO,
    config=CONFIG,
    user=User(name="guardrails", commands=None, lacks=()),
    round_trip_ms=0.2,
    clock_ahead_ms=3,
)


def judged(*servers: Answers) -> dict[str, Check]:
    return {check.name: check for check in verdicts(servers)}


def said(
    name: str, info: Mapping[str, str] = {}, config: Mapping[str, str] = {}
) -> Check:
    server = replace(HEALTHY, info={**INFO, **info}, config={**CONFIG, **config})
    return judged(server)[name]


def test_a_healthy_server_is_all_well() -> None:
    assert {check.status for check in judged(HEALTHY).values()} == {Status.OK}


@pytest.mark.parametrize(
    ("host", "master"), [("h", "redis://h:7/0"), ("::1", "redis://[::1]:7/0")]
)
def test_a_replica_names_its_master(host: str, master: str) -> None:
    info = {"role": "slave", "master_host": host, "master_port": "7"}

    assert said("role", info).commands == (f"export GUARDRAILS_STORE={master}",)
    assert Topology.of(master).seeds == [(host, 7)]


@pytest.mark.parametrize(
    ("url", "name", "cli"),
    [
        ("redis://localhost", "localhost:6379", "redis-cli"),
        ("redis://127.0.0.1:7", "127.0.0.1:7", "redis-cli -p 7"),
        ("redis://[::1]:7", "[::1]:7", "redis-cli -h ::1 -p 7"),
        ("redis+cluster://[fd12::1]", "[fd12::1]:6379", "redis-cli -h fd12::1"),
        ("unix:///s", "/s", "redis-cli -s /s"),
    ],
)
def test_a_server_is_named_as_urls_and_commands_have_it(
    url: str, name: str, cli: str
) -> None:
    topology = Topology.of(url)
    node = Node(topology, topology.seeds[0])

    assert (node.name, node.cli) == (name, cli)


@pytest.mark.parametrize(
    ("info", "status", "text"),
    [
        ({"redis_version": "6.2.0"}, Status.OK, "Redis 6.2.0"),
        (
            {"redis_version": "6.0.16"},
            Status.FAIL,
            "Redis 6.0.16 is too old: Redis 6.2 or newer is needed",
        ),
        ({"valkey_version": "8.0.1"}, Status.OK, "Valkey 8.0.1"),
        (
            {"valkey_version": "7.2.8"},
            Status.FAIL,
            "Valkey 7.2.8 is too old: Valkey 8.0 or newer is needed",
        ),
    ],
)
def test_versions(info: dict[str, str], status: Status, text: str) -> None:
    check = said("version", info)

    assert (check.status, check.text) == (status, text)


def test_the_doctor_proposes_no_command_that_a_server_does_not_know() -> None:
    """As of those that are rented out, whose owner sets what is kept."""
    config = Refused("this server does not know CONFIG GET")
    info = {**INFO, "maxmemory_policy": "allkeys-lru"}

    check = judged(replace(HEALTHY, info=info, config=config))["eviction"]

    assert check.status is Status.FAIL
    assert not check.commands


@pytest.mark.parametrize(
    ("ahead_ms", "status"),
    [
        (1_000, Status.OK),
        (-1_000, Status.OK),
        (1_001, Status.WARN),
        (-60_000, Status.WARN),
        (60_001, Status.FAIL),
        (-60_001, Status.FAIL),
    ],
)
def test_clocks(ahead_ms: int, status: Status) -> None:
    check = judged(replace(HEALTHY, clock_ahead_ms=ahead_ms))["clock"]

    assert check.status is status
    assert ("behind" in check.text) == (ahead_ms < 0 and status is not Status.OK)


@pytest.mark.parametrize(
    ("info", "config", "status", "words"),
    [
        ({}, {"appendfsync": "always"}, Status.OK, "a power cut loses nothing"),
        ({}, {"appendfsync": "no"}, Status.WARN, "up to half a minute"),
        ({}, {"appendonly": "no"}, Status.WARN, "loses the whole ledger"),
        (
            {},
            {"appendonly": "no", "save": "3600 1"},
            Status.WARN,
            "all since the last snapshot",
        ),
        ({"aof_last_write_status": "err"}, {}, Status.FAIL, "is its disk full?"),
        ({"rdb_last_bgsave_status": "err"}, {}, Status.FAIL, "of the snapshot"),
    ],
)
def test_durability(
    info: dict[str, str], config: dict[str, str], status: Status, words: str
) -> None:
    check = said("durability", info, config)

    assert check.status is status
    assert words in check.text


@pytest.mark.parametrize(
    ("line", "least", "status"),
    [
        ("ip=r,port=1,state=online,offset=1,lag=0", "1", Status.OK),
        ("ip=r,port=1,state=online,offset=1,lag=0", "0", Status.WARN),
        ("ip=r,port=1,state=online,offset=1,lag=11", "1", Status.WARN),
        ("ip=r,port=1,state=wait_bgsave,offset=0,lag=0", "1", Status.WARN),
    ],
)
def test_replicas(line: str, least: str, status: Status) -> None:
    info = {"connected_slaves": "1", "slave0": line}

    assert said("replicas", info, {"min-replicas-to-write": least}).status is status


def test_sentinel_needs_a_replica() -> None:
    check = judged(replace(HEALTHY, kind="sentinel"))["replicas"]

    assert check.status is Status.WARN


@pytest.mark.parametrize(
    ("commands", "status"),
    [("+@all", Status.WARN), (None, Status.WARN), ("-@all +get", Status.OK)],
)
def test_the_default_user(commands: str | None, status: Status) -> None:
    user = User(name="default", commands=commands, lacks=())

    assert judged(replace(HEALTHY, user=user))["access"].status is status


def test_a_setting_is_taken_from_wherever_it_may_be_read() -> None:
    """INFO has the eviction policy too."""
    refused = Refused("this user may not run CONFIG GET")
    found = judged(replace(HEALTHY, config=refused))

    assert found["eviction"].status is Status.OK
    assert found["durability"].status is Status.UNKNOWN


def test_servers_that_agree_are_one_line() -> None:
    """Else the one with the problem is named."""
    other = replace(HEALTHY, name="i:6379", cli="redis-cli -h i")
    full = replace(other, info={**INFO, "maxmemory": "1001"})

    assert judged(HEALTHY, other)["role"].text == "master (all 2 servers)"
    assert judged(HEALTHY, full)["memory"].text.startswith("i:6379: ")


def test_slots_that_nobody_serves_fail() -> None:
    assert slots_check(16_384, masters=3).status is Status.OK
    assert slots_check(16_383, masters=3).status is Status.FAIL


MOUNTS = (
    "/dev/vda / ext4 rw 0 0",
    "server:/x /mnt/shared nfs4 rw 0 0",
    "server:/y /mnt/with\\040space cifs rw 0 0",
    "tmpfs /mnt/shared/fast tmpfs rw 0 0",
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/ledger.db", "ext4"),
        ("/mnt/shared/ledger.db", "nfs4"),
        ("/mnt/shared/fast/ledger.db", "tmpfs"),
        ("/mnt/sharedish/ledger.db", "ext4"),
        ("/mnt/with space/ledger.db", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind
    assert file_system_of(Path(path), ()) is None
