"""Content of what a watch tells, as JSON of a webhook has it."""

from datetime import UTC, datetime

from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.anomalies import Anomaly
from guardrails.core.alerting.anomaly_words import advice, command, reason
from guardrails.core.alerting.daily import Daily, Shares
from guardrails.core.alerting.pace import Pace
from guardrails.core.money import usd_digits

__all__ = ["time_text", "watch_content"]


def watch_content(alert: Alert) -> dict[str, object]:
    """Returns what a watch tells: one of three keys has it, by kind."""
    return {
        "anomaly": alert.anomaly and _anomaly(alert.anomaly),
        "pace": alert.pace and _pace(alert.pace),
        "daily": alert.daily and _daily(alert.daily),
    }


def time_text(time_ms: int) -> str:
    """Writes an instant, in UTC."""
    at = datetime.fromtimestamp(time_ms / 1000, tz=UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z"


def _anomaly(one: Anomaly) -> dict[str, object]:
    return {
        "kind": one.kind.value,
        "severity": one.severity.value,
        "dimension": one.dimension,
        "name": one.name,
        "about": one.about,
        "instead": one.instead,
        "since": time_text(one.since_ms),
        "began": time_text(one.began_ms),
        "ratio": None if one.ratio is None else round(one.ratio, 2),
        "cost_usd": usd_digits(one.cost_nano_usd),
        "excess_usd": usd_digits(one.excess_nano_usd),
        "text": reason(one),
        "recommendation": advice(one),
        "command": command(one),
    }


def _pace(pace: Pace) -> dict[str, object]:
    return {
        "budget": pace.budget,
        "window": pace.window.value,
        "gone_at": time_text(pace.gone_at_ms),
        "window_end": time_text(pace.ends_at_ms),
        "hours": [pace.long_hours, pace.short_hours],
    }


def _daily(daily: Daily) -> dict[str, object]:
    return {
        "day": time_text(daily.day_ms)[:10],
        "cost_usd": usd_digits(daily.cost_nano_usd),
        "before_usd": usd_digits(daily.before_nano_usd),
        "sessions": daily.sessions,
        "waste_usd": usd_digits(daily.wasted_nano_usd),
        "anomalies": daily.anomalies,
        "customers": _shares(daily.customers),
        "agents": _shares(daily.agents),
        "tools": _shares(daily.tools),
    }


def _shares(shares: Shares) -> list[dict[str, object]]:
    return [{"name": name, "cost_usd": usd_digits(cost)} for name, cost in shares]
