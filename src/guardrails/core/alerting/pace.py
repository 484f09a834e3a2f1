"""Pace: a shared budget that is spent before its window ends, as a closed record."""

from dataclasses import dataclass

from guardrails.core.windows import Window

__all__ = ["Pace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When a budget is gone, if it goes on like that."""

    budget: str
    """Its name."""
    window: Window
    """`day` or `month`."""
    gone_at_ms: int
    """By the slower of two rates."""
    ends_at_ms: int
    """When the window ends."""
    long_hours: int
    short_hours: int
    """The complete hours that the two rates are of, besides the running one."""
