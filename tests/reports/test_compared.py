"""Costs beside those of the span before, and by more than one dimension."""

from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports import CostReport, Span, report_by

NOW_MS = 1_764_001_800_000
"""Half past an hour."""

SPAN = Span(hours=24, until_ms=NOW_MS)
CENT = 10_000_000

costs = st.dictionaries(
    st.none() | st.text("abc", min_size=1, max_size=2), st.integers(0, 9), max_size=6
)


def spend(name: str | None, cents: int, *more: str | None) -> Spend:
    return Spend(name=name, more_names=more, model_nano_usd=cents * CENT, model_calls=1)


def compared(now: list[Spend], before: list[Spend], *, limit: int = 0) -> CostReport:
    return report_by(
        now, project_id="p", by="agent", span=SPAN, limit=limit, before=before
    )


def test_the_span_before_ends_where_this_one_begins() -> None:
    """As many whole hours, none of which counts in both."""
    before = SPAN.before

    assert before.until_ms == SPAN.since_ms - 1
    assert before.since_ms == SPAN.since_ms - 24 * HOUR_MS
    assert before.until_ms // HOUR_MS - before.since_ms // HOUR_MS == 23


def test_tells_what_grew_what_is_new_and_what_is_gone() -> None:
    report = compared(
        [spend("up", 41), spend("down", 6), spend("new", 5)],
        [spend("up", 10), spend("down", 8), spend("gone", 7)],
    )
    rows = {row.name: row for row in report.rows}

    assert (rows["up"].change_nano_usd, rows["up"].change) == (31 * CENT, 3.1)
    assert (rows["down"].change_nano_usd, rows["down"].change) == (-2 * CENT, -0.25)
    assert (rows["new"].change_nano_usd, rows["new"].change) == (5 * CENT, None)
    assert rows["new"].before == Spend(name="new")
    assert [one.name for one in report.gone] == ["gone"]
    assert report.before is not None
    assert report.before.total_nano_usd == 25 * CENT


def test_what_was_not_compared_has_no_change() -> None:
    """Nothing spent before is not the same as not having looked."""
    report = report_by([spend("a", 1)], project_id="p", by="agent", span=SPAN, limit=0)
    (row,) = report.rows

    assert (report.before, row.before, row.change, row.change_nano_usd) == (None,) * 4


def test_no_period_before_makes_all_new() -> None:
    report = compared([spend("a", 1)], [])

    assert report.rows[0].before == Spend(name="a")
    assert report.rows[0].change is None
    assert report.before == Spend(name=None)


@given(now=costs, before=costs, limit=st.integers(0, 3))
def test_changes_add_up_to_that_of_the_total(
    now: dict[str | None, int], before: dict[str | None, int], limit: int
) -> None:
    """With the others, and what is gone."""
    report = compared(
        [spend(name, cents) for name, cents in now.items()],
        [spend(name, cents) for name, cents in before.items()],
        limit=0,
    )
    cut = compared([spend(name, cents) for name, cents in now.items()], [], limit=limit)
    changes = sum(row.change_nano_usd or 0 for row in report.rows)
    gone = sum(one.total_nano_usd for one in report.gone)

    assert changes - gone == (sum(now.values()) - sum(before.values())) * CENT
    shown = sum(row.spend.total_nano_usd for row in cut.rows)
    assert cut.others.total_nano_usd == sum(now.values()) * CENT - shown
    assert cut.hidden == cut.names - len(cut.rows)


def test_what_is_not_attributed_has_its_row_whatever_the_limit() -> None:
    report = report_by(
        [spend(None, 1), spend("a", 9), spend("b", 5)],
        project_id="p",
        by="customer_id",
        span=SPAN,
        limit=1,
    )

    assert [row.name for row in report.rows] == ["a", None]
    assert (report.hidden, report.others.total_nano_usd) == (1, 5 * CENT)


def test_several_dimensions_are_told_apart() -> None:
    """The same customer with two features is two rows."""
    report = report_by(
        [spend("acme", 1, "triage"), spend("acme", 2, None), spend(None, 3, None)],
        project_id="p",
        by="customer_id,feature",
        span=SPAN,
        limit=1,
    )

    assert report.dimensions == ("customer_id", "feature")
    assert [row.spend.names for row in report.rows] == [(None, None)]
    assert report.hidden == 2
