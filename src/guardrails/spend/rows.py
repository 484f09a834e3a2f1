"""Rows: what `guard.spend` and `guard.sessions` return. Money is Decimal."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from guardrails.core.money import usd
from guardrails.core.reporting.rollups import Spend
from guardrails.reports import CostReport, Series, SessionInfo, SessionList

__all__ = ["SessionSpend", "SpendRow", "session_rows", "spend_rows", "step_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRow:
    """What was spent under one combination of names."""

    names: tuple[str | None, ...]
    """One per dimension, in their order; `None` is what was not attributed."""
    since: datetime | None
    """When the step of a series begins (UTC)."""
    usd: Decimal
    """Exact, as far as costs are known: `unpriced_calls` add nothing."""
    model_usd: Decimal
    tool_usd: Decimal
    failed_usd: Decimal
    """Of calls that failed or were broken off. Part of `usd`."""
    calls: int
    model_calls: int
    tool_calls: int
    unpriced_calls: int
    estimated_calls: int
    """Calls whose usage was not reported; what they cost is an upper estimate."""
    failed_calls: int
    input_tokens: int
    """All input, cache reads and writes included."""
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    """All output, reasoning included."""
    reasoning_tokens: int
    share: float | None
    """The part of what all names cost, 0 to 1; `None` while nothing was spent."""
    before_usd: Decimal | None = None
    """In the span before, if that was compared."""
    change_usd: Decimal | None = None
    """How much more than in the span before, if that was compared."""
    change: float | None = None
    """The same as a part of what it cost before; `None` of what cost nothing then."""

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpend:
    """One session, and what it spent in a span."""

    session_id: str
    agent: str | None
    customer_id: str | None
    status: str
    """`active`, `idle`, `completed` or `stopped`."""
    end: str
    """The same, and of a stopped one why: `budget_exceeded`, `loop_detected` or
    `killed`."""
    reason: str | None
    """The limit or the tool that stopped it."""
    usd: Decimal
    """In the span."""
    whole_usd: Decimal | None
    """Since it began; `None` if its account is forgotten."""
    limit_usd: Decimal | None
    """Its limit of cost, with what a person raised it to; `None` if it has none."""
    calls: int
    tokens: int
    unpriced_calls: int
    started: datetime | None
    last_active: datetime | None


def spend_rows(report: CostReport) -> list[SpendRow]:
    """Returns the rows of a report, in its order."""
    return [
        _row(
            row.spend,
            names=row.spend.names,
            share=row.share,
            before_usd=row.before and usd(row.before.total_nano_usd),
            change_usd=_usd(row.change_nano_usd),
            change=row.change,
        )
        for row in report.rows
    ]


def step_rows(series: Series) -> list[SpendRow]:
    """Returns the rows of a series, in its order."""
    cost, count = series.total.total_nano_usd, len(series.dimensions)
    return [
        _row(
            row,
            names=(*row.names, *[None] * count)[:count],
            share=row.total_nano_usd / cost if cost else None,
        )
        for row in series.rows
    ]


def session_rows(found: SessionList) -> list[SessionSpend]:
    """Returns the rows of a list of sessions, in its order."""
    return [_session(row) for row in found.rows]


def _row(
    spend: Spend,
    *,
    names: tuple[str | None, ...],
    share: float | None,
    before_usd: Decimal | None = None,
    change_usd: Decimal | None = None,
    change: float | None = None,
) -> SpendRow:
    return SpendRow(
        names=names,
        since=_instant(spend.since_ms),
        usd=usd(spend.total_nano_usd),
        model_usd=usd(spend.model_nano_usd),
        tool_usd=usd(spend.tool_nano_usd),
        failed_usd=usd(spend.failed_nano_usd),
        calls=spend.steps,
        model_calls=spend.model_calls,
        tool_calls=spend.tool_calls,
        unpriced_calls=spend.unpriced_calls,
        estimated_calls=spend.estimated_calls,
        failed_calls=spend.failed_calls,
        input_tokens=spend.input_tokens,
        cache_read_tokens=spend.cache_read_tokens,
        cache_write_tokens=spend.cache_write_tokens,
        output_tokens=spend.output_tokens,
        reasoning_tokens=spend.reasoning_tokens,
        share=share,
        before_usd=before_usd,
        change_usd=change_usd,
        change=change,
    )


def _session(row: SessionInfo) -> SessionSpend:
    return SessionSpend(
        session_id=row.session_id,
        agent=row.agent,
        customer_id=row.customer_id,
        status=row.state,
        end=row.end,
        reason=row.reason,
        usd=usd(row.spend.total_nano_usd),
        whole_usd=_usd(row.whole_nano_usd),
        limit_usd=_usd(row.limit_nano_usd),
        calls=row.spend.steps,
        tokens=row.spend.input_tokens + row.spend.output_tokens,
        unpriced_calls=row.spend.unpriced_calls,
        started=_instant(row.started_at_ms),
        last_active=_instant(row.last_active_at_ms),
    )


def _usd(nano: int | None) -> Decimal | None:
    return None if nano is None else usd(nano)


def _instant(time_ms: int | None) -> datetime | None:
    return None if time_ms is None else datetime.fromtimestamp(time_ms / 1000, tz=UTC)
