"""A list of sessions for people, at the width of their terminal."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from guardrails.cli.formats.times import back_text
from guardrails.cli.screens.amounts import money_cells
from guardrails.cli.screens.columns import end_cells, known_cost
from guardrails.cli.screens.costs import headlines, notes, nothing
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.core.decisions import format_count
from guardrails.reports import SessionInfo, SessionList

__all__ = ["money_column", "render_sessions", "session_column", "text_column"]

UNKNOWN = "-"

SESSION_WIDTH_MIN = 14
"""An id that guardrails makes."""

NAME_WIDTH_MAX = 40

TIME_WIDTH = 12
"""A time is never cut."""


def render_sessions(found: SessionList, console: Console | None = None) -> None:
    """Prints a list of sessions."""
    console = console or Console()
    print_lines(_lines(found, console_width(console), console), console)


def _lines(found: SessionList, width: int, console: Console) -> Iterator[Text]:
    state = f"{found.state} " if found.state else ""
    parts = [
        format_count(found.count, f"{state}session"),
        back_text(found.span.hours),
        format_count(found.total.steps, "step"),
    ]
    yield from headlines(parts, found.span, found.where, width)
    if not found.rows:
        yield from nothing(found.where, is_filtered=found.state is not None)
        return
    *body, totals = table_lines(_columns(found), width=width)
    yield from body
    if found.hidden:
        yield Text(f"… {found.hidden:,} more (--limit 0)", style="dim")
    yield totals
    for note in notes(found.total, ()):
        yield from Text(note, style="yellow").wrap(console, width)


def _columns(found: SessionList) -> list[Column]:
    rows = found.rows
    ends = [end_cells(row.end, row.reason) for row in rows]
    columns = [
        session_column(rows, total="Total"),
        text_column("Agent", [row.agent for row in rows], priority=3),
        text_column("Customer", [row.customer_id for row in rows], priority=4),
        Column(
            title="Steps",
            cells=[f"{row.spend.steps:,}" for row in rows],
            total=f"{found.total.steps:,}",
            priority=2,
        ),
        money_column(
            "Spent",
            [known_cost(row.spend) for row in rows],
            total=known_cost(found.total),
            priority=1,
        ),
        money_column("Limit", [row.limit_nano_usd for row in rows], priority=2),
        Column(
            title="End",
            cells=[cell for cell, _ in ends],
            styles=[style for _, style in ends],
            priority=1,
            is_text=True,
        ),
        _times("Started", [row.started_at_ms for row in rows], priority=6),
        _times("Last call", [row.last_active_at_ms for row in rows], priority=5),
    ]
    return [column for column in columns if {c.strip() for c in column.cells} != {"-"}]


def session_column(rows: Sequence[SessionInfo], *, total: str = "") -> Column:
    """Returns the ids, which differ at both ends."""
    return Column(
        title="Session",
        cells=[safe(row.session_id) for row in rows],
        total=total,
        priority=1,
        is_text=True,
        width_min=SESSION_WIDTH_MIN,
        width_max=NAME_WIDTH_MAX,
        keeps_end=True,
    )


def text_column(title: str, cells: Sequence[str | None], *, priority: int) -> Column:
    """Returns names, made harmless."""
    return Column(
        title=title,
        cells=[safe(cell) if cell else UNKNOWN for cell in cells],
        priority=priority,
        is_text=True,
        width_min=min(12, max(len(title), 8)),
        width_max=NAME_WIDTH_MAX,
    )


def money_column(
    title: str,
    amounts_nano_usd: Sequence[int | None],
    *,
    total: int | None = None,
    priority: int,
) -> Column:
    """Returns amounts with their points below one another."""
    totals = [] if total is None else [total]
    cells = money_cells([*amounts_nano_usd, *totals])
    return Column(
        title=title,
        cells=cells[: len(amounts_nano_usd)],
        total=cells[-1] if totals else "",
        priority=priority,
    )


def _times(title: str, times_ms: Sequence[int | None], *, priority: int) -> Column:
    times = [
        None if time_ms is None else datetime.fromtimestamp(time_ms / 1000, tz=UTC)
        for time_ms in times_ms
    ]
    cells = [f"{time:%b %d %H:%M}" if time else UNKNOWN for time in times]
    return Column(
        title=title, cells=cells, priority=priority, is_text=True, width_min=TIME_WIDTH
    )
