"""Rendered series, units and comparisons: every line, at their terminal's width."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from guardrails.cli.screens.costs import render_costs
from guardrails.cli.screens.steps import render_series, render_units
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports import (
    CostReport,
    Series,
    Span,
    UnitReport,
    report_by,
    report_units,
    series_of,
)

SPAN = Span(hours=3, until_ms=1_764_001_800_000)
"""From 13:00 to 16:30 of a Monday."""

CENT = 10_000_000

HOSTILE = ("株式会社テスト", "\u200fעברית", "a\x1b]0;owned\x07", "=1+1", "x" * 256)


def shown(render: Callable[..., None], report: object, *, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    render(report, console)
    return file.getvalue()


def spend(name: str | None, cents: int, *more: str | None, hour: int = 0) -> Spend:
    return Spend(
        name=name,
        more_names=more,
        since_ms=SPAN.since_ms + hour * HOUR_MS,
        model_nano_usd=cents * CENT,
        model_calls=2,
        tool_nano_usd=CENT,
        tool_calls=1,
    )


def series(*spends: Spend, by: str | None = None, limit: int = 0) -> Series:
    return series_of(
        spends, project_id="p", by=by, every="hour", span=SPAN, limit=limit
    )


def units(*spends: Spend, by: str = "feature", limit: int = 0) -> UnitReport:
    return report_units(
        spends, project_id="p", by=by, every=None, span=SPAN, limit=limit
    )


def costs(
    *now: Spend, before: tuple[Spend, ...] | None = None, by: str = "customer_id"
) -> CostReport:
    return report_by(now, project_id="p", by=by, span=SPAN, limit=3, before=before)


def test_a_series_at_80_columns() -> None:
    """An hour without calls is a line too."""
    found = series(spend(None, 99), spend(None, 49, hour=2), spend(None, 24, hour=3))

    assert (
        shown(render_series, found)
        == """\
Costs by hour · last 3 h · 9 steps · since Nov 24, 13:00 UTC
Hour          Steps    LLM  Tools  Total
Nov 24 13:00      3  $0.99  $0.01  $1.00  ██████████
Nov 24 14:00      0  $0     $0     $0
Nov 24 15:00      3  $0.49  $0.01  $0.50  █████
Nov 24 16:00      3  $0.24  $0.01  $0.25  ██▌
Total             9  $1.72  $0.03  $1.75
"""
    )


def test_a_series_by_name_says_what_it_leaves_out() -> None:
    """The total is of all names."""
    found = series(
        spend("a", 9), spend("b", 5), spend("c", 1, hour=1), by="agent", limit=1
    )
    found = replace(found, where={"customer_id": ["acme", ""]})

    assert shown(render_series, found, width=140).splitlines() == [
        "Costs by hour and agent · last 3 h · 9 steps · since Nov 24, 13:00 UTC",
        "where customer is acme or (unattributed)",
        "Hour          Agent  Steps    LLM  Tools  Total",
        "Nov 24 13:00  a          3  $0.09  $0.01  $0.10  ██████████",
        "Nov 24 14:00  -          0  $0     $0     $0",
        "Nov 24 15:00  -          0  $0     $0     $0",
        "Nov 24 16:00  -          0  $0     $0     $0",
        "Total                    9  $0.15  $0.03  $0.18",
        "… 2 more names (--limit 0), in the total",
    ]


def test_what_a_session_costs_at_80_columns() -> None:
    found = units(
        spend("triage", 1, "s-1"), spend("triage", 3, "s-2"), spend(None, 9, None)
    )

    assert (
        shown(render_units, found)
        == """\
Cost of a session by feature · last 3 h · 2 sessions · since Nov 24, 13:00 UTC
Feature         Sessions   Mean    p50    p95  Total
(unattributed)         0   -      -      -     $0.10
triage                 2  $0.03  $0.02  $0.04  $0.06
Total                  2  $0.03  $0.02  $0.04  $0.16
"""
    )


def test_what_changed_at_80_columns() -> None:
    """What is new, what is gone, and what changed how much."""
    found = costs(
        spend("acme", 40), spend("globex", 1), spend("new", 7), spend(None, 0),
        before=(spend("acme", 9), spend("globex", 3), spend(None, 0), spend("old", 5)),
    )  # fmt: skip

    assert (
        shown(render_costs, found)
        == """\
Costs by customer · last 3 h · 12 steps · since Nov 24, 13:00 UTC
Customer        Steps    LLM  Tools  Total  Before  Change  Share
acme                3  $0.40  $0.01  $0.41   $0.10  ▲ 310%    79%  ███████▉
new                 3  $0.07  $0.01  $0.08   $0        new    15%  █▌
globex              3  $0.01  $0.01  $0.02   $0.04   ▼ 50%     4%  ▍
(unattributed)      3  $0     $0.01  $0.01   $0.01    ± 0%     2%  ▎
Total              12  $0.48  $0.04  $0.52   $0.21  ▲ 148%
Gone since the time before: old ($0.06).
"""
    )


def test_nothing_now_still_tells_what_is_gone() -> None:
    text = shown(render_costs, costs(before=(spend("old", 5),)))

    assert "Nothing was recorded" in text
    assert text.endswith("Gone since the time before: old ($0.06).\n")


def test_two_dimensions_at_80_columns() -> None:
    """A model call has no tool; that is not a name that is missing."""
    found = costs(
        spend("acme", 8, "gpt-4o", None), spend("acme", 5, None, "maps/geocode"),
        spend(None, 2, "gpt-4o", None), by="customer_id,model,tool",
    )  # fmt: skip

    assert (
        shown(render_costs, found)
        == """\
Costs by customer and model and tool · last 3 h · 9 calls
since Nov 24, 13:00 UTC
Customer        Model   Tool          Calls  Per call  Total  Share
acme            gpt-4o  -                 3     $0.03  $0.09    50%  █████
acme            -       maps/geocode      3     $0.02  $0.06    33%  ███▍
(unattributed)  gpt-4o  -                 3     $0.01  $0.03    17%  █▋
Total                                     9            $0.18
"""
    )


@pytest.mark.parametrize("width", [80, 140])
def test_hostile_names_stay_in_their_lines(width: int) -> None:
    """They end no line, move no cursor, and leave the columns where they are."""
    reports = (
        (
            render_costs,
            costs(*[spend(one, 1, one) for one in HOSTILE], by="agent,tool"),
        ),
        (render_units, units(*[spend(one, 1, "s") for one in HOSTILE])),
        (render_series, series(*[spend(one, 1) for one in HOSTILE], by="agent")),
        (render_costs, costs(before=tuple(spend(one, 1) for one in HOSTILE))),
        (render_costs, replace(costs(), where={"agent": HOSTILE[:4]})),
    )
    for render, report in reports:
        text = shown(render, report, width=width)

        assert "\x1b" not in text
        assert "\x07" not in text
        for line in text.splitlines():
            visible = line.replace("\u2068", "").replace("\u2069", "")
            assert cell_len(visible) <= width, line


def test_filters_that_nothing_matches_say_so() -> None:
    found = replace(series(), where={"agent": ["nobody"]})

    assert shown(render_series, found).splitlines()[-2:] == [
        "where agent is nobody",
        "Nothing of that was recorded. Ask for more, or look further back.",
    ]
