"""Words: an alert in sentences, the same for every destination.

Names are left as they are; who writes them into a format escapes them.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import assert_never

from guardrails.alerts.watch_words import (
    anomaly_headline,
    daily_headline,
    pace_headline,
    watch_commands,
    watch_meaning,
)
from guardrails.core.accounts import StopReason
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.anomaly_words import subject_of
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.decisions import format_amount, format_count, format_time
from guardrails.core.loops import LoopKind
from guardrails.core.money import format_usd
from guardrails.core.policy import Measure, OnUnpriced
from guardrails.core.telling import AlertKind

__all__ = ["commands", "counted", "headline", "meaning", "share", "subject"]

_MEASURES: Mapping[Measure, str] = {
    Measure.COST: "cost",
    Measure.TOKENS: "token",
    Measure.STEPS: "step",
    Measure.MODEL_CALLS: "model call",
    Measure.TOOL_CALLS: "tool call",
    Measure.WALL_TIME: "time",
}

_HEADLINES: Mapping[AlertKind, str] = {
    AlertKind.DEGRADED: "guardrails cannot reach its store",
    AlertKind.RECOVERED: "guardrails reaches its store again",
    AlertKind.TEST: "Alerts of guardrails arrive here",
}

_MEANINGS: Mapping[AlertKind, str] = {
    AlertKind.DEGRADED: "Until it answers, limits are kept as on_store_error says.",
    AlertKind.TEST: "Soft alerts, stops, loops and outages look much like this one.",
}

_CALLS: Mapping[OnUnpriced, str] = {
    OnUnpriced.REFUSE: "refused, because a cost limit applies",
    OnUnpriced.WORST_CASE: "charged at the rates of an expensive model",
    OnUnpriced.ALLOW: "made, and cost limits do not see what they cost",
}

_COUNTED: Mapping[AlertKind, str] = {
    AlertKind.SOFT: "soft alert",
    AlertKind.STOP: "stop",
    AlertKind.LIMIT: "full shared budget",
    AlertKind.LOOP: "loop",
    AlertKind.RAISED: "raised limit",
    AlertKind.DEGRADED: "outage of the store",
    AlertKind.RECOVERED: "return of the store",
    AlertKind.ANOMALY: "anomaly",
    AlertKind.PACE: "fast budget",
    AlertKind.DAILY: "daily report",
    AlertKind.UNPRICED: "missing price",
    AlertKind.TEST: "test",
}


def headline(alert: Alert, *, who: str) -> str:
    """Says in a line what happened.

    Args:
        alert: The alert.
        who: What `subject` returns, as its format wants it.
    """
    match alert.kind:
        case AlertKind.SOFT:
            return f"{who} {_crossed(alert)}"
        case AlertKind.STOP:
            return f"{who} was stopped: {_stopped(alert)}"
        case AlertKind.LIMIT:
            return f"A shared {_limit(alert)} is reached"
        case AlertKind.RAISED:
            return f"A person raised limits of {who}"
        case AlertKind.LOOP:
            return f"{who} repeats itself"
        case AlertKind.ANOMALY:
            assert alert.anomaly is not None
            return anomaly_headline(alert.anomaly, who=who)
        case AlertKind.PACE:
            return pace_headline(alert)
        case AlertKind.DAILY:
            assert alert.daily is not None
            return daily_headline(alert.daily)
        case AlertKind.UNPRICED:
            return f"The price of {who} is not known"
        case AlertKind.DEGRADED | AlertKind.RECOVERED | AlertKind.TEST:
            return _HEADLINES[alert.kind]
        case _:
            assert_never(alert.kind)


def meaning(alert: Alert, *, tool: str, shown: Callable[[str], str] = str) -> str:
    """Says in a sentence or two what that means.

    Args:
        alert: The alert.
        tool: The tool that repeats, or those of the round, as its format wants it.
        shown: Writes other names as its format wants them.
    """
    match alert.kind:
        case AlertKind.SOFT:
            return f"{_spent(alert)} The agent goes on."
        case AlertKind.STOP if alert.measure is not None:
            return f"{_spent(alert)} Nothing paid starts until it is resumed."
        case AlertKind.STOP if not alert.is_session:
            return f"Nothing paid starts there {_until(alert)}."
        case AlertKind.STOP:
            text = f"{_repeated(alert, tool)} " if alert.finding else ""
            return f"{text}Nothing paid starts in its session {_until(alert)}."
        case AlertKind.LIMIT:
            return (
                f"{_spent(alert)} What is charged to it is refused until its window "
                "turns or the limit is raised."
            )
        case AlertKind.RAISED:
            return f"Now: {_raised(alert)}."
        case AlertKind.LOOP:
            return f"{_repeated(alert, tool)} The agent goes on."
        case AlertKind.RECOVERED:
            seconds = (alert.outage_ms or 0) / 1000
            return f"It was away for {seconds:.0f} s. Limits are exact again."
        case AlertKind.ANOMALY | AlertKind.PACE | AlertKind.DAILY:
            return watch_meaning(alert, shown=shown)
        case AlertKind.UNPRICED:
            assert alert.unpriced is not None
            return _unpriced(alert.unpriced, shown)
        case AlertKind.DEGRADED | AlertKind.TEST:
            return _MEANINGS[alert.kind]
        case _:
            assert_never(alert.kind)


def commands(alert: Alert) -> tuple[str, ...]:
    """Says what can be done about it now, as commands for a shell."""
    if alert.kind in (AlertKind.DEGRADED, AlertKind.RECOVERED):
        return ("guardrails doctor",)
    if alert.kind in (AlertKind.ANOMALY, AlertKind.PACE, AlertKind.DAILY):
        return watch_commands(alert)
    if alert.kind is AlertKind.UNPRICED:
        return ("guardrails prices", "guardrails check")
    who = alert.attribution
    if alert.kind is AlertKind.TEST or who is None:
        return ("guardrails check",)
    if alert.kind is AlertKind.RAISED:
        return ("guardrails budget show", "guardrails stops --log")
    found: list[str] = []
    # After = a name is a value, whatever it begins with.
    session = f"--session={shlex.quote(who.session_id)}" if who.session_id else None
    if alert.kind is AlertKind.STOP and not alert.is_session:
        return (f"guardrails resume {_target(who)}", "guardrails stops")
    if not alert.is_session or session is None:
        return ("guardrails budget show",)
    if alert.measure is not None and alert.limit is not None:
        option = f"--{alert.measure.value.replace('_', '-')}=N"
        found.append(f"guardrails budget raise {session} --reason=TEXT {option}")
    if alert.kind is AlertKind.STOP:
        if alert.measure is None:
            found.append(f"guardrails resume {session}")
    else:
        found.append(f"guardrails stop {session} --reason=TEXT")
    return tuple(found)


def subject(alert: Alert) -> str:
    """Names what an alert is about: its agent, a model, or what a person stopped."""
    if alert.kind is AlertKind.STOP and not alert.is_session and alert.scope:
        return alert.scope
    if alert.anomaly is not None:
        return subject_of(alert.anomaly)
    if alert.unpriced is not None:
        return alert.unpriced.model
    agent = alert.attribution.agent if alert.attribution else None
    return agent or "An agent"


def counted(counts: Mapping[AlertKind, int]) -> str:
    """Says how many alerts of each kind there were."""
    return ", ".join(
        f"{number:,} {_plural(_COUNTED[kind], number)}"
        for kind in AlertKind
        if (number := counts.get(kind, 0))
    )


def share(alert: Alert) -> int | None:
    """Returns how much of the limit is used, in whole percent, rounded down."""
    if alert.used is None or not alert.limit:
        return None
    return alert.used * 100 // alert.limit


def _crossed(alert: Alert) -> str:
    assert alert.measure is not None
    percent = share(alert)
    budget = "its session's" if alert.is_session else "a shared"
    kind = _MEASURES[alert.measure]
    if percent is None:
        used = format_amount(alert.measure, alert.used or 0)
        return f"has used {used} of {budget} {kind} budget"
    return f"is at {percent} % of {budget} {kind} limit"


def _limit(alert: Alert) -> str:
    assert alert.measure is not None
    limit = format_amount(alert.measure, alert.limit or 0)
    return f"{_MEASURES[alert.measure]} limit of {limit}"


def _until(alert: Alert) -> str:
    """Says when a stop is over."""
    lifted = "until it is resumed"
    if alert.until_ms is None:
        return lifted
    return f"until {format_time(alert.until_ms)}, or {lifted}"


def _raised(alert: Alert) -> str:
    """Names the limits that people have raised."""
    assert alert.raised is not None
    found = [
        f"{measure.value} {format_amount(measure, limit)}"
        for measure in Measure
        if (limit := alert.raised.of(measure)) is not None
    ]
    return ", ".join(found)


def _target(who: Attribution) -> str:
    """Writes what a person stopped as an option for a shell."""
    if who.customer_id is not None:
        return f"--customer={shlex.quote(who.customer_id)}"
    return "--all" if who.agent is None else f"--agent={shlex.quote(who.agent)}"


def _unpriced(unpriced: Unpriced, shown: Callable[[str], str]) -> str:
    """Says what happens to the calls of a model, and how to give it a price."""
    of = f" ({shown(unpriced.provider)})" if unpriced.provider else ""
    what = _CALLS[unpriced.calls]
    return (
        f"Calls of {shown(unpriced.model)}{of} are {what}. Give it a price in "
        "guardrails.yaml: under models, or as another model under aliases."
    )


def _stopped(alert: Alert) -> str:
    match alert.reason:
        case StopReason.BUDGET_EXCEEDED if alert.measure is not None:
            return _limit(alert)
        case StopReason.LOOP_DETECTED:
            return "it repeated itself"
        case StopReason.KILLED:
            return "by a person"
        case _:
            return "at its limit"


def _spent(alert: Alert) -> str:
    """Says what is used of the limit, and what is left."""
    assert alert.measure is not None
    used = format_amount(alert.measure, alert.used or 0)
    has_unit = alert.measure in (Measure.COST, Measure.WALL_TIME)
    unit = "" if has_unit else f" {_MEASURES[alert.measure]}s"
    if alert.limit is None:
        return f"{used}{unit} used; no hard limit."
    needed = ""
    if alert.needed:
        amount = format_amount(alert.measure, alert.needed)
        needed = f" The next call could have taken {amount}."
    limit = format_amount(alert.measure, alert.limit)
    left = format_amount(alert.measure, max(0, alert.limit - (alert.used or 0)))
    return f"{used} of {limit}{unit} used, {left} left.{needed}"


def _repeated(alert: Alert, tool: str) -> str:
    finding = alert.finding
    assert finding is not None
    # Of tools without a price nobody knows it.
    cost = f", for {format_usd(finding.cost_nano_usd)}" if finding.cost_nano_usd else ""
    times = format_count(finding.repeats, "time")
    match finding.kind:
        case LoopKind.IDENTICAL:
            how = f"was called {times} in a row with the same arguments and result"
        case LoopKind.POLLING:
            how = f"was called {times} in a row with the same arguments"
        case LoopKind.CYCLE:
            how = f"came {times} in this order, with the same arguments and results"
        case LoopKind.REPEATED_ERROR:
            how = f"failed {times} in a row with the same error"
        case _:
            assert_never(finding.kind)
    return f"{tool} {how}{cost}."


def _plural(noun: str, number: int) -> str:
    if noun.endswith("anomaly"):
        return noun if number == 1 else "anomalies"
    first, _, rest = noun.partition(" of ")
    return (first if number == 1 else f"{first}s") + (f" of {rest}" if rest else "")
