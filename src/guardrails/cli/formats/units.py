"""Formats of what sessions cost: as JSON or CSV. Money is a decimal string."""

from guardrails.cli.formats.costs import csv_lines, head, sums_of
from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import time_text
from guardrails.core.money import usd
from guardrails.reports import UnitReport, UnitRow

__all__ = ["csv_text", "json_text"]


def json_text(report: UnitReport) -> str:
    """Writes a report as one JSON object, in the order of its rows."""
    content = {
        **head(report.project_id, by=report.by, span=report.span, where=report.where),
        "per": "session",
        "every": report.every,
        **_units(report.total),
        **sums_of(report.total.spend),
        "unpriced": list(report.unpriced),
        "rows_total": report.names,
        "rows": [_cells(row, report) for row in report.rows],
    }
    return document(content)


def csv_text(report: UnitReport) -> str:
    """Writes a report as CSV: a header, and one line per row."""
    step = ["from"] if report.every else []
    columns = [*step, *report.dimensions, *_units(report.total)]
    columns += [*sums_of(report.total.spend), "share"]
    return csv_lines(columns, [_cells(row, report) for row in report.rows])


def _cells(row: UnitRow, report: UnitReport) -> dict[str, object]:
    return {
        **({"from": time_text(row.since_ms)} if report.every else {}),
        **dict(zip(report.dimensions, row.names, strict=True)),
        **_units(row),
        **sums_of(row.spend),
        "share": None if row.share is None else round(row.share, 6),
    }


def _units(row: UnitRow) -> dict[str, object]:
    return {
        "sessions": row.sessions,
        "mean_usd": _usd(row.mean_nano_usd),
        "p50_usd": _usd(row.p50_nano_usd),
        "p95_usd": _usd(row.p95_nano_usd),
    }


def _usd(nano: int | None) -> str | None:
    return None if nano is None else f"{usd(nano):f}"
