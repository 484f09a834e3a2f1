"""Every store answers like the pure ledger, operation by operation.

The ledger is the specification; its own invariants are checked along the way.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardrails.core.operations import (
    Operation,
    ReadAccount,
    Reserve,
    Settle,
    Settled,
    Sweep,
    Swept,
    Turn,
    Turned,
)
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.ports import Store
from guardrails.stores.memory import MemoryStore
from guardrails.stores.redis import RedisStore
from guardrails.stores.sqlite import SQLiteStore
from tests.servers.processes import Server
from tests.stores.scenarios import (
    DAY_AND_MORE_MS,
    NOW_MS,
    READS,
    SESSIONS,
    SHARED,
    Checker,
    Scenario,
    codes_of,
    is_forgotten,
    scripts,
    setups,
)

pytestmark = pytest.mark.usefixtures("patient")

NUMBERS = itertools.count()


class Neighbours:
    """Two stores of one file, as two processes have: each keeps rows of its own.

    Now one executes some operations in a row, now the other.
    """

    def __init__(self, path: Path) -> None:
        self._stores = SQLiteStore(path), SQLiteStore(path)
        self._turns = itertools.cycle((0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1))
        self.history = self._stores[0].history

    def execute(self, operation: Operation[Any]) -> Any:
        return self._stores[next(self._turns)].execute(operation)

    def close(self) -> None:
        for store in self._stores:
            store.close()


Step = tuple[Operation[Any], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledgers")


@pytest.mark.timeout(400)  # Hypothesis takes up to five minutes to shrink a failure.
@settings(max_examples=50, deadline=None)
@given(setup=setups, script=scripts, is_honest=st.booleans(), takes_turns=st.booleans())
def test_stores_answer_like_the_ledger(
    folder: Path, setup: bytes, script: bytes, is_honest: bool, takes_turns: bool
) -> None:
    """Replies, accounts, holds and histories are those of the specification.

    Taking turns, a reservation that follows a settlement goes with it.
    """
    scenario = Scenario(setup, is_honest)
    checker = Checker(scenario)
    file = SQLiteStore(folder / f"{next(NUMBERS)}.sqlite3")
    neighbours = Neighbours(folder / f"{next(NUMBERS)}.sqlite3")
    stores = (MemoryStore(), file, neighbours)
    booked: list[Settle] = []

    def steps() -> Iterator[Step]:
        for code in codes_of(script):
            op = scenario.operation(code, checker.ledger)
            yield op, checker.apply(op)

    try:
        taken = in_turns(noting(booked, steps()), takes_turns=takes_turns)
        for some, is_level in taken:
            for store in stores:
                for op, reply in some:
                    assert store.execute(op) == reply, type(store).__name__
                if is_level:
                    told = checker.ledger.apply(READS[-1])
                    assert store.execute(READS[-1]) == told, type(store).__name__
        for op in _closing(scenario.now_ms):
            reply = checker.apply(op)
            for store in stores:
                assert store.execute(op) == reply, type(store).__name__
        for store in stores:
            _check_history(store, booked, until_ms=scenario.now_ms)
    finally:
        file.close()
        neighbours.close()


def noting(booked: list[Settle], steps: Iterable[Step]) -> Iterator[Step]:
    """Notes what is booked on the way."""
    for op, reply in steps:
        if isinstance(op, Settle) and isinstance(reply, Settled) and reply.is_applied:
            booked.append(op)
        yield op, reply


def in_turns(
    steps: Iterable[Step], *, takes_turns: bool
) -> Iterator[tuple[list[Step], bool]]:
    """Has a reservation that follows a settlement go with it.

    Yields:
        What to execute, and whether the ledger has applied no more than that.
    """
    ended: Step | None = None
    for op, reply in steps:
        if ended is None:
            some = [(op, reply)]
        elif isinstance(op, Reserve):
            turn = Turn(settle=cast("Settle", ended[0]), reserve=op)
            turned = Turned(settled=cast("Any", ended[1]), reserved=cast("Any", reply))
            some = [(turn, turned)]
        else:
            some = [ended, (op, reply)]
        ended = None
        if takes_turns and isinstance(op, Settle):
            ended = some.pop()
        yield some, ended is None
    yield [] if ended is None else [ended], True


def _closing(now_ms: int) -> list[Operation[object]]:
    """Returns what brings every row to light: all accounts, then every hold."""
    reads: list[Operation[object]] = [
        ReadAccount(account=key) for key in (*SESSIONS, *SHARED)
    ]
    sweeps = [Sweep(now_ms=now_ms + n * DAY_AND_MORE_MS) for n in range(1, 5)]
    return [*reads, *sweeps, *reads, *READS]


def _check_history(
    store: Store | Neighbours, booked: list[Settle], *, until_ms: int
) -> None:
    """Events and hourly sums are the same money as the accounts."""
    costs: Counter[str] = Counter()
    for op in booked:
        for key in op.charging.accounts:
            costs[key] += op.cost_nano_usd
    for key in (*SESSIONS, *SHARED):
        account = store.execute(ReadAccount(account=key))
        assert (account.posted_nano_usd if account else 0) == costs[key]
    span = {
        "project_id": "default",
        "since_ms": NOW_MS - HOUR_MS,
        "until_ms": until_ms + HOUR_MS,
    }
    by_session = {
        spend.name: spend.total_nano_usd
        for spend in store.history.spend(by="session_id", **span)
    }
    for number in range(len(SESSIONS)):
        name = str(number)
        mine = [op.event for op in booked if op.event.attribution.session_id == name]
        events = store.history.events(
            project_id="default", session_id=name, limit=len(mine) + 1
        )
        assert sorted(events, key=repr) == sorted(mine, key=repr)
        assert by_session.get(name, 0) == sum(e.charge.cost_nano_usd or 0 for e in mine)


QUICK = settings(
    max_examples=20,
    deadline=None,
    # The server is emptied for each example, below.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
THOROUGH = settings(QUICK, max_examples=500)
"""20,000 operations on each server."""

given_scripts = given(
    setup=setups, script=scripts, is_honest=st.booleans(), takes_turns=st.booleans()
)


@pytest.mark.timeout(400)
@QUICK
@given_scripts
def test_scripts_answer_like_the_ledger(
    server: Server, setup: bytes, script: bytes, is_honest: bool, takes_turns: bool
) -> None:
    """In Redis too, reply by reply; accounts are compared after each.

    Taking turns, a reservation that follows a settlement goes with it.
    """
    compare(server, setup, script, is_honest=is_honest, takes_turns=takes_turns)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@THOROUGH
@given_scripts
def test_scripts_answer_like_the_ledger_for_long(
    server: Server, setup: bytes, script: bytes, is_honest: bool, takes_turns: bool
) -> None:
    """The same, with 20,000 operations."""
    compare(server, setup, script, is_honest=is_honest, takes_turns=takes_turns)


def compare(
    server: Server, setup: bytes, script: bytes, *, is_honest: bool, takes_turns: bool
) -> None:
    server.ask("FLUSHALL")
    scenario = Scenario(setup, is_honest)
    checker = Checker(scenario)
    store = RedisStore(server.unix_url)
    booked: list[Settle] = []

    def steps() -> Iterator[Step]:
        finished: set[str] = set()
        for code in codes_of(script):
            op = scenario.operation(code, checker.ledger)
            if not is_forgotten(op, checker, finished):
                reply = checker.apply(op)
                finished.update(hold.hold_id for hold in checker.ledger.removed_holds)
                # Redis forgets finished holds by itself, so it has none to count.
                is_swept = isinstance(reply, Swept)
                yield op, replace(reply, forgotten=0) if is_swept else reply

    try:
        taken = in_turns(noting(booked, steps()), takes_turns=takes_turns)
        for some, is_level in taken:
            for op, reply in some:
                assert store.execute(op) == reply
            if not is_level:
                continue
            for key in (*SESSIONS, *SHARED):
                read = ReadAccount(account=key)
                assert store.execute(read) == checker.ledger.apply(read)
            assert store.execute(READS[-1]) == checker.ledger.apply(READS[-1])
        _check_reads(store, checker)
        _check_history(store, booked, until_ms=scenario.now_ms)
    finally:
        store.close()


def _check_reads(store: Store, checker: Checker) -> None:
    """What people did is listed alike."""
    for read in READS:
        assert store.execute(read) == checker.ledger.apply(read)
