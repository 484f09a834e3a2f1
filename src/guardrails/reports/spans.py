"""Spans: the whole hours that a report covers."""

from dataclasses import dataclass

from guardrails.core.reporting.rollups import HOUR_MS

__all__ = ["Span"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The whole hours that a report covers."""

    hours: int
    """As asked for; the first hour counts in full."""
    until_ms: int
    """The instant of the report."""

    @property
    def since_ms(self) -> int:
        """The start of the first hour."""
        return (self.until_ms - self.hours * HOUR_MS) // HOUR_MS * HOUR_MS

    @property
    def before(self) -> "Span":
        """As many whole hours, up to the first of this one."""
        # It ends with an hour that is full, which is one of them.
        return Span(hours=self.hours - 1, until_ms=self.since_ms - 1)
