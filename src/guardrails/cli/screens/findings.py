"""Findings: what a report of costs says below its table."""

from collections.abc import Iterator

from guardrails.cli.formats.times import time_text
from guardrails.cli.screens.amounts import money_cells, percent_text
from guardrails.cli.screens.names import safe
from guardrails.core.alerting.anomalies import Anomaly
from guardrails.core.alerting.anomaly_words import advice, command, reason
from guardrails.core.decisions import format_count
from guardrails.core.money import usd
from guardrails.reports import Anomalies, CostReport, Losses, Sparse

__all__ = [
    "anomaly_lines",
    "findings_json",
    "loss_lines",
    "sparse_line",
]

ANOMALIES_MAX = 3
"""A list of all that is odd is read by nobody."""

REFUSED_MAX = 3
"""Limits that are named; the others are in the report by them."""

_WASTE = {"error": "errors", "repeat": "repeats", "retry": "retries"}


def anomaly_lines(anomalies: Anomalies) -> Iterator[tuple[str, str]]:
    """Yields what was found, and what shows more of it."""
    for one in anomalies.found[:ANOMALIES_MAX]:
        yield f"▲ {safe(reason(one))} {advice(one)}", f"  → {safe(command(one))}"
    more = len(anomalies.found) - ANOMALIES_MAX
    if more > 0:
        yield f"▲ {more:,} more: --json has them all.", ""


def sparse_line(anomalies: Anomalies) -> str | None:
    """Says what could not be judged, if anything was not."""
    if not anomalies.insufficient:
        return None
    first = anomalies.insufficient[0]
    nobody = "no agent" if first.dimension == "agent" else "no customer"
    name = safe(first.name) if first.name else f"what has {nobody}"
    count = len(anomalies.insufficient)
    others = f" and {format_count(count - 1, 'other')}" if count > 1 else ""
    noun = "sessions" if first.dimension == "agent" else "active days"
    return (
        f"insufficient_data: {name}{others} cannot be compared yet "
        f"({first.have} of {first.need} {noun})."
    )


def loss_lines(report: CostReport) -> Iterator[str]:
    """Yields what was spent in vain, and what observe mode let pass."""
    losses = report.losses
    if losses.wasted_nano_usd:
        parts = [
            f"{_WASTE.get(spend.name or '', 'others')} {_usd(spend.total_nano_usd)}"
            for spend in losses.wasted
            if spend.total_nano_usd
        ]
        wasted = _usd(losses.wasted_nano_usd)
        if whole := report.total.total_nano_usd:  # It was read a moment before.
            wasted += f" ({percent_text(losses.wasted_nano_usd / whole)})"
        yield f"Waste {wasted}: {', '.join(parts)}."
    if losses.refused:
        names = [safe(spend.name or "") for spend in losses.refused]
        more = len(names) - REFUSED_MAX
        yield (
            f"Observe: {format_count(losses.refused_sessions, 'session')} and "
            f"{format_count(losses.refused_calls, 'call')} would have been refused, "
            f"{_usd(losses.refused_nano_usd)}: {', '.join(names[:REFUSED_MAX])}"
            + (f" and {more:,} more." if more > 0 else ".")
        )


def findings_json(report: CostReport) -> dict[str, object]:
    """Returns the same for programs, and all of it."""
    return {
        "waste": _waste(report.losses),
        "observe": _observe(report.losses),
        "anomalies": [_anomaly(one) for one in report.anomalies.found],
        "insufficient_data": [_sparse(one) for one in report.anomalies.insufficient],
    }


def _waste(losses: Losses) -> dict[str, object]:
    by = {spend.name: _digits(spend.total_nano_usd) for spend in losses.wasted}
    return {"cost_usd": _digits(losses.wasted_nano_usd), "by": by}


def _observe(losses: Losses) -> dict[str, object]:
    return {
        "cost_usd": _digits(losses.refused_nano_usd),
        "sessions": losses.refused_sessions,
        "calls": losses.refused_calls,
        "by": {spend.name: _digits(spend.total_nano_usd) for spend in losses.refused},
    }


def _anomaly(one: Anomaly) -> dict[str, object]:
    return {
        "kind": one.kind.value,
        "severity": one.severity.value,
        "dimension": one.dimension,
        "name": one.name,
        "customer_id": one.customer_id,
        "about": one.about,
        "instead": one.instead,
        "since": time_text(one.since_ms),
        "began": time_text(one.began_ms),
        "unit": "usd" if one.is_money else one.unit.value,
        "measured": _amount(one, one.measured),
        "expected": None if one.expected is None else _amount(one, one.expected),
        "ratio": None if one.ratio is None else round(one.ratio, 2),
        "n": one.n,
        "calls": one.calls,
        "cost_usd": _digits(one.cost_nano_usd),
        "excess_usd": _digits(one.excess_nano_usd),
        "reason": reason(one),
        "recommendation": advice(one),
        "command": command(one),
    }


def _sparse(one: Sparse) -> dict[str, object]:
    return {
        "kind": one.kind.value,
        "dimension": one.dimension,
        "name": one.name,
        "have": one.have,
        "need": one.need,
    }


def _amount(one: Anomaly, value: int) -> str | int:
    return _digits(value) if one.is_money else value


def _digits(nano_usd: int) -> str:
    return f"{usd(nano_usd):f}"


def _usd(nano_usd: int) -> str:
    return money_cells([nano_usd])[0]
