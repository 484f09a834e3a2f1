"""Outliers: sessions that cost a multiple of what sessions cost, and why."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from guardrails.core.events import Event
from guardrails.core.rollups import Spend

__all__ = ["Cause", "Outlier", "find_outliers", "with_cause"]

TIMES_MEDIAN_MIN = 5
"""Sessions differ by two or three times from day to day; by five, there is a
reason."""

COST_NANO_USD_MIN = 1_000_000_000
"""One dollar: what costs less is not worth anybody's time, however often."""

SESSIONS_MIN = 3
"""Fewer have no middle."""

OUTLIERS_MAX = 3
"""A list of all that is odd is read by nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The tool or model that most of the money went to."""

    name: str
    calls: int
    cost_nano_usd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A session that stands out."""

    session_id: str
    cost_nano_usd: int
    median_nano_usd: int
    """Of all sessions of the report that cost anything."""
    cause: Cause | None = None

    @property
    def times_median(self) -> float:
        """How many median sessions it cost."""
        return self.cost_nano_usd / self.median_nano_usd


def find_outliers(spends: Sequence[Spend]) -> list[Outlier]:
    """Returns the sessions that stand out, most expensive first, at most three.

    Args:
        spends: One entry per session, in any order.
    """
    costs = {s.name: s.total_nano_usd for s in spends if s.name and s.total_nano_usd}
    if len(costs) < SESSIONS_MIN:
        return []
    median = round(statistics.median(costs.values()))
    least = max(TIMES_MEDIAN_MIN * median, COST_NANO_USD_MIN)
    ranked = sorted(costs.items(), key=lambda cost: (-cost[1], cost[0]))
    return [
        Outlier(session_id=name, cost_nano_usd=cost, median_nano_usd=median)
        for name, cost in ranked[:OUTLIERS_MAX]
        if cost >= least
    ]


def with_cause(outlier: Outlier, events: Sequence[Event]) -> Outlier:
    """Returns the outlier with what cost most in its events."""
    causes: dict[str, Cause] = {}
    for event in events:
        tool = f"{event.server}/{event.tool}" if event.server else event.tool
        name = event.model or tool or "unknown"
        known = causes.get(name) or Cause(name=name, calls=0, cost_nano_usd=0)
        cost = known.cost_nano_usd + (event.charge.cost_nano_usd or 0)
        causes[name] = replace(known, calls=known.calls + 1, cost_nano_usd=cost)
    ranked = sorted(causes.values(), key=lambda c: (-c.cost_nano_usd, c.name))
    return replace(outlier, cause=ranked[0] if ranked else None)
