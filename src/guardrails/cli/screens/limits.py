"""Limits: what a policy limits, in the words and units of the configuration."""

from collections.abc import Iterator

from guardrails.core.decisions import format_count
from guardrails.core.limits import effective_limits
from guardrails.core.money import usd_digits
from guardrails.core.policy import Limits, Measure, Policy, SoftAlerts
from guardrails.core.stops import AuditEntry

__all__ = [
    "alert_texts",
    "changed_limits",
    "limit_text",
    "limit_texts",
    "policy_text",
]


def limit_texts(limits: Limits) -> Iterator[tuple[str, str]]:
    """Yields the key and the value of each limit that is set."""
    for measure in Measure:
        value = limits.of(measure)
        if value is not None:
            yield measure.value, limit_text(measure, value)


def alert_texts(alerts: SoftAlerts) -> Iterator[tuple[str, str]]:
    """Yields the key and the value of each soft alert that is set."""
    if alerts.cost_nano_usd is not None:
        yield "soft_alert_usd", limit_text(Measure.COST, alerts.cost_nano_usd)
    if alerts.ratios:
        yield "soft_alert_ratio", ", ".join(f"{ratio:f}" for ratio in alerts.ratios)


def changed_limits(entry: AuditEntry) -> list[tuple[str, str | None, str | None]]:
    """Returns the key of each limit that a person raised, and what it was and is.

    `None` is no limit, or one that is not known: an agent's code may have its own.
    """
    if entry.raised_after is None:
        return []
    raised = (entry.raised_before or Limits(), entry.raised_after)
    texts = [dict(limit_texts(each)) for each in raised]
    if entry.policy is not None:
        for each, text in zip(raised, texts, strict=True):
            text.update(limit_texts(effective_limits(entry.policy, each)))
    keys = [measure.value for measure in Measure]
    changes = [(key, texts[0].get(key), texts[1].get(key)) for key in keys]
    return [change for change in changes if change[1] != change[2]]


def policy_text(policy: Policy) -> str:
    """Says in half a line what is limited."""
    limits = [f"{key} {value}" for key, value in limit_texts(policy.session.limits)]
    parts = [f"session {', '.join(limits)}"] if limits else []
    if policy.agents:
        parts.append(format_count(len(policy.agents), "agent"))
    if policy.budgets:
        parts.append(format_count(len(policy.budgets), "shared budget"))
    return "; ".join(parts)


def limit_text(measure: Measure, value: int) -> str:
    """Writes an amount as the configuration would."""
    if measure is Measure.COST:
        return usd_digits(value)
    if measure is Measure.WALL_TIME:
        return f"{value / 1000:g}"
    return str(value)
