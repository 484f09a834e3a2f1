"""Formats: a report as JSON or CSV, for programs. Money is a decimal string."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import time_text
from guardrails.cli.screens.findings import findings_json
from guardrails.core.money import usd
from guardrails.core.reporting.rollups import Spend
from guardrails.exports.cells import inert
from guardrails.reports import CostReport, CostRow, SessionRow, Span

__all__ = ["SCHEMA_VERSION", "csv_lines", "csv_text", "head", "json_text", "sums_of"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

_CHANGE_COLUMNS = ("before_usd", "change_usd", "change")
_SESSION_COLUMNS = ("agent", "customer_id", "end", "end_reason")


def json_text(report: CostReport) -> str:
    """Writes a report as one JSON object, rows most expensive first."""
    by_session = {"sessions_stopped": report.stopped}
    content = {
        **head(report.project_id, by=report.by, span=report.span, where=report.where),
        **sums_of(report.total),
        "unpriced": list(report.unpriced),
        **(by_session if report.by == "session_id" else {}),
        **findings_json(report),
        **_comparison(report),
        "rows_total": report.names,
        **(_others(report) if report.hidden else {}),
        "rows": [_cells(row, report) for row in report.rows],
    }
    return document(content)


def head(
    project_id: str, *, by: str | None, span: Span, where: Mapping[str, Sequence[str]]
) -> dict[str, object]:
    """Returns what every report in JSON begins with."""
    return {
        "schema_version": SCHEMA_VERSION,
        "project_id": project_id,
        "by": by,
        "range": {"from": time_text(span.since_ms), "to": time_text(span.until_ms)},
        **({"where": {k: list(globs) for k, globs in where.items()}} if where else {}),
        "currency": "USD",
    }


def csv_text(report: CostReport) -> str:
    """Writes a report as CSV: a header, and one line per row."""
    session = _SESSION_COLUMNS if report.by == "session_id" else ()
    change = () if report.before is None else _CHANGE_COLUMNS
    columns = [*report.dimensions, *session, *sums_of(Spend(name=None)), "share"]
    return csv_lines([*columns, *change], [_cells(row, report) for row in report.rows])


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Writes CSV that no spreadsheet runs: a header, and one line per row."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                # Amounts are texts as well, and one that fell begins with a minus.
                key: inert(value)
                if isinstance(value, str) and not key.endswith("_usd")
                else value
                for key, value in row.items()
            }
        )
    return out.getvalue()


def _cells(row: CostRow, report: CostReport) -> dict[str, object]:
    cells: dict[str, object] = dict(
        zip(report.dimensions, row.spend.names, strict=False)
    )
    if isinstance(row, SessionRow):
        who = (row.agent, row.customer_id, row.end, row.reason)
        cells |= dict(zip(_SESSION_COLUMNS, who, strict=True))
    share = None if row.share is None else round(row.share, 6)
    cells |= sums_of(row.spend) | {"share": share}
    return cells | _change(row) if report.before is not None else cells


def _change(row: CostRow) -> dict[str, object]:
    before, change = row.before, row.change_nano_usd
    values = (
        before and f"{usd(before.total_nano_usd):f}",
        None if change is None else f"{usd(change):f}",
        None if row.change is None else round(row.change, 6),
    )
    return dict(zip(_CHANGE_COLUMNS, values, strict=True))


def _comparison(report: CostReport) -> dict[str, object]:
    """Returns what the span before comes to, if it was compared."""
    if report.before is None:
        return {}
    span = report.span.before
    return {
        "before": {
            "from": time_text(span.since_ms),
            "to": time_text(report.span.since_ms),
            "cost_usd": f"{usd(report.before.total_nano_usd):f}",
            "gone": [
                dict(zip(report.dimensions, spend.names, strict=False))
                | {"cost_usd": f"{usd(spend.total_nano_usd):f}"}
                for spend in report.gone
            ],
        }
    }


def _others(report: CostReport) -> dict[str, object]:
    cost = f"{usd(report.others.total_nano_usd):f}"
    return {"others": {"rows": report.hidden, "cost_usd": cost}}


def sums_of(spend: Spend) -> dict[str, object]:
    """Returns what every row of every report has."""
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
        "cache_read_tokens": spend.cache_read_tokens,
        "cache_write_tokens": spend.cache_write_tokens,
        "reasoning_tokens": spend.reasoning_tokens,
        "failed_usd": f"{usd(spend.failed_nano_usd):f}",
    }
