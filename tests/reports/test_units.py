"""Units: what a session costs, by feature, by customer, by month."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.reporting.rollups import Spend
from guardrails.reports import Span, UnitReport, report_units

SPAN = Span(hours=24, until_ms=1_764_001_800_000)


def spend(feature: str | None, session: str | None, nano: int) -> Spend:
    return Spend(
        name=feature, more_names=(session,), model_nano_usd=nano, model_calls=1
    )


def units(*spends: Spend, limit: int = 0) -> UnitReport:
    return report_units(
        spends, project_id="p", by="feature", every=None, span=SPAN, limit=limit
    )


def test_what_a_session_of_a_feature_costs() -> None:
    report = units(*[spend("triage", f"s-{n}", n) for n in range(1, 101)])
    (row,) = report.rows

    assert (row.names, row.sessions, row.share) == (("triage",), 100, 1.0)
    assert (row.mean_nano_usd, row.p50_nano_usd, row.p95_nano_usd) == (50, 50, 95)


def test_calls_outside_of_sessions_count_as_money_and_not_as_sessions() -> None:
    report = units(spend("a", None, 7), spend("a", "s", 3), spend("b", None, 1))
    first, second = report.rows

    assert (first.spend.total_nano_usd, first.sessions) == (10, 1)
    assert first.mean_nano_usd == first.p95_nano_usd == 3
    assert (second.sessions, second.mean_nano_usd, second.p50_nano_usd) == (
        0,
        None,
        None,
    )


def test_a_session_of_two_features_is_one_of_the_total() -> None:
    report = units(spend("a", "s", 4), spend("b", "s", 2), limit=1)

    assert [row.names for row in report.rows] == [("a",)]
    assert (report.hidden, report.total.sessions) == (1, 1)
    assert report.total.mean_nano_usd == 6


def test_nothing_has_no_mean() -> None:
    report = units()

    assert (list(report.rows), report.total.mean_nano_usd) == ([], None)
    assert report.total.share is None


@given(costs=st.lists(st.integers(0, 10**15), min_size=1, max_size=50))
def test_half_of_the_sessions_cost_at_most_the_middle(costs: list[int]) -> None:
    """Percentiles are costs that sessions had; the mean is rounded down."""
    row = units(*[spend("a", str(n), cost) for n, cost in enumerate(costs)]).rows[0]

    assert row.p50_nano_usd == statistics.median_low(costs)
    assert row.mean_nano_usd == sum(costs) // len(costs)
    assert sum(cost <= (row.p95_nano_usd or 0) for cost in costs) >= 0.95 * len(costs)
    assert row.p95_nano_usd in costs
