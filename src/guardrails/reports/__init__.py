"""Reports: what the command line and other views show. Pure."""

from guardrails.reports.costs import (
    CostReport,
    CostRow,
    SessionRow,
    Span,
    report_by,
    report_sessions,
    unpriced_names,
)

__all__ = [
    "CostReport",
    "CostRow",
    "SessionRow",
    "Span",
    "report_by",
    "report_sessions",
    "unpriced_names",
]
