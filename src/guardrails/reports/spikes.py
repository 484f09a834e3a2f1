"""Spikes: days of customers and sessions of agents that cost a multiple of others."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.windows import DAY_MS
from guardrails.reports.anomaly_rows import (
    Row,
    Sparse,
    Sum,
    Watched,
    an_anomaly,
    summed,
)
from guardrails.reports.baselines import (
    active_days,
    baseline_of,
    has_spike,
    spike_began,
)

__all__ = ["customer_spikes", "session_outliers"]

Found = Iterator[Anomaly | Sparse]

ByName = dict[str | None, dict[int, int]]


def customer_spikes(watched: Watched, rules: AnomalyRules) -> Found:
    """Compares each day of the span with the days before it: the dearest is named."""
    span = watched.span
    days = range(span.since_ms // DAY_MS, span.until_ms // DAY_MS + 1)
    for name, costs in _by_day(watched).items():
        costly = [d for d in days if costs.get(d, 0) > rules.excess_nano_usd_min]
        usual = {day: baseline_of(costs, day, rules) for day in costly}
        spikes = [day for day in costly if has_spike(costs, day, usual[day], rules)]
        day = max(spikes, key=lambda day: costs[day], default=None)
        baseline = None if day is None else usual[day]
        if day is not None and baseline is not None:
            yield an_anomaly(
                AnomalyKind.CUSTOMER_SPIKE,
                "customer_id",
                name,
                watched=watched,
                rules=rules,
                measured=costs[day],
                expected=baseline.cost_nano_usd,
                n=baseline.days,
                cost=costs[day],
                excess=costs[day] - baseline.cost_nano_usd,
                since_ms=day * DAY_MS,
                began_ms=spike_began(costs, day, rules) * DAY_MS,
            )
        elif costly and usual[costly[-1]] is None:
            yield Sparse(
                kind=AnomalyKind.CUSTOMER_SPIKE,
                dimension="customer_id",
                name=name,
                have=len(active_days(costs, costly[-1])),
                need=rules.active_days_min,
            )


def session_outliers(watched: Watched, rules: AnomalyRules) -> Found:
    """Compares each session of the span with those of the same outermost agent."""
    rows = watched.now
    before = _sessions(watched.before)
    for agent, now in _sessions(rows).items():
        known = before.get(agent, {})
        costs = {name: cost + known.get(name, 0) for name, cost in now.items()}
        earlier = [cost for name, cost in known.items() if name not in now and cost]
        suspects = [n for n, cost in costs.items() if cost > rules.excess_nano_usd_min]
        for name in suspects:
            usual = earlier
            if len(usual) < rules.sessions_min:
                usual = [*earlier, *(c for n, c in costs.items() if n != name and c)]
            if len(usual) < rules.sessions_min:
                yield Sparse(
                    kind=AnomalyKind.SESSION_OUTLIER,
                    dimension="agent",
                    name=agent,
                    have=len(usual) + 1,
                    need=rules.sessions_min + 1,
                )
                break
            median = _median_if_outlier(costs[name], usual, rules)
            if median is None:
                continue
            of_session = [row for row in rows if row.session_id == name]
            about, most = _dearest(of_session)
            yield an_anomaly(
                AnomalyKind.SESSION_OUTLIER,
                "session_id",
                name,
                watched=watched,
                rules=rules,
                customer_id=next(
                    (row.customer_id for row in of_session if row.customer_id), None
                ),
                about=about,
                calls=most.calls,
                measured=costs[name],
                expected=median,
                n=len(usual),
                cost=costs[name],
                excess=costs[name] - median,
            )


def _by_day(watched: Watched) -> ByName:
    costs: ByName = defaultdict(dict)
    for spend in watched.days:
        day = (spend.since_ms or 0) // DAY_MS
        costs[spend.name][day] = costs[spend.name].get(day, 0) + spend.total_nano_usd
    return costs


def _sessions(rows: Sequence[Row]) -> Mapping[str | None, Mapping[str, int]]:
    """Returns what sessions cost, by the outermost of their agents."""
    costs: dict[str | None, dict[str, int]] = defaultdict(dict)
    for row in rows:
        if row.session_id is not None:
            sessions = costs[row.root_agent]
            sessions[row.session_id] = sessions.get(row.session_id, 0) + row.cost
    return costs


def _median_if_outlier(
    cost: int, usual: Sequence[int], rules: AnomalyRules
) -> int | None:
    """Returns the median that a session is far from; `None` if it is not."""
    median = max(1, round(statistics.median(usual)))
    p99 = sorted(usual)[math.ceil(0.99 * len(usual)) - 1]
    is_far = cost > max(rules.session_times * median, rules.p99_times * p99)
    return median if is_far else None


def _dearest(rows: Sequence[Row]) -> tuple[str, Sum]:
    """Returns the tool or model that most of the money went to."""
    sums = summed(rows, lambda row: row.called)
    return min(sums.items(), key=lambda item: (-item[1].cost, item[0]))
