"""Many processes, one file: never over the limit, and everybody gets a turn."""

import ctypes
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from guardrails.core.accounts import Account, Charging
from guardrails.core.operations import ReadAccount, Reserved, Verdict
from guardrails.core.policy import Limits
from guardrails.stores.sqlite import SQLiteStore
from guardrails.testing.conformance import charging, reserve, settle
from tests.stores import running

PROCESSES = 8
CENT = 10_000_000
CALLS = 20
LIMIT = CALLS * CENT
SESSION = "default/session/session_id=s"

WAIT_SECONDS_MAX = 1.5
"""An operation takes about 0.1 ms, and a store gives up after 2 s."""

CONTEXT = multiprocessing.get_context("fork")
"""Spawned processes would import everything again: eight times half a second."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

Work = Callable[[SQLiteStore, int, Barrier], object]


def test_reserving_keeps_the_limit_that_checking_overshoots(tmp_path: Path) -> None:
    """8 processes at one cent against 20 cents: 20 calls, and not one more.

    The control reads what is spent, then calls, then charges. All read before
    anyone charges, as may always happen, and so it makes 24 calls.
    """
    guarded = together(_reserve_then_call, tmp_path / "reserve.sqlite3")
    naive = together(_check_then_call, tmp_path / "check.sqlite3")

    assert sum(guarded) == CALLS
    assert _session(tmp_path / "reserve.sqlite3").posted_nano_usd == LIMIT
    assert sum(naive) == 3 * PROCESSES > CALLS
    assert _session(tmp_path / "check.sqlite3").posted_nano_usd > LIMIT


def test_threads_of_many_processes_keep_one_limit(tmp_path: Path) -> None:
    """4 processes with 8 threads each, a store per process: 20 calls."""
    file = tmp_path / "ledger.sqlite3"
    calls = together(_reserve_in_threads, file, processes=4)

    assert sum(calls) == CALLS
    assert _session(file).posted_nano_usd == LIMIT
    assert _session(file).held_nano_usd == 0


def test_every_process_gets_its_turn(tmp_path: Path) -> None:
    """8 processes hammer one file: no operation fails or waits for long.

    Without turns, one of them waits while the others do most of their work.
    """
    file = tmp_path / "ledger.sqlite3"
    times = together(_hammer, file)
    slowest_seconds = max(slowest for slowest, _ in times)
    all_seconds = max(whole for _, whole in times)

    assert slowest_seconds < WAIT_SECONDS_MAX
    assert slowest_seconds < all_seconds / 2
    assert _session(file).steps == PROCESSES * HAMMER_CALLS


def test_processes_that_create_one_file_migrate_it_once(tmp_path: Path) -> None:
    """8 processes open the same new files at once: one schema, nothing lost."""
    together(_create_files, tmp_path / "ledger")

    for number in range(FILES):
        assert _session(tmp_path / f"ledger-{number}").steps == PROCESSES


def test_two_stores_of_one_process_lose_nothing_when_another_closes(
    tmp_path: Path,
) -> None:
    """The other must not take itself for the last one, and delete the log."""
    file = tmp_path / "ledger.sqlite3"
    context = multiprocessing.get_context("spawn")  # A fork closes the stores.
    with (
        closing(SQLiteStore(file)) as first,
        closing(SQLiteStore(file)) as second,
        ProcessPoolExecutor(max_workers=1, mp_context=context) as other,
    ):
        first.execute(reserve("1", charging()))
        second.execute(reserve("2", charging()))
        assert other.submit(_reserve_and_close, file, "3").result() == 3
        first.execute(reserve("4", charging()))
        second.execute(reserve("5", charging()))
        assert other.submit(_reserve_and_close, file, "6").result() == 6


def _reserve_and_close(file: Path, hold_id: str) -> int:
    with closing(SQLiteStore(file)) as store:
        store.execute(reserve(hold_id, charging()))
        return running.account(store).steps


@pytest.mark.parametrize("is_in_c", [False, True])
def test_a_forked_child_goes_on_with_a_store_of_its_parent(
    tmp_path: Path, is_in_c: bool
) -> None:
    """Both write, the parent closes, the child writes on: nothing is lost.

    The parent has two stores, of which the child uses one. A server in C forks without
    telling Python, so that both are open then.
    """
    file = tmp_path / "ledger.sqlite3"
    together(_fork_in_c_and_share if is_in_c else _fork_and_share, file, processes=1)

    assert _session(file).steps == 6


def test_a_fork_in_the_middle_of_an_operation_blocks_no_child(tmp_path: Path) -> None:
    """A thread writes without a pause while its process forks."""
    statuses = together(_fork_while_writing, tmp_path / "ledger.sqlite3", processes=1)

    assert statuses == [[0] * FORKS]


@pytest.mark.parametrize("error", ["OSError", "KeyboardInterrupt"])
@pytest.mark.parametrize("step", ["before_fork", "after_fork"])
def test_what_fails_at_a_fork_blocks_no_other(step: str, error: str) -> None:
    """Neither the next fork, nor another store, in the parent or in the child."""
    ended = subprocess.run(
        [sys.executable, "-c", FAILING_AT_FORK, step, error],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert ended.stdout.split() == ["0", "0", "True"], ended.stderr


def test_a_child_that_python_is_told_of_only_afterwards_says_nothing() -> None:
    """A server in C may fork so; each of its workers would print an error."""
    ended = subprocess.run(
        [sys.executable, "-c", TOLD_AFTERWARDS],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert (ended.stdout, ended.stderr) == ("0\n", "")


# --- What the processes do --------------------------------------------------

TOLD_AFTERWARDS = """
import ctypes, os
from guardrails.core.operations import ReadAccount
from guardrails.stores.memory import MemoryStore

store = MemoryStore()
child = ctypes.PyDLL(None).fork()
if child == 0:
    ctypes.pythonapi.PyOS_AfterFork_Child()
    store.execute(ReadAccount(account="default/session/session_id=s"))
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FAILING_AT_FORK = """
import builtins, os, sys, threading
from guardrails.core.operations import ReadAccount
from guardrails.system.forks import close_at_fork
from guardrails.stores.memory import MemoryStore

class Failing:
    def before_fork(self): self.maybe("before_fork")
    def after_fork(self): self.maybe("after_fork")
    def maybe(self, step):
        if step == sys.argv[1]:
            raise getattr(builtins, sys.argv[2])

def are_free():
    "Whether another thread than the one that forked may use them."
    uses = [threading.Thread(target=store.execute, args=(READ,), daemon=True)
            for store in (first, last)]
    for use in uses:
        use.start()
        use.join(5)
    return not any(use.is_alive() for use in uses)

READ = ReadAccount(account="default/session/session_id=s")
first, failing, last = MemoryStore(), Failing(), MemoryStore()
close_at_fork(failing)
for _ in range(2):
    child = os.fork()
    if child == 0:
        os._exit(not are_free())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print(are_free())
"""

FILES = 10
FORKS = 10
HAMMER_CALLS = 150
TRIES_MAX = 10_000


def _reserve_then_call(store: SQLiteStore, number: int, barrier: Barrier) -> int:
    barrier.wait()
    return _call_until_denied(store, f"{number}")


def _reserve_in_threads(store: SQLiteStore, number: int, barrier: Barrier) -> int:
    calls: list[int] = []

    def work(name: str) -> None:
        calls.append(_call_until_denied(store, name))

    threads = [
        threading.Thread(target=work, args=(f"{number}/{thread}",))
        for thread in range(8)
    ]
    barrier.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(calls)


def _call_until_denied(store: SQLiteStore, name: str) -> int:
    calls = 0
    for _ in range(TRIES_MAX):
        hold_id = f"{name}/{calls}"
        reply = store.execute(reserve(hold_id, _limited()))
        assert isinstance(reply, Reserved)
        if reply.verdict is Verdict.DENY:
            return calls
        if reply.verdict is Verdict.ALLOW:
            _make_the_call()
            store.execute(settle(hold_id, _limited()))
            calls += 1
    raise AssertionError("waited in vain for open holds")


def _check_then_call(store: SQLiteStore, number: int, barrier: Barrier) -> int:
    calls = 0
    while True:
        barrier.wait()
        account = store.execute(ReadAccount(account=SESSION))
        barrier.wait()
        if account is not None and account.posted_nano_usd + CENT > LIMIT:
            return calls
        _make_the_call()
        store.execute(settle(f"{number}/{calls}", _limited()))
        calls += 1


def _hammer(store: SQLiteStore, number: int, barrier: Barrier) -> tuple[float, float]:
    """Returns the seconds of the slowest operation, and of all."""
    store.execute(ReadAccount(account=SESSION))  # Opens the file.
    barrier.wait()
    instants = [time.perf_counter()]
    for call in range(HAMMER_CALLS):
        hold_id, to = f"{number}/{call}", charging()
        for op in (reserve(hold_id, to), settle(hold_id, to)):
            store.execute(op)
            instants.append(time.perf_counter())
    slowest = max(later - earlier for earlier, later in pairwise(instants))
    return slowest, instants[-1] - instants[0]


def _create_files(store: SQLiteStore, number: int, barrier: Barrier) -> None:
    for file in range(FILES):
        barrier.wait()
        own = SQLiteStore(f"{store.path}-{file}")
        own.execute(reserve(f"{number}", charging()))
        own.close()


def _fork_and_share(store: SQLiteStore, number: int, barrier: Barrier) -> None:
    _share(store, os.fork)


def _fork_in_c_and_share(store: SQLiteStore, number: int, barrier: Barrier) -> None:
    _share(store, ctypes.PyDLL(None).fork)


def _share(store: SQLiteStore, fork: Callable[[], int]) -> None:
    store.execute(reserve("before", charging()))
    second = SQLiteStore(store.path)
    second.execute(reserve("before, by the second", charging()))
    child_wrote, parent_wrote = os.pipe(), os.pipe()
    child = fork()
    if child == 0:
        signal.alarm(20)
        store.execute(reserve("child", charging()))
        os.write(child_wrote[1], b".")
        os.read(parent_wrote[0], 1)
        store.execute(reserve("child, after the parent closed", charging()))
        store.close()
        os._exit(0)
    store.execute(reserve("parent", charging()))
    os.read(child_wrote[0], 1)
    store.execute(reserve("parent, after the child wrote", charging()))
    store.close()
    second.close()
    os.write(parent_wrote[1], b".")
    assert os.waitpid(child, 0)[1] == 0


def _fork_while_writing(store: SQLiteStore, number: int, barrier: Barrier) -> list[int]:
    is_over = threading.Event()

    def write() -> None:
        while not is_over.is_set():
            store.execute(reserve("again", charging()))

    # Python 3.12 warns of what this test is about.
    warnings.simplefilter("ignore", DeprecationWarning)
    thread = threading.Thread(target=write)
    thread.start()
    statuses: list[int] = []
    for _ in range(FORKS):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            store.execute(ReadAccount(account=SESSION))
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
    is_over.set()
    thread.join()
    return statuses


def _limited() -> Charging:
    return charging(limits=Limits(cost_nano_usd=LIMIT))


def _make_the_call() -> None:
    """Takes a moment, as calls do."""
    hashlib.sha256(b"prompt" * 5_000).digest()


# --- How they are run -------------------------------------------------------


def together(work: Work, file: Path, *, processes: int = PROCESSES) -> list:
    """Runs `work` in new processes, one store each; returns their results."""

    def with_store(place: str, number: int, barrier: Barrier) -> object:
        with closing(SQLiteStore(place)) as store:
            return work(store, number, barrier)

    return running.together(with_store, str(file), processes=processes)


def _session(file: Path) -> Account:
    store = SQLiteStore(file)
    account = store.execute(ReadAccount(account=SESSION))
    store.close()
    assert account is not None
    return account
