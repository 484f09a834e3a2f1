"""Scripts that break off: the user has lost one right, and a command is refused.

A script is not rolled back by the server. What it has written by then must be nothing.
"""

import random  # noqa: TID251 - seeded, so that every run refuses alike
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.deliveries import (
    ClaimAlerts,
    DeliveryState,
    NoteAlerts,
    ReadAlerts,
    TellAlerts,
)
from guardrails.core.attribution import Attribution
from guardrails.core.operations import (
    Operation,
    ReadAccount,
    Release,
    Reserve,
    Settle,
    Sweep,
    Swept,
)
from guardrails.core.telling import AlertKind
from guardrails.errors import StoreUnavailable
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.health.rights import LEDGER
from guardrails.testing.conformance import NOW_MS, charging, reserve
from tests.servers.configured import ConfiguredServer
from tests.stores.scenarios import (
    READS,
    SESSIONS,
    SHARED,
    Checker,
    Scenario,
    codes_of,
    is_forgotten,
    scripts,
    setups,
)

USER = "guardrails"

IN_SCRIPTS = sorted(set(LEDGER) - {"evalsha", "script|load", "select", "ping", "info"})
"""What a script may be refused in its middle; without the others none begins."""

MONEY = (Reserve, Settle, Release, Sweep)


@pytest.fixture
def admin(configured: ConfiguredServer) -> Iterator[redis.Redis]:
    """Somebody who may change what the user may do."""
    client = redis.Redis(
        unix_socket_path=str(configured.socket),
        username="admin",
        password="admin",
        retry=Retry(NoBackoff(), 0),
    )
    yield client
    client.acl_setuser(USER, enabled=True, commands=[f"+{name}" for name in LEDGER])
    client.close()


@settings(
    max_examples=30,
    deadline=None,
    # The server is emptied for each example, below.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(setup=setups, script=scripts, is_honest=st.booleans(), seed=st.integers(0, 999))
def test_a_call_that_was_refused_in_its_middle_has_changed_nothing(
    configured: ConfiguredServer,
    admin: redis.Redis,
    *,
    setup: bytes,
    script: bytes,
    is_honest: bool,
    seed: int,
) -> None:
    """Asked again once the right is back, the store answers like the ledger."""
    admin.flushall()
    dice = random.Random(seed)
    scenario = Scenario(setup, is_honest)
    checker = Checker(scenario)
    with closing(RedisStore(configured.url_of(USER))) as store:
        finished: set[str] = set()
        for code in codes_of(script):
            op = scenario.operation(code, checker.ledger)
            if is_forgotten(op, checker, finished):
                continue
            reply = checker.apply(op)
            finished |= {hold.hold_id for hold in checker.ledger.removed_holds}
            if isinstance(reply, Swept):  # Redis forgets finished holds by itself.
                reply = replace(reply, forgotten=0)
            if isinstance(op, MONEY):
                found = _executed(store, op, admin, but=dice.choice(IN_SCRIPTS))
            else:
                found = store.execute(op)
            assert found == reply
            for key in (*SESSIONS, *SHARED):
                read = ReadAccount(account=key)
                assert store.execute(read) == checker.ledger.apply(read)
            assert store.execute(READS[-1]) == checker.ledger.apply(READS[-1])


@pytest.mark.parametrize("right", ["zrem", "hset", "set", "expire"])
def test_an_alert_that_was_told_is_not_told_again_because_a_right_is_missing(
    configured: ConfiguredServer, admin: redis.Redis, right: str
) -> None:
    """Noted once the right is back, it is over: else it would be sent for ever."""
    told = [_alert(number) for number in range(3)]
    claim = ClaimAlerts(
        project_id="p",
        place="slack",
        owner="o",
        now_ms=NOW_MS,
        until_ms=NOW_MS + 1,
        singles_max=1,
    )
    note = NoteAlerts(
        project_id="p",
        place="slack",
        label="",
        owner="o",
        alert_ids=tuple([alert.alert_id for alert in told]),
        now_ms=NOW_MS,
        state=DeliveryState.DELIVERED,
        due_ms=NOW_MS,
        cooldown_ms=1_000,
    )
    with closing(RedisStore(configured.url_of(USER))) as store:
        store.execute(TellAlerts(project_id="p", alerts=told, places=("slack",)))
        assert len(store.execute(claim).alerts) == len(told)
        _executed(store, note, admin, but=right)
        logs = store.execute(ReadAlerts(project_id="p", limit=9))

        assert store.execute(claim).alerts == ()
        assert {log.deliveries[0].state for log in logs} == {DeliveryState.DELIVERED}


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ("-evalsha", "+evalsha"),
        ("-script|load", "+script|load"),
        ("-zadd", "+zadd"),
        ("resetkeys", "~gr:*"),
    ],
)
def test_the_right_that_is_missing_is_named(
    configured: ConfiguredServer, admin: redis.Redis, taken: str, said: str
) -> None:
    admin.script_flush()  # As a server that has just been started.
    admin.execute_command("ACL", "SETUSER", USER, taken)
    try:
        with (
            closing(RedisStore(configured.url_of(USER))) as store,
            pytest.raises(StoreUnavailable) as caught,
        ):
            store.execute(reserve("h", charging()))
    finally:
        admin.execute_command("ACL", "SETUSER", USER, "~gr:*")

    told = f"the right {said}: see the ACL"
    if (taken, configured.binary.name) == ("-zadd", "redis-server"):
        told = "a right: see the ACL"  # Redis 7.0 does not say which, in a script.
    assert told in str(caught.value)


def _alert(number: int) -> Alert:
    return Alert(
        alert_id=f"a{number}",
        kind=AlertKind.SOFT,
        time_ms=NOW_MS,
        project_id="p",
        attribution=Attribution.of(project_id="p"),
        subject=f"s{number}",
    )


def _executed(
    store: RedisStore, op: Operation[object], admin: redis.Redis, *, but: str
) -> object:
    """Executes without one right, and again with it if that was refused."""
    admin.acl_setuser(USER, enabled=True, commands=[f"-{but}"])
    try:
        return store.execute(op)
    except StoreUnavailable:
        pass
    finally:
        admin.acl_setuser(USER, enabled=True, commands=[f"+{but}"])
    return store.execute(op)
