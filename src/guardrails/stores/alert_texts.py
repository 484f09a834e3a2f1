"""Texts: an alert as stores keep it, in one line whose parts are in a fixed order.

The scripts of Redis write the same, see `tell.lua`. Names hold no control characters,
so that these can part them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from guardrails.core.accounts import StopReason
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.outbox import KeptAlert
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.policy import Limits, Measure
from guardrails.core.telling import AlertKind
from guardrails.stores.watch_texts import watched_from, watched_text

__all__ = [
    "PART",
    "alert_text",
    "finding_from",
    "kept_from",
    "limits_text",
    "who_from",
    "who_text",
]

PART, INNER, TOOL, PLACE = "\x1e", "\x1f", "\x1d", " "
"""Between the parts, the parts of a finding, the tools of a round, and places."""

_LIMITS = (
    "cost_nano_usd",
    "tokens",
    "steps",
    "model_calls",
    "tool_calls",
    "wall_time_ms",
)


def alert_text(alert: Alert, places: Sequence[str]) -> str:
    """Writes an alert, and where it is to go."""
    who = alert.attribution
    return PART.join(
        (
            alert.kind.value,
            str(alert.time_ms),
            "" if who is None else who_text(who),
            alert.scope or "",
            str(int(alert.is_session)),
            alert.measure.value if alert.measure else "",
            _number(alert.used),
            _number(alert.limit),
            _number(alert.needed),
            alert.threshold or "",
            alert.reason.value if alert.reason else "",
            _number(alert.steps),
            _finding_text(alert.finding),
            alert.by or "",
            "" if alert.raised is None else limits_text(alert.raised),
            _number(alert.until_ms),
            *_watched_texts(alert),
            alert.subject,
            PLACE.join(places),
        )
    )


def kept_from(alert_id: str, text: str) -> KeptAlert:
    """Reads an alert, and where it is to go."""
    *parts, subject, places = text.split(PART)
    (
        kind,
        time_ms,
        who,
        scope,
        is_session,
        measure,
        used,
        limit,
        needed,
        threshold,
        reason,
        steps,
        finding,
        by,
        raised,
        until_ms,
        *watched,
    ) = parts
    attribution = who_from(who)
    alert = Alert(
        alert_id=alert_id,
        kind=AlertKind(kind),
        time_ms=int(time_ms),
        project_id=attribution.project_id,
        subject=subject,
        attribution=attribution,
        scope=scope or None,
        is_session=is_session == "1",
        measure=Measure(measure) if measure else None,
        used=_known(used),
        limit=_known(limit),
        needed=_known(needed),
        threshold=threshold or None,
        reason=StopReason(reason) if reason else None,
        steps=_known(steps),
        finding=_finding_from(finding),
        by=by or None,
        until_ms=_known(until_ms),
        raised=_limits_from(raised),
    )
    if watched:
        alert = replace(alert, **watched_from(watched[0]))
    return KeptAlert(alert=alert, places=tuple(places.split(PLACE)))


def _watched_texts(alert: Alert) -> list[str]:
    """Writes what a watch tells, in a part that other alerts do not have."""
    text = watched_text(alert)
    return [text] if text else []


def who_text(attribution: Attribution) -> str:
    """Writes whose session or call it is."""
    return json.dumps(
        {name: value for name, value in asdict(attribution).items() if value},
        ensure_ascii=True,  # Redis keeps it in pieces, cut by bytes.
        separators=(",", ":"),
    )


def who_from(text: str | bytes) -> Attribution:
    """Reads whose session or call it is."""
    values = json.loads(text)
    path = tuple(values.pop("agent_path", ()))
    tags = tuple((name, value) for name, value in values.pop("tags", ()))
    return replace(Attribution(**values), agent_path=path, tags=tags)


def limits_text(limits: Limits) -> str:
    """Writes six numbers, empty where there is no limit."""
    return ",".join([_number(limits.of(measure)) for measure in Measure])


def _limits_from(text: str) -> Limits | None:
    if not text:
        return None
    numbers = map(_known, text.split(","))
    return Limits(**dict(zip(_LIMITS, numbers, strict=True)))


def _finding_text(finding: LoopFinding | None) -> str:
    if finding is None:
        return ""
    return INNER.join(
        (
            finding.kind.value,
            TOOL.join(finding.tools or (finding.tool,)),
            finding.arguments_digest,
            str(finding.count),
            str(finding.cost_nano_usd),
        )
    )


def _finding_from(text: str) -> LoopFinding | None:
    if not text:
        return None
    return finding_from(text.split(INNER))


def finding_from(parts: Sequence[str]) -> LoopFinding:
    """Reads the parts of a finding, as the scripts of Redis write them too."""
    kind, names, digest, count, cost = parts
    tools = names.split(TOOL)
    return LoopFinding(
        kind=LoopKind(kind),
        tool=tools[-1],
        tools=tuple(tools) if kind == LoopKind.CYCLE else (),
        arguments_digest=digest,
        count=int(count),
        cost_nano_usd=int(cost),
    )


def _number(number: int | None) -> str:
    return "" if number is None else str(number)


def _known(text: str) -> int | None:
    return int(text) if text else None
