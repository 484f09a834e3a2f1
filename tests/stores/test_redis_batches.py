"""Operations that are applied together: each as if it were alone."""

from contextlib import closing
from dataclasses import replace
from typing import cast

import pytest

from guardrails.core.attribution import Attribution
from guardrails.core.ledger import Ledger
from guardrails.core.operations import (
    Operation,
    RaiseLimits,
    ReadAccount,
    Release,
    Reserved,
    Verdict,
)
from guardrails.core.policy import Limits
from guardrails.errors import StoreUnavailable
from guardrails.stores.backlog import Entry
from guardrails.stores.redis import RedisStore
from guardrails.testing.conformance import CENT, NOW_MS, charging, reserve, settle
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Cluster, Server

pytestmark = pytest.mark.usefixtures("patient")

SESSION = "default/session/session_id=s"


def operations() -> list[Entry]:
    """Calls that end in each way, of two projects, in one batch."""
    here = charging(limits=Limits(cost_nano_usd=3 * CENT))
    who = Attribution.of(agent="a", project_id="other", session_id="s")
    lines = [
        replace(line, account=line.account.replace("default", "other"))
        for line in here.lines
    ]
    there = replace(here, attribution=who, lines=tuple(lines))
    return [
        reserve("admitted", here),
        settle("never reserved", here),
        reserve("elsewhere", there),
        Release(hold_id="unknown", account=SESSION, now_ms=NOW_MS),
        reserve("too much", here, cost=9 * CENT),
        settle("admitted", here, cost=1),
        reserve("other content", here),
        reserve("other content", here, cost=1),
        settle("elsewhere there", there),
    ]


def apply(ledger: Ledger, op: Entry) -> object:
    return ledger.apply(cast("Operation[object]", op))


@pytest.mark.parametrize("binary", BINARIES)
def test_each_is_answered_as_if_it_were_alone(binary: str) -> None:
    """Also on a server that knows no script yet."""
    ledger = Ledger()
    with (
        Server(BINARIES[binary]) as server,
        closing(RedisStore(server.unix_url)) as store,
    ):
        expected = [apply(ledger, op) for op in operations()]
        assert store.execute_all(operations()) == expected
        # Told again, as after a lost reply: nothing is counted twice.
        again = [apply(ledger, op) for op in operations()]
        assert store.execute_all(operations()) == again
        read = ReadAccount(account=SESSION)
        assert store.execute(read) == ledger.apply(read)


def test_masters_of_a_cluster_are_asked_for_theirs(cluster: Cluster) -> None:
    ledger = Ledger()
    with closing(RedisStore(cluster.url)) as store:
        expected = [apply(ledger, op) for op in operations()]
        assert store.execute_all(operations()) == expected


def test_a_limit_that_others_have_raised_is_learnt_meanwhile(server: Server) -> None:
    limits = Limits(cost_nano_usd=5 * CENT)
    to = charging(limits=Limits(cost_nano_usd=CENT))
    with (
        closing(RedisStore(server.unix_url)) as store,
        closing(RedisStore(server.unix_url)) as other,
    ):
        store.execute(reserve("1", to))
        other.execute(RaiseLimits(account=SESSION, limits=limits, now_ms=NOW_MS))
        replies = store.execute_all([reserve(name, to) for name in "2345"])

        assert replies == [Reserved(verdict=Verdict.ALLOW)] * 4
        assert other.execute(reserve("6", to)).refusal is not None


def test_a_server_that_is_away_is_said_once() -> None:
    to = charging()
    with (
        closing(RedisStore("redis://127.0.0.1:1")) as store,
        pytest.raises(StoreUnavailable),
    ):
        store.execute_all([settle("1", to), settle("2", to)])
