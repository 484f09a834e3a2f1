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
from guardrails.reports.outliers import Cause, Outlier, find_outliers, with_cause

__all__ = [
    "Cause",
    "CostReport",
    "CostRow",
    "Outlier",
    "SessionRow",
    "Span",
    "find_outliers",
    "report_by",
    "report_sessions",
    "unpriced_names",
    "with_cause",
]
