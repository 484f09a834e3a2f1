"""Rendering of series, and of what sessions cost, at the width of a terminal."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from guardrails.cli.formats.times import back_text
from guardrails.cli.screens.amounts import money_cells
from guardrails.cli.screens.columns import bar, known_cost, name_columns
from guardrails.cli.screens.costs import by_text, headlines, notes, nothing
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.core.decisions import format_count
from guardrails.core.reporting.groups import Every
from guardrails.reports import Series, UnitReport, UnitRow

__all__ = ["render_series", "render_units"]

_FORMATS = {"hour": "%b %d %H:%M", "day": "%a %b %d", "month": "%b %Y"}


def render_series(series: Series, console: Console | None = None) -> None:
    """Prints a series: a line and a bar per step."""
    console = console or Console()
    print_lines(_series_lines(series, console_width(console), console), console)


def render_units(report: UnitReport, console: Console | None = None) -> None:
    """Prints what a session costs."""
    console = console or Console()
    print_lines(_unit_lines(report, console_width(console), console), console)


def _series_lines(series: Series, width: int, console: Console) -> Iterator[Text]:
    by = f" and {by_text(series.dimensions)}" if series.by else ""
    parts = [
        f"Costs by {series.every}{by}",
        back_text(series.span.hours),
        format_count(series.total.steps, "step"),
    ]
    yield from headlines(parts, series.span, series.where, width)
    if not series.total.steps:
        yield from nothing(series.where)
        return
    yield from table_lines(_series_columns(series), width=width)
    shown = len({row.names for row in series.rows if row.steps})
    if series.by and shown < series.names:
        hidden = f"… {series.names - shown:,} more names (--limit 0), in the total"
        yield Text(hidden, style="dim")
    for note in notes(series.total, series.unpriced):
        yield from Text(note, style="yellow").wrap(console, width)


def _series_columns(series: Series) -> list[Column]:
    rows, total = series.rows, series.total
    largest = max((row.total_nano_usd for row in rows), default=0)
    names = [
        row.names if row.steps else ("-",) * len(series.dimensions) for row in rows
    ]
    drawn = [bar(row.total_nano_usd / largest if largest else 0) for row in rows]
    return [
        _step_column(series.every, [row.since_ms for row in rows]),
        *name_columns(series.dimensions, names, total=""),
        Column(
            title="Steps",
            cells=[f"{row.steps:,}" for row in rows],
            total=f"{total.steps:,}",
            priority=2,
        ),
        _money(
            "LLM",
            [row.model_nano_usd for row in rows],
            total.model_nano_usd,
            priority=4,
        ),
        _money(
            "Tools",
            [row.tool_nano_usd for row in rows],
            total.tool_nano_usd,
            priority=4,
        ),
        _money(
            "Total", [known_cost(row) for row in rows], known_cost(total), priority=1
        ),
        Column(
            title="",
            cells=drawn,
            styles=["cyan"] * len(rows),
            priority=3,
            is_text=True,
        ),
    ]


def _unit_lines(report: UnitReport, width: int, console: Console) -> Iterator[Text]:
    step = f" and {report.every}" if report.every else ""
    parts = [
        f"Cost of a session by {by_text(report.dimensions)}{step}",
        back_text(report.span.hours),
        format_count(report.total.sessions, "session"),
    ]
    yield from headlines(parts, report.span, report.where, width)
    if not report.rows:
        yield from nothing(report.where)
        return
    *body, totals = table_lines(_unit_columns(report), width=width)
    yield from body
    if report.hidden:
        yield Text(f"… {report.hidden:,} more (--limit 0)", style="dim")
    yield totals
    for note in notes(report.total.spend, report.unpriced):
        yield from Text(note, style="yellow").wrap(console, width)


def _unit_columns(report: UnitReport) -> list[Column]:
    rows, total = report.rows, report.total

    def of_session(title: str, key: str, *, priority: int) -> Column:
        amounts = [_amount(row, key) for row in rows]
        return _money(title, amounts, _amount(total, key), priority=priority)

    step = []
    if report.every:
        step = [_step_column(report.every, [row.since_ms for row in rows])]
    names = name_columns(
        report.dimensions,
        [row.names for row in rows],
        total="" if report.every else "Total",
    )
    sessions = Column(
        title="Sessions",
        cells=[f"{row.sessions:,}" for row in rows],
        total=f"{total.sessions:,}",
        priority=2,
    )
    return [
        *step,
        *names,
        sessions,
        of_session("Mean", "mean_nano_usd", priority=1),
        of_session("p50", "p50_nano_usd", priority=3),
        of_session("p95", "p95_nano_usd", priority=3),
        _money(
            "Total",
            [known_cost(row.spend) for row in rows],
            known_cost(total.spend),
            priority=1,
        ),
    ]


def _amount(row: UnitRow, key: str) -> int | None:
    """Returns an amount of a session, if what its calls cost is known at all."""
    return None if known_cost(row.spend) is None else getattr(row, key)


def _money(
    title: str, amounts: Sequence[int | None], total: int | None, *, priority: int
) -> Column:
    *cells, last = money_cells([*amounts, total])
    return Column(title=title, cells=cells, total=last, priority=priority)


def _step_column(every: Every, starts_ms: Sequence[int | None]) -> Column:
    times = [
        "" if start is None else datetime.fromtimestamp(start / 1000, tz=UTC)
        for start in starts_ms
    ]
    return Column(
        title=every.capitalize(),
        cells=[f"{time:{_FORMATS[every]}}" if time else "" for time in times],
        total="Total",
        priority=1,
        is_text=True,
        width_min=12,
    )
