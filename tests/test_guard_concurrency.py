"""One budget and many workers: threads, tasks and processes, never over the limit.

Every call costs one cent and the budget is twenty, so exactly twenty calls may be
made. Beside each of them a control does what people write first, checks and then
charges, and shows that the same workers do pass the limit then.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from guardrails import (
    CallRefused,
    Guard,
    GuardedCall,
    Session,
    SessionStopped,
    TokenUsage,
)
from guardrails.ports import Store
from guardrails.stores import open_store

WORKERS = 50
PROCESSES = 8
LIMIT = "0.20"
CALLS_PAID_FOR = 20

SECONDS_MAX = 30
"""After this a worker that waits for others gives up, and the test fails."""

ONE_CENT = TokenUsage(input_tokens=4_000)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    urls = {"memory": "memory://", "sqlite": tmp_path / "ledger.sqlite3"}
    store = open_store(urls[request.param])
    yield store
    store.close()


def one_cent(guard: Guard) -> GuardedCall:
    return guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    )


def in_threads(work: Callable[[], None], *, workers: int = WORKERS) -> None:
    """Runs the same work in many threads that start together."""
    start = threading.Barrier(workers)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            start.wait(SECONDS_MAX)
            work()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def spent(store: Store) -> Decimal:
    guard = Guard({}, store=store)
    return guard.session(session_id="shared").spent


# --- threads ----------------------------------------------------------------


def test_threads_make_exactly_the_calls_that_the_budget_pays_for(
    store: Store,
) -> None:
    guard = Guard({}, store=store, max_cost_usd=LIMIT)
    in_flight = threading.Barrier(CALLS_PAID_FOR)
    made: list[None] = []

    def work() -> None:
        with (
            contextlib.suppress(SessionStopped, CallRefused),
            guard.session(session_id="shared"),
            one_cent(guard) as call,
        ):
            in_flight.wait(SECONDS_MAX)  # All that are admitted run at once.
            made.append(None)
            call.settle(ONE_CENT)

    in_threads(work)

    assert len(made) == CALLS_PAID_FOR
    assert spent(store) == Decimal(LIMIT)
    assert not guard.engine.failures


def test_threads_that_check_and_then_charge_pass_the_limit(store: Store) -> None:
    recorder = Guard({}, store=store)  # Without a limit: it only counts.
    in_flight = threading.Barrier(WORKERS)

    def work() -> None:
        with recorder.session(session_id="shared") as session:
            if session.spent < Decimal(LIMIT):
                in_flight.wait(SECONDS_MAX)
                with one_cent(recorder) as call:
                    call.settle(ONE_CENT)

    in_threads(work)

    assert spent(store) == WORKERS * Decimal("0.01") > Decimal(LIMIT)


def test_threads_without_a_session_share_the_one_of_the_process() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            guard = Guard({}, store="memory://")
            sessions: list[Session] = []
            in_threads(lambda: sessions.append(guard.current_session()), workers=8)  # noqa: B023
            assert len(set(sessions)) == 1
    finally:
        sys.setswitchinterval(interval)


# --- tasks ------------------------------------------------------------------


async def test_tasks_make_exactly_the_calls_that_the_budget_pays_for(
    store: Store,
) -> None:
    guard = Guard({}, store=store, max_cost_usd=LIMIT)
    in_flight = asyncio.Barrier(CALLS_PAID_FOR)
    made: list[None] = []

    async def work() -> None:
        with contextlib.suppress(SessionStopped, CallRefused):
            async with guard.session(session_id="shared"), one_cent(guard) as call:
                await in_flight.wait()
                made.append(None)
                call.settle(ONE_CENT)

    async with asyncio.timeout(SECONDS_MAX):
        await asyncio.gather(*(work() for _ in range(WORKERS)))

    assert len(made) == CALLS_PAID_FOR
    assert spent(store) == Decimal(LIMIT)
    assert not guard.engine.failures


async def test_tasks_that_check_and_then_charge_pass_the_limit(store: Store) -> None:
    recorder = Guard({}, store=store)
    in_flight = asyncio.Barrier(WORKERS)

    async def work() -> None:
        async with recorder.session(session_id="shared") as session:
            if session.spent < Decimal(LIMIT):
                await in_flight.wait()
                async with one_cent(recorder) as call:
                    call.settle(ONE_CENT)

    async with asyncio.timeout(SECONDS_MAX):
        await asyncio.gather(*(work() for _ in range(WORKERS)))

    assert spent(store) == WORKERS * Decimal("0.01") > Decimal(LIMIT)


# --- processes --------------------------------------------------------------

# Tools have no price list to load, which eight processes would do all at once.
WORKER = """
import sys
from guardrails import CallRefused, Guard, SessionStopped

def calls(count):
    made = 0
    for _ in range(count):
        try:
            with guard.call(tool="geocode", cost_usd="0.01"):
                made += 1
        except (SessionStopped, CallRefused):
            pass
    return made
"""

SERVING = f"""{WORKER}
for line in sys.stdin:
    order, *words = line.split()
    if order == "open":
        store, *limit = words
        limit = limit[0] if limit else None
        guard = Guard({{}}, store=store, max_cost_usd=limit)
        session = guard.session(session_id="shared").__enter__()
        answer = "opened"
    elif order == "spent":
        answer = session.spent
    elif order == "call":
        answer = calls(int(words[0]))
    else:
        session.__exit__(None, None, None)
        guard.close()
        answer = "closed"
    print(answer, flush=True)
"""


class Worker:
    """A process that does what it is told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def order(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate(timeout=SECONDS_MAX)


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    workers = [Worker() for _ in range(PROCESSES)]
    yield workers
    for worker in workers:
        worker.end()


def together(workers: list[Worker], order: str) -> list[str]:
    """Gives all the same order, then waits for their answers."""
    for worker in workers:
        worker.order(order)
    return [worker.answer() for worker in workers]


def test_processes_make_exactly_the_calls_that_the_budget_pays_for(
    workers: list[Worker], tmp_path: Path
) -> None:
    together(workers, f"open sqlite:///{tmp_path}/ledger.sqlite3 {LIMIT}")
    made = together(workers, "call 10")
    spent = together(workers, "spent")
    together(workers, "close")

    assert sum(map(int, made)) == CALLS_PAID_FOR
    assert set(spent) == {LIMIT}


def test_processes_that_check_and_then_charge_pass_the_limit(
    workers: list[Worker], tmp_path: Path
) -> None:
    def may_call() -> list[Worker]:
        spent = together(workers, "spent")
        return [
            worker
            for worker, usd in zip(workers, spent, strict=True)
            if Decimal(usd) < Decimal(LIMIT)
        ]

    together(workers, f"open sqlite:///{tmp_path}/ledger.sqlite3")
    while checked := may_call():
        together(checked, "call 1")
    spent = together(workers, "spent")
    together(workers, "close")

    assert set(spent) == {"0.24"}


FORKING = f"""{WORKER}
import os

guard = Guard({{}}, store=sys.argv[1], max_cost_usd="{LIMIT}")
with guard.session(session_id="shared") as session:
    before = calls(5)
    child = os.fork()
    if child == 0:
        os._exit(calls(5))
    in_parent = calls(5)
    in_child = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(before, in_child, in_parent, calls(10), session.spent)
guard.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_guard_goes_on_in_both_processes_after_a_fork(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKING, f"sqlite:///{tmp_path}/ledger.sqlite3"],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )

    assert ended.stdout.split() == ["5", "5", "5", "5", LIMIT]


HALTING = """
import os, signal, sys, threading, warnings
from guardrails import Guard
from guardrails.system.clock import SystemClock

class Halting(SystemClock):
    at = None
    def monotonic_ms(self):
        if threading.current_thread() is self.at:
            has_come.set()
            may_go.wait()
        return super().monotonic_ms()

has_come, may_go = threading.Event(), threading.Event()
clock = Halting()
guard = Guard({}, store=sys.argv[1], clock=clock, max_cost_usd="1")
session = guard.session(session_id="shared")
def call():
    with guard.call(tool="geocode", cost_usd="0.10"):
        pass
with session:
    call()
    clock.at = threading.Thread(target=session.pause)  # It asks how late it is.
    clock.at.start()
    has_come.wait()
    warnings.simplefilter("ignore", DeprecationWarning)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        session.activate()
        call()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    may_go.set()
    clock.at.join()
    call()
    print(status, session.spent)
guard.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_a_thread_has_a_session_locked_blocks_no_child(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HALTING, f"sqlite:///{tmp_path}/ledger.sqlite3"],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )

    assert ended.stdout.split() == ["0", "0.30"], ended.stderr


ASKING = """
import os, signal, sys, threading, warnings
from guardrails import Guard
from guardrails.stores.memory import MemoryStore

class Slow(MemoryStore):
    asker = None
    def execute(self, operation):
        if threading.current_thread() is self.asker and not has_asked.is_set():
            has_asked.set()
            may_go.wait()
        return super().execute(operation)

has_asked, may_go = threading.Event(), threading.Event()
store = Slow()
guard = Guard({}, store=store)
done = []
def call():
    with guard.session(), guard.call(tool="geocode"):
        done.append("call")
store.asker = threading.Thread(target=call)
store.asker.start()
has_asked.wait()
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    signal.alarm(20)
    thread = threading.Thread(target=call)  # It has the id of the other.
    thread.start()
    thread.join()
    os._exit(len(done))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
may_go.set()
store.asker.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_thread_of_a_forked_child_is_not_taken_for_one_of_the_parent() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ASKING],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )

    assert ended.stdout.split() == ["1"], ended.stderr
