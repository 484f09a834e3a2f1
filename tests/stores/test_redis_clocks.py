"""A Redis that clients share whose clocks differ: by minutes, days or months."""

from contextlib import closing

import pytest

from guardrails.core.ledger import SETTLED_RETENTION_MS
from guardrails.core.operations import Operation, Release
from guardrails.stores.redis import RedisStore, keys
from guardrails.testing.conformance import NOW_MS, charging, reserve, settle
from tests.servers.processes import Server
from tests.stores.running import SESSION

PREFIX = keys.project_prefix("default")
LAST_HOUR_S = 3_600

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
