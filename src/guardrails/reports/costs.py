"""Costs: where the money went in a span of time, by session or by dimension."""

from collections.abc import Sequence
from dataclasses import dataclass

from guardrails.core.accounts import Account
from guardrails.core.rollups import HOUR_MS, Spend

__all__ = ["CostReport", "CostRow", "SessionRow", "report_by", "report_sessions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """What was spent under one name of a dimension."""

    name: str | None
    """`None` is what was not attributed."""
    spend: Spend
    share: float | None
    """The part of the total cost, 0 to 1; `None` while nothing was spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow(CostRow):
    """What one session spent, and how it ended."""

    agent: str | None
    customer_id: str | None
    end: str
    """`active`, `completed`, `budget_exceeded`, `loop_detected` or `killed`."""
    reason: str | None
    """The limit or tool that stopped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Rows of whole hours, most expensive first."""

    by: str
    since_ms: int
    """The start of the first hour."""
    until_ms: int
    """The instant of the report."""
    rows: Sequence[CostRow]
    """The most expensive names; `hidden` more were left out."""
    hidden: int
    names: int
    """All names, hidden ones included."""
    total: Spend
    stopped: int = 0
    """Sessions that were stopped. Only of a report by session."""


def report_by(
    spends: Sequence[Spend], *, by: str, since_ms: int, until_ms: int, limit: int
) -> CostReport:
    """Ranks what was spent per name.

    Args:
        spends: One entry per name, in any order.
        by: The dimension.
        since_ms: The first hour contains it.
        until_ms: The instant of the report.
        limit: Rows to show; 0 shows all.
    """
    total = _total(spends)
    ranked = _ranked(spends)
    shown = ranked[:limit] if limit else ranked
    return CostReport(
        by=by,
        since_ms=since_ms // HOUR_MS * HOUR_MS,
        until_ms=until_ms,
        rows=[
            CostRow(name=spend.name, spend=spend, share=_share(spend, total))
            for spend in shown
        ],
        hidden=len(ranked) - len(shown),
        names=len(ranked),
        total=total,
    )


def report_sessions(
    spends: Sequence[Spend],
    accounts: Sequence[Account],
    *,
    since_ms: int,
    until_ms: int,
    limit: int,
) -> CostReport:
    """Ranks sessions by what they spent in the span.

    Args:
        spends: One entry per session, in any order.
        accounts: The accounts of these sessions.
        since_ms: The first hour contains it.
        until_ms: The instant of the report.
        limit: Rows to show; 0 shows all.
    """
    known = {
        account.session.attribution.session_id: account
        for account in accounts
        if account.session is not None
    }
    total = _total(spends)
    ranked = _ranked(spends)
    shown = ranked[:limit] if limit else ranked
    return CostReport(
        by="session_id",
        since_ms=since_ms // HOUR_MS * HOUR_MS,
        until_ms=until_ms,
        rows=[_session_row(spend, known.get(spend.name), total) for spend in shown],
        hidden=len(ranked) - len(shown),
        names=len(ranked),
        total=total,
        stopped=sum(
            1
            for spend in spends
            if (account := known.get(spend.name)) and account.stop is not None
        ),
    )


def _session_row(spend: Spend, account: Account | None, total: Spend) -> SessionRow:
    session = account.session if account else None
    stop = account.stop if account else None
    if stop is not None:
        end = stop.reason.value
    else:
        is_over = session is not None and session.ended_at_ms is not None
        end = "completed" if is_over else "active"
    reason: str | None = None
    if stop is not None and stop.measure is not None:
        reason = stop.measure.value
    elif stop is not None and stop.finding is not None:
        reason = stop.finding.tool
    return SessionRow(
        name=spend.name,
        spend=spend,
        share=_share(spend, total),
        agent=session.attribution.agent if session else None,
        customer_id=session.attribution.customer_id if session else None,
        end=end,
        reason=reason,
    )


def _ranked(spends: Sequence[Spend]) -> list[Spend]:
    return sorted(spends, key=lambda s: (-s.total_nano_usd, -s.steps, s.name or ""))


def _total(spends: Sequence[Spend]) -> Spend:
    total = Spend(name=None)
    for spend in spends:
        total = total.plus(spend)
    return total


def _share(spend: Spend, total: Spend) -> float | None:
    cost = total.total_nano_usd
    return spend.total_nano_usd / cost if cost else None
