"""Samples: what each kind of alert looks like, for whoever sets them up."""

from dataclasses import replace

from guardrails.alerts.alert import Alert, AlertKind
from guardrails.core.accounts import StopReason
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.policy import Measure
from guardrails.ids import new_id

__all__ = ["sample"]


def sample(kind: AlertKind, *, project_id: str, now_ms: int) -> Alert:
    """Returns an alert about nothing, which says so."""
    alert = Alert(
        alert_id=new_id(),
        kind=kind,
        time_ms=now_ms,
        project_id=project_id,
        is_sample=True,
    )
    if kind is AlertKind.RECOVERED:
        return replace(alert, outage_ms=12_000)
    if kind in (AlertKind.DEGRADED, AlertKind.TEST):
        return alert
    alert = replace(
        alert,
        attribution=Attribution(
            project_id=project_id,
            agent="sample-agent",
            agent_path=("sample-agent",),
            customer_id="sample-customer",
            session_id="sample-session",
        ),
        scope="session",
        is_session=True,
        steps=20,
    )
    if kind is AlertKind.LOOP:
        return replace(
            alert,
            finding=LoopFinding(
                kind=LoopKind.IDENTICAL,
                tool="sample-server/sample-tool",
                arguments_digest="",
                count=3,
                cost_nano_usd=15_000_000,
            ),
        )
    limited = replace(
        alert, measure=Measure.COST, used=800_000_000, limit=1_000_000_000
    )
    if kind is AlertKind.SOFT:
        return replace(limited, threshold="max_cost_usd:0.8")
    return replace(
        limited,
        used=980_000_000,
        needed=50_000_000,
        reason=StopReason.BUDGET_EXCEEDED,
    )
