"""Formats of a list of sessions: as JSON or CSV. Money is a decimal string."""

from guardrails.cli.formats.costs import csv_lines, head, sums_of
from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import time_text
from guardrails.core.money import usd
from guardrails.core.reporting.rollups import Spend
from guardrails.reports import SessionInfo, SessionList

__all__ = ["csv_text", "json_text"]

_COLUMNS = (
    "session_id",
    "agent",
    "customer_id",
    "status",
    "end",
    "end_reason",
    "started",
    "last_active",
    "active_s",
    "limit_usd",
    "whole_usd",
)


def json_text(found: SessionList) -> str:
    """Writes a list as one JSON object."""
    content = {
        **head(found.project_id, by="session_id", span=found.span, where=found.where),
        **sums_of(found.total),
        "rows_total": found.count,
        "rows": [_cells(row) for row in found.rows],
    }
    return document(content)


def csv_text(found: SessionList) -> str:
    """Writes a list as CSV: a header, and one line per session."""
    columns = [*_COLUMNS, *sums_of(Spend(name=None))]
    return csv_lines(columns, [_cells(row) for row in found.rows])


def _cells(row: SessionInfo) -> dict[str, object]:
    """Returns what is known; `whole_usd` is also of what was before the span."""
    cells = (
        row.session_id,
        row.agent,
        row.customer_id,
        row.state,
        row.end,
        row.reason,
        time_text(row.started_at_ms),
        time_text(row.last_active_at_ms),
        None if row.active_ms is None else row.active_ms / 1000,
        _usd(row.limit_nano_usd),
        _usd(row.whole_nano_usd),
    )
    return dict(zip(_COLUMNS, cells, strict=True)) | sums_of(row.spend)


def _usd(nano: int | None) -> str | None:
    return None if nano is None else f"{usd(nano):f}"
