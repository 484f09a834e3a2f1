"""Units: what a session of something costs, such as one of a feature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guardrails.core.reporting.groups import Every, Names
from guardrails.core.reporting.rollups import Spend
from guardrails.reports.costs import share_of, total_of
from guardrails.reports.spans import Span

__all__ = ["UnitReport", "UnitRow", "report_units"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRow:
    """What the sessions under one combination of names cost.

    A session that is in several rows, or goes on from one step to the next, is one of
    each, with what it cost there.
    """

    names: Names
    since_ms: int | None
    """When the step begins, in a series."""
    spend: Spend
    """Of all calls, those outside of sessions too."""
    share: float | None
    sessions: int
    mean_nano_usd: int | None
    """Of a session, rounded down; `None` if there is none."""
    p50_nano_usd: int | None
    """What half of the sessions cost at most."""
    p95_nano_usd: int | None
    """What 95 of 100 sessions cost at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """Rows by names, most expensive first; of a series the oldest step first."""

    project_id: str
    by: str
    """The dimensions, joined by commas."""
    every: Every | None
    span: Span
    rows: Sequence[UnitRow]
    names: int
    """All combinations, those without a row included."""
    total: UnitRow
    unpriced: Sequence[str] = ()
    """Models and tools whose calls had no price, most calls first."""
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """The filter, by dimension."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What the rows are by."""
        return tuple(self.by.split(","))

    @property
    def hidden(self) -> int:
        """Combinations without a row."""
        return self.names - len(self.rows)


def report_units(
    spends: Sequence[Spend],
    *,
    project_id: str,
    by: str,
    every: Every | None,
    span: Span,
    limit: int,
) -> UnitReport:
    """Sums up sessions.

    Args:
        spends: One entry per combination and session, by `by` and then the session.
        project_id: The project.
        by: The dimensions, joined by commas.
        every: The steps of a series.
        span: What the spends were summed over.
        limit: Rows to show; 0 shows all.
    """
    total = total_of(spends)
    found: dict[tuple[int | None, Names], list[Spend]] = {}
    of_session: dict[str | None, Spend] = {}
    for spend in spends:
        *names, session = spend.names
        found.setdefault((spend.since_ms, tuple(names)), []).append(spend)
        known = of_session.get(session)
        whole = Spend(name=None, more_names=(session,))
        of_session[session] = (known or whole).plus(spend)
    rows = [
        _row(parts, names=names, since_ms=since_ms, total=total)
        for (since_ms, names), parts in found.items()
    ]
    rows.sort(
        key=lambda row: (
            row.since_ms or 0,
            -row.spend.total_nano_usd,
            [name or "" for name in row.names],
        )
    )
    return UnitReport(
        project_id=project_id,
        by=by,
        every=every,
        span=span,
        rows=rows[: limit or None],
        names=len(rows),
        total=_row(list(of_session.values()), names=(), since_ms=None, total=total),
    )


def _row(
    parts: Sequence[Spend], *, names: Names, since_ms: int | None, total: Spend
) -> UnitRow:
    costs = sorted(part.total_nano_usd for part in parts if part.names[-1] is not None)
    spend = total_of(parts)
    return UnitRow(
        names=names,
        since_ms=since_ms,
        spend=spend,
        share=share_of(spend, total),
        sessions=len(costs),
        mean_nano_usd=sum(costs) // len(costs) if costs else None,
        p50_nano_usd=_percentile(costs, 50),
        p95_nano_usd=_percentile(costs, 95),
    )


def _percentile(costs: Sequence[int], percent: int) -> int | None:
    """Returns the nearest rank: a cost that a session really had."""
    return costs[-(-percent * len(costs) // 100) - 1] if costs else None
