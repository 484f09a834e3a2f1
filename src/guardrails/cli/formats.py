"""Formats: a report as JSON or CSV, for programs. Money is a decimal string."""

import csv
import io
import json
from datetime import UTC, datetime

from guardrails.core.money import usd
from guardrails.core.rollups import Spend
from guardrails.reports import CostReport, CostRow, SessionRow

__all__ = ["csv_text", "json_text"]

SCHEMA_VERSION = 1

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet runs a cell that starts so; names come from outside."""


def json_text(report: CostReport) -> str:
    """Writes a report as one JSON object."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "by": report.by,
        "range": {"from": _time(report.since_ms), "to": _time(report.until_ms)},
        "currency": "USD",
        **_sums(report.total),
        "rows": [_cells(row, report.by) for row in report.rows],
        "rows_left_out": report.hidden,
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def csv_text(report: CostReport) -> str:
    """Writes a report as CSV with a header, one line per row."""
    rows = [_cells(row, report.by) for row in report.rows]
    empty = _cells(CostRow(name=None, spend=Spend(name=None), share=None), report.by)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0] if rows else empty))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _safe(value) for key, value in row.items()})
    return out.getvalue()


def _cells(row: CostRow, by: str) -> dict[str, object]:
    cells: dict[str, object] = {by: row.name}
    if isinstance(row, SessionRow):
        cells |= {
            "agent": row.agent,
            "customer_id": row.customer_id,
            "end": row.end,
            "end_reason": row.reason,
        }
    share = None if row.share is None else round(row.share, 6)
    return cells | _sums(row.spend) | {"share": share}


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
    }


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat(timespec="seconds")


def _safe(value: object) -> object:
    """Makes a name inert in a spreadsheet."""
    if isinstance(value, str) and value.lstrip().startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
