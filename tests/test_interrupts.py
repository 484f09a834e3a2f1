"""Signals in a guarded program: what was paid is booked, and nothing else is held."""

import itertools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, TracebackType

import pytest

import guardrails
from guardrails import CallRefused, Guard, Session
from guardrails.scope import current_call, current_session

ROOT = Path(guardrails.__file__).parent
FILES = {
    str(ROOT / name)
    for name in (
        "engine.py",
        "guarded_call.py",
        "interrupts.py",
        "session.py",
        "stores/resilient.py",
        "stores/memory.py",
        "stores/sqlite.py",
    )
}
CENT = 10_000_000

Work = Callable[[Guard, Session, list[str]], object]


def ctrl_c() -> None:
    raise KeyboardInterrupt


class Interrupt(AbstractContextManager[None]):
    """Handles a signal after the n-th built-in function that our code calls.

    There Python looks for signals.
    """

    def __init__(self, number: int, handler: Callable[[], object] = ctrl_c) -> None:
        self._left = number
        self._handler = handler

    def __enter__(self) -> None:
        self._before = sys.getprofile()
        sys.setprofile(self._called)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.setprofile(self._before)

    @property
    def has_come(self) -> bool:
        return self._left <= 0

    def _called(self, frame: FrameType, event: str, _: object) -> None:
        if event == "c_return" and frame.f_code.co_filename in FILES:
            self._left -= 1
            if self._left == 0:
                sys.setprofile(self._before)
                self._handler()


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


@pytest.mark.parametrize("work", [settled, left, a_tool, never_sent])
def test_an_interrupt_loses_no_paid_call_and_holds_nothing(
    work: Work, tmp_path: Path
) -> None:
    """Wherever it comes, the program goes on with the budget that is really left."""
    guard = Guard({}, store=f"sqlite:///{tmp_path}/ledger.sqlite3", max_cost_usd="1.00")
    for number in itertools.count(1):
        session, made, interrupt = guard.session(), list[str](), Interrupt(number)
        try:
            with interrupt:
                work(guard, session, made)
        except KeyboardInterrupt:
            pass
        account = guard.account(session.session_id)
        booked = (0, 0)
        if account is not None:
            booked = account.posted_nano_usd, account.held_nano_usd
        assert booked == (len(made) * CENT, 0), f"at interrupt {number}"
        assert len(session.events()) == len(made)
        assert current_session.get() is None
        assert current_call.get() is None
        with session:  # It can be entered again.
            pass
        if not interrupt.has_come:
            break
    guard.close()
    assert number > 30


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

        interrupt = Interrupt(number, handle)
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
