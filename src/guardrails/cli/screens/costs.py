"""Rendering: a cost report for people, at the width of their terminal."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from guardrails.cli.formats.times import back_text
from guardrails.cli.screens.amounts import money_cells
from guardrails.cli.screens.columns import OF_CALLS, TITLES, UNATTRIBUTED, columns_of
from guardrails.cli.screens.findings import anomaly_lines, loss_lines, sparse_line
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import console_width, cut, print_lines, table_lines
from guardrails.core.decisions import format_count
from guardrails.core.reporting.rollups import LAYER, Spend
from guardrails.reports import CostReport, Span

__all__ = ["by_text", "headlines", "notes", "nothing", "render_costs"]

NAMES_MAX = 3
"""Names without a price that are listed: a note stays a note."""

_EMPTY = """\
Nothing was recorded. Look further back with --hours, or guard an agent:

    guard = Guard(max_cost_usd="1.00")
    with guard.session("support-agent"):
        agent.invoke(...)"""


def render_costs(report: CostReport, console: Console | None = None) -> None:
    """Prints a report; columns fall away by importance until it fits."""
    console = console or Console()
    width = console_width(console)
    print_lines(_lines(report, width, console), console)


def _lines(report: CostReport, width: int, console: Console) -> Iterator[Text]:
    yield from _headline(report, width)
    if not report.rows:
        yield from nothing(report.where)
        if report.gone:
            yield from Text(_gone(report)).wrap(console, width)
        return
    *body, totals = table_lines(columns_of(report), width=width)
    yield from body
    if report.hidden:
        yield Text(f"… {report.hidden:,} more (--limit 0)", style="dim")
    yield totals
    for line in loss_lines(report):
        yield from Text(line).wrap(console, width)
    for found, more in anomaly_lines(report.anomalies):
        yield from Text(found, style="yellow").wrap(console, width)
        # On a line of its own, so that copying it copies all of it.
        yield from [Text(more)] if more else []
    sparse = sparse_line(report.anomalies)
    if sparse is not None:
        yield from Text(sparse, style="dim").wrap(console, width)
    if report.gone:
        yield from Text(_gone(report)).wrap(console, width)
    for note in notes(report.total, report.unpriced):
        yield from Text(note, style="yellow").wrap(console, width)


def _headline(report: CostReport, width: int) -> Iterator[Text]:
    total = report.total
    by_session = report.by == "session_id"
    what = "Costs" if by_session else f"Costs by {by_text(report.dimensions)}"
    parts = [what, back_text(report.span.hours)]
    parts += [format_count(report.names, "session")] if by_session else []
    noun = "call" if OF_CALLS & set(report.dimensions) else "step"
    parts += [] if report.by == LAYER else [format_count(total.steps, noun)]
    parts += [f"{report.stopped:,} stopped"] if by_session else []
    yield from headlines(parts, report.span, report.where, width)


def headlines(
    parts: Sequence[str], span: Span, where: Mapping[str, Sequence[str]], width: int
) -> Iterator[Text]:
    """Yields what stands above a report: on one line, if there is room for that."""
    line = " · ".join(parts)
    since = datetime.fromtimestamp(span.since_ms / 1000, tz=UTC)
    begin = f"since {since:%b %d, %H:%M} UTC"
    if cell_len(line) + 3 + cell_len(begin) <= width:
        yield Text(f"{line} · {begin}", style="bold")
    else:
        yield Text(line, style="bold")
        yield Text(begin, style="bold")
    for dimension, globs in where.items():
        shown = " or ".join(safe(glob) or UNATTRIBUTED for glob in globs)
        yield Text(cut(f"where {TITLES[dimension].lower()} is {shown}", width))


def by_text(dimensions: Sequence[str]) -> str:
    """Names the dimensions of a report."""
    return " and ".join(TITLES[dimension].lower() for dimension in dimensions)


def _gone(report: CostReport) -> str:
    shown = [
        f"{safe(' / '.join(name or UNATTRIBUTED for name in spend.names))} "
        f"({_usd(spend.total_nano_usd)})"
        for spend in report.gone[:NAMES_MAX]
    ]
    more = len(report.gone) - len(shown)
    names = ", ".join(shown) + (f" and {more:,} more" if more else "")
    return f"Gone since the time before: {names}."


def _usd(nano_usd: int) -> str:
    return money_cells([nano_usd])[0]


def nothing(
    where: Mapping[str, Sequence[str]], *, is_filtered: bool = False
) -> Iterator[Text]:
    """Yields what an empty report says."""
    if where or is_filtered:
        yield Text("Nothing of that was recorded. Ask for more, or look further back.")
    else:
        yield from map(Text, _EMPTY.splitlines())


def notes(total: Spend, unpriced: Sequence[str]) -> Iterator[str]:
    """Yields what the amounts above do not say of themselves."""
    if total.unpriced_calls:
        names = [safe(name) for name in unpriced]
        more = f" and {len(names) - NAMES_MAX:,} more" if len(names) > NAMES_MAX else ""
        of = f" ({', '.join(names[:NAMES_MAX])}{more})" if names else ""
        yield (
            f"{format_count(total.unpriced_calls, 'call')} had no price{of} and "
            "counted as nothing above. Give them one in guardrails.yaml, under models: "
            "or tools:."
        )
    if total.estimated_calls:
        yield (
            f"{format_count(total.estimated_calls, 'call')} reported no usage; what "
            "they cost is an upper estimate."
        )
