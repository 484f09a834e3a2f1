"""Networks and servers fail; the ledger in Redis stays exact, and nobody waits long."""

import asyncio
import itertools
import multiprocessing
import os
import random  # noqa: TID251 - seeded, so that every run fails alike
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from redis.crc import key_slot

from guardrails import Guard, StoreUnavailable, TokenUsage
from guardrails.core.accounts import Account
from guardrails.core.operations import (
    ReadAccount,
    Reserved,
    Settle,
    Sweep,
    Turn,
    Verdict,
)
from guardrails.ports import Store
from guardrails.stores import open_store
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.codec import keys
from guardrails.testing import FakeClock
from guardrails.testing.conformance import CENT, NOW_MS, charging, reserve, settle
from tests.servers.processes import Cluster, Server
from tests.servers.proxy import Fault, Proxy, always, mix
from tests.servers.waiting import until
from tests.stores.running import SESSION, SHARED, Run, account, ainsist, insist, runner

# --- The network loses what it carries --------------------------------------

LOSSES = {
    Fault.CLOSE: 0.06,
    Fault.DROP_REPLY: 0.08,
    Fault.RESET: 0.04,
    Fault.DROP_REQUEST: 0.004,
}
"""Waiting in vain for a reply takes a quarter of a second, so that one is rare."""


@pytest.mark.parametrize(
    ("faults", "pairs"),
    [(60, 100), pytest.param(500, 1_500, marks=pytest.mark.soak)],
)
@pytest.mark.parametrize("way", ["thread", "turns", "tasks"])
def test_lost_requests_and_replies_are_counted_once(
    server: Server, way: str, faults: int, pairs: int
) -> None:
    """Every total is exact, although no client knows which calls were booked."""
    to = charging()
    costs: list[int] = []
    with (
        Proxy(server.port, mix(1, LOSSES)) as proxy,
        closing(open_store(proxy.url)) as store,
    ):

        def go_on() -> Iterator[int]:
            for number in itertools.count():
                lost = sum(proxy.faults[fault] for fault in LOSSES)
                if number >= pairs and lost >= faults:
                    return
                costs.append(number % 7)
                yield number

        numbers = go_on()
        match way:
            case "tasks":
                asyncio.run(_tasks(store, numbers, 8))
            case "turns":
                _turns(store, numbers)
            case _:
                for number in numbers:
                    insist(store, reserve(f"{number}", to))
                    insist(store, settle(f"{number}", to, cost=number % 7))

    assert len(costs) < 50 * pairs
    _check_exact(server.url, costs)


def _turns(store: Store, numbers: Iterator[int]) -> None:
    to = charging()
    ended: Settle | None = None
    for number in numbers:
        begins = reserve(f"{number}", to)
        insist(store, Turn(settle=ended, reserve=begins) if ended else begins)
        ended = settle(f"{number}", to, cost=number % 7)
    assert ended is not None
    insist(store, ended)


async def _tasks(store: Store, numbers: Iterator[int], tasks: int) -> None:
    to = charging()

    async def work() -> None:
        for number in numbers:
            await ainsist(store, reserve(f"{number}", to))
            await ainsist(store, settle(f"{number}", to, cost=number % 7))

    await asyncio.gather(*(work() for _ in range(tasks)))


def _check_exact(url: str, costs: list[int]) -> None:
    """Compares both accounts and the history with what was done."""
    with closing(open_store(url)) as store:
        accounts = [account(store, key) for key in (SESSION, SHARED)]
        events = store.history.events(
            project_id="default", session_id="s", limit=len(costs) + 1
        )
    for one in accounts:
        assert (one.steps, one.model_calls) == (len(costs), len(costs))
        assert (one.posted_nano_usd, one.posted_tokens) == (sum(costs), 10 * len(costs))
        assert (one.held_nano_usd, one.held_tokens) == (0, 0)
        assert one.unconfirmed_nano_usd == 0
    ids = [event.event_id for event in events]
    assert sorted(ids) == sorted(str(number) for number in range(len(costs)))


def test_an_earlier_reply_that_is_read_later_changes_no_totals(server: Server) -> None:
    """An outage goes on from them: they would lack what another thread holds."""
    with closing(RedisStore(server.url)) as store:
        earlier = store._steps(reserve("1", charging()))
        reply = store.client.call(*next(earlier))
        store.execute(reserve("2", charging()))
        with suppress(StopIteration):
            earlier.send(reply)
        seen = store.last_seen(SHARED)

    assert seen is not None
    assert (seen.steps, seen.held_nano_usd) == (2, 2 * CENT)


def test_a_loss_is_noticed_once(server: Server) -> None:
    """Replies of before, and to calls of before, are read when others know of it."""
    with closing(RedisStore(server.url)) as store:
        for hold_id in ("1", "2"):
            store.execute(reserve(hold_id, charging()))
        admitted = store._steps(reserve("3", charging()))
        reply = store.client.call(*next(admitted))
        refused = store._steps(reserve("4", charging()))
        call = next(refused)
        server.ask("FLUSHALL")
        refusal = store.client.call(*call)
        for hold_id in ("5", "6"):
            store.execute(reserve(hold_id, charging()))
        with suppress(StopIteration):
            admitted.send(reply)
        again = refused.send(refusal)
        with suppress(StopIteration):
            refused.send(store.client.call(*again))
        found = account(store)

        assert store.rollbacks == 1
        assert found.steps == 3


def test_losses_are_said_once_a_minute_per_project(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """As where keys are evicted: with every call something is lost."""
    clock = FakeClock()

    def lose(times: int, project_id: str = "default") -> list[str]:
        caplog.clear()
        usual = charging()
        lines = [
            replace(line, account=line.account.replace("default", project_id))
            for line in usual.lines
        ]
        who = replace(usual, lines=tuple(lines))
        for number in range(times):
            for again in "ab":
                store.execute(reserve(f"{project_id} {number}{again}", who))
            server.ask("FLUSHALL")
            store.execute(reserve(f"{project_id} {number}", who))
        return [one.getMessage() for one in caplog.records]

    with closing(RedisStore(server.url, clock=clock)) as store:
        first = lose(20)
        other = lose(1, "other")
        clock.advance(seconds=60)
        later = lose(3)
        rollbacks = store.rollbacks

    assert rollbacks == 20 + 1 + 3 + 1  # A server is flushed for all projects.
    assert ["{default}" in text for text in first] == [True]
    assert ["{other}" in text for text in other] == [True]
    assert [text.split("evicts keys: ")[1] for text in later] == [
        "19 more such losses since this was last said."
    ]


# --- A slot moves -----------------------------------------------------------


def test_a_slot_that_moves_under_load_loses_nothing(cluster: Cluster) -> None:
    """There and back, while threads and tasks use it; and one store that does not
    know of it yet is told where to go."""
    slot = key_slot(b"gr:{default}:")
    home = cluster.holder(slot)
    away = next(node for node in cluster.nodes if node is not home)
    is_over = threading.Event()
    costs: list[int] = []
    numbers = itertools.count()

    def go_on() -> Iterator[int]:
        while not is_over.is_set():
            number = next(numbers)
            costs.append(number % 7)
            yield number

    def work() -> None:
        for number in go_on():
            insist(store, reserve(f"{number}", to))
            insist(store, settle(f"{number}", to, cost=number % 7))

    to = charging()
    with (
        closing(open_store(cluster.url)) as store,
        closing(open_store(cluster.url)) as idle,
    ):
        threads = [
            threading.Thread(target=work),
            threading.Thread(target=lambda: asyncio.run(_tasks(store, go_on(), 2))),
        ]
        for thread in threads:
            thread.start()
        try:
            for source, target in ((home, away), (away, home)):
                enough = len(costs) + 100
                until(lambda enough=enough: len(costs) >= enough, "the load")
                idle.execute(ReadAccount(account=SESSION))
                cluster.move(slot, source=source, target=target)
                idle.execute(ReadAccount(account=SESSION))
        finally:
            is_over.set()
            for thread in threads:
                thread.join()

    _check_exact(cluster.url, costs)


def test_a_sweep_that_meets_a_moving_slot_changes_nothing(cluster: Cluster) -> None:
    """Its accounts are no keys that it names: one of them is elsewhere already."""
    slot = key_slot(b"gr:{default}:")
    home = cluster.holder(slot)
    away = next(node for node in cluster.nodes if node is not home)
    expired = Sweep(now_ms=NOW_MS + 86_400_000)
    with closing(RedisStore(cluster.url)) as store:
        for hold_id in ("unconfirmed", "open"):
            store.execute(reserve(hold_id, charging()))
            if hold_id == "unconfirmed":  # So that all keys are there that it names.
                store.execute(expired)
        with cluster.moving(slot, source=home, target=away) as move:
            move(keys.account_of(SHARED))
            with pytest.raises(StoreUnavailable, match="being moved"):
                store.execute(expired)
        cluster.move(slot, source=away, target=home)
        found = [account(store, key) for key in (SESSION, SHARED)]
        store.execute(expired)
        swept = [account(store, key) for key in (SESSION, SHARED)]

    assert [one.held_nano_usd for one in found] == [CENT, CENT]
    assert [one.unconfirmed_nano_usd for one in swept] == [2 * CENT, 2 * CENT]


def test_a_sweep_goes_on_past_holds_that_the_server_has_lost(server: Server) -> None:
    """Eviction takes one key and leaves another. A sweep that failed for it would be
    an outage in each process, every few hundred calls, for ever."""
    with closing(RedisStore(server.url)) as store:
        store.execute(reserve("1", charging()))
        server.ask("DEL", "gr:{default}:holds")
        store.execute(reserve("2", charging()))
        swept = [store.execute(Sweep(now_ms=NOW_MS + 1_000)) for _ in "12"]
        found = account(store)

    assert [one.unconfirmed for one in swept] == [1, 0]
    assert found.unconfirmed_nano_usd == CENT
    assert server.ask("ZCARD", "gr:{default}:due") == 0


def test_holds_expire_whose_list_the_server_has_lost(server: Server) -> None:
    """Without it they would be held for ever, and their part of a limit with them."""
    with closing(RedisStore(server.url)) as store:
        store.execute(reserve("1", charging()))
        server.ask("DEL", "gr:{default}:due")
        store.execute(reserve("2", charging()))
        swept = [store.execute(Sweep(now_ms=NOW_MS + 1_000)) for _ in "12"]
        found = account(store)

    assert [one.unconfirmed for one in swept] == [2, 0]
    assert (found.held_nano_usd, found.unconfirmed_nano_usd) == (0, 2 * CENT)


def test_nothing_is_forgotten_by_halves_while_a_slot_moves(cluster: Cluster) -> None:
    """What is elsewhere already would be taken for gone, and the rest for all."""
    slot = key_slot(b"gr:{default}:")
    home = cluster.holder(slot)
    away = next(node for node in cluster.nodes if node is not home)

    def forget(store: RedisStore) -> int:
        done = store.keeper.forget(
            project_id="default", customer_id="acme", now_ms=NOW_MS, is_dry_run=False
        )
        return done.rollups

    with closing(RedisStore(cluster.url)) as store:
        store.execute(settle("h", charging()))
        with cluster.moving(slot, source=home, target=away) as move:
            move(keys.version("gr:{default}:"))
            with pytest.raises(StoreUnavailable, match="being moved"):
                forget(store)
        forgotten = forget(store)
        cluster.move(slot, source=away, target=home)
        (spend,) = store.history.spend(
            project_id="default", by="customer_id", since_ms=NOW_MS, until_ms=NOW_MS
        )

    assert forgotten == 1
    assert (spend.name, spend.steps) == (None, 1)


# --- The process forks ------------------------------------------------------

CONTEXT = multiprocessing.get_context("fork")
CHILDREN = 8
CALLS = 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_busy_store_is_shared_with_forked_children(server: Server) -> None:
    """No process reads another's reply, and none hangs."""
    family = CONTEXT.Process(target=_family, args=(server.url,))
    family.start()
    family.join(45)
    is_over = not family.is_alive()
    family.kill()
    family.join()

    assert is_over, "it hangs"
    assert family.exitcode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of Python 3.12, of forks.
def test_a_fork_waits_for_a_thread_that_reads_a_reply(server: Server) -> None:
    """The child would wait for ever: it has no such thread."""
    with closing(RedisStore(server.url)) as store:
        is_reading, is_over = threading.Event(), threading.Event()

        def read() -> None:
            with store._lock:
                is_reading.set()
                is_over.wait(MOMENT_SECONDS)

        reading = threading.Thread(target=read)
        reading.start()
        is_reading.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            store.execute(reserve("h", charging()))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        reading.join()

    assert status == 0


MOMENT_SECONDS = 0.1
"""How long a thread reads here; a fork takes less."""


def _family(url: str) -> None:
    # Python 3.12 warns of what this test is about.
    warnings.simplefilter("ignore", DeprecationWarning)
    store = open_store(url)
    is_over = threading.Event()
    done = [0] * 4

    def work(number: int) -> None:
        with runner(is_async=number == 3) as run:
            while not is_over.is_set():
                _checked_call(store, f"thread {number}", done[number], run)
                done[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(done))]
    for thread in threads:
        thread.start()
    until(lambda: all(done), "every thread to work")
    children = [_forked(store, number) for number in range(CHILDREN)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    is_over.set()
    for thread in threads:
        thread.join()
    assert statuses == [0] * CHILDREN
    assert account(store, SHARED).steps == sum(done) + CHILDREN * CALLS
    assert account(store, SHARED).held_nano_usd == 0
    store.close()


def _forked(store: Store, number: int) -> int:
    child = os.fork()
    if child:
        return child
    signal.alarm(30)
    status = 1
    try:
        with runner(is_async=number % 2 == 1) as run:
            for done in range(CALLS):
                _checked_call(store, f"child {number}", done, run)
        store.close()
        status = 0
    except Exception:  # noqa: BLE001 - the parent sees the status
        traceback.print_exc()
    finally:
        os._exit(status)


def _checked_call(store: Store, name: str, done: int, run: Run) -> None:
    """Makes a call and asks for its session's account: the reply must be of it."""
    to = charging(session=name)
    key = to.lines[0].account
    reply = run(store, reserve(f"{name}/{done}", to))
    assert isinstance(reply, Reserved), reply
    assert reply.verdict is Verdict.ALLOW
    run(store, settle(f"{name}/{done}", to, cost=done))
    found = run(store, ReadAccount(account=key))
    assert isinstance(found, Account), found
    assert (found.key, found.steps) == (key, done + 1)
    assert found.posted_nano_usd == sum(range(done + 1))


# --- Tasks are cancelled ----------------------------------------------------

TASKS = 200


def _answers(guard: Guard) -> bool:
    """Whether the store is there, and has been told of all that happened without it."""
    try:
        guard.account("shared")
    except StoreUnavailable:
        return False
    return True


async def test_tasks_cancelled_while_the_network_is_slow_hold_nothing(
    server: Server,
) -> None:
    """At whatever point: what was admitted is booked or given back."""
    dice = random.Random(1)
    entered = 0
    with (
        Proxy(server.port, always(Fault.DELAY)) as proxy,
        closing(open_store(proxy.url)) as store,
        closing(Guard({}, store=store)) as guard,
    ):

        async def work(seconds_inside: float) -> None:
            nonlocal entered
            async with (
                guard.session(session_id="shared"),
                guard.call(
                    model="gpt-4o",
                    provider="openai",
                    input_tokens=4_000,
                    max_output_tokens=0,
                ) as call,
            ):
                entered += 1
                await asyncio.sleep(seconds_inside)
                call.settle(TokenUsage(input_tokens=1_000))

        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(work(dice.uniform(0, 0.02))) for _ in range(TASKS)]
        for number, task in enumerate(tasks):
            if number % 4:
                loop.call_later(dice.uniform(0, (0.03, 0.4)[number % 2]), task.cancel)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        # A busy machine may take so long that the store counted as lost meanwhile.
        await asyncio.to_thread(until, lambda: _answers(guard), "the store's answer")
        found = await asyncio.to_thread(guard.account, "shared")

    assert found is not None
    assert (found.held_nano_usd, found.held_tokens) == (0, 0)
    assert found.steps == entered
    assert {type(end) for end in ended} == {asyncio.CancelledError, type(None)}
    assert not guard.engine.failures
