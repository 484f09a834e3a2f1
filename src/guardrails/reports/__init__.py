"""Reports: what the command line and other views show. Pure."""

from guardrails.reports.costs import (
    CostReport,
    CostRow,
    SessionRow,
    report_by,
    report_sessions,
)

__all__ = ["CostReport", "CostRow", "SessionRow", "report_by", "report_sessions"]
