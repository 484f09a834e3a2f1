"""Alerts: what people are told, as a closed record. Pure.

Names, amounts and counts only: there is no field that could hold a prompt, an
argument, a result or the text of an error.

An alert's id follows from what it is about: the account, which names scope and
window, the threshold, stop or loop, and the level of the limit. So whatever is
replayed, retried or settled again makes the same alert, and a raised limit or the
next window makes another one.
"""

from dataclasses import dataclass
from hashlib import sha1
from urllib.parse import unquote

from guardrails.core.accounts import Account, Line, Stop, StopReason
from guardrails.core.alerting.anomalies import Anomaly
from guardrails.core.alerting.daily import Daily
from guardrails.core.alerting.pace import Pace
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding
from guardrails.core.operations import Crossing, Refusal
from guardrails.core.policy import Limits, Measure
from guardrails.core.stops import StopKind, StopOrder, StopTarget
from guardrails.core.telling import AlertKind
from guardrails.core.windows import DAY_MS

__all__ = [
    "Alert",
    "alert_of_crossing",
    "alert_of_killing",
    "alert_of_limit",
    "alert_of_loop",
    "alert_of_order",
    "alert_of_raise",
    "alert_of_stop",
    "alert_of_unpriced",
    "digest_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that people should know."""

    alert_id: str
    """The same for the same thing. A receiver that sees it twice was sent it twice."""
    kind: AlertKind
    time_ms: int
    """When it happened, in milliseconds since 1970 (UTC)."""
    project_id: str
    subject: str = ""
    """What it is about: the same for an alert that only repeats this one."""
    attribution: Attribution | None = None
    """Whose session or call, or what a person stopped; `None` if it is about the
    store."""
    scope: str | None = None
    """What the budget is kept per: `session`, `customer_id=acme`, `project`. Of a
    person's stop, what is stopped."""
    is_session: bool = False
    """Whether it is about the session in the attribution."""
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
    by: str | None = None
    """Who stopped or raised it, if a person did."""
    until_ms: int | None = None
    """When a person's stop is over; `None` lasts until it is lifted."""
    raised: Limits | None = None
    """All limits that people have raised there, with the new ones."""
    outage_ms: int | None = None
    """How long the store was away, once it is back."""
    anomaly: Anomaly | None = None
    pace: Pace | None = None
    daily: Daily | None = None
    """What a watch tells, by kind."""
    unpriced: Unpriced | None = None
    """The model, if a price is not known."""
    is_sample: bool = False
    """Whether it only shows what such an alert looks like."""


def alert_of_crossing(
    crossing: Crossing, account: Account, who: Attribution, *, now_ms: int
) -> Alert:
    """Returns the alert of a soft threshold that was crossed."""
    line, point, limit = crossing.line, crossing.threshold, crossing.limit
    about = f"{point.label} {'' if limit is None else limit}"
    subject = _subject(AlertKind.SOFT, account.key, about)
    owner = line.attribution or who
    return Alert(
        alert_id=digest_of(subject),
        kind=AlertKind.SOFT,
        time_ms=now_ms,
        project_id=owner.project_id,
        subject=subject,
        attribution=owner,
        scope=line.scope,
        is_session=line.is_session,
        measure=point.measure,
        used=crossing.posted,
        limit=limit,
        threshold=point.label,
        steps=account.steps if line.is_session else None,
    )


def alert_of_stop(
    stop: Stop, line: Line, account: Account, who: Attribution, *, hold_id: str
) -> Alert:
    """Returns the alert of a session that a limit or a loop stopped.

    Args:
        stop: The new stop.
        line: The session's.
        account: The session's.
        who: Whom the call is charged to.
        hold_id: The call, which tells two loops apart.
    """
    limited, owner = stop.measure is not None, line.attribution or who
    about = f"{stop.measure.value} {stop.allowed}" if stop.measure else ""
    subject = _subject(AlertKind.STOP, account.key, about)
    return Alert(
        alert_id=digest_of(subject if limited else f"{subject} {hold_id}"),
        kind=AlertKind.STOP,
        time_ms=stop.at_ms,
        project_id=owner.project_id,
        subject=subject,
        attribution=owner,
        scope=line.scope,
        is_session=True,
        measure=stop.measure,
        used=stop.used if limited else None,
        limit=stop.allowed if limited else None,
        needed=stop.needed,
        reason=stop.reason,
        steps=account.steps,
        finding=stop.finding,
    )


def alert_of_limit(refusal: Refusal, who: Attribution, *, now_ms: int) -> Alert:
    """Returns the alert of a shared budget whose hard limit refuses calls."""
    assert refusal.measure is not None
    about = f"{refusal.measure.value} {refusal.allowed}"
    subject = _subject(AlertKind.LIMIT, refusal.line.account, about)
    return Alert(
        alert_id=digest_of(subject),
        kind=AlertKind.LIMIT,
        time_ms=now_ms,
        project_id=who.project_id,
        subject=subject,
        attribution=who,
        scope=refusal.line.scope,
        measure=refusal.measure,
        used=refusal.used,
        limit=refusal.allowed,
        needed=refusal.needed,
    )


def alert_of_loop(
    finding: LoopFinding,
    line: Line,
    account: Account,
    who: Attribution,
    *,
    hold_id: str,
    now_ms: int,
) -> Alert:
    """Returns the alert of an agent that repeats itself."""
    owner = line.attribution or who
    subject = _subject(AlertKind.LOOP, account.key, finding.tool)
    return Alert(
        alert_id=digest_of(f"{subject} {hold_id}"),
        kind=AlertKind.LOOP,
        time_ms=now_ms,
        project_id=owner.project_id,
        subject=subject,
        attribution=owner,
        scope=line.scope,
        is_session=True,
        steps=account.steps,
        finding=finding,
    )


def alert_of_killing(account: Account) -> Alert:
    """Returns the alert of a session that a person stopped for good."""
    assert account.stop is not None
    assert account.session is not None
    subject, who = _subject(AlertKind.STOP, account.key), account.session.attribution
    return Alert(
        alert_id=digest_of(f"{subject} {account.stop.at_ms}"),
        kind=AlertKind.STOP,
        time_ms=account.stop.at_ms,
        project_id=who.project_id,
        subject=subject,
        attribution=who,
        scope="session",
        is_session=True,
        reason=StopReason.KILLED,
        steps=account.steps,
        by=account.stop.by,
    )


def alert_of_order(order: StopOrder, project_id: str) -> Alert:
    """Returns the alert of what a person stopped."""
    target = order.target
    subject = _subject(AlertKind.STOP, target.key(project_id))
    return Alert(
        alert_id=digest_of(f"{subject} {order.at_ms}"),
        kind=AlertKind.STOP,
        time_ms=order.at_ms,
        project_id=project_id,
        subject=subject,
        attribution=_stopped(target, project_id),
        scope=target.label,
        is_session=target.kind is StopKind.SESSION,
        reason=StopReason.KILLED,
        by=order.by,
        until_ms=order.until_ms,
    )


def alert_of_raise(account: Account, *, by: str | None, now_ms: int) -> Alert:
    """Returns the alert of limits that a person raised."""
    assert account.raised is not None
    project, _, scope = account.key.partition("/")
    project_id, target = unquote(project), StopTarget.of_key(account.key)
    is_session = target is not None and target.kind is StopKind.SESSION
    who = Attribution(project_id=project_id)
    if account.session is not None:
        who = account.session.attribution
    elif target is not None and is_session:
        who = _stopped(target, project_id)
    limits = [account.raised.of(measure) for measure in Measure]
    levels = ",".join("" if limit is None else str(limit) for limit in limits)
    subject = _subject(AlertKind.RAISED, account.key)
    return Alert(
        alert_id=digest_of(f"{subject} {levels}"),
        kind=AlertKind.RAISED,
        time_ms=now_ms,
        project_id=project_id,
        subject=subject,
        attribution=who,
        scope="session" if is_session else unquote(scope),
        is_session=is_session,
        steps=account.steps if account.session is not None else None,
        by=by,
        raised=account.raised,
    )


def alert_of_unpriced(unpriced: Unpriced, who: Attribution, *, now_ms: int) -> Alert:
    """Returns the alert of a price that is not known: one per model and day (UTC).

    Args:
        unpriced: The model.
        who: Whose call it was.
        now_ms: The time.
    """
    model = (who.project_id, unpriced.provider, unpriced.model, unpriced.calls.value)
    subject = f"{AlertKind.UNPRICED.value} {model!r}"
    return Alert(
        alert_id=digest_of(f"{subject} {now_ms // DAY_MS}"),
        kind=AlertKind.UNPRICED,
        time_ms=now_ms,
        project_id=who.project_id,
        subject=subject,
        attribution=who,
        unpriced=unpriced,
    )


def digest_of(text: str) -> str:
    """Returns an id that follows from a text. Redis has no other digest."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _subject(kind: AlertKind, key: str, about: str = "") -> str:
    return f"{kind.value} {key} {about}"


def _stopped(target: StopTarget, project_id: str) -> Attribution:
    """Returns what a person stopped, as an attribution."""
    match target.kind:
        case StopKind.SESSION:
            return Attribution(project_id=project_id, session_id=target.name)
        case StopKind.CUSTOMER:
            return Attribution(project_id=project_id, customer_id=target.name)
        case StopKind.AGENT if target.name is not None:
            path = (target.name,)
            return Attribution(
                project_id=project_id, agent=target.name, agent_path=path
            )
        case _:
            return Attribution(project_id=project_id)
