"""Ctrl-C in a guarded program: what was paid is booked, and nothing else is held."""

import itertools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, TracebackType

import pytest

import guardrails
from guardrails import Guard, Session
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
        "stores/sqlite.py",
    )
}
CENT = 10_000_000

Work = Callable[[Guard, Session, list[str]], object]


class Interrupt(AbstractContextManager[None]):
    """Raises KeyboardInterrupt after the n-th built-in function that our code calls.

    There Python looks for signals.
    """

    def __init__(self, number: int) -> None:
        self._left = number

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
                raise KeyboardInterrupt


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
