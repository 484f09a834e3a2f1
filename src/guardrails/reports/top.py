"""Top: what is being spent now, and by which sessions."""

from collections.abc import Sequence
from dataclasses import dataclass

from guardrails.core.reporting.groups import step_start
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports.costs import total_of
from guardrails.reports.sessions import PACE_MS_MIN, SessionInfo, SessionList

__all__ = ["Top", "midnight_ms", "report_top"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """What is being spent at an instant."""

    project_id: str
    now_ms: int
    hour: Spend
    """Since the hour began."""
    today: Spend
    """Since midnight (UTC)."""
    running: Sequence[SessionInfo]
    """Sessions that are active, the fastest first."""

    @property
    def pace_nano_usd(self) -> int:
        """What this hour costs if it goes on as it began.

        Not the sum of the sessions': one around another is charged with its calls.
        """
        elapsed_ms = max(self.now_ms % HOUR_MS, PACE_MS_MIN)
        return self.hour.total_nano_usd * HOUR_MS // elapsed_ms


def midnight_ms(now_ms: int) -> int:
    """Returns when the day began (UTC)."""
    return step_start(now_ms // HOUR_MS, "day") * HOUR_MS


def report_top(hours: Sequence[Spend], running: SessionList, *, now_ms: int) -> Top:
    """Sums up the day.

    Args:
        hours: One entry per hour of today, in any order.
        running: Sessions that are active.
        now_ms: The instant of the report.
    """
    begin_ms = now_ms // HOUR_MS * HOUR_MS
    return Top(
        project_id=running.project_id,
        now_ms=now_ms,
        hour=total_of(spend for spend in hours if spend.since_ms == begin_ms),
        today=total_of(hours),
        running=sorted(
            running.rows, key=lambda row: (-(row.pace_nano_usd or 0), row.session_id)
        ),
    )
