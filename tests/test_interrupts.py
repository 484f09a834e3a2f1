"""Signals in a guarded program: what was paid is booked, and nothing else is held."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import pytest
from redis import connection

from guardrails import CallRefused, Guard, Session
from guardrails.core.fingerprints import fingerprint
from guardrails.core.plain import size_bytes
from guardrails.core.tracebacks import OURS, READING
from guardrails.sessions.scope import current_call, current_session
from guardrails.testing import FakeClock
from tests.servers.processes import Server
from tests.signals import ROOT, Interrupt, Sent, TimeLimit, raising
from tests.stores.flaky import FlakyStore

FILES = {
    str(ROOT / name)
    for name in (
        "engine.py",
        "sessions/guarded_call.py",
        "sessions/session.py",
        "stores/resilient/store.py",
        "stores/memory.py",
        "stores/sqlite/store.py",
        "system/interrupts.py",
    )
}
CENT = 10_000_000

Work = Callable[[Guard, Session, list[str]], object]


def settled(guard: Guard, session: Session, made: list[str]) -> None:
    with session, guard.call(model="gpt-4o", input_tokens=9) as call:
        made.append("paid")
        call.settle(cost_usd="0.01")


def left(guard: Guard, session: Session, made: list[str]) -> None:
    with session, guard.call(tool="search", cost_usd="0.01"):
        made.append("paid")


def a_tool(guard: Guard, session: Session, made: list[str]) -> None:
    @guard.tool(cost_usd="0.01")
    def search() -> None:
        made.append("paid")

    with session:
        search()


def never_sent(guard: Guard, session: Session, made: list[str]) -> None:
    with session, guard.call(tool="search", cost_usd="0.01") as call:
        call.release()


def interrupted(
    guard: Guard, work: Work, interrupt: Interrupt, kind: type[BaseException]
) -> None:
    """Has some work interrupted, and looks at what is left of it."""
    session, made = guard.session(), list[str]()
    try:
        with interrupt:
            work(guard, session, made)
    except kind:
        was_raised = True
    else:
        was_raised = False
    assert was_raised == interrupt.has_come
    account = guard.account(session.session_id)
    booked = (0, 0)
    if account is not None:
        booked = account.posted_nano_usd, account.held_nano_usd
    assert booked == (len(made) * CENT, 0)
    assert len(session.events()) == len(made)
    assert current_session.get() is None
    assert current_call.get() is None
    with session:  # It can be entered again.
        pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeLimit, TimeoutError])
@pytest.mark.parametrize("work", [settled, left, a_tool, never_sent])
def test_an_interrupt_loses_no_paid_call_and_holds_nothing(
    work: Work, kind: type[BaseException], tmp_path: Path
) -> None:
    """Wherever it comes, the program goes on with the budget that is really left.

    And it hears of it: a time limit is not taken for a failure of ours.
    """
    guard = Guard({}, store=f"sqlite:///{tmp_path}/ledger.sqlite3", max_cost_usd="1.00")
    for number in itertools.count(1):
        interrupt = Interrupt(number, raising(kind), files=FILES)
        interrupted(guard, work, interrupt, kind)
        if not interrupt.has_come:
            break
    assert not guard.store.is_degraded
    guard.close()
    assert number > 30


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("work", [settled, left, a_tool, never_sent])
@pytest.mark.parametrize("store", ["sqlite", "a server"])
def test_what_another_thread_sends_loses_no_paid_call_and_holds_nothing(
    work: Work, store: str, server: Server, tmp_path: Path
) -> None:
    """Some time limits come so: RQ's where there are no signals, and that of stopit."""
    url = server.url if store == "a server" else f"sqlite:///{tmp_path}/l.sqlite3"
    files = FILES | set(map(str, (ROOT / "stores/redis").rglob("*.py")))
    guard = Guard({}, store=url, max_cost_usd="1.00")
    for number in itertools.count(1):
        interrupt = Sent(number, TimeLimit, files=files)
        interrupted(guard, work, interrupt, TimeLimit)
        if not interrupt.has_come:
            break
    assert not guard.store.is_degraded
    guard.close()
    assert number > 30


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeLimit])
@pytest.mark.parametrize("work", [settled, left, never_sent])
def test_an_interrupt_while_the_store_is_away_loses_no_paid_call(
    work: Work, kind: type[BaseException]
) -> None:
    """What is kept for the store meanwhile is all that was paid, and no more."""
    store, clock = FlakyStore(), FakeClock()
    guard = Guard({}, store=store, clock=clock, max_cost_usd="1.00")
    files = {*FILES, str(ROOT / "system/forks.py")}
    for folder in ("stores", "stores/resilient"):
        files |= set(map(str, (ROOT / folder).glob("*.py")))
    paid: dict[str, int] = {}
    store.is_away = True
    for number in itertools.count(1):
        session, made = guard.session(), list[str]()
        interrupt = Interrupt(number, raising(kind), files=files)
        with suppress(kind), interrupt:
            work(guard, session, made)
        paid[session.session_id] = len(made)
        if not interrupt.has_come:
            break
    store.is_away = False
    clock.advance(seconds=2)
    assert not guard.store.is_degraded
    for session_id, calls in paid.items():
        account = guard.account(session_id)
        booked = (0, 0)
        if account is not None:
            booked = account.posted_nano_usd, account.held_nano_usd
        assert booked == (calls * CENT, 0)
    guard.close()
    assert number > 30


@pytest.mark.usefixtures("patient")
def test_a_time_limit_is_not_taken_for_that_of_a_server(server: Server) -> None:
    """It comes while Redis is waited for, whose client has a `TimeoutError`, too."""
    files = {*FILES, *map(str, (ROOT / "stores/redis").rglob("*.py"))}
    guard = Guard({}, store=server.url, max_cost_usd="1.00")
    for number in itertools.count(1, 3):
        interrupt = Interrupt(
            number, raising(TimeoutError), files={*files, connection.__file__}
        )
        interrupted(guard, settled, interrupt, TimeoutError)
        if not interrupt.has_come:
            break
    assert not guard.store.is_degraded
    guard.close()
    assert number > 100


@pytest.mark.parametrize("read", [size_bytes, partial(fingerprint, key=b"key")])
def test_a_time_limit_ends_the_reading_of_arguments(
    read: Callable[[object], object],
) -> None:
    """These may be large, and what cannot be read is no failure otherwise."""
    code = {str(ROOT / "core/plain.py"), str(ROOT / "core/fingerprints.py")}
    with Interrupt(2, raising(TimeLimit), files=code), pytest.raises(TimeLimit):
        read({"text": ["a", "b"] * 99})


@pytest.mark.parametrize("store", ["memory://", "sqlite:///{}/ledger.sqlite3"])
def test_a_signals_handler_can_make_guarded_calls(store: str, tmp_path: Path) -> None:
    """In the middle of an operation it is refused, since it would wait for itself."""
    guard = Guard({}, store=store.format(tmp_path), max_cost_usd="1.00")
    refused = 0
    for number in itertools.count(1):
        session, made = guard.session(), list[str]()

        def handle(session: Session = session, made: list[str] = made) -> None:
            try:
                with guard.session(session_id=session.session_id):
                    with guard.call(tool="audit", cost_usd="0.01"):
                        made.append("by the handler")
            except CallRefused:
                nonlocal refused
                refused += 1

        interrupt = Interrupt(number, handle, files=FILES)
        with interrupt:
            settled(guard, session, made)
        account = guard.account(session.session_id)
        assert account is not None
        booked = account.posted_nano_usd, account.held_nano_usd
        assert booked == (len(made) * CENT, 0), f"at signal {number}"
        if not interrupt.has_come:
            break
    assert 0 < refused < number
    assert not guard.store.is_degraded
    guard.close()


def a_stream(guard: Guard, session: Session) -> list[Iterator[str]]:
    """Returns the only one who has a stream with a paid call around it."""

    def read() -> Iterator[str]:
        with session, guard.call(tool="stream", cost_usd="0.01"):
            yield "a piece"

    stream = read()
    next(stream)
    return [stream]


@pytest.mark.parametrize("store", ["memory://", "sqlite:///{}/ledger.sqlite3"])
def test_a_stream_that_ends_in_the_middle_of_an_operation_is_booked(
    store: str, tmp_path: Path
) -> None:
    """As one does that the collector of garbage comes upon, wherever that is."""
    guard = Guard({}, store=store.format(tmp_path), clock=FakeClock())
    files = {*FILES, str(ROOT / "stores/sqlite/operations.py")}
    for number in itertools.count(1):
        session, others = guard.session(), guard.session()
        holders = a_stream(guard, others)
        interrupt = Interrupt(number, holders.clear, files=files)
        with interrupt:
            settled(guard, session, [])
        holders.clear()
        guard.close()  # What was put off would be booked by a thread in a moment.
        for one in (session, others):
            account = guard.account(one.session_id)
            assert account is not None
            booked = account.posted_nano_usd, account.held_nano_usd
            assert booked == (CENT, 0), f"at step {number}"
        if not interrupt.has_come:
            break
    assert number > 30
    assert not guard.engine.failures
    assert not guard.store.degraded_operations
    guard.close()


async def test_a_stream_that_ends_in_the_thread_of_a_ledger_is_booked(
    tmp_path: Path,
) -> None:
    guard = Guard({}, store=f"sqlite:///{tmp_path}/ledger", clock=FakeClock())
    operations = str(ROOT / "stores/sqlite/operations.py")
    session, others = guard.session(), guard.session()
    holders = a_stream(guard, session)

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "c_return" and frame.f_code.co_filename == operations:
            holders.clear()

    threading.setprofile(called)  # Of threads that begin from now on.
    try:
        async with others, guard.call(tool="t", cost_usd="0.01"):
            pass
    finally:
        threading.setprofile(None)
    assert holders == []
    guard.close()
    assert (session.spent, others.spent) == (Decimal("0.01"), Decimal("0.01"))
    assert not guard.engine.failures
    assert not guard.store.degraded_operations
    guard.close()


@pytest.mark.parametrize("module", [*OURS, *READING])
def test_modules_whose_errors_are_told_apart_are_there(module: str) -> None:
    """One that has another name by now would take interrupts for failures again."""
    assert find_spec(module.rstrip("."))
