"""Sessions: the list of them, with what each spent, of how much, and how it ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from guardrails.core.accounts import Account
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports.costs import end_of, reason_of, total_of
from guardrails.reports.spans import Span

__all__ = [
    "PACE_MS_MIN",
    "SESSION_ORDERS",
    "SESSION_STATES",
    "SessionInfo",
    "SessionList",
    "sessions",
]

SESSION_ORDERS = ("cost", "time", "steps")
"""What a list can be sorted by: the most, or the latest, first."""

SESSION_STATES = ("active", "idle", "completed", "stopped")

_STATES = {"active": "active", "idle": "idle", "completed": "completed"}

PACE_MS_MIN = 60_000
"""What was spent in the first seconds says nothing of an hour."""

LimitOf = Callable[[Account], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """One session."""

    session_id: str
    agent: str | None
    customer_id: str | None
    end: str
    """`active`, `idle`, `completed`, `budget_exceeded`, `loop_detected` or
    `killed`."""
    reason: str | None
    """The limit or the tool that stopped it."""
    spend: Spend
    """In the span of the report."""
    whole_nano_usd: int | None
    """Of the whole session, which a limit is for; `None` if it is forgotten."""
    limit_nano_usd: int | None
    """Its limit of cost, with what a person raised it to; `None` if it has none."""
    started_at_ms: int | None
    last_active_at_ms: int | None
    active_ms: int | None

    @property
    def state(self) -> str:
        """One of `SESSION_STATES`."""
        return _STATES.get(self.end, "stopped")

    @property
    def pace_nano_usd(self) -> int | None:
        """What it costs per hour in which it is active."""
        if self.whole_nano_usd is None or self.active_ms is None:
            return None
        return self.whole_nano_usd * HOUR_MS // max(self.active_ms, PACE_MS_MIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionList:
    """Sessions that made a call in a span."""

    project_id: str
    span: Span
    rows: Sequence[SessionInfo]
    count: int
    """All that were asked for, those without a row included."""
    total: Spend
    """Of all that were asked for."""
    state: str | None = None
    """Of `SESSION_STATES`, if only such were asked for."""
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """The filter, by dimension."""

    @property
    def hidden(self) -> int:
        """Sessions without a row."""
        return self.count - len(self.rows)


def sessions(
    spends: Sequence[Spend],
    accounts: Sequence[Account],
    *,
    project_id: str,
    span: Span,
    limit: int,
    limit_of: LimitOf,
    sort: str = "cost",
    state: str | None = None,
) -> SessionList:
    """Lists sessions.

    Args:
        spends: One entry per session, in any order; calls outside of sessions are
            left out.
        accounts: The accounts of these sessions, in any order.
        project_id: The project.
        span: What the spends were summed over.
        limit: Rows to show; 0 shows all.
        limit_of: Returns the limit of cost of an account.
        sort: One of `SESSION_ORDERS`.
        state: One of `SESSION_STATES`; `None` lists all.
    """
    known: Mapping[str | None, Account] = {
        account.session.attribution.session_id: account
        for account in accounts
        if account.session is not None
    }
    rows = [
        _info(spend.name, spend, known.get(spend.name), span.until_ms, limit_of)
        for spend in spends
        if spend.name is not None
    ]
    rows = [row for row in rows if state is None or row.state == state]
    rows.sort(key=lambda row: (-_rank(row, sort), -_rank(row, "cost"), row.session_id))
    return SessionList(
        project_id=project_id,
        span=span,
        rows=rows[: limit or None],
        count=len(rows),
        total=total_of(row.spend for row in rows),
        state=state,
    )


def _rank(row: SessionInfo, sort: str) -> int:
    if sort == "time":
        return row.last_active_at_ms or 0
    return row.spend.steps if sort == "steps" else row.spend.total_nano_usd


def _info(
    session_id: str,
    spend: Spend,
    account: Account | None,
    now_ms: int,
    limit_of: LimitOf,
) -> SessionInfo:
    session = account.session if account else None
    who = session.attribution if session else None
    return SessionInfo(
        session_id=session_id,
        agent=who.agent if who else None,
        customer_id=who.customer_id if who else None,
        end=end_of(account, now_ms),
        reason=reason_of(account),
        spend=spend,
        whole_nano_usd=account.posted_nano_usd if account else None,
        limit_nano_usd=limit_of(account) if account else None,
        started_at_ms=session.started_at_ms if session else None,
        last_active_at_ms=session.last_active_at_ms if session else None,
        active_ms=session.active_ms if session else None,
    )
