"""Watched: an alert of each kind that scripts never tell, for tests of stores."""

from guardrails.core.accounts import Line
from guardrails.core.alerting.alerts import Alert, alert_of_unpriced
from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind, Severity, Unit
from guardrails.core.alerting.daily import Daily
from guardrails.core.alerting.pace import Pace
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.alerting.watch_alerts import (
    alert_of_anomaly,
    alert_of_day,
    alert_of_pace,
)
from guardrails.core.attribution import Attribution
from guardrails.core.policy import Limits, OnUnpriced
from guardrails.core.windows import Window

__all__ = ["watched_alerts"]

HOSTILE = 'acme "\x85\u2028 名'
"""A name with what parts lines and texts elsewhere."""


def watched_alerts(project_id: str, *, now_ms: int) -> tuple[Alert, ...]:
    """Returns four alerts: of an anomaly, a pace, a day and a missing price."""
    anomaly = Anomaly(
        kind=AnomalyKind.CUSTOMER_SPIKE,
        dimension="customer_id",
        name=HOSTILE,
        since_ms=0,
        began_ms=0,
        unit=Unit.COST,
        measured=5_000_000_000,
        expected=1_000_000_000,
        ratio=5.0,
        n=10,
        cost_nano_usd=5_000_000_000,
        excess_nano_usd=4_000_000_000,
        severity=Severity.LOW,
    )
    pace = Pace(
        budget="all",
        window=Window.MONTH,
        gone_at_ms=now_ms + 1,
        ends_at_ms=now_ms + 2,
        long_hours=72,
        short_hours=6,
    )
    daily = Daily(
        day_ms=0,
        cost_nano_usd=3,
        before_nano_usd=2,
        sessions=1,
        wasted_nano_usd=1,
        anomalies=0,
        customers=((HOSTILE, 2), (None, 1)),
    )
    unpriced = Unpriced(model=HOSTILE, provider=None, calls=OnUnpriced.REFUSE)
    who = Attribution(project_id=project_id)
    line = Line(account=f"{project_id}/2025-11", scope="project", limits=Limits())
    return (
        alert_of_anomaly(anomaly, project_id, now_ms=now_ms),
        alert_of_pace(pace, line, who, used=1, limit=2, now_ms=now_ms),
        alert_of_day(daily, project_id, now_ms=now_ms),
        alert_of_unpriced(unpriced, who, now_ms=now_ms),
    )
