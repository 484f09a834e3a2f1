"""The sums in Redis: what an earlier version has left there."""

from contextlib import closing
from dataclasses import replace

import redis

from guardrails.core.rollups import HOUR_MS, Spend
from guardrails.core.usage import TokenUsage
from guardrails.stores.redis import RedisStore
from guardrails.testing.conformance import NOW_MS, charging, settle
from tests.servers.processes import Server

EARLIER_BYTES = 76
"""Of a cell before it had the parts of tokens and costs."""


def test_sums_of_an_earlier_version_are_gone_on_with(server: Server) -> None:
    """They are shorter; what they did not know was nothing."""
    usage = TokenUsage(input_tokens=10, cache_read_tokens=4)
    with closing(RedisStore(server.unix_url)) as store:
        for number in range(2):
            call = settle(str(number), charging(), tokens=10)
            store.execute(replace(call, event=replace(call.event, usage=usage)))
            if number == 0:
                assert _spend(store).cache_read_tokens == 4
                _cut(server)
                assert _spend(store).cache_read_tokens == 0
        spend = _spend(store)

    assert (spend.model_calls, spend.input_tokens) == (2, 20)
    assert spend.cache_read_tokens == 4


def _spend(store: RedisStore) -> Spend:
    (spend,) = store.history.spend(
        project_id="default", by="agent", since_ms=NOW_MS, until_ms=NOW_MS
    )
    return spend


def _cut(server: Server) -> None:
    """Shortens each cell to what an earlier version wrote."""
    prefix = f"gr:{{default}}:hour/{NOW_MS // HOUR_MS}/"
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        for key in client.scan_iter(f"{prefix}*"):
            for name, sums in client.hgetall(key).items():
                client.hset(key, name, sums[:EARLIER_BYTES])
