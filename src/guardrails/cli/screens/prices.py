"""The table of prices: models with their rates, tools with their fee."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from guardrails.cli.priced import Priced, label
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.core.decisions import format_count
from guardrails.core.money import usd

__all__ = ["print_prices"]

NAME_WIDTH_MAX = 40
UNKNOWN = "-"

_RATES = {
    "In": ("input_per_1m_usd", 1),
    "Out": ("output_per_1m_usd", 1),
    "Cached": ("cache_read_per_1m_usd", 3),
}


def print_prices(rows: Sequence[Priced], *, days: int) -> None:
    """Prints a line per model and tool."""
    console = Console()
    width = console_width(console)
    print_lines(_lines(rows, days, width, console), console)


def _lines(
    rows: Sequence[Priced], days: int, width: int, console: Console
) -> Iterator[Text]:
    calls = sum(row.called.calls for row in rows)
    unpriced = sum(row.called.unpriced_calls for row in rows)
    title = f"Prices · last {format_count(days, 'day')} · {format_count(calls, 'call')}"
    yield Text(title, style="bold")
    if not rows:
        yield Text("Nothing was called. Look further back with --days.")
        return
    *body, _ = table_lines(_columns(rows), width=width)
    yield from body
    yield Text("In USD per million tokens, or per call of a tool.", style="dim")
    if unpriced:
        note = (
            f"{format_count(unpriced, 'call')} had no price. Give them one in "
            "guardrails.yaml, under models: or tools:."
        )
        yield from Text(note, style="yellow").wrap(console, width)


def _columns(rows: Sequence[Priced]) -> list[Column]:
    unpriced = Column(
        title="Unpriced",
        cells=[f"{row.called.unpriced_calls:,}" for row in rows],
        priority=1,
    )
    has_unpriced = any(row.called.unpriced_calls for row in rows)
    return [
        Column(
            title="Model or tool",
            cells=[safe(label(row.called)) for row in rows],
            priority=1,
            is_text=True,
            width_min=16,
            width_max=NAME_WIDTH_MAX,
            keeps_end=True,
        ),
        *(
            Column(
                title=title,
                cells=[_rate(row.rates.get(key)) for row in rows],
                priority=priority,
            )
            for title, (key, priority) in _RATES.items()
        ),
        Column(title="Per call", cells=[_fee(row) for row in rows], priority=2),
        Column(
            title="Source",
            cells=[row.source for row in rows],
            priority=2,
            is_text=True,
            width_max=20,
        ),
        Column(
            title="Calls", cells=[f"{row.called.calls:,}" for row in rows], priority=1
        ),
        *([unpriced] if has_unpriced else []),
    ]


def _rate(value: Decimal | None) -> str:
    if value is None:
        return UNKNOWN
    text = f"{value.normalize():f}"
    return f"{value:.2f}" if Decimal(f"{value:.2f}") == value else text


def _fee(row: Priced) -> str:
    nano = row.per_call_nano_usd
    return UNKNOWN if nano is None else f"{usd(nano):f}"
