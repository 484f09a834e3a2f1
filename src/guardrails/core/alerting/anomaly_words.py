"""Words: an anomaly in two sentences, the same on a screen and in a message. Pure.

Names are left as they are, or as their format wants them; who prints them escapes.
"""

import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from typing import assert_never

from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind
from guardrails.core.decisions import format_count
from guardrails.core.money import format_usd

__all__ = ["advice", "command", "reason", "subject_of", "times_text"]

_NOUNS = {
    "customer_id": "customer",
    "session_id": "session",
    "agent": "agent",
    "tool": "tool",
    "model": "model",
}

_NOBODY = {
    "customer_id": "what has no customer",
    "agent": "what has no agent",
    "session_id": "what has no session",
}

Shown = Callable[[str], str]


def subject_of(anomaly: Anomaly, *, shown: Shown = str) -> str:
    """Names what an anomaly is about."""
    if anomaly.name is None:
        return _NOBODY.get(anomaly.dimension, "what has no name")
    return f"{_NOUNS[anomaly.dimension]} {shown(anomaly.name)}"


def reason(anomaly: Anomaly, *, shown: Shown = str) -> str:
    """Says in a sentence what is unusual.

    Args:
        anomaly: The anomaly.
        shown: Writes a name as its format wants it.
    """
    who, about = subject_of(anomaly, shown=shown), shown(anomaly.about or "unknown")
    cost, usual = format_usd(anomaly.cost_nano_usd), anomaly.expected or 0
    calls = format_count(anomaly.calls or 0, "call")
    match anomaly.kind:
        case AnomalyKind.CUSTOMER_SPIKE:
            then = datetime.fromtimestamp(anomaly.since_ms / 1000, tz=UTC)
            return (
                f"{who} cost {cost} on {then:%b %d}, {times_text(anomaly)} the usual "
                f"{format_usd(usual)} "
                f"(median of {format_count(anomaly.n, 'day')})."
            )
        case AnomalyKind.SESSION_OUTLIER:
            return (
                f"{who} cost {cost}, {times_text(anomaly)} the median of its agent "
                f"({format_usd(usual)}, {format_count(anomaly.n, 'session')}); mostly "
                f"{about}: {calls}."
            )
        case AnomalyKind.LOOP:
            return (
                f"{who} made {calls} of {about} again that had been answered, for "
                f"{format_usd(anomaly.excess_nano_usd)}: {anomaly.measured} % of what "
                "it spent there."
            )
        case AnomalyKind.RETRIES:
            return (
                f"{anomaly.measured} % of what {who} cost went into errors and "
                f"retries of {about}: {calls}, "
                f"{format_usd(anomaly.excess_nano_usd)}."
            )
        case AnomalyKind.TOOL_OVERUSE:
            return (
                f"{who} is called {anomaly.measured:,} times a session, and was "
                f"{usual:,} times in {format_count(anomaly.n, 'session')} before."
            )
        case AnomalyKind.LARGE_CONTEXTS:
            return (
                f"{who} sends {anomaly.measured:,} tokens a model call, and sent "
                f"{usual:,} in {format_count(anomaly.n, 'call')} before."
            )
        case AnomalyKind.EXPENSIVE_MODEL:
            return (
                f"{who} uses {about} for {calls} of little input and output; "
                f"{shown(anomaly.instead or '')} costs "
                f"{format_usd(anomaly.excess_nano_usd)} less of {cost} here."
            )
        case AnomalyKind.NEW_NAME:
            return f"{who} was not called in the 14 days before and cost {cost}."
        case _:
            assert_never(anomaly.kind)


def advice(anomaly: Anomaly) -> str:
    """Says in a sentence what can be done, with the key of the configuration."""
    match anomaly.kind:
        case AnomalyKind.CUSTOMER_SPIKE:
            return "Cap it: budgets with per: [customer_id] and max_cost_usd."
        case AnomalyKind.SESSION_OUTLIER:
            return "Cap it: agents.NAME.session.max_cost_usd."
        case AnomalyKind.LOOP:
            return "End it: defaults.loop.action: stop, in mode: enforce."
        case AnomalyKind.RETRIES:
            return "Mend the tool, or cap it: tools.NAME.max_calls."
        case AnomalyKind.TOOL_OVERUSE:
            return "Batch its calls, or cap it: tools.NAME.max_calls."
        case AnomalyKind.LARGE_CONTEXTS:
            return "Shorten results and history, or cap it: max_tokens."
        case AnomalyKind.EXPENSIVE_MODEL:
            return "Try the cheaper model, or cap it: agents.NAME.session.max_cost_usd."
        case AnomalyKind.NEW_NAME:
            return "If it is not meant, cap it: a budget with max_cost_usd."
        case _:
            assert_never(anomaly.kind)


def command(anomaly: Anomaly) -> str:
    """Returns what shows more of it, for a shell."""
    if anomaly.kind is AnomalyKind.SESSION_OUTLIER and anomaly.name:
        # After -- a name is a name, whatever it begins with.
        return f"guardrails session -- {shlex.quote(anomaly.name)}"
    by = {
        AnomalyKind.CUSTOMER_SPIKE: "agent,tool,model",
        AnomalyKind.LOOP: "session,waste",
        AnomalyKind.RETRIES: "tool,waste",
        AnomalyKind.LARGE_CONTEXTS: "session",
        AnomalyKind.EXPENSIVE_MODEL: "model",
    }.get(anomaly.kind, "agent")
    pattern = _literal(anomaly.name or "")
    where = shlex.quote(f"{_NOUNS[anomaly.dimension]}={pattern}")
    return f"guardrails costs --by {by} --where {where}"


def times_text(anomaly: Anomaly) -> str:
    """Says how many times the usual was measured."""
    ratio = anomaly.ratio or 0
    return f"{ratio:,.{1 if ratio < 10 else 0}f} times"


def _literal(name: str) -> str:
    """Writes a name as a pattern that only it matches."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)
