"""Series: what was spent hour by hour, day by day, or month by month."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from guardrails.core.reporting.groups import Every, in_order, step_start
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports.costs import total_of
from guardrails.reports.spans import Span

__all__ = ["Series", "series_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Steps of a span, oldest first."""

    project_id: str
    by: str | None
    """The dimensions that each step is divided by, joined by commas, if any."""
    every: Every
    span: Span
    rows: Sequence[Spend]
    """One per step and name. A step in which nothing was spent has one of zeros."""
    names: int
    """All names; those without a row of their own are left out."""
    total: Spend
    unpriced: Sequence[str] = ()
    """Models and tools whose calls had no price, most calls first."""
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """The filter, by dimension."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What the steps are divided by."""
        return tuple(self.by.split(",")) if self.by else ()


def series_of(
    spends: Sequence[Spend],
    *,
    project_id: str,
    by: str | None,
    every: Every,
    span: Span,
    limit: int,
) -> Series:
    """Puts steps in their order, with those in which nothing was spent.

    Args:
        spends: One entry per step and name, in any order; those of no step are left
            out.
        project_id: The project.
        by: What the steps are divided by.
        every: How long a step is.
        span: What the spends were summed over.
        limit: The names to show, the most expensive of the whole span; 0 shows all.
    """
    sums: dict[tuple[str | None, ...], Spend] = {}
    for spend in spends:
        known = sums.get(spend.names)
        sums[spend.names] = spend if known is None else known.plus(spend)
    dearest = sorted(
        sums, key=lambda key: (-sums[key].total_nano_usd, [name or "" for name in key])
    )
    shown = set(dearest[:limit] if limit and by else dearest)
    by_step: dict[int, list[Spend]] = {}
    for spend in spends:
        if spend.names in shown and spend.since_ms is not None:
            by_step.setdefault(spend.since_ms, []).append(spend)
    rows: list[Spend] = []
    for start_ms in _starts(span, every):
        nothing = Spend(name=None, since_ms=start_ms)
        rows += in_order(by_step.get(start_ms, [nothing]))
    return Series(
        project_id=project_id,
        by=by,
        every=every,
        span=span,
        rows=rows,
        names=len(sums),
        total=total_of(spends),
    )


def _starts(span: Span, every: Every) -> Iterable[int]:
    """Yields the instants at which the steps of a span begin."""
    hours = range(span.since_ms // HOUR_MS, span.until_ms // HOUR_MS + 1)
    return dict.fromkeys(_each(hours, every))


def _each(hours: range, every: Every) -> Iterator[int]:
    for hour in hours:
        yield step_start(hour, every) * HOUR_MS
