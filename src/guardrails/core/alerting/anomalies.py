"""Anomalies: what is unusual about what was spent, as closed records. Pure.

Names and amounts only, so that one may be kept, sent and shown anywhere.
"""

import enum
from dataclasses import dataclass

__all__ = ["Anomaly", "AnomalyKind", "Severity", "Unit"]


class AnomalyKind(enum.StrEnum):
    """What is unusual."""

    CUSTOMER_SPIKE = "customer_spike"
    """A customer costs a multiple of what it does on such a day."""
    SESSION_OUTLIER = "session_outlier"
    """A session costs a multiple of what those of its agent do."""
    LOOP = "loop"
    """Calls were repeated that had been answered."""
    RETRIES = "retries"
    """Money went into calls that failed, and into trying them again."""
    TOOL_OVERUSE = "tool_overuse"
    """Sessions call a tool far more often than they did."""
    LARGE_CONTEXTS = "large_contexts"
    """An agent sends far more to its models than it did."""
    EXPENSIVE_MODEL = "expensive_model"
    """An agent has a dear model do small work."""
    NEW_NAME = "new_name"
    """A tool or model was not called in the two weeks before."""


class Severity(enum.StrEnum):
    """How much money it is about."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Unit(enum.StrEnum):
    """What is measured."""

    COST = "nano_usd"
    CALLS = "calls_per_session"
    TOKENS = "input_tokens_per_call"
    PERCENT = "percent_of_cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """One thing that is unusual."""

    kind: AnomalyKind
    dimension: str
    """What the name is of, as reports have it."""
    name: str | None
    """`None` for what was not attributed."""
    customer_id: str | None = None
    """Of a session: whose it is."""
    about: str | None = None
    """The tool or model that it is about, or that cost most."""
    instead: str | None = None
    """Of a dear model: what this project has that costs least."""
    since_ms: int
    """When what was looked at begins: of a customer, a day."""
    began_ms: int
    """The same of the first of several such days without calm between them."""
    unit: Unit
    measured: int
    expected: int | None = None
    """What is usual, in the same unit; `None` if nothing is known to be."""
    ratio: float | None = None
    """Measured by expected."""
    n: int = 0
    """How many days, sessions or calls say what is usual. Of a loop or retries, and of
    what is new, the calls that it is about."""
    calls: int | None = None
    """Calls of `about`."""
    cost_nano_usd: int
    """What the name cost."""
    excess_nano_usd: int
    """How much of that is more than usual, or would be saved."""
    severity: Severity

    @property
    def is_money(self) -> bool:
        """Whether an amount was measured."""
        return self.unit is Unit.COST
