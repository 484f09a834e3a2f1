"""Formats of a series: as JSON or CSV, for programs. Money is a decimal string."""

from guardrails.cli.formats.costs import csv_lines, head, sums_of
from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import time_text
from guardrails.core.reporting.rollups import Spend
from guardrails.reports import Series

__all__ = ["csv_text", "json_text"]


def json_text(series: Series) -> str:
    """Writes a series as one JSON object, rows oldest first."""
    content = {
        **head(series.project_id, by=series.by, span=series.span, where=series.where),
        "every": series.every,
        **sums_of(series.total),
        "unpriced": list(series.unpriced),
        "names_total": series.names,
        "rows": [_cells(row, series) for row in series.rows],
    }
    return document(content)


def csv_text(series: Series) -> str:
    """Writes a series as CSV: a header, and one line per row."""
    columns = ["from", *series.dimensions, *sums_of(Spend(name=None))]
    return csv_lines(columns, [_cells(row, series) for row in series.rows])


def _cells(row: Spend, series: Series) -> dict[str, object]:
    names = (*row.names, *[None] * len(series.dimensions))
    return {
        "from": time_text(row.since_ms),
        **dict(zip(series.dimensions, names, strict=False)),
        **sums_of(row),
    }
