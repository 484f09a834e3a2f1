"""One budget and many workers: threads, tasks and processes, never over the limit.

Every call costs one cent and the budget is twenty, so exactly twenty calls may be
made. Beside each of them a control does what people write first, checks and then
charges, and shows that the same workers do pass the limit then.
"""

import asyncio
import contextlib
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
        except BaseException as error:
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

WORKER = """
import sys
from decimal import Decimal
from guardrails import CallRefused, Guard, SessionStopped, TokenUsage

store, limit = sys.argv[1:]
guard = Guard({}, store=store, max_cost_usd=limit or None)

def call():
    with guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    ) as call:
        call.settle(TokenUsage(input_tokens=4_000))

def answer(text):
    print(text, flush=True)

with guard.session(session_id="shared") as session:
    answer("ready")
    for order in sys.stdin:
        made = 0
        if order == "ask\\n":
            answer(session.spent)
            continue
        for _ in range(int(order)):
            try:
                call()
                made += 1
            except (SessionStopped, CallRefused):
                pass
        answer(made)
guard.close()
"""


class Worker:
    """A process that makes calls when it is told to."""

    def __init__(self, store: Path, *, limit: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, f"sqlite:///{store}", limit],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def order(self, order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate(timeout=SECONDS_MAX)
        assert self._process.returncode == 0


@contextlib.contextmanager
def processes(store: Path, *, limit: str) -> Iterator[list[Worker]]:
    workers = [Worker(store, limit=limit) for _ in range(PROCESSES)]
    try:
        assert [worker.answer() for worker in workers] == ["ready"] * PROCESSES
        yield workers
    finally:
        for worker in workers:
            worker.end()


def together(workers: list[Worker], order: object) -> list[str]:
    """Gives all the same order, then waits for their answers."""
    for worker in workers:
        worker.order(order)
    return [worker.answer() for worker in workers]


def test_processes_make_exactly_the_calls_that_the_budget_pays_for(
    tmp_path: Path,
) -> None:
    with processes(tmp_path / "ledger.sqlite3", limit=LIMIT) as workers:
        made = together(workers, 10)

    assert sum(map(int, made)) == CALLS_PAID_FOR


def test_processes_that_check_and_then_charge_pass_the_limit(tmp_path: Path) -> None:
    with processes(tmp_path / "ledger.sqlite3", limit="") as workers:
        while any(
            checked := [Decimal(it) < Decimal(LIMIT) for it in together(workers, "ask")]
        ):
            may_call = [
                worker for worker, ok in zip(workers, checked, strict=True) if ok
            ]
            together(may_call, 1)
        spent_at_last = Decimal(together(workers, "ask")[0])

    assert spent_at_last == Decimal("0.24") > Decimal(LIMIT)


FORKING = """
import os, sys
from guardrails import Guard, SessionStopped, TokenUsage

guard = Guard({}, store=sys.argv[1], max_cost_usd="0.20")

def calls(count):
    made = 0
    for _ in range(count):
        try:
            with guard.call(
                model="gpt-4o", provider="openai", input_tokens=4_000,
                max_output_tokens=0,
            ) as call:
                call.settle(TokenUsage(input_tokens=4_000))
            made += 1
        except SessionStopped:
            pass
    return made

with guard.session(session_id="shared") as session:
    made = calls(5)
    child = os.fork()
    if child == 0:
        os._exit(calls(5))
    in_parent = calls(5)
    in_child = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(made, in_child, in_parent, calls(10), session.spent, guard.engine.failures)
guard.close()
"""


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="needs fork")
def test_a_guard_goes_on_in_both_processes_after_a_fork(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKING, f"sqlite:///{tmp_path}/ledger.sqlite3"],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )

    assert ended.stdout.split() == ["5", "5", "5", "5", "0.20", "0"]
