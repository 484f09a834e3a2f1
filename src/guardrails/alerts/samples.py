"""Samples: what each kind of alert looks like, for whoever sets them up."""

from dataclasses import replace
from typing import assert_never

from guardrails.core.accounts import StopReason
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind, Severity, Unit
from guardrails.core.alerting.daily import Daily
from guardrails.core.alerting.pace import Pace
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.policy import Limits, Measure, OnUnpriced
from guardrails.core.telling import AlertKind
from guardrails.core.windows import DAY_MS, Window, window_end_ms
from guardrails.system.ids import new_id

__all__ = ["samples"]

_FINDING = LoopFinding(
    kind=LoopKind.IDENTICAL,
    tool="sample-server/sample-tool",
    arguments_digest="",
    count=3,
    cost_nano_usd=15_000_000,
)


_UNPRICED = Unpriced(
    model="sample-model", provider="sample-provider", calls=OnUnpriced.REFUSE
)

_NOBODY = Attribution()

_SOMEBODY = Attribution(agent="sample-agent", session_id="sample-session")


def samples(kind: AlertKind, *, project_id: str, now_ms: int) -> tuple[Alert, ...]:
    """Returns alerts about nothing, which say so: one for each way a kind looks."""
    plain = Alert(
        alert_id=new_id(),
        kind=kind,
        time_ms=now_ms,
        project_id=project_id,
        is_sample=True,
    )
    of_session = replace(
        plain,
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
    limited = replace(
        of_session,
        measure=Measure.COST,
        used=980_000_000,
        limit=1_000_000_000,
        needed=50_000_000,
    )
    match kind:
        case AlertKind.SOFT:
            soft = replace(limited, used=800_000_000, needed=None)
            return (replace(soft, threshold="max_cost_usd:0.8"),)
        case AlertKind.STOP:
            killed = replace(of_session, reason=StopReason.KILLED, by="sample-person")
            return (
                replace(limited, reason=StopReason.BUDGET_EXCEEDED),
                replace(killed, alert_id=new_id()),
            )
        case AlertKind.LIMIT:
            scope = "customer_id=sample-customer"
            return (replace(limited, scope=scope, is_session=False, steps=None),)
        case AlertKind.LOOP:
            return (replace(of_session, finding=_FINDING),)
        case AlertKind.RAISED:
            raised = Limits(cost_nano_usd=2_000_000_000)
            return (replace(of_session, raised=raised, by="sample-person"),)
        case AlertKind.UNPRICED:
            return (replace(plain, attribution=_SOMEBODY, unpriced=_UNPRICED),)
        case AlertKind.RECOVERED:
            return (replace(plain, outage_ms=12_000),)
        case AlertKind.ANOMALY | AlertKind.PACE | AlertKind.DAILY:
            return (_watched(plain),)
        case AlertKind.DEGRADED | AlertKind.TEST:
            return (plain,)
        case _:
            assert_never(kind)


def _watched(plain: Alert) -> Alert:
    """Returns what a watch tells."""
    now_ms = plain.time_ms
    if plain.kind is AlertKind.ANOMALY:
        return replace(plain, attribution=_NOBODY, anomaly=_anomaly(now_ms))
    if plain.kind is AlertKind.DAILY:
        return replace(plain, attribution=_NOBODY, daily=_daily(now_ms))
    return replace(
        plain,
        attribution=Attribution(customer_id="sample-customer"),
        scope="customer_id=sample-customer",
        measure=Measure.COST,
        used=312_000_000_000,
        limit=500_000_000_000,
        pace=_pace(now_ms),
    )


def _anomaly(now_ms: int) -> Anomaly:
    day_ms = now_ms // DAY_MS * DAY_MS
    return Anomaly(
        kind=AnomalyKind.CUSTOMER_SPIKE,
        dimension="customer_id",
        name="sample-customer",
        since_ms=day_ms,
        began_ms=day_ms,
        unit=Unit.COST,
        measured=58_310_000_000,
        expected=14_200_000_000,
        ratio=4.1,
        n=10,
        cost_nano_usd=58_310_000_000,
        excess_nano_usd=44_110_000_000,
        severity=Severity.MEDIUM,
    )


def _pace(now_ms: int) -> Pace:
    ends_at_ms = window_end_ms(Window.MONTH, now_ms=now_ms)
    assert ends_at_ms is not None
    return Pace(
        budget="sample-month",
        window=Window.MONTH,
        gone_at_ms=now_ms + (ends_at_ms - now_ms) // 2,
        ends_at_ms=ends_at_ms,
        long_hours=72,
        short_hours=6,
    )


def _daily(now_ms: int) -> Daily:
    return Daily(
        day_ms=(now_ms // DAY_MS - 1) * DAY_MS,
        cost_nano_usd=102_000_000_000,
        before_nano_usd=91_000_000_000,
        sessions=847,
        wasted_nano_usd=12_300_000_000,
        anomalies=2,
        customers=(("sample-customer", 58_310_000_000), (None, 1_150_000_000)),
        agents=(("sample-agent", 71_000_000_000),),
        tools=(("sample-server/sample-tool", 44_650_000_000),),
    )
