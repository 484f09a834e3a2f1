"""Retention: what is deleted for its age, and changed to forget a customer. Pure."""

from dataclasses import dataclass

from guardrails.core.alerting.alerts import Alert
from guardrails.core.reporting.rollups import Mix
from guardrails.core.windows import DAY_MS

__all__ = ["IN_USE_MS", "Forgotten", "Pruned", "is_about", "nameless"]

IN_USE_MS = DAY_MS
"""A session that was active within a day may go on: its account is its limit."""


@dataclass(slots=True, kw_only=True)
class Pruned:
    """What was deleted for its age, or would be."""

    events: int = 0
    rollups: int = 0
    """Cells: one name of one dimension in one hour."""


@dataclass(slots=True, kw_only=True)
class Forgotten:
    """What was changed to forget a customer, or would be."""

    events: int = 0
    """Made anonymous: they keep what was called and what it cost."""
    rollups: int = 0
    """Sums of an hour that were moved to what is not attributed."""
    sessions: int = 0
    """Sessions whose accounts were deleted."""
    sessions_in_use: int = 0
    """Left as they are, because they were active within a day."""
    alerts: int = 0
    """Deleted with what has become of them, also if they were not sent yet."""


def is_about(alert: Alert, customer_id: str) -> bool:
    """Whether an alert names a customer: a report of a day names several."""
    who, daily = alert.attribution, alert.daily
    if daily is not None:
        return customer_id in [name for name, _ in daily.customers]
    return who is not None and who.customer_id == customer_id


def nameless(mix: Mix) -> Mix:
    """Returns the names of a cell without those of a customer and of its people."""
    return mix._replace(customer_id=None, user_id=None, session_id=None)
