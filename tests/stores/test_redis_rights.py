"""The access list of examples/redis: enough for the store, and for nothing else."""

from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.rights import DIAGNOSIS, LEDGER, RETENTION, rules
from guardrails.testing.conformance import StoreConformance
from tests.servers.configured import EXAMPLES, ConfiguredServer


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
