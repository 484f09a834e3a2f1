"""Cost reports: ranking, shares, and how sessions ended. Pure, so no store."""

from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.accounts import Account, SessionState, Stop, StopReason
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.policy import Measure
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports import (
    CostReport,
    SessionRow,
    Span,
    report_by,
    report_sessions,
    unpriced_names,
)

NOW_MS = 1_764_000_000_000 + 42 * 60_000
SPAN = Span(hours=24, until_ms=NOW_MS)
CENT = 10_000_000


def by_customer(*spends: Spend, limit: int = 0) -> CostReport:
    return report_by(spends, project_id="p", by="customer_id", span=SPAN, limit=limit)


def spend(name: str | None, cents: int, *, steps: int = 1) -> Spend:
    return Spend(name=name, model_nano_usd=cents * CENT, model_calls=steps)


def account(
    session_id: str,
    *,
    stop: Stop | None = None,
    ended_at_ms: int | None = None,
    last_active_at_ms: int = NOW_MS,
) -> Account:
    who = Attribution.of(agent="support", customer_id="acme", session_id=session_id)
    state = SessionState(
        attribution=who,
        started_at_ms=0,
        last_active_at_ms=last_active_at_ms,
        ended_at_ms=ended_at_ms,
    )
    return Account(key=session_id, session=state, stop=stop)


def row_of(account: Account) -> SessionRow:
    state = account.session
    assert state is not None
    spends = [spend(state.attribution.session_id, 1)]
    report = report_sessions(spends, [account], project_id="p", span=SPAN, limit=0)
    (row,) = report.rows
    assert isinstance(row, SessionRow)
    return row


def test_a_span_begins_with_a_whole_hour() -> None:
    """Sums are kept by hour, so the first hour counts in full."""
    assert SPAN.since_ms == 1_764_000_000_000 - 24 * HOUR_MS
    assert Span(hours=1, until_ms=HOUR_MS).since_ms == 0


def test_the_most_expensive_come_first() -> None:
    """Equal costs rank by steps, then by name, so that a report is repeatable."""
    report = by_customer(
        spend("b", 1), spend("a", 1), spend("c", 1, steps=2), spend("d", 5)
    )

    assert [row.name for row in report.rows] == ["d", "c", "a", "b"]


def test_what_is_not_attributed_is_a_row_of_its_own() -> None:
    """Unattributed cost ranks among the names and is not lost."""
    report = by_customer(spend("acme", 1), spend(None, 3))

    assert [(row.name, row.share) for row in report.rows] == [
        (None, 0.75),
        ("acme", 0.25),
    ]


def test_a_limit_hides_rows_and_no_money() -> None:
    """Totals and shares are of all names, shown or not."""
    report = by_customer(*[spend(f"c{n}", n) for n in range(1, 5)], limit=1)

    assert [(row.name, row.share) for row in report.rows] == [("c4", 0.4)]
    assert (report.names, report.hidden) == (4, 3)
    assert report.total.total_nano_usd == 10 * CENT


def test_there_is_no_share_of_nothing() -> None:
    """While nothing was spent, no part of it can be named."""
    report = by_customer(Spend(name="acme", model_calls=1, unpriced_calls=1))

    assert report.rows[0].share is None


def test_an_empty_report_is_a_report() -> None:
    """No spend makes no rows and a total of nothing."""
    report = by_customer()

    assert not report.rows
    assert report.total == Spend(name=None)


@given(st.lists(st.integers(0, 10**12), max_size=30), st.integers(0, 40))
def test_all_that_was_spent_is_in_the_total(amounts: list[int], limit: int) -> None:
    """Whatever the limit, the total is the sum, and shares add up to one."""
    spends = [Spend(name=f"n{n}", tool_nano_usd=nano) for n, nano in enumerate(amounts)]
    report = by_customer(*spends, limit=limit)

    assert report.total.total_nano_usd == sum(amounts)
    assert len(report.rows) + report.hidden == len(amounts)
    shares = [row.share for row in by_customer(*spends).rows if row.share is not None]
    assert not shares or abs(sum(shares) - 1) < 1e-9


def test_a_session_row_names_agent_and_customer() -> None:
    """They come from the session's account."""
    row = row_of(account("s-1"))

    assert (row.agent, row.customer_id) == ("support", "acme")


def test_a_session_that_was_left_is_completed() -> None:
    """The end that a session has written wins over its age."""
    assert row_of(account("s-1", ended_at_ms=NOW_MS)).end == "completed"


def test_a_session_that_did_nothing_for_long_is_idle() -> None:
    """It waits for somebody, or its process died; nobody knows which."""
    assert row_of(account("s-1")).end == "active"
    assert row_of(account("s-1", last_active_at_ms=NOW_MS - 600_000)).end == "idle"


def test_a_stop_names_the_limit() -> None:
    """Of a budget the reason is the limit's key in the configuration."""
    stop = Stop(reason=StopReason.BUDGET_EXCEEDED, at_ms=NOW_MS, measure=Measure.STEPS)
    row = row_of(account("s-1", stop=stop, ended_at_ms=NOW_MS))

    assert (row.end, row.reason) == ("budget_exceeded", "max_steps")


def test_a_loop_names_the_tool() -> None:
    """Of a loop the reason is the tool that repeated."""
    finding = LoopFinding(
        kind=LoopKind.IDENTICAL,
        tool="maps/geocode",
        count=3,
        cost_nano_usd=CENT,
        arguments_digest="d",
    )
    stop = Stop(reason=StopReason.LOOP_DETECTED, at_ms=NOW_MS, finding=finding)
    row = row_of(account("s-1", stop=stop))

    assert (row.end, row.reason) == ("loop_detected", "maps/geocode")


def test_a_kill_has_no_other_reason() -> None:
    """Who stopped it is not in the table."""
    stop = Stop(reason=StopReason.KILLED, at_ms=NOW_MS, by="ops")
    row = row_of(account("s-1", stop=stop))

    assert (row.end, row.reason) == ("killed", None)


def test_stopped_sessions_are_counted_whether_shown_or_not() -> None:
    """The limit hides rows, not stops."""
    stop = Stop(reason=StopReason.KILLED, at_ms=NOW_MS)
    accounts = [account(f"s-{n}", stop=stop if n < 3 else None) for n in range(5)]
    spends = [spend(f"s-{n}", n) for n in range(5)]

    report = report_sessions(spends, accounts, project_id="p", span=SPAN, limit=1)

    assert report.stopped == 3
    assert report.hidden == 4


def test_a_session_whose_account_is_gone_still_has_its_cost() -> None:
    """What was booked stays in the report without the names of its account."""
    report = report_sessions([spend("gone", 7)], [], project_id="p", span=SPAN, limit=0)

    (row,) = report.rows
    assert isinstance(row, SessionRow)
    assert (row.name, row.agent, row.end) == ("gone", None, "idle")
    assert row.spend.total_nano_usd == 7 * CENT


def test_names_without_a_price_are_listed_by_their_calls() -> None:
    """Models and tools together, because one note names them."""
    models = [Spend(name="my-ft", unpriced_calls=2), Spend(name="gpt-4o")]
    tools = [Spend(name="search", unpriced_calls=9), Spend(name="a", unpriced_calls=2)]

    assert unpriced_names(models, tools) == ["search", "a", "my-ft"]
