"""Unusual: reads what anomalies are looked for in, and as little as that takes."""

from collections.abc import Mapping, Sequence

from guardrails.core.accounts import Account
from guardrails.core.alerting.anomaly_rules import BASELINE_DAYS, AnomalyRules
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.core.windows import DAY_MS
from guardrails.ports import History
from guardrails.reports import (
    BEFORE_BY,
    NOW_BY,
    Anomalies,
    Row,
    Span,
    Watched,
    find_anomalies,
    rows_of,
    summed,
)

__all__ = ["read_anomalies"]

HOURS_MAX = 7 * 24
"""Of a longer span only the last week is looked at: what was odd before was seen then,
and would be compared with days that have been forgotten."""

SESSIONS_MAX = 5_000
"""The most expensive ones, of which it is read whether they were stopped."""


def read_anomalies(
    history: History,
    *,
    project_id: str,
    span: Span,
    rules: AnomalyRules,
    where: Mapping[str, Sequence[str]] | None = None,
    days_before: int = BASELINE_DAYS,
) -> Anomalies:
    """Reads what is unusual in a span; of a long one, in its last week.

    Args:
        history: What a store knows.
        project_id: The project.
        span: What is looked at. The days of customers count as a whole.
        rules: From when on something is unusual.
        where: Patterns by dimension: in each, one has to match.
        days_before: Days read before the first one; twice as many tell when what lasts
            began.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    if span.hours > HOURS_MAX:
        span = Span(hours=HOURS_MAX, until_ms=span.until_ms)

    def rows(by: Sequence[str], since_ms: int, until_ms: int) -> list[Row]:
        return rows_of(
            history.spend(
                project_id=project_id,
                by=by,
                since_ms=since_ms,
                until_ms=until_ms,
                where=where,
            )
        )

    least, now = rules.excess_nano_usd_min, rows(NOW_BY, span.since_ms, span.until_ms)
    if sum(row.cost for row in now) <= least:
        return Anomalies()  # Nothing can be beyond the floor.
    first_day_ms = span.since_ms // DAY_MS * DAY_MS
    days = history.spend(
        project_id=project_id,
        by="customer_id",
        since_ms=first_day_ms - days_before * DAY_MS,
        until_ms=span.until_ms,
        where=where,
        every="day",
    )
    before: list[Row] = []
    if _is_any_beyond(least, now):
        since_ms = span.since_ms - BASELINE_DAYS * DAY_MS
        before = rows(BEFORE_BY, since_ms, span.since_ms - HOUR_MS)
    stopped = _stopped(history, project_id, now)
    watched = Watched(span=span, now=now, before=before, days=days, stopped=stopped)
    return find_anomalies(watched, rules)


def _is_any_beyond(least: int, rows: Sequence[Row]) -> bool:
    """Whether an agent, a tool or a model cost enough to be compared: that is slow."""
    sums = (
        *summed(rows, lambda row: ("root_agent", row.root_agent)).values(),
        *summed(rows, lambda row: ("agent", row.agent)).values(),
        *summed(rows, lambda row: ("called", row.called)).values(),
    )
    return any(found.cost > least for found in sums)


def _stopped(
    history: History, project_id: str, now: Sequence[Row]
) -> Sequence[Account]:
    dearest = sorted(now, key=lambda row: (-row.cost, row.session_id or ""))
    names = dict.fromkeys(row.session_id for row in dearest)
    sessions = [name for name in names if name is not None][:SESSIONS_MAX]
    accounts = history.session_accounts(project_id=project_id, session_ids=sessions)
    return [account for account in accounts if account.stop is not None]
