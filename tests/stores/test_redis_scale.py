"""Every way to add up what many processes have spent comes to the same."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from multiprocessing.synchronize import Barrier

import pytest
import redis

from guardrails.core.money import nano_usd
from guardrails.core.operations import Turn, Turned
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.codec import replies
from guardrails.system.clock import SystemClock
from guardrails.testing.conformance import charging, reserve, settle
from tests.cli.conftest import GUARDRAILS
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.stores.running import SHARED, account, insist, together

NOW_MS = SystemClock().now_ms()
EVENTS_MAX = 2_000_000
PAGE = 5_000
CALLS_PER_SESSION = 100

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("processes", "calls"),
    [(4, 2_500), pytest.param(8, 125_000, marks=pytest.mark.soak)],
)
def test_all_sums_are_the_same_money(processes: int, calls: int) -> None:
    """Events, sessions, the shared account, and what is summed by hour and name."""
    sessions = calls // CALLS_PER_SESSION

    def work(url: str, number: int, barrier: Barrier) -> int:
        return _spend(url, number, sessions=sessions)

    with Server(next(iter(BINARIES.values()))) as server:
        spent = sum(together(work, server.unix_url, processes=processes))
        by_event, exported = _events(server), _exported(server)
        names = [f"{n}-{s}" for n in range(processes) for s in range(sessions)]
        with closing(RedisStore(server.unix_url)) as store:
            shared = account(store, SHARED)
            history = store.history
            accounts = history.session_accounts(project_id="default", session_ids=names)
            by = {
                dimension: history.spend(
                    project_id="default",
                    by=dimension,
                    since_ms=NOW_MS,
                    until_ms=NOW_MS + HOUR_MS,
                )
                for dimension in ("session_id", "agent", "customer_id", "model")
            }

    assert by_event.total() == spent == exported
    assert len(by_event) == len(accounts) == processes * sessions
    posted = {
        a.session.attribution.session_id: a.posted_nano_usd
        for a in accounts
        if a.session
    }
    assert posted == by_event
    assert (shared.posted_nano_usd, shared.steps) == (spent, processes * calls)
    assert shared.held_nano_usd == 0
    for dimension, sums in by.items():
        assert _total(sums) == (spent, processes * calls), dimension
    assert {one.name: one.total_nano_usd for one in by["session_id"]} == by_event


def _spend(url: str, number: int, *, sessions: int) -> int:
    """Makes calls of 1, 2, 3, … nano-USD; returns their sum."""
    spent, call = 0, 0
    with closing(RedisStore(url, events_max=EVENTS_MAX)) as store:
        for session in range(sessions):
            to = charging(session=f"{number}-{session}")
            last = f"{number}/{call}"
            insist(store, reserve(last, to, cost=call, now_ms=NOW_MS))
            for _ in range(CALLS_PER_SESSION - 1):
                following = f"{number}/{call + 1}"
                turned = insist(
                    store,
                    Turn(
                        settle=settle(last, to, cost=call, now_ms=NOW_MS),
                        reserve=reserve(following, to, cost=call + 1, now_ms=NOW_MS),
                    ),
                )
                assert isinstance(turned, Turned)
                spent, call, last = spent + call, call + 1, following
            insist(store, settle(last, to, cost=call, now_ms=NOW_MS))
            spent, call = spent + call, call + 1
    return spent


def _events(server: Server) -> Counter[str | None]:
    """Returns what the stream says that each session has spent."""
    spent: Counter[str | None] = Counter()
    for payload in _payloads(server):
        event = replies.event_from(payload)
        spent[event.attribution.session_id] += event.charge.cost_nano_usd or 0
    return spent


def _exported(server: Server) -> int:
    """Returns what `guardrails costs` says was spent, in nano-USD."""
    options = ("--by", "customer_id", "--json", "--store", server.unix_url)
    done = subprocess.run(
        [*GUARDRAILS, "costs", *options], capture_output=True, check=True, timeout=60
    )
    costs = [Decimal(row["cost_usd"]) for row in json.loads(done.stdout)["rows"]]
    return nano_usd(sum(costs), name="exported")


def _payloads(server: Server) -> Iterator[bytes]:
    with redis.Redis(unix_socket_path=str(server.socket), socket_timeout=60) as client:
        start = "-"
        while True:
            page = client.xrange("gr:{default}:events", start, "+", count=PAGE)
            for _, fields in page:
                yield fields[b"e"]
            if len(page) < PAGE:
                return
            start = b"(" + page[-1][0]


def _total(sums: "list[Spend]") -> tuple[int, int]:
    return sum(one.total_nano_usd for one in sums), sum(one.steps for one in sums)
