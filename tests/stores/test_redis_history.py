"""The sums in Redis: what an earlier version has left, and what is only noted yet."""

import contextlib
from contextlib import closing
from dataclasses import replace

import pytest
import redis

from guardrails.core.operations import ReadAccount, Settled
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.core.usage import TokenUsage
from guardrails.errors import StoreUnavailable
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.health.rights import LEDGER
from guardrails.testing.conformance import NOW_MS, charging, reserve, settle
from tests.servers.processes import Cluster, Server
from tests.servers.proxy import Fault, Proxy
from tests.stores.running import SESSION

pytestmark = pytest.mark.usefixtures("patient")

NOTES_TOGETHER = 8
"""How many calls are added to the sums together, as in notes.lua."""

NOTES_MAX = 1_000

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
                _add_notes(store)
                _cut(server)
                assert _spend(store).cache_read_tokens == 0
        spend = _spend(store)

    assert (spend.model_calls, spend.input_tokens) == (2, 20)
    assert spend.cache_read_tokens == 4


def test_notes_that_cannot_be_added_are_added_later(server: Server) -> None:
    """The calls are booked, and no sum has a part of them twice."""
    damaged = f"gr:{{default}}:hour/{NOW_MS // HOUR_MS}/model"
    with closing(RedisStore(server.unix_url)) as store:
        for number in range(NOTES_TOGETHER):
            store.execute(settle(str(number), charging(session="s-1")))
        server.ask("RENAME", damaged, "gr:{default}:kept")
        server.ask("SET", damaged, "no sums")
        for number in range(NOTES_TOGETHER, 3 * NOTES_TOGETHER + 1):
            reply = store.execute(settle(str(number), charging(session="s-2")))
            assert isinstance(reply, Settled)
            assert reply.is_applied
        assert server.ask("LLEN", "gr:{default}:notes") == 2 * NOTES_TOGETHER + 1
        assert _calls(store, "session_id") == {
            "s-1": NOTES_TOGETHER,
            "s-2": 2 * NOTES_TOGETHER + 1,
        }
        assert _calls(store, "agent") == {"a": 3 * NOTES_TOGETHER + 1}
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            _calls(store, "model")

        server.ask("RENAME", "gr:{default}:kept", damaged)
        for number in range(3 * NOTES_TOGETHER + 1, 4 * NOTES_TOGETHER):
            store.execute(settle(str(number), charging(session="s-2")))
        assert not server.ask("EXISTS", "gr:{default}:notes")
        assert _calls(store, "session_id") == {
            "s-1": NOTES_TOGETHER,
            "s-2": 3 * NOTES_TOGETHER,
        }
        assert _calls(store, "agent") == {"a": 4 * NOTES_TOGETHER}
        assert _calls(store, "model") == {"m": 4 * NOTES_TOGETHER}


def test_notes_that_can_never_be_added_are_bounded(server: Server) -> None:
    """A call that cannot be noted is not booked, and is once they are mended."""
    notes = "gr:{default}:notes"
    op = settle("h", charging())
    with closing(RedisStore(server.unix_url)) as store:
        server.ask("RPUSH", notes, *["no note"] * NOTES_MAX)
        with pytest.raises(StoreUnavailable):
            store.execute(op)
        assert server.ask("LLEN", notes) == NOTES_MAX
        assert store.execute(ReadAccount(account=SESSION)) is None

        server.ask("DEL", notes)
        assert store.execute(op).is_applied
        assert _calls(store, "agent") == {"a": 1}


@pytest.mark.parametrize("lacking", ["ltrim", "ltrim xadd", "hdel hlen", "ltrim hdel"])
def test_no_sum_has_a_call_twice_that_was_noted_without_rights(
    server: Server, lacking: str
) -> None:
    """What cannot be taken back is not written: calls tried again count once."""
    rights = [f"+{name}" for name in LEDGER]
    server.ask("ACL", "SETUSER", "agents", "reset", "on", ">agents", "~gr:*", *rights)
    ops = [settle(str(n), charging(session=f"s-{n}")) for n in range(NOTES_TOGETHER)]
    with closing(RedisStore(f"redis://agents:agents@127.0.0.1:{server.port}")) as store:
        store.execute(ops[0])
        server.ask("ACL", "SETUSER", "agents", *[f"-{one}" for one in lacking.split()])
        for op in ops * 2:
            with contextlib.suppress(StoreUnavailable):
                store.execute(op)
        server.ask("ACL", "SETUSER", "agents", *rights)
        for op in ops:
            store.execute(op)
        assert _calls(store, "session_id") == dict.fromkeys(
            [op.event.attribution.session_id for op in ops], 1
        )
        for by in ("agent", "model", "customer_id"):
            assert sum(_calls(store, by).values()) == len(ops)
    server.ask("ACL", "DELUSER", "agents")


def test_notes_of_a_project_that_calls_seldom_live_on(server: Server) -> None:
    """They live from the last session on, and not from the first note."""
    notes = "gr:{default}:notes"
    with closing(RedisStore(server.unix_url)) as store:
        store.execute(settle("first", charging()))
        server.ask("EXPIRE", notes, 60)
        to = charging(session="s-2")
        store.execute(reserve("second", to))
        store.execute(settle("second", to))
        assert server.ask("LLEN", notes) == 2
        assert server.ask("TTL", notes) > 365 * 86_400


def test_notes_are_added_however_fast_agents_note_more(server: Server) -> None:
    """Who prunes or forgets does not wait until nobody calls any more."""
    notes = "gr:{default}:notes"
    with closing(RedisStore(server.unix_url)) as store:
        store.execute(settle("h", charging()))
    [note] = server.ask("LRANGE", notes, 0, -1)

    def noted(_: int) -> Fault:
        server.ask("RPUSH", notes, note)
        return Fault.PASS

    proxy = Proxy(server.port, noted)
    with proxy, closing(RedisStore(proxy.url)) as store:
        _add_notes(store)
        assert proxy.faults[Fault.PASS] < 20


def test_sums_are_not_begun_anew_where_a_slot_moves_to(cluster: Cluster) -> None:
    """Not even if all that a call names is there already, and the sums are not."""
    [slot] = {int(cluster.nodes[0].ask("CLUSTER", "KEYSLOT", "gr:{default}:version"))}
    source = cluster.holder(slot)
    target = next(node for node in cluster.nodes if node is not source)
    prefix = "gr:{default}:"
    with closing(RedisStore(cluster.url)) as store:
        for number in range(NOTES_TOGETHER + 1):
            store.execute(settle(str(number), charging()))
        names = (*keys.finished(prefix, NOW_MS), keys.holds(prefix), keys.lost(prefix))
        for name in (*names, keys.stops(prefix)):
            source.ask("HSET", name, "another", "")
        source.ask("ZADD", keys.due(prefix), NOW_MS * 2, "another")
        source.ask("RPUSH", keys.traces_of(SESSION), "another")
        there = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
        named = [key for key in there if b"hour/" not in key]
        with cluster.moving(slot, source=source, target=target) as move:
            move(*named)
            with pytest.raises(StoreUnavailable):
                for number in range(2 * NOTES_TOGETHER):
                    store.execute(settle(f"late {number}", charging()))
            assert not target.ask("KEYS", "*hour/*")
        cluster.wait()
        found = _calls(store, "agent")
        cluster.move(slot, source=target, target=source)  # Where others expect it.

    assert found == {"a": NOTES_TOGETHER + 1}


def _calls(store: RedisStore, by: str) -> dict[str | None, int]:
    spends = store.history.spend(
        project_id="default", by=by, since_ms=NOW_MS, until_ms=NOW_MS
    )
    return {spend.name: spend.steps for spend in spends}


def _add_notes(store: RedisStore) -> None:
    """Adds what is noted to the sums, and deletes nothing."""
    store.keeper.prune(
        project_id="default",
        events_before_ms=None,
        rollups_before_ms=0,
        is_dry_run=True,
    )


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
