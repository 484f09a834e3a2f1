"""Many processes, one dollar, one Redis: all of it is spent, and not a cent more."""

import os
import random  # noqa: TID251 - seeded, so that every run spends alike
from contextlib import closing
from itertools import count
from multiprocessing.synchronize import Barrier

import pytest
import redis

from guardrails.core.operations import Reserve, Reserved, Verdict
from guardrails.core.policy import Limits
from guardrails.ports import Store
from guardrails.stores import open_store
from guardrails.system.clock import SystemClock
from guardrails.testing.conformance import charging, reserve, settle
from tests.servers.processes import Server
from tests.stores.running import SHARED, account, insist, together

LIMIT = 1_000_000_000
"""One dollar in nano-USD."""

BOUND = 2_000_000
"""What a call costs at most; at least it costs a quarter of that."""

WAITS_MAX = 200
"""Up to 20 seconds: a hold is open for a millisecond, or seconds in a large crowd."""

USABLE_MIN = LIMIT * 995 // 1000

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "processes",
    [8, *(pytest.param(many, marks=pytest.mark.soak) for many in (64, 200))],
)
def test_reserving_spends_a_budget_that_checking_overshoots(
    server: Server, processes: int
) -> None:
    """A call that has to wait asks again until it is denied: nothing is left over.

    The control reads what is spent, then charges. All read before anyone charges,
    as may always happen.
    """
    spent = sum(together(_reserve_then_call, server.unix_url, processes=processes))
    together(_check_then_call, server.unix_url, processes=processes)

    with closing(open_store(server.unix_url)) as store:
        shared = account(store, SHARED)
    assert shared.posted_nano_usd == spent
    assert USABLE_MIN <= spent <= LIMIT
    assert shared.held_nano_usd == 0
    assert int(server.ask("GET", "spent")) > LIMIT


def _reserve_then_call(url: str, number: int, barrier: Barrier) -> int:
    """Returns what this process has spent."""
    dice = random.Random(number)
    to = charging(session=str(number), shared=Limits(cost_nano_usd=LIMIT))
    spent = 0
    with closing(open_store(url)) as store:
        barrier.wait()
        for call in count():
            hold_id = f"{number}/{call}"
            if not _is_admitted(store, reserve(hold_id, to, cost=BOUND), barrier):
                break
            cost = dice.randint(BOUND // 4, BOUND)
            insist(store, settle(hold_id, to, cost=cost))
            spent += cost
    return spent


def _is_admitted(store: Store, op: Reserve, barrier: Barrier) -> bool:
    """Asks until the answer is final, in the rhythm of a guard."""
    clock, pause_s = SystemClock(), 0.001
    for _ in range(WAITS_MAX):
        reply = insist(store, op)
        assert isinstance(reply, Reserved)
        if reply.verdict is not Verdict.WAIT:
            return reply.verdict is Verdict.ALLOW
        assert not barrier.broken, "another process has failed, and may hold the rest"
        clock.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)
    raise AssertionError("waited in vain for open holds")


def _check_then_call(url: str, number: int, barrier: Barrier) -> None:
    with closing(redis.Redis.from_url(url)) as client:
        while True:
            spent = int(client.get("spent") or 0)
            barrier.wait()
            if spent + BOUND > LIMIT:
                return
            client.incrby("spent", BOUND)
            barrier.wait()
