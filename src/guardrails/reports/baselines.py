"""Baselines: what a day of a customer usually costs, and which days are far above it.

The rule is that of the median of the same class of days, weekdays or weekend, with a
spread in logarithms: a median is not moved by the spike of last week, and costs differ
by factors rather than by amounts.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardrails.core.alerting.anomaly_rules import BASELINE_DAYS, AnomalyRules

__all__ = ["Baseline", "active_days", "baseline_of", "has_spike", "spike_began"]

WEEK_DAYS = 7
MONDAY = 3
"""The first of 1970 was a Thursday."""
WEEKEND = 5

MAD_TO_SIGMA = 1.4826
"""Makes the median absolute deviation of a normal distribution its sigma."""

Costs = Mapping[int, int]
"""Nano-USD by day, counted since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a day usually costs."""

    cost_nano_usd: int
    scale: float
    """Spread of logarithms."""
    days: int
    """How many say so."""

    def times(self, cost_nano_usd: int) -> float:
        """Returns how many usual days a cost is."""
        return cost_nano_usd / self.cost_nano_usd

    def z(self, cost_nano_usd: int) -> float:
        """Returns how many scales above the usual a cost is."""
        return math.log(self.times(cost_nano_usd)) / self.scale


def active_days(costs: Costs, day: int) -> list[int]:
    """Returns the days with any cost among the 14 before a day."""
    return [d for d in range(day - BASELINE_DAYS, day) if costs.get(d, 0) > 0]


def baseline_of(costs: Costs, day: int, rules: AnomalyRules) -> Baseline | None:
    """Returns what a day usually costs; `None` if too few days say anything."""
    active = active_days(costs, day)
    if len(active) < rules.active_days_min:
        return None
    alike = _alike(active, day, rules)
    median = round(statistics.median(costs[d] for d in alike))
    # Every active day says how far days are from what is usual for them.
    residuals = [_residual(costs, d, active, rules) for d in active]
    middle = statistics.median(residuals)
    mad = statistics.median(abs(residual - middle) for residual in residuals)
    return Baseline(
        cost_nano_usd=max(1, median),
        scale=max(rules.scale_min, MAD_TO_SIGMA * mad),
        days=len(alike),
    )


def has_spike(
    costs: Costs, day: int, baseline: Baseline | None, rules: AnomalyRules
) -> bool:
    """Whether a day, also one that is not over, costs far more than usual."""
    cost = costs.get(day, 0)
    return (
        baseline is not None
        and cost - baseline.cost_nano_usd > rules.excess_nano_usd_min
        and baseline.times(cost) > rules.customer_times
        and baseline.z(cost) > rules.z_min
    )


def spike_began(costs: Costs, day: int, rules: AnomalyRules) -> int:
    """Returns the first of the days that spike, without a calm one between them."""
    began = day
    for earlier in range(day - 1, day - BASELINE_DAYS - 1, -1):
        baseline = baseline_of(costs, earlier, rules)
        cost = costs.get(earlier, 0)
        if baseline is None or baseline.times(cost) < rules.calm_times:
            break
        if has_spike(costs, earlier, baseline, rules):
            began = earlier
    return began


def _alike(active: Sequence[int], day: int, rules: AnomalyRules) -> Sequence[int]:
    alike = [d for d in active if _is_weekend(d) == _is_weekend(day)]
    return alike if len(alike) >= rules.class_days_min else active


def _residual(
    costs: Costs, day: int, active: Sequence[int], rules: AnomalyRules
) -> float:
    usual = statistics.median(costs[d] for d in _alike(active, day, rules))
    return math.log(costs[day] / usual)


def _is_weekend(day: int) -> bool:
    return (day + MONDAY) % WEEK_DAYS >= WEEKEND
