"""Anomalies: what is unusual about what was spent.

Each rule looks at sums only, compares with the two weeks before, and speaks only of
what costs more than a floor: an oddity of a cent is nobody's business.
"""

from dataclasses import dataclass

from guardrails.core.alerting.anomalies import Anomaly
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.reports.anomaly_rows import Sparse, Watched
from guardrails.reports.oddities import (
    expensive_models,
    large_contexts,
    loops,
    new_names,
    retries,
    tool_overuse,
)
from guardrails.reports.spikes import customer_spikes, session_outliers

__all__ = ["Anomalies", "find_anomalies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomalies:
    """What was found."""

    found: tuple[Anomaly, ...] = ()
    """Those about most money first."""
    insufficient: tuple[Sparse, ...] = ()
    """What costs enough to be looked at, and cannot be judged yet."""


def find_anomalies(watched: Watched, rules: AnomalyRules) -> Anomalies:
    """Returns what is unusual in a span."""
    compared = [
        *customer_spikes(watched, rules),
        *session_outliers(watched, rules),
    ]
    found = [
        *(one for one in compared if isinstance(one, Anomaly)),
        *loops(watched, rules),
        *retries(watched, rules),
        *tool_overuse(watched, rules),
        *large_contexts(watched, rules),
        *expensive_models(watched, rules),
        *new_names(watched, rules),
    ]
    sparse = [one for one in compared if isinstance(one, Sparse)]
    return Anomalies(
        found=tuple(
            sorted(
                (o for o in found if o.excess_nano_usd > rules.excess_nano_usd_min),
                key=lambda o: (-o.excess_nano_usd, o.kind, o.name or "", o.about or ""),
            )
        ),
        insufficient=tuple(sorted(sparse, key=lambda one: (one.kind, one.name or ""))),
    )
