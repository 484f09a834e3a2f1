"""Alerts of a watch: what it tells, and under which id. Pure.

An id follows from what it is about and the day or window, so that many watchers, and
one that looks again, tell once.
"""

from guardrails.core.accounts import Line
from guardrails.core.alerting.alerts import Alert, digest_of
from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind
from guardrails.core.alerting.daily import Daily
from guardrails.core.alerting.pace import Pace
from guardrails.core.attribution import Attribution
from guardrails.core.policy import Measure
from guardrails.core.telling import AlertKind

__all__ = ["alert_of_anomaly", "alert_of_day", "alert_of_pace"]


def alert_of_anomaly(anomaly: Anomaly, project_id: str, *, now_ms: int) -> Alert:
    """Returns the alert of an anomaly: one while it lasts, one for a session."""
    names = {anomaly.dimension: anomaly.name}
    about = (project_id, anomaly.kind, anomaly.dimension, anomaly.name, anomaly.about)
    is_session = anomaly.kind is AnomalyKind.SESSION_OUTLIER
    subject = f"{AlertKind.ANOMALY} {_joined(*about[: 4 if is_session else 5])}"
    began = "" if is_session else f" {anomaly.began_ms}"
    return Alert(
        alert_id=digest_of(f"{subject}{began}"),
        kind=AlertKind.ANOMALY,
        time_ms=now_ms,
        project_id=project_id,
        subject=subject,
        attribution=Attribution(
            project_id=project_id,
            customer_id=names.get("customer_id") or anomaly.customer_id,
            agent=names.get("agent"),
            session_id=names.get("session_id"),
        ),
        anomaly=anomaly,
    )


def alert_of_pace(
    pace: Pace, line: Line, who: Attribution, *, used: int, limit: int, now_ms: int
) -> Alert:
    """Returns the alert of a budget: one per window and level of the limit."""
    subject = f"{AlertKind.PACE} {line.account} {limit}"
    return Alert(
        alert_id=digest_of(subject),
        kind=AlertKind.PACE,
        time_ms=now_ms,
        project_id=who.project_id,
        subject=subject,
        attribution=who,
        scope=line.scope,
        measure=Measure.COST,
        used=used,
        limit=limit,
        pace=pace,
    )


def alert_of_day(daily: Daily, project_id: str, *, now_ms: int) -> Alert:
    """Returns the alert of a day that is over."""
    subject = f"{AlertKind.DAILY} {_joined(project_id, daily.day_ms)}"
    return Alert(
        alert_id=digest_of(subject),
        kind=AlertKind.DAILY,
        time_ms=now_ms,
        project_id=project_id,
        subject=subject,
        attribution=Attribution(project_id=project_id),
        daily=daily,
    )


def _joined(*parts: object) -> str:
    """Joins parts so that no name can imitate another part."""
    return " ".join(repr(part) for part in parts)
