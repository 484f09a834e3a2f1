"""Servers and workers are killed at any moment: nothing acknowledged is lost,
nothing is spent beyond the limit, and nothing is blocked for ever."""

import hashlib
import itertools
import multiprocessing.connection
import os
import random  # noqa: TID251 - seeded, so that every run kills alike
import signal
import threading
from contextlib import closing
from ctypes import Array, c_long
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from guardrails.core.accounts import Account
from guardrails.core.operations import Reserved, Sweep, Verdict
from guardrails.core.policy import Limits
from guardrails.ports import Store
from guardrails.stores import open_store
from guardrails.stores.diagnosis import Status
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.health.diagnosis import diagnose
from guardrails.system.clock import SystemClock
from guardrails.testing.conformance import CENT, charging, reserve, settle
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Group, Server
from tests.servers.waiting import until
from tests.stores.running import CONTEXT, SESSION, SHARED, account, insist

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# --- Servers are killed -----------------------------------------------------

WORKERS = 4

SETTLES_BETWEEN_KILLS = 300


@pytest.mark.timeout(120)
@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.soak)])
@pytest.mark.parametrize("binary", BINARIES)
def test_a_killed_server_keeps_what_it_acknowledged(binary: str, rounds: int) -> None:
    """Its log is written before it answers.

    Not so with `everysec`: while a sync of the disk takes long, that waits for two
    seconds. What a crash loses then is in the journals.
    """
    acknowledged = CONTEXT.RawArray(c_long, WORKERS)
    is_over = CONTEXT.Event()
    with Server(BINARIES[binary], appendonly="yes", appendfsync="always") as server:
        workers = [
            CONTEXT.Process(target=_load, args=(server.url, n, acknowledged, is_over))
            for n in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        try:
            for _ in range(rounds):
                enough = sum(acknowledged) + SETTLES_BETWEEN_KILLS
                until(lambda enough=enough: sum(acknowledged) >= enough, "the load")
                server.restart()
        finally:
            is_over.set()
            for worker in workers:
                worker.join()
        with closing(open_store(server.url)) as store:
            _check_nothing_lost(store, list(acknowledged))
    assert [worker.exitcode for worker in workers] == [0] * WORKERS


def test_what_a_server_has_lost_is_asked_for_after_each_of_its_restarts() -> None:
    """It may have lost what was not on the disk yet, and says nothing of that."""
    asked: list[str] = []
    binary = next(iter(BINARIES.values()))
    with (
        Server(binary, appendonly="yes", appendfsync="always") as server,
        closing(RedisStore(server.url)) as store,
    ):
        store.watch(lambda: asked.append("again"))
        for name in ("before", "after"):
            insist(store, reserve(name, charging()))
            insist(store, settle(name, charging()))
            assert len(asked) == (name == "after")
            server.restart()


def _load(url: str, number: int, acknowledged: "Array[c_long]", is_over: Event) -> None:
    """Makes calls; what the server did not acknowledge is tried again."""
    to = charging()
    with closing(open_store(url)) as store:
        for call in itertools.count():
            if is_over.is_set():
                return
            insist(store, reserve(f"{number}/{call}", to))
            insist(store, settle(f"{number}/{call}", to, cost=call))
            acknowledged[number] += 1


def _check_nothing_lost(store: Store, acknowledged: list[int]) -> None:
    expected = {
        f"{n}/{c}": c for n, calls in enumerate(acknowledged) for c in range(calls)
    }
    costs = _booked(store)
    assert costs == expected
    for key in (SESSION, SHARED):
        found = account(store, key)
        assert found.posted_nano_usd == sum(costs.values())
        assert found.steps == len(costs)
        assert found.held_nano_usd == 0


def _booked(store: Store) -> dict[str, int]:
    """Returns what each event says that its call cost. No event is there twice."""
    events = store.history.events(project_id="default", session_id="s", limit=100_000)
    costs = {event.event_id: event.charge.cost_nano_usd or 0 for event in events}
    assert len(costs) == len(events)
    return costs


@pytest.mark.parametrize(
    "binary",
    # A failover takes seconds: each binary but the first has its turn in the soak.
    [
        pytest.param(binary, marks=[pytest.mark.soak] if index else [])
        for index, binary in enumerate(BINARIES)
    ],
)
def test_a_replica_takes_over_in_the_middle_of_the_load(binary: str) -> None:
    """Calls go on by themselves. What the dead master had not yet passed on may be
    gone; but nothing is torn or counted twice."""
    is_over = threading.Event()
    calls = itertools.count()
    done: list[str] = []

    def work() -> None:
        while not is_over.is_set():
            hold_id = f"{next(calls)}"
            insist(store, reserve(hold_id, to))
            insist(store, settle(hold_id, to, cost=1))
            done.append(hold_id)

    to = charging()
    with Group(BINARIES[binary]) as group, closing(open_store(group.url)) as store:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(done) > 200, "the load")
            group.fail_over()
            enough = len(done) + 200
            until(lambda: len(done) >= enough, "the load on the new master")
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        costs, found = _booked(store), account(store)

    assert found.posted_nano_usd == sum(costs.values()) == len(costs)
    assert found.steps == len(costs) + found.held_nano_usd // CENT
    assert set(done[-200:]) <= costs.keys() <= set(done)


# --- Workers are killed -----------------------------------------------------

BOUND = 2_000_000
"""What a call costs at most, in nano-USD; at least it costs a quarter of that."""

LIMIT_PER_KILL = 20 * BOUND
"""More than the workers spend between two kills."""

TTL_MS = 400

LAST_SECONDS_MAX = 40
"""A few thousand calls, at a millisecond each."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_what_killed_workers_have_spent_stays_within_the_limit(
    server: Server, tmp_path: Path, kills: int
) -> None:
    """The provider's bill is the truth; who dies between it and the settling has
    spent unseen. In the end nothing is held, and nobody waits."""
    limit = kills * LIMIT_PER_KILL
    bill = tmp_path / "bill"
    args = (server.unix_url, bill, limit)
    _kill_workers(kills, args)
    last = CONTEXT.Process(target=_spend, args=(*args, "last", None))
    last.start()
    last.join(LAST_SECONDS_MAX)  # It waits for what the dead hold, until denied.
    last.kill()
    last.join()
    with closing(open_store(server.unix_url)) as store:
        to = charging(shared=Limits(cost_nano_usd=limit))
        reply = store.execute(reserve("after", to, cost=BOUND))
        store.execute(Sweep(now_ms=SystemClock().now_ms() + TTL_MS))
        shared, costs = account(store, SHARED), _booked(store)
    with closing(RedisStore(server.unix_url)) as store:
        checks = diagnose(store, project_id="default", clock=SystemClock())

    assert [c.status for c in checks if c.name == "balance"] == [Status.OK]
    assert last.exitcode == 0
    assert isinstance(reply, Reserved)
    assert reply.verdict is Verdict.DENY
    billed = sum(map(int, bill.read_text(encoding="utf-8").split()))
    assert limit // 2 < billed <= limit
    _check_dead(shared, costs)
    assert limit - BOUND < shared.posted_nano_usd + shared.unconfirmed_nano_usd <= limit


def _check_dead(shared: Account, costs: dict[str, int]) -> None:
    """What was not settled is unconfirmed, at what it may have cost."""
    assert shared.held_nano_usd == 0
    assert shared.posted_nano_usd == sum(costs.values())
    assert shared.unconfirmed_nano_usd == (shared.steps - len(costs)) * BOUND > 0


def _kill_workers(kills: int, args: tuple[str, Path, int]) -> None:
    """Keeps some workers alive, each for a moment, until so many have died."""
    dice = random.Random(1)
    names = itertools.count()
    alive: list[multiprocessing.process.BaseProcess] = []
    dead = 0
    while dead < kills:
        while len(alive) < WORKERS:
            name, life = f"{next(names)}", (dice.randrange(5), dice.uniform(0, 0.003))
            alive.append(CONTEXT.Process(target=_spend, args=(*args, name, life)))
            alive[-1].start()
        multiprocessing.connection.wait([worker.sentinel for worker in alive])
        for worker in [one for one in alive if not one.is_alive()]:
            assert worker.exitcode == -signal.SIGALRM, "it ended before it was killed"
            alive.remove(worker)
            dead += 1
    for worker in alive:
        worker.kill()
        worker.join()


def _spend(
    url: str, bill: Path, limit: int, name: str, life: tuple[int, float] | None
) -> None:
    """Makes calls until it is denied, or until the system ends it.

    Args:
        url: Of the store.
        bill: Where the provider writes what a call costs.
        limit: Of the budget.
        name: Of the worker.
        life: After how many calls it lives for how many seconds more.
    """
    dice, clock = random.Random(name), SystemClock()
    to = charging(shared=Limits(cost_nano_usd=limit))
    with closing(open_store(url)) as store, bill.open("ab", buffering=0) as bills:
        for call in itertools.count():
            if life is not None and call == life[0]:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, life[1] or 1e-6)
            hold_id, now_ms = f"{name}/{call}", clock.now_ms()
            op = reserve(hold_id, to, cost=BOUND, now_ms=now_ms, ttl_ms=TTL_MS)
            reply = store.execute(op)
            assert isinstance(reply, Reserved)
            if reply.verdict is Verdict.DENY:
                return
            if reply.verdict is Verdict.WAIT:
                store.execute(Sweep(now_ms=now_ms))
                continue
            cost = dice.randint(BOUND // 4, BOUND)
            _wait_for_the_provider()
            bills.write(b"%d\n" % cost)
            _wait_for_the_provider()
            now_ms = clock.now_ms()
            store.execute(settle(hold_id, to, cost=cost, now_ms=now_ms))


def _wait_for_the_provider() -> None:
    """Takes half a millisecond, as calls take a moment."""
    hashlib.sha256(bytes(300_000)).digest()
