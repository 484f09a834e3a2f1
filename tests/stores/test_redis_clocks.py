"""A Redis that clients share whose clocks differ: by minutes, days or months."""

from contextlib import closing

import pytest

from guardrails.core.alerting.deliveries import ClaimAlerts, ReadAlerts, TellAlerts
from guardrails.core.ledger import SETTLED_RETENTION_MS
from guardrails.core.operations import Operation, Release, Reserved, Sweep, Verdict
from guardrails.core.policy import Limits
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.codec import keys
from guardrails.system.clock import SystemClock
from guardrails.testing.conformance import (
    CENT,
    NOW_MS,
    PLACES,
    charging,
    reserve,
    settle,
)
from guardrails.testing.watched import watched_alerts
from tests.servers.processes import Server
from tests.stores.running import SESSION

pytestmark = pytest.mark.usefixtures("patient")

PREFIX = keys.project_prefix("default")
LAST_HOUR_S = 3_600
DAY_MS = 86_400_000
TTL_MS = 600_000

FINISHING: dict[str, Operation[object]] = {
    "settled": settle("late", charging()),
    "released": Release(hold_id="late", account=SESSION, now_ms=NOW_MS),
}


@pytest.mark.parametrize("how", FINISHING)
def test_an_id_is_known_for_its_time_whoever_began_the_period(
    server: Server, how: str
) -> None:
    """A client a day and a half ahead has begun it, so that its key would end now."""
    key = keys.finished(PREFIX, NOW_MS)[0]
    with closing(RedisStore(server.url)) as store:
        store.execute(settle("early", charging()))
        store.execute(reserve("late", charging()))
        server.ask("EXPIRE", key, LAST_HOUR_S)
        store.execute(FINISHING[how])

    assert server.ask("PTTL", key) > SETTLED_RETENTION_MS


def test_a_client_that_is_ahead_has_no_call_of_others_expire(server: Server) -> None:
    """Else what has to wait for that call would stop the session for good."""
    now_ms = SystemClock().now_ms()
    one = charging(limits=Limits(cost_nano_usd=CENT))
    over = charging(session="over")
    with closing(RedisStore(server.url)) as store:
        store.execute(reserve("running", one, now_ms=now_ms, ttl_ms=TTL_MS))
        store.execute(reserve("over", over, now_ms=now_ms, ttl_ms=0))
        swept = store.execute(Sweep(now_ms=now_ms + DAY_MS))
        found = store.execute(reserve("next", one, now_ms=now_ms))

    assert isinstance(found, Reserved)
    assert found.verdict is Verdict.WAIT
    assert swept.unconfirmed == 1, "what is over for all is swept"


def test_a_client_that_is_ahead_forgets_no_alert_that_is_new(server: Server) -> None:
    now_ms = SystemClock().now_ms()
    read = ReadAlerts(project_id="default", limit=10)
    told = watched_alerts("default", now_ms=now_ms)
    claim = ClaimAlerts(
        project_id="default",
        place=PLACES[0],
        owner="a",
        now_ms=now_ms + 30 * DAY_MS,
        until_ms=now_ms + 30 * DAY_MS + 1_000,
        singles_max=1,
    )
    with closing(RedisStore(server.url)) as store:
        store.execute(TellAlerts(project_id="default", alerts=told, places=PLACES))
        store.execute(claim)
        kept = store.execute(read)

    assert len(kept) == len(told)
