"""Digest: many alerts counted, for when there are more than anybody would read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from guardrails.core.alerting.alerts import Alert
from guardrails.core.telling import AlertKind
from guardrails.system.ids import new_id

__all__ = ["Digest", "Tally"]

AGENTS_MAX = 100
"""Agents that are counted apart; the others are in the sums."""

AGENTS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """Several alerts as one message."""

    digest_id: str
    since_ms: int
    """When the first of them happened."""
    until_ms: int
    """When the last of them happened."""
    counts: Mapping[AlertKind, int]
    """Exact, by kind."""
    agents: tuple[tuple[str, Mapping[AlertKind, int]], ...] = ()
    """The agents with the most of them."""
    lost: int = 0
    """Earlier alerts that could not be delivered."""

    @property
    def total(self) -> int:
        """How many alerts it stands for."""
        return sum(self.counts.values())

    @property
    def commands(self) -> tuple[str, ...]:
        """What can be done about them."""
        return ("guardrails costs", "guardrails budget show")


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts alerts up to the next digest. Not thread safe."""

    counts: Counter[AlertKind] = field(default_factory=Counter[AlertKind])
    agents: dict[str, Counter[AlertKind]] = field(
        default_factory=dict[str, Counter[AlertKind]]
    )
    since_ms: int | None = None
    until_ms: int = 0

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts.values())

    def add(self, alert: Alert) -> None:
        """Counts an alert."""
        self.count(alert.kind, 1, time_ms=alert.time_ms)
        agent = alert.attribution.agent if alert.attribution else None
        if agent is None or (
            agent not in self.agents and len(self.agents) >= AGENTS_MAX
        ):
            return
        self.agents.setdefault(agent, Counter())[alert.kind] += 1

    def count(self, kind: AlertKind, number: int, *, time_ms: int) -> None:
        """Counts alerts of which only their number is known."""
        if not number:
            return
        self.counts[kind] += number
        self.since_ms = min(
            time_ms, time_ms if self.since_ms is None else self.since_ms
        )
        self.until_ms = max(time_ms, self.until_ms)

    def digest(self, *, lost: int, now_ms: int, digest_id: str | None = None) -> Digest:
        """Returns what was counted, under a new id or a given one."""
        ranked = sorted(
            self.agents.items(), key=lambda item: (-item[1].total(), item[0])
        )
        return Digest(
            digest_id=digest_id or new_id(),
            since_ms=now_ms if self.since_ms is None else self.since_ms,
            until_ms=self.until_ms or now_ms,
            counts=dict(self.counts),
            agents=tuple(
                (name, dict(counts)) for name, counts in ranked[:AGENTS_SHOWN]
            ),
            lost=lost,
        )
