"""Costs: where the money went in a span of time, by session or by dimension."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from guardrails.core.accounts import Account
from guardrails.core.reporting.groups import in_order
from guardrails.core.reporting.rollups import SUM_NAMES, Spend
from guardrails.reports.anomalies import Anomalies
from guardrails.reports.losses import Losses
from guardrails.reports.spans import Span

__all__ = [
    "CostReport",
    "CostRow",
    "SessionRow",
    "end_of",
    "reason_of",
    "report_by",
    "report_sessions",
    "share_of",
    "total_of",
    "unpriced_names",
]

IDLE_MS = 600_000
"""A session that has not ended and did nothing for ten minutes waits for
somebody, or its process died: it is not active any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """What was spent under one name of a dimension."""

    name: str | None
    """`None` is what was not attributed."""
    spend: Spend
    share: float | None
    """The part of the total cost, 0 to 1; `None` while nothing was spent."""
    before: Spend | None = None
    """In the span before, if that was compared; all 0 for what is new."""

    @property
    def change_nano_usd(self) -> int | None:
        """How much more it cost than before; `None` if it was not compared."""
        if self.before is None:
            return None
        return self.spend.total_nano_usd - self.before.total_nano_usd

    @property
    def change(self) -> float | None:
        """The same as a part of what it cost before; `None` of what cost nothing."""
        if self.change_nano_usd is None or self.before is None:
            return None
        cost = self.before.total_nano_usd
        return self.change_nano_usd / cost if cost else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow(CostRow):
    """What one session spent, and how it ended."""

    agent: str | None
    customer_id: str | None
    end: str
    """`active`, `idle`, `completed`, `budget_exceeded`, `loop_detected` or
    `killed`."""
    reason: str | None
    """The limit or the tool that stopped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Rows of whole hours, most expensive first."""

    project_id: str
    by: str
    """The dimension; several are joined by commas."""
    span: Span
    rows: Sequence[CostRow]
    """The most expensive names, and in any case what was not attributed."""
    names: int
    """All names, those without a row included."""
    total: Spend
    """Of all names."""
    stopped: int = 0
    """Sessions that were stopped. Only of a report by session."""
    unpriced: Sequence[str] = ()
    """Models and tools whose calls had no price, most calls first."""
    losses: Losses = field(default_factory=Losses)
    """What was spent in vain, and what observe mode let pass."""
    anomalies: Anomalies = field(default_factory=Anomalies)
    """What is unusual, if that was looked for."""
    before: Spend | None = None
    """The total of the span before, if that was compared."""
    gone: Sequence[Spend] = ()
    """What was only in the span before, most expensive first."""
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """The filter, by dimension."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What the rows are by."""
        return tuple(self.by.split(","))

    @property
    def others(self) -> Spend:
        """What the names without a row come to."""
        return self.total.minus(total_of([row.spend for row in self.rows]))

    @property
    def hidden(self) -> int:
        """Names without a row."""
        return self.names - len(self.rows)


def report_by(
    spends: Sequence[Spend],
    *,
    project_id: str,
    by: str,
    span: Span,
    limit: int,
    before: Sequence[Spend] | None = None,
) -> CostReport:
    """Ranks what was spent per name.

    Args:
        spends: One entry per name, in any order.
        project_id: The project.
        by: The dimension; several are joined by commas.
        span: What the spends were summed over.
        limit: Rows to show; 0 shows all.
        before: The same of the span before, to compare.
    """
    total = total_of(spends)
    earlier = None if before is None else {spend.names: spend for spend in before}
    ranked = in_order(spends)
    shown = ranked[:limit] if limit else ranked
    shown += [spend for spend in ranked[len(shown) :] if not any(spend.names)]
    now = {spend.names for spend in spends}
    return CostReport(
        project_id=project_id,
        by=by,
        span=span,
        rows=[
            CostRow(
                name=spend.name,
                spend=spend,
                share=share_of(spend, total),
                before=None
                if earlier is None
                else earlier.get(spend.names, Spend(name=spend.name)),
            )
            for spend in shown
        ],
        names=len(spends),
        total=total,
        before=None if before is None else total_of(before),
        gone=in_order(spend for spend in before or () if spend.names not in now),
    )


def report_sessions(
    spends: Sequence[Spend],
    accounts: Sequence[Account],
    *,
    project_id: str,
    span: Span,
    limit: int,
) -> CostReport:
    """Ranks sessions by what they spent in the span.

    Args:
        spends: One entry per session, in any order.
        accounts: The accounts of these sessions, in any order.
        project_id: The project.
        span: What the spends were summed over.
        limit: Rows to show; 0 shows all.
    """
    known: Mapping[str | None, Account] = {
        account.session.attribution.session_id: account
        for account in accounts
        if account.session is not None
    }
    total = total_of(spends)
    return CostReport(
        project_id=project_id,
        by="session_id",
        span=span,
        rows=[
            _session_row(spend, known.get(spend.name), total=total, span=span)
            for spend in in_order(spends)[: limit or None]
        ],
        names=len(spends),
        total=total,
        stopped=sum(account.stop is not None for account in known.values()),
    )


def unpriced_names(*dimensions: Sequence[Spend]) -> list[str]:
    """Names what had no price, most calls first.

    Args:
        dimensions: The spends by model and by tool.
    """
    found = [spend for spends in dimensions for spend in spends if spend.unpriced_calls]
    found.sort(key=lambda spend: (-spend.unpriced_calls, spend.name or ""))
    return [spend.name or "unknown" for spend in found]


def _session_row(
    spend: Spend, account: Account | None, *, total: Spend, span: Span
) -> SessionRow:
    who = account.session.attribution if account and account.session else None
    return SessionRow(
        name=spend.name,
        spend=spend,
        share=share_of(spend, total),
        agent=who.agent if who else None,
        customer_id=who.customer_id if who else None,
        end=end_of(account, span.until_ms),
        reason=reason_of(account),
    )


def end_of(account: Account | None, now_ms: int) -> str:
    """Says how a session ended, or that it has not."""
    if account is not None and account.stop is not None:
        return account.stop.reason.value
    session = account.session if account else None
    if session is None:
        return "idle"
    if session.ended_at_ms is not None:
        return "completed"
    return "active" if now_ms - session.last_active_at_ms < IDLE_MS else "idle"


def reason_of(account: Account | None) -> str | None:
    """Names the limit or the tool that stopped a session."""
    stop = account.stop if account else None
    if stop is None:
        return None
    if stop.measure is not None:
        return stop.measure.value
    return stop.finding.tool if stop.finding is not None else None


def total_of(spends: Iterable[Spend]) -> Spend:
    """Adds up spends, under no name."""
    amounts = [[getattr(spend, name) for name in SUM_NAMES] for spend in spends]
    sums = map(sum, zip(*amounts, strict=True))
    return replace(Spend(name=None), **dict(zip(SUM_NAMES, sums, strict=False)))


def share_of(spend: Spend, total: Spend) -> float | None:
    """Returns the part of the total cost; `None` while nothing was spent."""
    cost = total.total_nano_usd
    return spend.total_nano_usd / cost if cost else None
