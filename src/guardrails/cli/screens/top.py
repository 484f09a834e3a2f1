"""The screen of `guardrails top`: one picture, or a live one on a terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from guardrails.cli.screens.amounts import money_cells
from guardrails.cli.screens.columns import bar, known_cost
from guardrails.cli.screens.costs import notes
from guardrails.cli.screens.sessions import money_column, session_column, text_column
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.core.decisions import format_count
from guardrails.reports import SessionInfo, Top

__all__ = ["EVERY_SECONDS", "show"]

EVERY_SECONDS = 2.0
"""Often enough to see an agent run away, and 1 % of what a store can answer."""

ROWS_MAX = 20
"""Sessions in a picture that is piped."""

LINES_AROUND = 6
"""Lines of a picture beside the sessions: on a terminal it stays on one screen."""


def show(
    read: Callable[[], Top],
    *,
    sleep: Callable[[float], None],
    once: bool,
    console: Console | None = None,
) -> None:
    """Shows pictures until it is interrupted; one, if nobody looks at a terminal.

    Args:
        read: Reads what is being spent.
        sleep: Waits for the next picture.
        once: Whether one picture is enough.
        console: Where to.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    console = console or Console()
    if once or not console.is_terminal:
        print_lines(_lines(read(), console, rows=ROWS_MAX), console)
        return
    with (
        suppress(KeyboardInterrupt),
        Live(console=console, auto_refresh=False, transient=False) as live,
    ):
        while True:
            rows = max(1, console.height - LINES_AROUND)
            live.update(Group(*_lines(read(), console, rows=rows)), refresh=True)
            sleep(EVERY_SECONDS)


def _lines(found: Top, console: Console, *, rows: int) -> Iterator[Text]:
    width = console_width(console)
    hour, today, pace = money_cells(
        [known_cost(found.hour), known_cost(found.today), found.pace_nano_usd]
    )
    now = datetime.fromtimestamp(found.now_ms / 1000, tz=UTC)
    parts = [
        f"this hour {hour.strip()} ({pace.strip()}/h)",
        f"today {today.strip()}",
        f"{format_count(len(found.running), 'session')} running",
        f"{now:%H:%M:%S} UTC",
    ]
    yield Text(_fitting(parts, width), style="bold")
    if not found.running:
        yield Text("No open session made a call in the last ten minutes.", style="dim")
        return
    shown = found.running[:rows]
    *lines, _ = table_lines(_columns(shown), width=width)
    yield from lines
    if len(found.running) > len(shown):
        yield Text(f"… {len(found.running) - len(shown):,} more", style="dim")
    for note in notes(found.today, ()):
        yield from Text(note, style="yellow").wrap(console, width)


def _fitting(parts: Sequence[str], width: int) -> str:
    """Joins the parts that fit, the first in any case: an amount is never cut."""
    kept = list(parts)
    while len(kept) > 1 and cell_len(" · ".join(kept)) > width:
        kept.pop()
    return " · ".join(kept)


def _columns(rows: Sequence[SessionInfo]) -> list[Column]:
    limits = [row.limit_nano_usd for row in rows]
    columns = [
        session_column(rows),
        text_column("Agent", [row.agent for row in rows], priority=3),
        text_column("Customer", [row.customer_id for row in rows], priority=4),
        money_column("Spent", [row.whole_nano_usd for row in rows], priority=1),
        money_column("Per hour", [row.pace_nano_usd for row in rows], priority=1),
        money_column("Limit", limits, priority=2),
        Column(
            title="Used",
            cells=[bar(_used(row)) for row in rows],
            styles=["red" if _used(row) >= 0.8 else "cyan" for row in rows],
            priority=5,
            is_text=True,
        ),
    ]
    return [column for column in columns if {c.strip() for c in column.cells} != {"-"}]


def _used(row: SessionInfo) -> float:
    """Returns the part of its limit that a session has used, at most 1."""
    if not row.limit_nano_usd or row.whole_nano_usd is None:
        return 0.0
    return min(1.0, row.whole_nano_usd / row.limit_nano_usd)
