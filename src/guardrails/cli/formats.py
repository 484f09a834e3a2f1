"""Formats: a report as JSON or CSV, for programs. Money is a decimal string."""

import csv
import io
import json

from guardrails.cli.times import time_text
from guardrails.core.money import usd
from guardrails.core.rollups import Spend
from guardrails.exports.cells import inert
from guardrails.reports import CostReport, CostRow, Outlier, SessionRow

__all__ = ["SCHEMA_VERSION", "csv_text", "json_text"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

_SESSION_COLUMNS = ("agent", "customer_id", "end", "end_reason")


def json_text(report: CostReport) -> str:
    """Writes a report as one JSON object, rows most expensive first."""
    by_session = {
        "sessions_stopped": report.stopped,
        "outliers": [_outlier(outlier) for outlier in report.outliers],
    }
    content = {
        "schema_version": SCHEMA_VERSION,
        "project_id": report.project_id,
        "by": report.by,
        "range": {
            "from": time_text(report.span.since_ms),
            "to": time_text(report.span.until_ms),
        },
        "currency": "USD",
        **_sums(report.total),
        "unpriced": list(report.unpriced),
        **(by_session if report.by == "session_id" else {}),
        "rows_total": report.names,
        "rows": [_cells(row, report.by) for row in report.rows],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def csv_text(report: CostReport) -> str:
    """Writes a report as CSV: a header, and one line per row."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, fieldnames=_csv_columns(report.by), lineterminator="\n"
    )
    writer.writeheader()
    for row in report.rows:
        cells = _cells(row, report.by)
        writer.writerow(
            {
                key: inert(value) if isinstance(value, str) else value
                for key, value in cells.items()
            }
        )
    return out.getvalue()


def _csv_columns(by: str) -> list[str]:
    session = _SESSION_COLUMNS if by == "session_id" else ()
    return [by, *session, *_sums(Spend(name=None)), "share"]


def _cells(row: CostRow, by: str) -> dict[str, object]:
    cells: dict[str, object] = {by: row.name}
    if isinstance(row, SessionRow):
        who = (row.agent, row.customer_id, row.end, row.reason)
        cells |= dict(zip(_SESSION_COLUMNS, who, strict=True))
    share = None if row.share is None else round(row.share, 6)
    return cells | _sums(row.spend) | {"share": share}


def _outlier(outlier: Outlier) -> dict[str, object]:
    cause = outlier.cause
    return {
        "session_id": outlier.session_id,
        "cost_usd": f"{usd(outlier.cost_nano_usd):f}",
        "median_usd": f"{usd(outlier.median_nano_usd):f}",
        "times_median": round(outlier.times_median, 1),
        "cause": cause
        and {
            "name": cause.name,
            "calls": cause.calls,
            "cost_usd": f"{usd(cause.cost_nano_usd):f}",
        },
    }


def _sums(spend: Spend) -> dict[str, object]:
    return {
        "cost_usd": f"{usd(spend.total_nano_usd):f}",
        "llm_usd": f"{usd(spend.model_nano_usd):f}",
        "tools_usd": f"{usd(spend.tool_nano_usd):f}",
        "steps": spend.steps,
        "model_calls": spend.model_calls,
        "tool_calls": spend.tool_calls,
        "input_tokens": spend.input_tokens,
        "output_tokens": spend.output_tokens,
        "unpriced_calls": spend.unpriced_calls,
        "estimated_calls": spend.estimated_calls,
        "failed_calls": spend.failed_calls,
        "latency_ms": spend.latency_ms,
        "bytes_in": spend.bytes_in,
        "bytes_out": spend.bytes_out,
    }
