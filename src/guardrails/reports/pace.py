"""Pace: whether a budget will be gone before its window ends.

Two rates have to say so, that of a longer and that of a shorter time: a spike that is
over is not in the shorter one, and one that has just begun not in the longer one.
See "multiwindow, multi-burn-rate alerts" in The Site Reliability Workbook, chapter 5.
"""

from collections.abc import Mapping

from guardrails.core.alerting.pace import Pace
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.core.windows import Window

__all__ = ["PACE_HOURS", "nano_usd_per_hour", "pace_of"]

PACE_HOURS: Mapping[Window, tuple[int, int]] = {
    Window.DAY: (4, 1),
    Window.MONTH: (72, 6),
}
"""Complete hours of the longer and the shorter time: a month is judged by three days,
because a night or a Sunday says little."""

MARGIN_PERCENT = 10
"""How far above the limit a window has to end: rates are no more exact than that."""


def pace_of(
    costs: Mapping[int, int],
    *,
    budget: str,
    window: Window,
    used: int,
    limit: int,
    excess_min: int,
    now_ms: int,
    ends_at_ms: int,
) -> Pace | None:
    """Returns when a budget is gone, if that is before its window ends.

    Args:
        costs: Nano-USD by hour, counted since 1970.
        budget: Its name.
        window: One of `PACE_HOURS`.
        used: Nano-USD that count in this window.
        limit: Nano-USD.
        excess_min: What would be above the limit by then has to be more than this.
        now_ms: The instant.
        ends_at_ms: When the window ends.
    """
    if used >= limit:
        return None  # That was told when it happened.
    hours = PACE_HOURS[window]
    slower = nano_usd_per_hour(costs, window=window, now_ms=now_ms)
    above = used + slower * (ends_at_ms - now_ms) // HOUR_MS - limit
    if above <= max(excess_min, limit * MARGIN_PERCENT // 100):
        return None
    return Pace(
        budget=budget,
        window=window,
        gone_at_ms=now_ms + (limit - used) * HOUR_MS // slower,
        ends_at_ms=ends_at_ms,
        long_hours=hours[0],
        short_hours=hours[1],
    )


def nano_usd_per_hour(costs: Mapping[int, int], *, window: Window, now_ms: int) -> int:
    """Returns the slower of the two rates of a window."""
    return min(_per_hour(costs, hours, now_ms) for hours in PACE_HOURS[window])


def _per_hour(costs: Mapping[int, int], hours: int, now_ms: int) -> int:
    """Returns the cost of an hour: of complete ones and the running one."""
    running = now_ms // HOUR_MS
    spent = sum(costs.get(hour, 0) for hour in range(running - hours, running + 1))
    return spent * HOUR_MS // (now_ms - (running - hours) * HOUR_MS)
