"""The list of sessions: sorted, filtered by how they ended, with their limits."""

import pytest

from guardrails.core.accounts import Account, SessionState, Stop, StopReason
from guardrails.core.attribution import Attribution
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports import SessionList, Span, sessions

SPAN = Span(hours=24, until_ms=1_764_001_800_000)
NOW_MS = SPAN.until_ms


def account(name: str, *, idle_ms: int = 0, stopped: bool = False) -> Account:
    who = Attribution.of(session_id=name, agent="a", customer_id="acme")
    return Account(
        key=name,
        posted_nano_usd=600,
        stop=Stop(reason=StopReason.KILLED, at_ms=NOW_MS) if stopped else None,
        session=SessionState(
            attribution=who,
            started_at_ms=NOW_MS - HOUR_MS,
            last_active_at_ms=NOW_MS - idle_ms,
            active_ms=HOUR_MS // 2,
        ),
    )


SPENDS = (
    Spend(name="slow", model_nano_usd=5, model_calls=1),
    Spend(name="busy", model_nano_usd=2, model_calls=9),
    Spend(name="ended", model_nano_usd=7, model_calls=2),
    Spend(name=None, model_nano_usd=99, model_calls=1),
)
ACCOUNTS = (
    account("slow"),
    account("busy", idle_ms=1),
    account("ended", idle_ms=HOUR_MS, stopped=True),
)


def listed(
    *, sort: str = "cost", state: str | None = None, limit: int = 0
) -> SessionList:
    return sessions(
        SPENDS,
        ACCOUNTS,
        project_id="p",
        span=SPAN,
        limit=limit,
        limit_of=lambda account: 1_000,
        sort=sort,
        state=state,
    )


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("cost", ["ended", "slow", "busy"]),
        ("steps", ["busy", "ended", "slow"]),
        ("time", ["slow", "busy", "ended"]),
    ],
)
def test_is_sorted(sort: str, names: list[str]) -> None:
    """Calls outside of sessions are in none of them."""
    assert [row.session_id for row in listed(sort=sort).rows] == names


def test_is_filtered_by_how_they_ended() -> None:
    assert [row.session_id for row in listed(state="stopped").rows] == ["ended"]
    assert listed(state="active").count == 2
    assert listed(state="active").total.total_nano_usd == 7
    assert listed(state="completed").rows == []


def test_counts_what_it_does_not_show() -> None:
    found = listed(limit=1)

    assert (found.count, found.hidden) == (3, 2)
    assert found.total.total_nano_usd == 14


def test_tells_limit_and_pace_of_the_whole_session() -> None:
    """600 in half an hour are 1,200 an hour."""
    row = listed().rows[1]

    assert (row.whole_nano_usd, row.limit_nano_usd) == (600, 1_000)
    assert row.pace_nano_usd == 1_200


def test_a_session_that_is_forgotten_still_has_what_it_spent() -> None:
    found = sessions(
        SPENDS, [], project_id="p", span=SPAN, limit=1, limit_of=lambda account: 1
    )
    (row,) = found.rows

    assert (row.spend.total_nano_usd, row.end, row.limit_nano_usd) == (7, "idle", None)
    assert row.pace_nano_usd is None
