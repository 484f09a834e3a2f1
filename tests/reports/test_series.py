"""Series: each step is there, also one in which nothing was spent."""

from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.reporting.groups import Every
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports import Series, Span, series_of

CENT = 10_000_000
SPAN = Span(hours=4, until_ms=1_764_001_800_000)


def spend(hour: int, cents: int, name: str | None = None) -> Spend:
    return Spend(
        name=name,
        since_ms=SPAN.since_ms + hour * HOUR_MS,
        tool_nano_usd=cents * CENT,
        tool_calls=1,
    )


def series(
    *spends: Spend,
    by: str | None = None,
    every: Every = "hour",
    limit: int = 0,
    span: Span = SPAN,
) -> Series:
    return series_of(spends, project_id="p", by=by, every=every, span=span, limit=limit)


def test_an_hour_without_calls_is_zero() -> None:
    """Steps are oldest first, whatever the order in which they were read."""
    found = series(spend(3, 5), spend(0, 1))

    assert [row.total_nano_usd // CENT for row in found.rows] == [1, 0, 0, 5, 0]
    starts = [SPAN.since_ms + hour * HOUR_MS for hour in range(5)]
    assert [row.since_ms for row in found.rows] == starts
    assert found.total.total_nano_usd == 6 * CENT


def test_nothing_at_all_is_a_row_of_zeros_per_step() -> None:
    assert [row.steps for row in series().rows] == [0] * 5


def test_the_dearest_names_of_the_span_are_shown_in_each_step() -> None:
    found = series(
        spend(0, 3, "a"), spend(0, 5, "b"), spend(1, 9, "a"), spend(2, 1, "c"),
        by="agent", limit=2,
    )  # fmt: skip

    shown = [(row.name, row.total_nano_usd // CENT) for row in found.rows]
    assert shown == [("b", 5), ("a", 3), ("a", 9), (None, 0), (None, 0), (None, 0)]
    assert found.names == 3
    assert found.total.total_nano_usd == 18 * CENT


@given(hours=st.integers(1, 24 * 40), until_ms=st.integers(10**12, 2 * 10**12))
def test_days_and_months_begin_at_midnight(hours: int, until_ms: int) -> None:
    """Each once, the first of them maybe before the span."""
    span = Span(hours=hours, until_ms=until_ms)
    for every in ("day", "month"):
        starts = [row.since_ms or 0 for row in series(every=every, span=span).rows]

        assert all(start % (24 * HOUR_MS) == 0 for start in starts)
        assert starts == sorted(set(starts))
        assert starts[0] <= span.since_ms < starts[0] + 31 * 24 * HOUR_MS
        assert starts[-1] <= until_ms
