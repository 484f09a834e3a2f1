"""Reads what is known of one session."""

from collections.abc import Sequence
from dataclasses import dataclass

from guardrails.config import Configuration
from guardrails.core.accounts import Account
from guardrails.core.lines import session_line
from guardrails.core.reporting.rollups import Spend
from guardrails.ports import History
from guardrails.reports import SessionRow, Span, report_sessions
from guardrails.reports.budgets import BudgetRow, budget_rows
from guardrails.reports.session_detail import SessionDetail, session_detail
from guardrails.system.clock import SystemClock

__all__ = ["SessionReport", "session_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """What is known of a session."""

    session_id: str
    row: SessionRow | None
    """How it ended; `None` if its account is no longer kept."""
    account: Account | None
    limits: Sequence[BudgetRow]
    detail: SessionDetail


def session_report(
    history: History, configuration: Configuration, session_id: str, *, limit: int
) -> SessionReport:
    """Reads what is known of a session.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    project_id = configuration.project_id
    accounts = history.session_accounts(project_id=project_id, session_ids=[session_id])
    detail = session_detail(
        history.event_pages(project_id=project_id, session_id=session_id), limit=limit
    )
    account = accounts[0] if accounts else None
    return SessionReport(
        session_id=session_id,
        row=_row(account, session_id, project_id),
        account=account,
        limits=_limits(account, configuration),
        detail=detail,
    )


def _row(
    account: Account | None, session_id: str, project_id: str
) -> SessionRow | None:
    if account is None:
        return None
    [row] = report_sessions(
        [Spend(name=session_id)],
        [account],
        project_id=project_id,
        span=Span(hours=1, until_ms=SystemClock().now_ms()),
        limit=0,
    ).rows
    return row if isinstance(row, SessionRow) else None


def _limits(account: Account | None, configuration: Configuration) -> list[BudgetRow]:
    if account is None or account.session is None:
        return []
    who = account.session.attribution
    line = session_line(configuration.policy.session_budget(who.agent), who)
    return budget_rows([("session", line)], {account.key: account})
