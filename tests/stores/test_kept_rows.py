"""Rows that the SQLite store keeps in memory: never other than those of the file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from guardrails.core.ledger import SETTLED_RETENTION_MS
from guardrails.core.loops import LoopRule, ToolTrace
from guardrails.core.operations import (
    Reserved,
    Settled,
    StopScope,
    Sweep,
    Verdict,
)
from guardrails.core.policy import Limits
from guardrails.core.stops import StopKind, StopTarget
from guardrails.errors import StoreUnavailable
from guardrails.stores.sqlite import SQLiteStore
from guardrails.stores.sqlite.kept_rows import ROWS_MAX
from guardrails.testing.conformance import CENT, NOW_MS, charging, reserve, settle
from tests.stores.running import SHARED, account

TO = charging()
LATER_MS = NOW_MS + 2 * 86_400_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path / "ledger.sqlite3")) as store:
        yield store


@pytest.fixture
def other(store: SQLiteStore) -> Iterator[SQLiteStore]:
    """Another process, as far as the file can tell."""
    with closing(SQLiteStore(store.path)) as other:
        yield other


def test_what_another_process_has_spent_counts_in_the_next_call(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    to = charging(limits=Limits(cost_nano_usd=3 * CENT))
    store.execute(reserve("1", to))
    store.execute(settle("1", to))
    other.execute(reserve("2", to))
    other.execute(settle("2", to))
    store.execute(reserve("3", to))
    store.execute(settle("3", to))

    assert account(store).posted_nano_usd == 3 * CENT
    reply = store.execute(reserve("4", to))
    assert isinstance(reply, Reserved)
    assert reply.verdict is Verdict.DENY


def test_a_call_that_another_process_has_settled_is_not_settled_again(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    store.execute(reserve("1", TO))
    other.execute(settle("1", TO))

    assert store.execute(settle("1", TO)) == Settled(is_applied=False)
    assert account(store).posted_nano_usd == CENT
    assert account(store).held_nano_usd == 0


def test_a_stop_that_another_process_was_told_of_holds_at_once(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    store.execute(reserve("1", TO))
    everything = StopTarget(kind=StopKind.EVERYTHING)
    stop = StopScope(project_id="default", target=everything, now_ms=NOW_MS)
    other.execute(stop)

    reply = store.execute(reserve("2", TO))
    assert isinstance(reply, Reserved)
    assert reply.verdict is Verdict.DENY


def test_a_stop_of_another_session_is_not_taken_for_the_only_one(
    store: SQLiteStore,
) -> None:
    """A call asks only for the stops that it falls under."""
    target = StopTarget(kind=StopKind.SESSION, name="stopped")
    until_ms = NOW_MS + 1_000
    stop = StopScope(
        project_id="default", target=target, now_ms=NOW_MS, until_ms=until_ms
    )
    store.execute(stop)
    verdicts = [
        reply.verdict
        for session in ("free", "stopped")
        if isinstance(
            reply := store.execute(reserve(session, charging(session=session))),
            Reserved,
        )
    ]

    assert verdicts == [Verdict.ALLOW, Verdict.DENY]


def test_a_loop_goes_through_the_calls_of_two_processes(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    to = charging(loop=LoopRule(repeats=3))
    same = ToolTrace(tool="t", arguments_digest="a", result_digest="r")
    replies = [
        one.execute(settle(f"{number}", to, trace=same))
        for number, one in enumerate((store, other, store))
    ]

    found = [reply.finding for reply in replies if isinstance(reply, Settled)]
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert found[2].count == 3


def test_nothing_stays_of_an_operation_that_has_failed(store: SQLiteStore) -> None:
    """An event of its id is there, so that what it has booked is taken back."""
    store.execute(reserve("1", TO))
    store.execute(settle("1", TO))
    store.execute(reserve("2", TO))
    second = settle("2", TO)
    twice = replace(second, event=replace(second.event, event_id="1"))
    with pytest.raises(StoreUnavailable) as raised:
        store.execute(twice)
    assert isinstance(raised.value.__cause__, sqlite3.IntegrityError)

    assert store.execute(settle("2", TO)) == Settled()
    assert account(store).posted_nano_usd == 2 * CENT
    assert account(store).held_nano_usd == 0


def test_what_was_written_while_it_was_closed_counts(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    """Another connection counts commits anew, maybe to the same number."""
    for number in range(3):
        store.execute(reserve(f"{number}", TO))
        store.close()
        other.execute(reserve(f"other {number}", TO))
        other.close()

    assert account(store).steps == 6


def test_a_session_that_was_forgotten_begins_anew(store: SQLiteStore) -> None:
    store.execute(reserve("1", TO))
    store.execute(settle("1", TO))
    store.keeper.forget(
        project_id="default", customer_id="acme", now_ms=LATER_MS, is_dry_run=False
    )
    store.execute(reserve("2", TO, now_ms=LATER_MS))

    assert account(store).steps == 1
    assert account(store, SHARED).steps == 2


def test_a_hold_that_was_swept_is_not_there_for_a_later_call(
    store: SQLiteStore,
) -> None:
    """A repeated settlement is told from its event, which is no hold."""
    store.execute(reserve("1", TO))
    store.execute(settle("1", TO))
    store.execute(Sweep(now_ms=NOW_MS + SETTLED_RETENTION_MS))
    assert store.execute(settle("1", TO)) == Settled(is_applied=False)
    store.execute(reserve("1", TO))

    assert account(store).steps == 2
    assert account(store).held_nano_usd == CENT


def test_more_sessions_than_are_kept_are_all_booked(store: SQLiteStore) -> None:
    """Each has two calls, the second when all others have had their first."""
    sessions = [charging(session=f"{number}") for number in range(ROWS_MAX + 10)]
    for call in ("first", "second"):
        for number, to in enumerate(sessions):
            store.execute(reserve(f"{call} {number}", to))
            store.execute(settle(f"{call} {number}", to))

    steps = [account(store, to.accounts[0]).steps for to in sessions]
    assert steps == [2] * len(sessions)
    assert account(store, SHARED).posted_nano_usd == 2 * len(sessions) * CENT
