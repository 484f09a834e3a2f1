"""Words: an alert in sentences, the same for every destination.

Names are left as they are; who writes them into a format escapes them.
"""

import shlex
from collections.abc import Mapping
from typing import assert_never

from guardrails.alerts.alert import Alert, AlertKind
from guardrails.core.accounts import StopReason
from guardrails.core.decisions import format_amount, format_count
from guardrails.core.loops import LoopKind
from guardrails.core.money import format_usd
from guardrails.core.policy import Measure

__all__ = ["commands", "counted", "headline", "meaning", "share"]

_MEASURES: Mapping[Measure, str] = {
    Measure.COST: "cost",
    Measure.TOKENS: "token",
    Measure.STEPS: "step",
    Measure.MODEL_CALLS: "model call",
    Measure.TOOL_CALLS: "tool call",
    Measure.WALL_TIME: "time",
}

_COUNTED: Mapping[AlertKind, str] = {
    AlertKind.SOFT: "soft alert",
    AlertKind.STOP: "stop",
    AlertKind.LOOP: "loop",
    AlertKind.DEGRADED: "outage of the store",
    AlertKind.RECOVERED: "return of the store",
    AlertKind.TEST: "test",
}


def headline(alert: Alert, *, who: str) -> str:
    """Says in a line what happened.

    Args:
        alert: The alert.
        who: The agent, as its format wants it.
    """
    match alert.kind:
        case AlertKind.SOFT:
            return f"{who} {_crossed(alert)}"
        case AlertKind.STOP:
            return f"{who} was stopped: {_stopped(alert)}"
        case AlertKind.LOOP:
            return f"{who} repeats itself"
        case AlertKind.DEGRADED:
            return "guardrails cannot reach its store"
        case AlertKind.RECOVERED:
            return "guardrails reaches its store again"
        case AlertKind.TEST:
            return "Alerts of guardrails arrive here"
        case _:
            assert_never(alert.kind)


def meaning(alert: Alert, *, tool: str) -> str:
    """Says in a sentence or two what that means.

    Args:
        alert: The alert.
        tool: The tool that repeats, or those of the round, as its format wants it.
    """
    match alert.kind:
        case AlertKind.SOFT:
            return f"{_spent(alert)} The agent goes on."
        case AlertKind.STOP if alert.measure is not None:
            needed = ""
            if alert.needed:
                amount = format_amount(alert.measure, alert.needed)
                needed = f" The next call could have taken {amount}."
            return f"{_spent(alert)}{needed} Nothing paid starts until it is resumed."
        case AlertKind.STOP:
            text = f"{_repeated(alert, tool)} " if alert.finding else ""
            return f"{text}Nothing paid starts in its session until it is resumed."
        case AlertKind.LOOP:
            return f"{_repeated(alert, tool)} The agent goes on."
        case AlertKind.DEGRADED:
            return "Until it answers, limits are kept as on_store_error says."
        case AlertKind.RECOVERED:
            seconds = (alert.outage_ms or 0) / 1000
            return f"It was away for {seconds:.0f} s. Limits are exact again."
        case AlertKind.TEST:
            return "Soft alerts, stops, loops and outages look much like this one."
        case _:
            assert_never(alert.kind)


def commands(alert: Alert) -> tuple[str, ...]:
    """Says what can be done about it now, as commands for a shell."""
    if alert.kind in (AlertKind.DEGRADED, AlertKind.RECOVERED):
        return ("guardrails doctor",)
    who = alert.attribution
    if alert.kind is AlertKind.TEST or who is None:
        return ("guardrails check",)
    found: list[str] = []
    # After = a name is a value, whatever it begins with.
    session = f"--session={shlex.quote(who.session_id)}" if who.session_id else None
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


def _stopped(alert: Alert) -> str:
    match alert.reason:
        case StopReason.BUDGET_EXCEEDED if alert.measure is not None:
            limit = format_amount(alert.measure, alert.limit or 0)
            return f"{_MEASURES[alert.measure]} limit of {limit}"
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
    limit = format_amount(alert.measure, alert.limit)
    left = format_amount(alert.measure, max(0, alert.limit - (alert.used or 0)))
    return f"{used} of {limit}{unit} used, {left} left."


def _repeated(alert: Alert, tool: str) -> str:
    finding = alert.finding
    assert finding is not None
    cost = format_usd(finding.cost_nano_usd)
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
    return f"{tool} {how}, for {cost}."


def _plural(noun: str, number: int) -> str:
    first, _, rest = noun.partition(" of ")
    return (first if number == 1 else f"{first}s") + (f" of {rest}" if rest else "")
