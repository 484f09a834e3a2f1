"""The access list of examples/redis: enough for the store, and for nothing else."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from guardrails.stores.diagnosis import Check, Status
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.health.diagnosis import diagnose
from guardrails.stores.redis.health.rights import (
    ARGUMENTS,
    DIAGNOSIS,
    LEDGER,
    RETENTION,
    SCRIPTS,
    lacking,
    rules,
)
from guardrails.system.clock import SystemClock
from guardrails.testing.conformance import StoreConformance
from tests.servers.configured import EXAMPLES, ConfiguredServer
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server

pytestmark = pytest.mark.usefixtures("patient")


class TestRedisStoreWithLeastRights(StoreConformance):
    """The whole battery as the user `guardrails`."""

    @pytest.fixture
    def store(self, configured: ConfiguredServer) -> Iterator[RedisStore]:
        store = RedisStore(configured.url_of("guardrails"))
        yield store
        store.close()


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
        ("CONFIG", "GET", "requirepass"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("GET", "theirs"),
        ("SET", "theirs", "1"),
        ("HGETALL", "grr"),
        ("EVAL", "return 1", "0"),
        ("MONITOR",),
        ("ACL", "LIST"),
        ("SHUTDOWN",),
        ("SUBSCRIBE", "anything"),
        ("SCRIPT", "FLUSH"),
    ],
    ids=" ".join,
)
def test_the_user_cannot_go_beyond_the_ledger(
    configured: ConfiguredServer, command: tuple[str, ...]
) -> None:
    """Neither other keys, nor anything that concerns the server."""
    with pytest.raises(redis.exceptions.NoPermissionError):
        configured.ask_as("guardrails", *command)


def test_a_script_reaches_no_key_of_others(configured: ConfiguredServer) -> None:
    """A script runs with the rights of its caller, declared keys or not."""
    configured.ask("SET", "theirs", "1")
    text = "return redis.call('GET', 'theirs')"
    digest = configured.ask_as("guardrails", "SCRIPT", "LOAD", text)

    with pytest.raises(redis.exceptions.ResponseError):
        configured.ask_as("guardrails", "EVALSHA", digest, "0")


@pytest.mark.parametrize("command", [("SET", "gr:x", "1"), ("DEL", "gr:secret")])
def test_the_doctor_cannot_change_the_ledger(
    configured: ConfiguredServer, command: tuple[str, ...]
) -> None:
    """Whoever only looks needs no right to write."""
    with pytest.raises(redis.exceptions.NoPermissionError):
        configured.ask_as("guardrails-doctor", *command)


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHDB",),
        ("KEYS", "*"),
        ("DEL", "gr:secret"),
        ("UNLINK", "theirs"),
        ("CONFIG", "GET", "requirepass"),
    ],
    ids=" ".join,
)
def test_who_deletes_cannot_go_beyond_the_ledger(
    configured: ConfiguredServer, command: tuple[str, ...]
) -> None:
    """Neither other keys, nor anything that concerns the server."""
    with pytest.raises(redis.exceptions.NoPermissionError):
        configured.ask_as("guardrails-keeper", *command)


def access_of(server: ConfiguredServer, user: str) -> Check:
    """Returns what the doctor says of a user's rights, as this user."""
    store = RedisStore(server.url_of(user))
    try:
        checks = diagnose(store, project_id="default", clock=SystemClock())
    finally:
        store.close()
    return next(check for check in checks if check.name == "access")


@pytest.fixture
def agents(configured: ConfiguredServer) -> Iterator[Callable[..., Check]]:
    """Makes a user who has all rights of agents but some, and asks the doctor."""

    def asked(*changes: str) -> Check:
        given = rules(LEDGER).split()
        configured.ask("ACL", "SETUSER", "agents", "on", ">agents", *given, *changes)
        return access_of(configured, "agents")

    yield asked
    configured.ask("ACL", "DELUSER", "agents")


@pytest.mark.parametrize(
    "right", [right for right in (*SCRIPTS, *ARGUMENTS) if right != "get"]
)
def test_the_doctor_names_each_right_that_agents_lack(
    configured: ConfiguredServer, agents: Callable[..., Check], right: str
) -> None:
    """As their own user, and what it prints mends it; without `get` nobody gets in."""
    check = agents(f"-{right}")

    assert (check.status, check.text) == (
        Status.FAIL,
        f"user agents lacks +{right}: calls of agents are refused or not counted",
    )
    cli, *words = shlex.split(check.commands[0])
    assert (cli, words[:2]) == ("redis-cli", ["-p", str(configured.port)])
    configured.ask(*words[2:])
    assert access_of(configured, "agents").status is Status.OK


def test_the_doctor_names_all_rights_that_agents_lack_at_once(
    agents: Callable[..., Check],
) -> None:
    """Without scripts a server cannot be asked, but its rules may be read."""
    check = agents("+acl|getuser", "-script|load", "-evalsha", "-hset", "-xadd")

    assert check.commands[0].endswith("agents '+script|load' +evalsha +hset +xadd")


def test_the_doctor_changes_nothing_by_asking(
    configured: ConfiguredServer, agents: Callable[..., Check]
) -> None:
    """No command is run to see whether it may be."""
    agents("-zadd")

    assert configured.ask("DBSIZE") == 0


def test_the_doctor_names_keys_that_agents_do_not_reach(
    agents: Callable[..., Check],
) -> None:
    """The fingerprint key alone is not a ledger."""
    check = agents("resetkeys", "~gr:secret")

    assert check.status is Status.FAIL
    assert check.text.startswith("user agents lacks ~gr:*: ")
    assert check.commands[0].endswith("ACL SETUSER agents '~gr:*'")
    assert agents("resetkeys", "~gr:secret", "~gr:{default}:*").status is Status.OK


def test_who_may_only_look_sees_what_agents_lack(configured: ConfiguredServer) -> None:
    """`guardrails-doctor` reads the rules of `guardrails`."""
    configured.ask("ACL", "SETUSER", "guardrails", "-zadd", "resetkeys", "~gr:secret")
    try:
        check = access_of(configured, "guardrails-doctor")
    finally:
        configured.ask("ACL", "SETUSER", "guardrails", "+zadd", "~gr:*")

    assert check.status is Status.FAIL
    assert check.text == (
        "user guardrails-doctor, who may only look; user guardrails lacks ~gr:* "
        "+zadd: calls of agents are refused or not counted"
    )
    assert check.commands[0].endswith("ACL SETUSER guardrails '~gr:*' +zadd")
    assert access_of(configured, "guardrails-doctor").status is Status.OK


def test_who_may_only_look_and_see_no_rules_says_so(
    configured: ConfiguredServer,
) -> None:
    """Nothing is known of agents then, and that is not the same as all is well."""
    configured.ask("ACL", "SETUSER", "guardrails-doctor", "-acl|getuser")
    try:
        check = access_of(configured, "guardrails-doctor")
    finally:
        configured.ask("ACL", "SETUSER", "guardrails-doctor", "+acl|getuser")

    assert check.status is Status.UNKNOWN


def test_each_right_of_the_ledger_is_looked_at() -> None:
    """But those that concern the server, which are missed elsewhere."""
    of_server = {"select", "ping", "info", "time", "acl|whoami", "wait", "asking"}

    assert {*SCRIPTS, *ARGUMENTS, *of_server, "cluster|slots"} == set(LEDGER)


@pytest.mark.parametrize(
    ("commands", "lacks"),
    [
        ("+@all", ()),
        ("+@all -zadd", ("+zadd",)),
        ("+@all -script", ("+script|load",)),
        ("+@all -script +script|load", ()),
        ("-zadd +@all", ()),
        ("+@all -@dangerous", None),
    ],
)
def test_rules_as_servers_write_them(
    commands: str, lacks: tuple[str, ...] | None
) -> None:
    """Redis 6.2 cannot be asked otherwise."""
    assert lacking(commands, ["gr:*"], keys=["gr:secret"]) == lacks


def test_nobody_gets_in_without_a_password(configured: ConfiguredServer) -> None:
    """The default user is off."""
    client = redis.Redis(port=configured.port, retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()
    client.close()


def test_the_list_is_what_the_code_says() -> None:
    """The doctor prints the same rules, and the README explains each."""
    lines = (EXAMPLES / "users.acl").read_text(encoding="utf-8").splitlines()
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")

    assert lines == [
        "user default off resetpass resetkeys resetchannels -@all",
        f"user guardrails on resetchannels {rules(LEDGER)}",
        f"user guardrails-doctor on resetchannels {rules(DIAGNOSIS)}",
        f"user guardrails-keeper on resetchannels {rules(RETENTION)}",
    ]
    explained = [
        f"| `{name.upper().replace('|', ' ')}` | {reason} |"
        for name, reason in {**LEDGER, **DIAGNOSIS, **RETENTION}.items()
    ]
    assert [line for line in readme.splitlines() if line in explained] == explained


@pytest.fixture(params=BINARIES)
def rented(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose owner keeps some commands to themselves, and lost one."""
    hidden = {f"rename-command {name}": '""' for name in ("CONFIG", "INFO", "XADD")}
    server = Server(BINARIES[request.param])
    server.options |= hidden
    with server:
        yield server


def test_the_doctor_names_what_a_server_does_not_know(rented: Server) -> None:
    """No right would give that, and no user may change the rest."""
    with closing(RedisStore(rented.url)) as store:
        found = diagnose(store, project_id="default", clock=SystemClock())
    checks = {check.name: check for check in found}

    access = checks["access"]
    assert access.status is Status.FAIL
    assert access.text.startswith("this server does not know XADD, ")
    for name in ("version", "durability", "memory"):
        assert checks[name].status is Status.UNKNOWN
        assert "does not know" in checks[name].text
        assert not checks[name].commands
