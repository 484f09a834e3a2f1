"""Samples: what each kind of alert looks like, for whoever sets them up."""

from dataclasses import replace
from typing import assert_never

from guardrails.core.accounts import StopReason
from guardrails.core.alerts import Alert
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.policy import Limits, Measure
from guardrails.core.telling import AlertKind
from guardrails.ids import new_id

__all__ = ["samples"]

_FINDING = LoopFinding(
    kind=LoopKind.IDENTICAL,
    tool="sample-server/sample-tool",
    arguments_digest="",
    count=3,
    cost_nano_usd=15_000_000,
)


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
        case AlertKind.RECOVERED:
            return (replace(plain, outage_ms=12_000),)
        case AlertKind.DEGRADED | AlertKind.TEST:
            return (plain,)
        case _:
            assert_never(kind)
