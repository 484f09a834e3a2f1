"""Ctrl-C in the SQLite store: wherever it comes, the file stays usable for all."""

import contextlib
import dis
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from guardrails.core.accounts import Account
from guardrails.core.operations import (
    RaiseLimits,
    ReadAccount,
    Release,
    Reserve,
    Settle,
    StopSession,
    Sweep,
)
from guardrails.core.policy import Limits
from guardrails.errors import StoreUnavailable
from guardrails.stores.sqlite import (
    SQLiteStore,
    database,
    kept_rows,
    operations,
)
from guardrails.stores.sqlite import (
    store as sqlite_store,
)
from guardrails.testing.conformance import CENT, NOW_MS, charging, reserve, settle

SESSION = "default/session/session_id=s"
TO = charging()
LATER_MS = NOW_MS + 2 * 86_400_000
MODULES = (database, kept_rows, sqlite_store, operations)
FILES = {module.__file__ for module in MODULES}


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


class Interrupt:
    """Handles a signal after the n-th call that the store's code makes.

    Python looks for signals after each call, so also between what takes a lock and
    what would give it back.
    """

    def __init__(
        self, number: int, handle: Callable[[], object] = press_ctrl_c
    ) -> None:
        self._handle = handle
        self._left = number
        self._points: dict[CodeType, set[int]] = {}

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        # Python 3.12 traces opcodes only if some frame wanted them before this.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._entered)

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    @property
    def has_come(self) -> bool:
        return self._left <= 0

    def _entered(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace = self._stepped  # Python 3.13 asks for it in the next line.
        frame.f_trace_opcodes = True
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "opcode" and frame.f_lasti in self._after_calls(frame.f_code):
            self._left -= 1
            if self._left == 0:
                sys.settrace(self._before)
                self._handle()
        return self._stepped

    def _after_calls(self, code: CodeType) -> set[int]:
        if code not in self._points:
            steps = itertools.pairwise(dis.get_instructions(code))
            calls = ((step.opname, after.offset) for step, after in steps)
            self._points[code] = {at for name, at in calls if name.startswith("CALL")}
        return self._points[code]


def interrupted(folder: Path, op: Reserve | Settle) -> Iterator[KeyboardInterrupt]:
    """Has an operation interrupted at each point, on a ledger of its own each time."""
    ledger = folder / "ledger.sqlite3"
    with closing(SQLiteStore(ledger)) as store:
        store.execute(reserve("first", TO))
    for number in itertools.count(1):
        copy = Path(shutil.copy(ledger, folder / f"{number}.sqlite3"))
        with closing(SQLiteStore(copy)) as store:
            store.execute(ReadAccount(account=SESSION))  # Opens it.
            interrupt = Interrupt(number)
            try:
                with interrupt:
                    store.execute(op)
            except KeyboardInterrupt as error:
                _goes_on(store, op)
                yield error
            if not interrupt.has_come:
                return


def _goes_on(store: SQLiteStore, op: Reserve | Settle) -> None:
    """Another process, and this one, can write at once; what was begun is whole."""
    with closing(SQLiteStore(store.path)) as other:
        other.execute(settle("other", TO))
    store.execute(op)  # It says whether it was done before.

    account = store.execute(ReadAccount(account=SESSION))
    assert account is not None
    booked = (account.steps, account.held_nano_usd)
    assert booked == ((2, 0) if isinstance(op, Settle) else (3, 2 * CENT))


def test_an_interrupted_operation_leaves_nothing_locked(tmp_path: Path) -> None:
    """The interrupt is in flight meanwhile, so nothing was tidied up by chance."""
    for op in (reserve("h", TO), settle("first", TO)):
        folder = tmp_path / type(op).__name__
        assert sum(1 for _ in interrupted(folder, op)) > 20


def test_what_a_handler_of_a_signal_has_booked_stays(tmp_path: Path) -> None:
    """It may use the store itself, at any point at which nothing is under way."""
    booked = 0
    for number in itertools.count(1):
        with closing(SQLiteStore(tmp_path / f"{number}.sqlite3")) as store:
            store.execute(reserve("first", TO))
            steps = [1]

            def handle(store: SQLiteStore = store, steps: list[int] = steps) -> None:
                with contextlib.suppress(StoreUnavailable):
                    store.execute(settle("from the handler", TO))
                    steps.append(1)

            interrupt = Interrupt(number, handle)
            with interrupt:
                store.execute(settle("first", TO))
            store.execute(settle("last", TO))

            account = store.execute(ReadAccount(account=SESSION))
            assert account is not None
            assert account.steps == len(steps) + 1
            booked += len(steps) - 1
        if not interrupt.has_come:
            break
    assert booked > 5


Case = tuple[Callable[[SQLiteStore], object], Callable[[Account], bool]]
BESIDES: dict[str, Case] = {
    "stop": (
        lambda store: store.execute(
            StopSession(
                account=SESSION, attribution=TO.attribution, now_ms=NOW_MS, by="ops"
            )
        ),
        lambda account: account.stop is not None,
    ),
    "raise": (
        lambda store: store.execute(
            RaiseLimits(account=SESSION, limits=Limits(steps=50), now_ms=NOW_MS)
        ),
        lambda account: account.raised == Limits(steps=50),
    ),
    "release": (
        lambda store: store.execute(
            Release(hold_id="first", account=SESSION, now_ms=NOW_MS)
        ),
        lambda account: account.held_nano_usd == 0,
    ),
    "sweep": (
        lambda store: store.execute(Sweep(now_ms=LATER_MS)),
        lambda account: account.unconfirmed_nano_usd == CENT,
    ),
}
"""What is done, and how an account shows that it was."""


@pytest.mark.parametrize("name", BESIDES)
def test_what_was_done_besides_calls_stays_whatever_a_handler_books_meanwhile(
    tmp_path: Path, name: str
) -> None:
    """It may make a call at any point at which nothing is under way."""
    do, is_done = BESIDES[name]
    booked = 0
    for number in itertools.count(1):
        with closing(SQLiteStore(tmp_path / f"{number}.sqlite3")) as store:
            store.execute(reserve("first", TO))

            def handle(store: SQLiteStore = store) -> None:
                nonlocal booked
                with contextlib.suppress(StoreUnavailable):
                    store.execute(settle("from the handler", TO))
                    booked += 1

            interrupt = Interrupt(number, handle)
            with interrupt:
                do(store)
            store.execute(settle("last", TO, now_ms=LATER_MS))

            account = store.execute(ReadAccount(account=SESSION))
            assert account is not None
            assert is_done(account), number
        if not interrupt.has_come:
            break
    assert booked > 5
