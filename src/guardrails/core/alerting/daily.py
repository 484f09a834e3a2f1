"""Daily: what one day cost, in a few names, as a closed record."""

from dataclasses import dataclass

__all__ = ["Daily", "Shares"]

Shares = tuple[tuple[str | None, int], ...]
"""Names and what they cost, most expensive first; `None` is what has no name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """A day that is over."""

    day_ms: int
    """When it began (UTC)."""
    cost_nano_usd: int
    before_nano_usd: int
    """Of the day before it."""
    sessions: int
    wasted_nano_usd: int
    anomalies: int
    customers: Shares = ()
    agents: Shares = ()
    tools: Shares = ()
