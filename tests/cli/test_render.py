"""Rendered reports: every line that a person sees, at their terminal's width."""

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from guardrails.cli.screens.costs import render_costs
from guardrails.core.reporting.rollups import Spend
from guardrails.reports import Anomalies, CostReport, losses
from tests.cli.reports import (
    OUTLIER,
    SPARSE,
    customer_report,
    report_of,
    session_report,
)


def rendered(report: CostReport, *, width: int = 80, is_terminal: bool = True) -> str:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=is_terminal,
        color_system=None,
        legacy_windows=False,
    )
    render_costs(report, console)
    return file.getvalue()


def test_sessions_at_80_columns() -> None:
    """Session, who, steps, money and end fit; tokens and shares fall away."""
    assert (
        rendered(session_report())
        == """\
Costs · last 24 h · 847 sessions · 12,398 steps · 9 stopped
since Nov 23, 16:00 UTC
Session        Agent    Customer   Steps      LLM    Tools    Total  End
sess_m3n4o5p6  support  acme       8,977   $2.340  $44.650   $46.99  ▲ loop
sess_q7r8s9t0  analyst  globex        41   $1.930   $1.060    $2.99  ■ cost
sess_i9j0k1l2  analyst  globex        12   $0.162   $0.045    $0.21  ✓
sess_e5f6g7h8  support  -              7   $0.094   $0.015    $0.11  · active
… 843 more (--limit 0)
Total                             12,398  $34.200  $67.800  $102.00
"""
    )


def test_sessions_at_140_columns() -> None:
    """With room, the headline is one line, and nothing falls away."""
    lines = rendered(session_report(), width=140).splitlines()

    assert lines[0].endswith("9 stopped · since Nov 23, 16:00 UTC")
    assert lines[1].split() == [
        *("Session", "Agent", "Customer", "Steps"),
        *("LLM", "Tools", "Total", "Share", "End", "Tokens"),
    ]


def test_sessions_at_40_columns() -> None:
    """At last only what matters is left: which, how much, and how it ended."""
    assert rendered(session_report(), width=40).splitlines()[2:4] == [
        "Session          Total  End",
        "sess_m3n4o5p6   $46.99  ▲ loop",
    ]


def test_customers_at_80_columns() -> None:
    """What nobody is charged with is named, and the bars show the shares."""
    assert (
        rendered(customer_report())
        == """\
Costs by customer · last 24 h · 980 steps · since Nov 23, 16:00 UTC
Customer        Steps     LLM   Tools   Total  Share
acme              340  $12.04  $46.27  $58.31    60%  ██████
globex            340  $17.90  $19.44  $37.34    39%  ███▉
(unattributed)    300   $1.15   $0      $1.15     1%  ▏
Total             980  $31.09  $65.71  $96.80
"""
    )


def test_a_small_share_is_not_shown_as_none() -> None:
    """Of a thousand a dollar is little, and a call for nothing is nothing."""
    costs = {"a": 998_000, "b": 1_500, "c": 0}
    report = report_of(
        *(Spend(name=n, model_nano_usd=c, model_calls=1) for n, c in costs.items())
    )

    rows = rendered(report).splitlines()[2:5]
    assert [re.search("<?[0-9]+%", row)[0] for row in rows] == ["100%", "<1%", "0%"]


def test_tools_show_what_a_call_costs() -> None:
    """Of tools and models the price of one call is of interest."""
    report = report_of(
        Spend(name="maps/geocode", tool_nano_usd=645_000_000, tool_calls=129),
        Spend(name="search", tool_nano_usd=20_000_000, tool_calls=10, failed_calls=3),
        by="tool",
    )

    assert (
        rendered(report)
        == """\
Costs by tool · last 24 h · 139 calls · since Nov 23, 16:00 UTC
Tool          Calls  Failed  Per call   Total  Share
maps/geocode    129       0    $0.005  $0.645    97%  █████████▊
search           10       3    $0.002  $0.020     3%  ▎
Total           139       3            $0.665
"""
    )


def test_tools_show_how_long_they_take_and_how_much_they_move() -> None:
    """Of MCP servers both are known, and a large result costs the next model call."""
    report = report_of(
        Spend(
            name="files/read",
            tool_nano_usd=10**9,
            tool_calls=4,
            latency_ms=90,
            bytes_in=120,
            bytes_out=12_345_678,
        ),
        Spend(name="web/crawl", tool_nano_usd=10**9, tool_calls=2, latency_ms=31_000),
        by="tool",
    )

    assert (
        rendered(report)
        == """\
Costs by tool · last 24 h · 6 calls · since Nov 23, 16:00 UTC
Tool        Calls   Latency    Bytes  Per call  Total  Share
files/read      4     22 ms  12.3 MB     $0.25  $1.00    50%  █████
web/crawl       2      16 s  0 bytes     $0.50  $1.00    50%  █████
Total           6  5,182 ms  12.3 MB            $2.00
"""
    )


def test_an_unknown_price_is_not_nothing() -> None:
    """What had no price is neither free nor in the sums, and is named."""
    report = report_of(
        Spend(name="acme", model_nano_usd=10**9, model_calls=3),
        Spend(name="globex", model_calls=2, unpriced_calls=2),
    )
    unpriced = replace(report, unpriced=["ft", "a", "b", "c", "d"])

    lines = rendered(unpriced).splitlines()

    assert lines[3] == "globex      2   -        $0   -         -"
    assert " ".join(lines[5:]) == (
        "2 calls had no price (ft, a, b and 2 more) and counted as nothing above. "
        "Give them one in guardrails.yaml, under models: or tools:."
    )
    assert max(map(len, lines)) <= 80


def test_what_is_unusual_is_said_below_the_table() -> None:
    """Why, what to do, and the command on a line of its own; the rest is counted."""
    anomalies = Anomalies(
        found=(OUTLIER, *[replace(OUTLIER, name=f"s-{n}") for n in range(4)]),
        insufficient=(SPARSE, SPARSE),
    )
    report = replace(session_report(), anomalies=anomalies)

    lines = [line.rstrip() for line in rendered(report).splitlines()]
    first = lines.index(next(line for line in lines if line.startswith("▲ session")))
    assert " ".join(lines[first : first + 3]) == (
        "▲ session sess_m3n4o5p6 cost $46.99, 391 times the median of its agent "
        "($0.12, 812 sessions); mostly maps/geocode: 8,930 calls. Cap it: "
        "agents.NAME.session.max_cost_usd."
    )
    assert lines[first + 3] == "  → guardrails session -- sess_m3n4o5p6"
    assert sum(line.startswith("▲") for line in lines) == 4
    assert "▲ 2 more: --json has them all." in lines
    assert " ".join(lines[-2:]).endswith(
        "insufficient_data: globex and 1 other cannot be compared yet (3 of 5 active "
        "days)."
    )


def test_what_was_spent_in_vain_is_said() -> None:
    """With its kinds; and what observe mode would have refused, with by what."""
    found = losses(
        [
            Spend(name=None, more_names=(None, "s-1"), tool_nano_usd=7 * 10**9),
            Spend(name="repeat", more_names=(None, "s-1"), tool_nano_usd=10**9),
            Spend(
                name="error",
                more_names=("max_steps of session", "s-2"),
                tool_nano_usd=2 * 10**9,
                tool_calls=4,
            ),
        ]
    )
    report = replace(report_of(Spend(name="a", tool_nano_usd=10**10)), losses=found)

    assert " ".join(rendered(report).split()).endswith(
        "Waste $3.00 (30%): errors $2.00, repeats $1.00. Observe: 1 session and 4 "
        "calls would have been refused, $2.00: max_steps of session."
    )


def test_what_is_no_waste_is_not_unattributed() -> None:
    """It is as it should be."""
    spends = [Spend(name=None, tool_calls=3), Spend(name="retry", tool_calls=1)]
    text = rendered(report_of(*spends, by="waste"))

    assert "Costs by waste" in text
    assert "(no waste)" in text
    refused = rendered(report_of(*spends, by="refused_by"))
    assert "Refused by" in refused
    assert "(allowed)" in refused


def test_an_estimate_is_said_to_be_one() -> None:
    """Calls that reported no usage are in the sums as their upper bound."""
    report = report_of(
        Spend(name="a", model_nano_usd=10**9, model_calls=1, estimated_calls=1)
    )

    assert rendered(report).splitlines()[-1] == (
        "1 call reported no usage; what they cost is an upper estimate."
    )


def test_an_empty_report_says_how_to_begin() -> None:
    """Nothing recorded is no table, but the lines to write next."""
    lines = rendered(report_of()).splitlines()

    assert lines[1].startswith("Nothing was recorded.")
    assert 'guard = Guard(max_cost_usd="1.00")' in lines[3]


def test_markup_in_a_name_is_shown_and_not_obeyed() -> None:
    """Names are data: rich's markup and emoji codes stay as they were written."""
    names = ("[red]x[/red]", "[/]", ":smile:", "[link=file:///]y[/link]")
    report = report_of(*[Spend(name=name, model_calls=1) for name in names])

    text = rendered(report)

    assert all(name in text for name in names)


def test_an_escape_in_a_name_never_reaches_the_terminal() -> None:
    """A ledger may be written by others; its names still cannot move the cursor."""
    report = report_of(Spend(name="a\x1b]0;owned\x07\r\n", model_calls=1))

    text = rendered(report)

    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\r" not in text


def test_wide_and_right_to_left_names_keep_the_columns() -> None:
    """Numbers stand below each other, whatever the script of the names."""
    names = ("研究アシスタント", "עוזר תמיכה", "support", "👩‍👩‍👧")
    report = report_of(
        *[Spend(name=name, model_nano_usd=10**9, model_calls=1) for name in names]
    )

    rows = rendered(report).splitlines()[2:-1]

    assert len(rows) == 4
    assert len({cell_len(line[: line.index("$")]) for line in rows}) == 1


def test_without_a_terminal_the_table_has_80_columns() -> None:
    """A narrow window does not narrow what goes into a file."""
    narrow = rendered(session_report(), width=40, is_terminal=False)

    assert narrow == rendered(session_report(), width=80)


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal has colours, a pipe has none, and NO_COLOR takes them away."""

    def codes(**options: object) -> str:
        file = io.StringIO()
        console = Console(file=file, width=80, legacy_windows=False, **options)
        render_costs(session_report(), console)
        return file.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = codes(force_terminal=True, color_system="standard")
    assert "\x1b[31m" in coloured

    assert "\x1b" not in codes(force_terminal=False)

    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in codes(force_terminal=True, color_system="standard")


def test_ten_thousand_names_are_summed_up_in_one_line() -> None:
    """Only the rows of the limit are laid out."""
    report = report_of(
        *[Spend(name=f"c{n}", model_nano_usd=n, model_calls=1) for n in range(10_000)],
        limit=20,
    )

    lines = rendered(report).splitlines()

    assert len(lines) == 24
    assert lines[-2] == "… 9,980 more (--limit 0)"
