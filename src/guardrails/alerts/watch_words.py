"""Words of what a watch tells, the same for every destination."""

from collections.abc import Callable
from datetime import UTC, datetime

from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind
from guardrails.core.alerting.anomaly_words import advice, command, reason, times_text
from guardrails.core.alerting.daily import Daily, Shares
from guardrails.core.alerting.pace import Pace
from guardrails.core.decisions import format_count, format_time
from guardrails.core.money import format_usd
from guardrails.core.windows import Window

__all__ = [
    "anomaly_headline",
    "daily_headline",
    "pace_headline",
    "watch_commands",
    "watch_meaning",
]

_HEADLINES = {
    AnomalyKind.LOOP: "makes calls again that had been answered",
    AnomalyKind.RETRIES: "pays for errors and retries",
    AnomalyKind.LARGE_CONTEXTS: "sends far more to its models than before",
    AnomalyKind.EXPENSIVE_MODEL: "has a dear model do small work",
    AnomalyKind.NEW_NAME: "is new, and costs money",
}

_SINGULAR = {Window.DAY: "day", Window.MONTH: "month"}


def anomaly_headline(anomaly: Anomaly, *, who: str) -> str:
    """Says in a line what is unusual."""
    times = times_text(anomaly)
    match anomaly.kind:
        case AnomalyKind.CUSTOMER_SPIKE:
            return f"{who} cost {times} its usual day"
        case AnomalyKind.SESSION_OUTLIER:
            return f"{who} cost {times} the median of its agent"
        case AnomalyKind.TOOL_OVERUSE:
            return f"{who} is called {times} as often as before"
        case _:
            return f"{who} {_HEADLINES[anomaly.kind]}"


def pace_headline(alert: Alert) -> str:
    """Says in a line when a budget will be gone."""
    assert alert.pace is not None
    pace, limit = alert.pace, format_usd(alert.limit or 0)
    when = _day(pace.gone_at_ms) if pace.window is Window.MONTH else "today"
    return f"At this rate the {_SINGULAR[pace.window]}'s {limit} is gone {when}"


def daily_headline(daily: Daily) -> str:
    """Says in a line what a day cost."""
    return f"{_named(daily.day_ms)} cost {format_usd(daily.cost_nano_usd)}"


def watch_meaning(alert: Alert, *, shown: Callable[[str], str]) -> str:
    """Says in a few sentences what that means.

    Args:
        alert: An alert of a watch.
        shown: Writes a name as its format wants it.
    """
    if alert.anomaly is not None:
        return f"{_begun(reason(alert.anomaly, shown=shown))} {advice(alert.anomaly)}"
    if alert.pace is not None:
        return _pace(alert, alert.pace, shown)
    assert alert.daily is not None
    return _daily(alert.daily, shown)


def watch_commands(alert: Alert) -> tuple[str, ...]:
    """Says what shows more of it, as commands for a shell."""
    if alert.anomaly is not None:
        return (command(alert.anomaly),)
    if alert.pace is not None:
        return ("guardrails costs --every day --since 7d", "guardrails budget show")
    return ("guardrails costs --since 48h --by customer --compare",)


def _pace(alert: Alert, pace: Pace, shown: Callable[[str], str]) -> str:
    used, limit = format_usd(alert.used or 0), format_usd(alert.limit or 0)
    return (
        f"Budget {shown(pace.budget)}: {used} of {limit} used. By the last "
        f"{pace.long_hours} h as by the last {pace.short_hours} h it is gone at "
        f"{format_time(pace.gone_at_ms)}; its {_SINGULAR[pace.window]} ends at "
        f"{format_time(pace.ends_at_ms)}."
    )


def _daily(daily: Daily, shown: Callable[[str], str]) -> str:
    cost = daily.cost_nano_usd
    parts = [
        f"{_change(daily)} {format_count(daily.sessions, 'session')}.",
        *(
            f"{title}: {_shares(shares, shown)}."
            for title, shares in (
                ("Customers", daily.customers),
                ("Agents", daily.agents),
                ("Tools", daily.tools),
            )
            if shares
        ),
    ]
    if daily.wasted_nano_usd:
        percent = daily.wasted_nano_usd * 100 // cost
        parts.append(f"Waste: {format_usd(daily.wasted_nano_usd)} ({percent} %).")
    if daily.anomalies:
        noun = "anomaly" if daily.anomalies == 1 else "anomalies"
        parts.append(f"{daily.anomalies:,} {noun}.")
    return "\n".join(parts)


def _change(daily: Daily) -> str:
    change = daily.cost_nano_usd - daily.before_nano_usd
    if not change:
        return "As much as the day before."
    more = "more" if change > 0 else "less"
    return f"{format_usd(abs(change))} {more} than the day before."


def _shares(shares: Shares, shown: Callable[[str], str]) -> str:
    return ", ".join(
        f"{shown(name) if name else '(unattributed)'} {format_usd(cost)}"
        for name, cost in shares
    )


def _begun(sentence: str) -> str:
    """Lets a sentence begin with a capital, also one that begins with a noun."""
    return sentence[:1].upper() + sentence[1:]


def _day(time_ms: int) -> str:
    return f"on {_named(time_ms)}"


def _named(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, tz=UTC):%b %d}"
