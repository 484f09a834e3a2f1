"""Outages: the one alert that the store cannot keep, because it is about the store."""

from guardrails.core.alerting.alerts import Alert
from guardrails.core.telling import AlertKind
from guardrails.system.ids import new_id

__all__ = ["alert_of_outage"]


def alert_of_outage(project_id: str, *, seconds: float | None, now_ms: int) -> Alert:
    """Returns the alert of a store that is away, or after so many seconds is back."""
    kind = AlertKind.DEGRADED if seconds is None else AlertKind.RECOVERED
    return Alert(
        alert_id=new_id(),
        kind=kind,
        time_ms=now_ms,
        project_id=project_id,
        subject=f"{kind.value} {project_id}",
        outage_ms=None if seconds is None else round(seconds * 1000),
    )
