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
from guardrails.reports.simulation import Refused, Simulation, simulated

__all__ = [
    "Cause",
    "CostReport",
    "CostRow",
    "Outlier",
    "Refused",
    "SessionRow",
    "Simulation",
    "Span",
    "find_outliers",
    "report_by",
    "report_sessions",
    "simulated",
    "unpriced_names",
    "with_cause",
]
