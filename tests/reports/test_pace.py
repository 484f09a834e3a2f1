"""Pace: a budget that will not last is told early, and one spike is no pace."""

from guardrails.core.alerting.pace import Pace
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.core.windows import Window
from guardrails.reports.pace import pace_of

USD = 1_000_000_000
HOUR = 490_000
NOW_MS = HOUR * HOUR_MS
"""The running hour has just begun."""
LEFT = 240
"""Hours to the end of the month."""


def month(costs: dict[int, int], *, used: int, limit: int) -> Pace | None:
    return pace_of(
        costs,
        budget="all",
        window=Window.MONTH,
        used=used,
        limit=limit,
        excess_min=USD,
        now_ms=NOW_MS,
        ends_at_ms=NOW_MS + LEFT * HOUR_MS,
    )


def steady(usd: int, *, hours: int = 72) -> dict[int, int]:
    return dict.fromkeys(range(HOUR - hours, HOUR), usd * USD)


def test_a_budget_that_will_not_last_is_told_with_the_instant() -> None:
    """$188 left at $2 an hour are gone after 94 hours."""
    pace = month(steady(2), used=312 * USD, limit=500 * USD)

    assert pace is not None
    assert pace.gone_at_ms == NOW_MS + 94 * HOUR_MS
    assert (pace.long_hours, pace.short_hours) == (72, 6)


def test_the_slower_of_two_rates_counts() -> None:
    """Neither a spike of an hour nor one that is over says anything of a month."""
    spike = {HOUR - 1: 400 * USD}
    over = steady(9) | dict.fromkeys(range(HOUR - 6, HOUR), 0)

    assert month(spike, used=400 * USD, limit=2_000 * USD) is None
    assert month(over, used=400 * USD, limit=500 * USD) is None
    assert month(steady(9), used=400 * USD, limit=500 * USD) is not None


def test_a_budget_that_lasts_is_not_told() -> None:
    """Nor one that ends within ten per cent of its limit, nor one that is gone."""
    assert month(steady(2), used=20 * USD, limit=500 * USD) is None
    assert month(steady(2), used=69 * USD, limit=500 * USD) is None
    assert month(steady(2), used=70 * USD, limit=500 * USD) is None
    assert month(steady(2), used=80 * USD, limit=500 * USD) is not None
    assert month(steady(2), used=500 * USD, limit=500 * USD) is None


def test_cents_above_a_limit_are_not_told() -> None:
    cents = dict.fromkeys(range(HOUR - 72, HOUR), USD // 100)
    assert month(cents, used=USD // 2, limit=2 * USD) is None


def test_a_day_is_judged_by_four_hours_and_by_one() -> None:
    """The running hour counts as far as it has come."""
    now_ms = NOW_MS + HOUR_MS // 2
    costs = dict.fromkeys(range(HOUR - 4, HOUR), 2 * USD) | {HOUR: USD}
    pace = pace_of(
        costs,
        budget="day",
        window=Window.DAY,
        used=9 * USD,
        limit=12 * USD,
        excess_min=USD,
        now_ms=now_ms,
        ends_at_ms=now_ms + 10 * HOUR_MS,
    )

    assert pace is not None
    assert pace.gone_at_ms == now_ms + 3 * HOUR_MS // 2


def test_nothing_spent_lasts_for_ever() -> None:
    assert month({}, used=0, limit=USD) is None
