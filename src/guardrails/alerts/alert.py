"""Alert: what people are told, as a closed record.

Names, amounts and counts only: there is no field that could hold a prompt, an
argument, a result or the text of an error.
"""

import enum
from dataclasses import dataclass

from guardrails.core.accounts import Stop, StopReason
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding
from guardrails.core.operations import Crossing
from guardrails.core.policy import Measure
from guardrails.ids import new_id

__all__ = [
    "Alert",
    "AlertKind",
    "alert_of_crossing",
    "alert_of_loop",
    "alert_of_outage",
    "alert_of_stop",
]


class AlertKind(enum.StrEnum):
    """What an alert is about."""

    SOFT = "soft"
    """A soft threshold was crossed; the agent goes on."""
    STOP = "stop"
    """A session was stopped."""
    LOOP = "loop"
    """An agent repeats itself, and goes on."""
    DEGRADED = "degraded"
    """The store does not answer."""
    RECOVERED = "recovered"
    """The store is back."""
    TEST = "test"
    """Somebody tries whether alerts arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that people should know."""

    alert_id: str
    """Never used again. A receiver that sees it twice was sent it twice."""
    kind: AlertKind
    time_ms: int
    """When it happened, in milliseconds since 1970 (UTC)."""
    project_id: str
    attribution: Attribution | None = None
    """Whose session or call; `None` if it is about the store."""
    scope: str | None = None
    """What the budget is kept per: `session`, `customer_id=acme`, `project`."""
    is_session: bool = False
    """Whether the budget is that of the session in the attribution."""
    measure: Measure | None = None
    """The limit that it is about, if it is about one."""
    used: int | None = None
    """In the unit of the ledger, as the two below."""
    limit: int | None = None
    needed: int | None = None
    """What the refused call would have added at most."""
    threshold: str | None = None
    """Of a soft alert: names the threshold once per account."""
    reason: StopReason | None = None
    """Of a stop."""
    steps: int | None = None
    """Steps of the session so far, if they are known."""
    finding: LoopFinding | None = None
    outage_ms: int | None = None
    """How long the store was away, once it is back."""
    is_sample: bool = False
    """Whether it only shows what such an alert looks like."""

    @property
    def subject(self) -> tuple[str | None, ...]:
        """What it is about: the same for an alert that only repeats this one."""
        who = self.attribution
        session_id = who.session_id if who and self._is_of_session else None
        about = self.finding.tool if self.finding else self.threshold
        return self.kind.value, self.project_id, self.scope, session_id, about

    @property
    def _is_of_session(self) -> bool:
        return self.is_session or self.kind is not AlertKind.SOFT


def alert_of_crossing(crossing: Crossing, who: Attribution, *, now_ms: int) -> Alert:
    """Returns the alert of a soft threshold that was crossed."""
    line, measure = crossing.line, crossing.threshold.measure
    owner = line.attribution or who
    return Alert(
        alert_id=new_id(),
        kind=AlertKind.SOFT,
        time_ms=now_ms,
        project_id=owner.project_id,
        attribution=owner,
        scope=line.scope,
        is_session=line.is_session,
        measure=measure,
        used=crossing.posted,
        limit=crossing.limit,
        threshold=crossing.threshold.label,
        steps=crossing.posted if measure is Measure.STEPS and line.is_session else None,
    )


def alert_of_stop(stop: Stop, who: Attribution) -> Alert:
    """Returns the alert of a session that was stopped."""
    limited = stop.measure is not None
    return Alert(
        alert_id=new_id(),
        kind=AlertKind.STOP,
        time_ms=stop.at_ms,
        project_id=who.project_id,
        attribution=who,
        scope=stop.scope,
        is_session=True,
        measure=stop.measure,
        used=stop.used if limited else None,
        limit=stop.allowed if limited else None,
        needed=stop.needed,
        reason=stop.reason,
        finding=stop.finding,
    )


def alert_of_loop(finding: LoopFinding, who: Attribution, *, now_ms: int) -> Alert:
    """Returns the alert of an agent that repeats itself."""
    return Alert(
        alert_id=new_id(),
        kind=AlertKind.LOOP,
        time_ms=now_ms,
        project_id=who.project_id,
        attribution=who,
        scope="session",
        is_session=True,
        finding=finding,
    )


def alert_of_outage(project_id: str, *, seconds: float | None, now_ms: int) -> Alert:
    """Returns the alert of a store that is away, or after so many seconds is back."""
    return Alert(
        alert_id=new_id(),
        kind=AlertKind.DEGRADED if seconds is None else AlertKind.RECOVERED,
        time_ms=now_ms,
        project_id=project_id,
        outage_ms=None if seconds is None else round(seconds * 1000),
    )
