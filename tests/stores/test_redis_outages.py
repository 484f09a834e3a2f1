"""A Redis that is away, or comes back without what it had: what that costs a fleet."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ctypes import Array, c_double, c_long
from dataclasses import dataclass, field
from decimal import Decimal
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from redis.crc import key_slot

from guardrails import (
    BudgetExceeded,
    CallRefused,
    Guard,
    SessionStopped,
    StoreUnavailable,
)
from guardrails.core.attribution import Attribution
from guardrails.core.lines import account_key
from guardrails.core.money import nano_usd
from guardrails.core.operations import ReadAccount
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.core.windows import Window
from guardrails.stores import journal_folder, open_store
from guardrails.stores.resilient.outage import SHARE
from guardrails.system.clock import SystemClock
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Cluster, Group, Server
from tests.servers.proxy import Fault, Proxy, always
from tests.servers.waiting import until
from tests.stores.running import CONTEXT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FIRST = next(iter(BINARIES.values()))

PRICE_USD = "0.001"
PRICE = nano_usd(PRICE_USD, name="price")
PLENTY_USD = "1000"

ALL = account_key(Attribution(), per=(), every=Window.TOTAL, now_ms=0)
"""The account of the budget that all share."""

PAUSE_SECONDS = 0.002
"""Between two calls: what a model call would take, made short."""

CALL_SECONDS_MAX = 0.5
"""How much longer one call may take because the store does not answer."""

SLACK_SECONDS = 0.5
"""What a busy machine may add."""

RECOVERY_SECONDS = 30.0


@dataclass
class Fleet:
    """Processes that make calls until they are told to end."""

    url: str
    processes: int
    policy: str = "local"
    limit_usd: str = PLENTY_USD
    is_over: Event = field(default_factory=CONTEXT.Event)
    workers: list[BaseProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.billed: Array[c_long] = CONTEXT.RawArray(c_long, self.processes)
        """Calls that each process has made: the provider's bill."""
        self.slowest: Array[c_double] = CONTEXT.RawArray(c_double, self.processes)
        """Seconds that the slowest guarded call of each has taken."""
        self.slow: Array[c_long] = CONTEXT.RawArray(c_long, self.processes)
        """Calls of each that took longer than half of what one may."""

    @property
    def calls(self) -> int:
        return sum(self.billed)

    def work(self, number: int) -> None:
        guard = Guard(
            {
                "budgets": [
                    {
                        "name": "all",
                        "per": [],
                        "every": "total",
                        "max_cost_usd": self.limit_usd,
                    }
                ]
            },
            store=self.url,
            on_store_error=self.policy,
        )
        with guard.session(session_id=f"{number}"):
            while not self.is_over.wait(PAUSE_SECONDS):
                started = time.perf_counter()
                try:
                    with guard.call(tool="t", cost_usd=PRICE_USD):
                        self.billed[number] += 1
                except (SessionStopped, CallRefused):
                    pass
                seconds = time.perf_counter() - started
                self.slowest[number] = max(self.slowest[number], seconds)
                self.slow[number] += seconds > CALL_SECONDS_MAX / 2
        until(
            lambda: not guard.store.is_degraded and guard.store.waiting == 0,
            "all to be booked",
            seconds=RECOVERY_SECONDS,
        )
        guard.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        self.workers = [
            CONTEXT.Process(target=self.work, args=(number,))
            for number in range(self.processes)
        ]
        for worker in self.workers:
            worker.start()
        try:
            yield
        finally:
            self.is_over.set()
            for worker in self.workers:
                worker.join()

    def wait_for(self, calls: int) -> None:
        enough = self.calls + calls
        until(lambda: self.calls >= enough, "the load", seconds=RECOVERY_SECONDS)

    def check_booked(self) -> None:
        """What was billed is in the ledger, once, and nothing is held."""
        assert [worker.exitcode for worker in self.workers] == [0] * self.processes
        drain(self.url)
        now_ms = SystemClock().now_ms()
        with closing(open_store(self.url)) as store:
            account = store.execute(ReadAccount(account=ALL))
            spent = store.history.spend(
                project_id="default",
                by="tool",
                since_ms=now_ms - HOUR_MS,
                until_ms=now_ms,
            )
        assert account is not None
        assert account.posted_nano_usd == self.calls * PRICE
        assert (account.steps, account.held_nano_usd) == (self.calls, 0)
        assert [one.tool_calls for one in spent] == [self.calls]


def drain(url: str) -> None:
    """Starts the next process of this machine: it adopts what others left."""
    with closing(Guard({}, store=url)):
        # Our own stays while the store may lose what it has acknowledged.
        own = f"-{os.getpid()}-"
        until(
            lambda: all(
                own in path.name for path in journal_folder().glob("*.sqlite3")
            ),
            "adoption",
            seconds=2 * RECOVERY_SECONDS,
        )


def small_or_large(small: object, large: object) -> Callable[[Callable], Callable]:
    """Runs with a few processes by default, with many in the soak."""
    return pytest.mark.parametrize(
        ("processes", "seconds"), [small, pytest.param(*large, marks=pytest.mark.soak)]
    )


# --- away -------------------------------------------------------------------


@pytest.mark.timeout(120)
@pytest.mark.parametrize("policy", ["closed", "local", "open"])
@small_or_large((4, 1.0), (16, 3.0))
def test_an_outage_keeps_the_bound_of_its_policy(
    policy: str, processes: int, seconds: float
) -> None:
    """It hangs, which is worse than being down: nobody is refused at once.

    The outage begins with four fifths of the budget used.
    """
    limit_calls = 1_000
    fleet = Fleet(
        url="", processes=processes, policy=policy, limit_usd=f"{limit_calls / 1000}"
    )
    with Server(FIRST) as server:
        fleet.url = server.url
        with fleet.running():
            until(lambda: fleet.calls >= limit_calls * 4 // 5, "the load")
            server.pause()
            at_first = fleet.calls
            CONTEXT.Event().wait(seconds)
            during = fleet.calls - at_first
            server.proceed()
        fleet.check_booked()

    bound = {
        "closed": limit_calls,
        "local": limit_calls + processes * limit_calls // SHARE,
        "open": at_first + during + processes,
    }[policy]
    assert fleet.calls <= bound
    # The calls that were open when it hung, and for each process one more.
    assert during <= 2 * processes if policy == "closed" else during > processes
    assert max(fleet.slowest) <= CALL_SECONDS_MAX + SLACK_SECONDS
    assert max(fleet.slow) <= 2  # One waits for the store; the machine may be busy.


@pytest.mark.timeout(120)
def test_a_server_that_is_down_at_the_start_of_a_call_is_not_asked_again(
    server: Server,
) -> None:
    """Later calls are answered from here, in the time of a local call."""
    guard = Guard({}, store=server.url, max_cost_usd="10")
    with guard.session():
        with guard.call(tool="t", cost_usd=PRICE_USD):
            pass
        server.kill()
        try:
            for _ in range(50):
                with guard.call(tool="t", cost_usd=PRICE_USD):
                    pass
            asked = guard.store.degraded_operations
        finally:
            server.start()
        until(lambda: not guard.store.is_degraded, "the recovery")
        # The server kept nothing, and is told again what it had acknowledged.
        until(lambda: len(guard.current_session().events()) == 51, "the events")
    guard.close()

    assert asked >= 100


@pytest.mark.parametrize("policy", ["local", "open"])
def test_an_agent_starts_while_the_server_is_down(server: Server, policy: str) -> None:
    """Both are often started at once, after a deployment or a power cut."""
    server.kill()
    try:
        started = time.perf_counter()
        guard = Guard(
            {}, store=server.url, max_cost_usd=PRICE_USD, on_store_error=policy
        )
        seconds = time.perf_counter() - started
        session = guard.session(session_id="s")
        with session, guard.call(tool="t", cost_usd=PRICE_USD):
            pass
    finally:
        server.start()
    until(lambda: not guard.store.is_degraded, "the recovery")

    assert seconds <= CALL_SECONDS_MAX + SLACK_SECONDS
    assert session.spent == Decimal(PRICE_USD)
    assert len(session.events()) == 1
    guard.close()


def test_where_all_is_closed_an_agent_is_told_at_once_that_the_server_is_down(
    server: Server,
) -> None:
    server.kill()
    try:
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable) as away:
            Guard({}, store=server.url, on_store_error="closed")
        seconds = time.perf_counter() - started
    finally:
        server.start()

    assert f"redis {server.url!r}: ConnectionError." in str(away.value)
    assert seconds <= CALL_SECONDS_MAX + SLACK_SECONDS


def test_a_limit_that_somebody_else_has_raised_holds_in_an_outage(
    server: Server,
) -> None:
    """An operator has raised it from another machine, and the agent went on since."""
    guard, operator = [
        Guard({}, store=server.url, max_cost_usd=PRICE_USD) for _ in range(2)
    ]
    with guard.session(session_id="s"):
        with guard.call(tool="t", cost_usd=PRICE_USD):
            pass
        operator.raise_limit("s", max_cost_usd=f"{4 * Decimal(PRICE_USD)}")
        operator.close()
        with guard.call(tool="t", cost_usd=PRICE_USD):
            pass
        server.kill()
        try:
            for _ in range(2):
                with guard.call(tool="t", cost_usd=PRICE_USD):
                    pass
            with pytest.raises(BudgetExceeded) as stop:
                guard.call(tool="t", cost_usd=PRICE_USD).reserve()
        finally:
            server.start()
    until(lambda: not guard.store.is_degraded, "the recovery")
    guard.close()

    assert stop.value.allowed == 4 * Decimal(PRICE_USD)


# --- back without what it had -----------------------------------------------


@pytest.mark.timeout(180)
@small_or_large((2, 1), (8, 10))
def test_a_power_cut_loses_nothing_that_was_paid(processes: int, seconds: int) -> None:
    """`appendfsync everysec` loses what the disk had not yet got: the log is cut off
    where it was a moment ago, and the journals bring it back."""
    with Server(FIRST, appendonly="yes", appendfsync="everysec") as server:
        fleet = Fleet(url=server.url, processes=processes)
        with fleet.running():
            for _ in range(seconds):  # So many power cuts.
                log = _log_of(server)
                grows_by(log, 10_000)
                on_disk = log.stat().st_size
                grows_by(log, CUT_BYTES)
                server.kill()
                os.truncate(log, on_disk)
                server.start()
            grows_by(log, 10_000)
        fleet.check_booked()


CUT_BYTES = 50_000
"""Of the log that a power cut loses: some dozens of calls."""


def grows_by(log: Path, size_bytes: int) -> None:
    enough = log.stat().st_size + size_bytes
    until(lambda: log.stat().st_size >= enough, "the log to grow")


def _log_of(server: Server) -> Path:
    """Returns the part of the append-only file that grows."""
    (log,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    return log


@pytest.mark.timeout(180)
@small_or_large((2, 1), (8, 3))
def test_a_lagging_replica_that_takes_over_loses_nothing_that_was_paid(
    processes: int, seconds: int
) -> None:
    """The link of the replica hangs, the master dies, and the replica is promoted
    without the last calls: the journals bring them back."""
    for _ in range(seconds):
        with Group(FIRST) as group, Proxy(group.master.port) as link:
            group.replica.ask("REPLICAOF", "127.0.0.1", link.port)
            until(lambda group=group: _is_in_step(group.replica), "the replica")
            fleet = Fleet(url=group.url, processes=processes)
            with fleet.running():
                fleet.wait_for(100)
                link.play(always(Fault.BLACK_HOLE))
                until(lambda link=link: link.faults[Fault.BLACK_HOLE], "the stall")
                fleet.wait_for(200)
                # Before it is promoted: from then on it is told what it lacks.
                lost = _events(group.master) - _events(group.replica)
                group.fail_over()
                fleet.wait_for(100)
            fleet.check_booked()
        assert lost > 50


def _is_in_step(replica: Server) -> bool:
    return replica.ask("INFO", "replication")["master_link_status"] == "up"


def _events(server: Server) -> int:
    return server.ask("XLEN", "gr:{default}:events")


@pytest.mark.parametrize("begun_by", ["this version", "an earlier one"])
def test_an_idle_process_tells_a_server_again_what_it_lost(
    server: Server, begun_by: str
) -> None:
    """Somebody has flushed it, and others have gone on since: they count more changes
    by now than there were before."""
    if begun_by == "an earlier one":  # It counted from 1.
        server.ask("SET", VERSION, 40)
    idle, busy = [Guard({}, store=server.url) for _ in range(2)]
    with idle.session(session_id="idle") as session:
        with idle.call(tool="t", cost_usd=PRICE_USD):
            pass
        server.ask("FLUSHALL")
        with busy.session(session_id="busy"):
            for _ in range(50):
                with busy.call(tool="t", cost_usd=PRICE_USD):
                    pass
        with idle.call(tool="t", cost_usd=PRICE_USD):
            pass
        until(lambda: len(session.events()) == 2, "what was lost")
    for guard in (busy, idle):
        guard.close()


VERSION = "gr:{default}:version"


def test_an_idle_process_tells_a_cluster_again_what_it_lost(cluster: Cluster) -> None:
    """Another node has taken the slot over without its last calls, and others have gone
    on since: its version says nothing any more, and nobody was there to redirect."""
    slot = key_slot(b"gr:{default}:")
    home = cluster.holder(slot)
    away = next(node for node in cluster.nodes if node is not home)
    idle, busy = [Guard({}, store=cluster.url) for _ in range(2)]
    with idle.session(session_id="idle") as session:
        with idle.call(tool="t", cost_usd=PRICE_USD):
            pass
        cluster.move(slot, source=home, target=away)
        away.ask("FLUSHALL")
        home.kill()
        try:
            with busy.session(session_id="busy"):
                for _ in range(5):
                    with busy.call(tool="t", cost_usd=PRICE_USD):
                        pass
            until(lambda: not busy.store.is_degraded, "the other process")
            with idle.call(tool="t", cost_usd=PRICE_USD):
                pass
            until(lambda: len(session.events()) == 2, "what was lost")
        finally:
            home.start()
            cluster.wait()
            cluster.move(slot, source=away, target=home)
    for guard in (busy, idle):
        guard.close()
