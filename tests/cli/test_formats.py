"""JSON and CSV: for programs, so exact amounts and fixed names."""

import csv
import io
import json
from dataclasses import replace
from decimal import Decimal

import pytest

from guardrails.cli.formats.costs import csv_text, json_text
from guardrails.core.reporting.rollups import Spend
from guardrails.reports import Anomalies, Span, report_by
from tests.cli.reports import (
    OUTLIER,
    SPARSE,
    customer_report,
    report_of,
    session_report,
)


def test_json_has_a_version_and_exact_amounts() -> None:
    """Money is a decimal string, and instants are ISO 8601 in UTC."""
    content = json.loads(json_text(session_report()))

    assert content["schema_version"] == 1
    assert content["cost_usd"] == "102.00"
    assert content["range"] == {
        "from": "2025-11-23T16:00:00+00:00",
        "to": "2025-11-24T16:30:00+00:00",
    }
    assert content["sessions_stopped"] == 9
    assert content["rows_total"] == 847
    assert content["anomalies"] == content["insufficient_data"] == []
    assert content["waste"] == {"cost_usd": "0.00", "by": {}}
    assert content["rows"][1] == {
        "session_id": "sess_q7r8s9t0",
        "agent": "analyst",
        "customer_id": "globex",
        "end": "budget_exceeded",
        "end_reason": "max_cost_usd",
        "cost_usd": "2.99",
        "llm_usd": "1.93",
        "tools_usd": "1.06",
        "steps": 41,
        "model_calls": 20,
        "tool_calls": 21,
        "input_tokens": 41_000,
        "output_tokens": 2_050,
        "unpriced_calls": 0,
        "estimated_calls": 0,
        "failed_calls": 0,
        "latency_ms": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "failed_usd": "0.00",
        "share": 0.029314,
    }


def test_json_has_all_that_is_unusual() -> None:
    """A program can act on it; amounts are exact here too."""
    anomalies = Anomalies(found=(OUTLIER,) * 5, insufficient=(SPARSE,))
    content = json.loads(json_text(replace(customer_report(), anomalies=anomalies)))

    assert len(content["anomalies"]) == 5
    one = content["anomalies"][0]
    assert one["reason"].startswith("session sess_m3n4o5p6 cost $46.99, 391 times")
    assert one["command"] == "guardrails session -- sess_m3n4o5p6"
    assert {
        "kind": "session_outlier",
        "severity": "medium",
        "dimension": "session_id",
        "name": "sess_m3n4o5p6",
        "about": "maps/geocode",
        "unit": "usd",
        "measured": "46.99",
        "expected": "0.12",
        "ratio": 391.2,
        "n": 812,
        "excess_usd": "46.87",
    }.items() <= one.items()
    assert content["insufficient_data"] == [
        {
            "kind": "customer_spike",
            "dimension": "customer_id",
            "name": "globex",
            "have": 3,
            "need": 5,
        }
    ]


def test_json_amounts_add_up_exactly() -> None:
    """Decimal strings do not drift as floats would."""
    tenths = [Spend(name=str(n), tool_nano_usd=100_000_001) for n in range(3)]
    content = json.loads(json_text(report_of(*tenths)))

    total = sum(Decimal(row["cost_usd"]) for row in content["rows"])
    assert total == Decimal(content["cost_usd"]) == Decimal("0.300000003")


def test_json_of_other_dimensions_has_no_sessions() -> None:
    """Rows are named by their dimension; not attributed is null."""
    content = json.loads(json_text(customer_report()))

    assert [row["customer_id"] for row in content["rows"]] == ["acme", "globex", None]
    assert "sessions_stopped" not in content
    assert "agent" not in content["rows"][0]


def test_csv_has_a_header_and_a_line_per_row() -> None:
    """The columns are those of the JSON."""
    rows = list(csv.DictReader(io.StringIO(csv_text(session_report()))))

    assert len(rows) == 4
    assert rows[0]["session_id"] == "sess_m3n4o5p6"
    assert rows[0]["cost_usd"] == "46.99"
    assert rows[3]["customer_id"] == ""
    assert list(rows[0]) == list(json.loads(json_text(session_report()))["rows"][0])


def test_csv_of_nothing_is_its_header() -> None:
    """A program finds its columns also on a day without spend."""
    assert csv_text(report_of()) == (
        "agent,cost_usd,llm_usd,tools_usd,steps,model_calls,tool_calls,input_tokens,"
        "output_tokens,unpriced_calls,estimated_calls,failed_calls,"
        "latency_ms,bytes_in,bytes_out,cache_read_tokens,cache_write_tokens,"
        "reasoning_tokens,failed_usd,share\n"
    )


@pytest.mark.parametrize(
    "name", ['=HYPERLINK("x")', "+1", "-1", "@SUM(A1)", "  =1", "\t=1", "＝1"]
)
def test_a_spreadsheet_runs_no_name(name: str) -> None:
    """A cell that a spreadsheet would take for a formula is quoted."""
    (row,) = csv.DictReader(io.StringIO(csv_text(report_of(Spend(name=name)))))

    assert row["agent"] == f"'{name}"


def test_csv_keeps_commas_quotes_and_lines_in_their_cell() -> None:
    """Names are data in every format."""
    name = 'acme, "the" first\nsecond'
    (row,) = csv.DictReader(io.StringIO(csv_text(report_of(Spend(name=name)))))

    assert row["agent"] == name


def test_csv_has_numbers_where_something_costs_less() -> None:
    """What begins with a minus is an amount there, and no formula."""
    report = report_by(
        [Spend(name="-1", tool_nano_usd=10**9)],
        project_id="default",
        by="agent",
        span=Span(hours=24, until_ms=0),
        limit=0,
        before=[Spend(name="-1", tool_nano_usd=5 * 10**9)],
    )
    (row,) = csv.DictReader(io.StringIO(csv_text(report)))

    assert (row["agent"], row["cost_usd"]) == ("'-1", "1.00")
    assert (row["before_usd"], row["change_usd"], row["change"]) == (
        "5.00", "-4.00", "-0.8",
    )  # fmt: skip
