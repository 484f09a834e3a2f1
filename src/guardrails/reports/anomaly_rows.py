"""Rows of what was spent, as the rules of anomalies look at them."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

from guardrails.core.accounts import Account
from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind, Severity, Unit
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.reporting.rollups import Spend
from guardrails.reports.spans import Span

__all__ = [
    "BEFORE_BY",
    "NOW_BY",
    "Row",
    "Sparse",
    "Sum",
    "Watched",
    "an_anomaly",
    "percent_of",
    "rows_of",
    "summed",
]

BEFORE_BY = ("root_agent", "agent", "session_id", "model", "tool")
"""What the spend of the two weeks before is read by."""

NOW_BY = (*BEFORE_BY, "customer_id", "waste")
"""What the spend that is looked at is read by."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """What cannot be judged, because too little is known."""

    kind: AnomalyKind
    dimension: str
    name: str | None
    have: int
    need: int
    """How many active days, or sessions, it takes."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was spent under one combination of names, in their order in `NOW_BY`."""

    root_agent: str | None
    agent: str | None
    session_id: str | None
    model: str | None
    tool: str | None
    customer_id: str | None
    waste: str | None
    spend: Spend

    @classmethod
    def of(cls, spend: Spend) -> Self:
        """Reads the names of a spend; those before have no customer and no waste."""
        root_agent, agent, session_id, model, tool, *more = spend.names
        customer_id, waste = more or (None, None)
        return cls(
            root_agent, agent, session_id, model, tool, customer_id, waste, spend
        )

    @property
    def called(self) -> str:
        """The tool or the model."""
        return self.tool or self.model or "unknown"

    @property
    def cost(self) -> int:
        """Nano-USD, as far as it is known."""
        return self.spend.total_nano_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """All that anomalies are looked for in."""

    span: Span
    now: Sequence[Row] = ()
    """Of the span, with all names."""
    before: Sequence[Row] = ()
    """Of the 14 days before it, without customers and waste."""
    days: Sequence[Spend] = ()
    """By customer and day: the days of the span, and at least 14 before them."""
    stopped: Sequence[Account] = ()
    """Sessions of the span that were stopped."""


@dataclass(slots=True)
class Sum:
    """What rows that belong together come to."""

    cost: int = 0
    calls: int = 0
    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unpriced_calls: int = 0
    sessions: set[str] = field(default_factory=set[str])

    def add(self, row: Row) -> None:
        """Adds a row."""
        spend = row.spend
        self.cost += row.cost
        self.calls += spend.steps
        self.model_calls += spend.model_calls
        self.input_tokens += spend.input_tokens
        self.output_tokens += spend.output_tokens
        self.unpriced_calls += spend.unpriced_calls
        if row.session_id is not None:
            self.sessions.add(row.session_id)


def rows_of(spends: Iterable[Spend]) -> list[Row]:
    """Reads rows."""
    return [Row.of(spend) for spend in spends]


def summed(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, Sum]:
    """Adds up rows that have the same key."""
    sums: dict[K, Sum] = defaultdict(Sum)
    for row in rows:
        sums[key(row)].add(row)
    return sums


def percent_of(part: int, whole: int) -> int:
    """Returns a part in whole percent, rounded down."""
    return part * 100 // whole if whole else 0


def an_anomaly(
    kind: AnomalyKind,
    dimension: str,
    name: str | None,
    *,
    watched: Watched,
    rules: AnomalyRules,
    measured: int,
    cost: int,
    excess: int,
    unit: Unit = Unit.COST,
    expected: int | None = None,
    n: int = 0,
    customer_id: str | None = None,
    about: str | None = None,
    instead: str | None = None,
    calls: int | None = None,
    since_ms: int | None = None,
    began_ms: int | None = None,
) -> Anomaly:
    """Returns an anomaly of the span, unless it says another time."""
    since_ms = watched.span.since_ms if since_ms is None else since_ms
    severity = Severity.LOW
    if excess >= rules.medium_nano_usd:
        severity = Severity.MEDIUM
    if excess >= rules.high_nano_usd:
        severity = Severity.HIGH
    return Anomaly(
        kind=kind,
        dimension=dimension,
        name=name,
        customer_id=customer_id,
        about=about,
        instead=instead,
        since_ms=since_ms,
        began_ms=since_ms if began_ms is None else began_ms,
        unit=unit,
        measured=measured,
        expected=expected,
        ratio=measured / expected if expected else None,
        n=n,
        calls=calls,
        cost_nano_usd=cost,
        excess_nano_usd=excess,
        severity=severity,
    )
