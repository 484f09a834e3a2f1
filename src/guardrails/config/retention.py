"""Retention: how long what was recorded is kept, by `guardrails prune`."""

from dataclasses import dataclass

from guardrails.config.problems import shown
from guardrails.config.section import Section
from guardrails.config.values import count

__all__ = ["DAYS_MAX", "DAYS_MIN", "Retention", "read_retention"]

DAYS_MIN = 7
"""Events tell a settlement that comes late, and twice, from a new one: journals that
wait for a store have them for days."""

DAYS_MAX = 3_660
"""Ten years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long to keep what was recorded. `None` keeps it for ever."""

    events_days: int | None = None
    """Single calls."""
    rollups_days: int | None = None
    """The hourly sums that reports are made of."""


def read_retention(section: Section) -> Retention:
    """Reads the section of a file."""
    retention = Retention(
        events_days=section.read("events_days", _days),
        rollups_days=section.read("rollups_days", _days),
    )
    section.close()
    return retention


def _days(value: object, /, *, name: str) -> int:
    days = count(value, name=name)
    if not DAYS_MIN <= days <= DAYS_MAX:
        raise ValueError(
            f"{name}: {shown(value)} is not a number of days from {DAYS_MIN} to "
            f"{DAYS_MAX}. Write one, or remove the key to keep everything."
        )
    return days
