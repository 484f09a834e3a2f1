"""Simulated limits for people, at the width of their terminal."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from guardrails.cli.formats.times import back_text
from guardrails.cli.screens.amounts import money_cells
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.core.decisions import format_count
from guardrails.reports.simulation import Refused, Simulation

__all__ = ["render_simulation"]

UNKNOWN = "-"

WORD_WIDTH_MIN = 16
"""Of limits and times, which say nothing when they are cut."""

NAME_WIDTH_MAX = 40

NAMES_SHOWN = 3
"""Models without a price that are named."""

_NOT_SIMULATED = (
    "Wall time and loops are not simulated, and nobody knows what an agent would have "
    "done after a refusal."
)


def render_simulation(
    result: Simulation,
    rows: Sequence[Refused],
    *,
    hours: int,
    name: str,
    console: Console | None = None,
) -> None:
    """Prints what limits would have done.

    Args:
        result: The whole of it.
        rows: The part that is shown.
        hours: How far it looks back.
        name: Of the limits.
        console: Where to; the terminal by default.
    """
    console = console or Console()
    width = console_width(console)
    print_lines(_lines(result, rows, hours=hours, name=name, width=width), console)
    if result.unpriced:
        print_lines(_unpriced(result.unpriced).wrap(console, width), console)
    print_lines(Text(_NOT_SIMULATED, style="dim").wrap(console, width), console)


def _lines(
    result: Simulation, rows: Sequence[Refused], *, hours: int, name: str, width: int
) -> Iterator[Text]:
    total, refused = money_cells([result.cost_nano_usd, result.refused_nano_usd])
    made = format_count(result.calls, "call")
    head = f"Simulated {safe(name)} · {back_text(hours)} · {made} · {total}"
    yield Text(head, style="bold")
    if not result.refused_calls:
        yield Text("Nothing would have been refused.")
    else:
        calls = format_count(result.refused_calls, "call")
        sessions = format_count(result.stopped_sessions, "session")
        yield Text(f"{calls} ({refused}) refused, {sessions} stopped by their limits")
        yield from table_lines(_columns(result, rows), width=width)
    hidden = len(result.refused) - len(rows)
    if hidden:
        yield Text(f"… {hidden:,} more (--limit 0)", style="dim")
    if result.false_alarm_candidates:
        nearly = format_count(result.false_alarm_candidates, "session")
        yield Text(
            f"{nearly} had at most a quarter of their calls left: false alarms?",
            style="yellow",
        )
    if result.soft_alerts:
        yield Text(f"{format_count(result.soft_alerts, 'soft alert')} told")


def _unpriced(calls: Counter[str]) -> Text:
    names = [safe(name) for name, _ in calls.most_common(NAMES_SHOWN)]
    more = len(calls) - NAMES_SHOWN
    others = f" and {more:,} more" if more > 0 else ""
    return Text(
        f"{format_count(calls.total(), 'call')} had no price "
        f"({', '.join(names)}{others}) and cost nothing here. With a limit of cost "
        "they are refused until they have one (on_unpriced).",
        style="yellow",
    )


def _columns(result: Simulation, rows: Sequence[Refused]) -> list[Column]:
    costs = money_cells([*[row.cost_nano_usd for row in rows], result.refused_nano_usd])
    columns = [
        Column(
            title="Who",
            cells=[safe(row.session_id or row.scope) for row in rows],
            total="Total",
            priority=1,
            is_text=True,
            width_min=20,
            width_max=NAME_WIDTH_MAX,
            keeps_end=True,
        ),
        _texts("Agent", [row.agent for row in rows], priority=4),
        _texts("Customer", [row.customer_id for row in rows], priority=5),
        _texts("Limit", [_limit(row) for row in rows], priority=2),
        _texts("First", [_time(row.at_ms) for row in rows], priority=3),
        Column(
            title="Refused",
            cells=[f"{row.calls:,}" for row in rows],
            total=f"{result.refused_calls:,}",
            priority=1,
        ),
        Column(title="Worth", cells=costs[:-1], total=costs[-1], priority=1),
    ]
    return [column for column in columns if set(column.cells) != {UNKNOWN}]


def _texts(title: str, cells: Sequence[str | None], *, priority: int) -> Column:
    return Column(
        title=title,
        cells=[safe(cell) if cell else UNKNOWN for cell in cells],
        priority=priority,
        is_text=True,
        width_min=WORD_WIDTH_MIN,
        width_max=NAME_WIDTH_MAX,
    )


def _limit(row: Refused) -> str | None:
    return None if row.measure is None else row.measure.value


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, tz=UTC):%b %d, %H:%M}"
