"""Reports: what the command line and other views show. Pure."""

from guardrails.core.alerting.anomaly_rules import BASELINE_DAYS, AnomalyRules
from guardrails.core.windows import DAY_MS
from guardrails.reports.anomalies import Anomalies, find_anomalies
from guardrails.reports.anomaly_rows import (
    BEFORE_BY,
    NOW_BY,
    Row,
    Sparse,
    Watched,
    rows_of,
    summed,
)
from guardrails.reports.costs import (
    CostReport,
    CostRow,
    SessionRow,
    report_by,
    report_sessions,
    unpriced_names,
)
from guardrails.reports.losses import LOSSES_BY, Losses, losses
from guardrails.reports.series import Series, series_of
from guardrails.reports.sessions import (
    SESSION_ORDERS,
    SESSION_STATES,
    SessionInfo,
    SessionList,
    sessions,
)
from guardrails.reports.spans import Span
from guardrails.reports.top import Top, midnight_ms, report_top
from guardrails.reports.units import UnitReport, UnitRow, report_units

__all__ = [
    "BASELINE_DAYS",
    "BEFORE_BY",
    "DAY_MS",
    "LOSSES_BY",
    "NOW_BY",
    "SESSION_ORDERS",
    "SESSION_STATES",
    "Anomalies",
    "AnomalyRules",
    "CostReport",
    "CostRow",
    "Losses",
    "Row",
    "Series",
    "SessionInfo",
    "SessionList",
    "SessionRow",
    "Span",
    "Sparse",
    "Top",
    "UnitReport",
    "UnitRow",
    "Watched",
    "find_anomalies",
    "losses",
    "midnight_ms",
    "report_by",
    "report_sessions",
    "report_top",
    "report_units",
    "rows_of",
    "series_of",
    "sessions",
    "summed",
    "unpriced_names",
]
