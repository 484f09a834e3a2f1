"""Tables of stops and of what people did, at the width of their terminal."""

from collections.abc import Sequence

from rich.console import Console

from guardrails.cli.screens.limits import changed_limits
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.core.decisions import format_time
from guardrails.core.stops import AuditEntry, StopOrder

__all__ = ["print_log", "print_stops"]

UNKNOWN = "-"

TEXT_WIDTH_MAX = 80
"""A reason is a sentence; the JSON has all of it."""

TARGET_WIDTH_MIN = 24
WHAT_WIDTH_MIN = 44
"""What somebody did says also to what a limit was raised."""

TIME_WIDTH = 16
"""A time is never cut."""


def print_stops(orders: Sequence[StopOrder]) -> None:
    """Prints what is stopped, oldest first."""
    if not orders:
        Console(highlight=False).print("Nothing is stopped.")
        return
    targets = [order.target.label for order in orders]
    ends = [
        "resumed" if order.until_ms is None else _time(order.until_ms)
        for order in orders
    ]
    _print(
        [
            _text("Stopped", targets, priority=1, width_min=TARGET_WIDTH_MIN),
            _text("By", [order.by for order in orders], priority=2),
            _text("Since UTC", [_time(o.at_ms) for o in orders], priority=3),
            _text("Until UTC", ends, priority=2),
            _text("Why", [order.note for order in orders], priority=1),
        ]
    )


def print_log(entries: Sequence[AuditEntry]) -> None:
    """Prints what people did, newest first."""
    if not entries:
        Console(highlight=False).print(
            "Nobody has stopped, resumed or raised anything."
        )
        return
    deeds = [_what(entry) for entry in entries]
    _print(
        [
            _text("When UTC", [_time(e.at_ms) for e in entries], priority=1),
            _text("By", [entry.by for entry in entries], priority=2),
            _text("What", deeds, priority=1, width_min=WHAT_WIDTH_MIN),
            _text("Why", [entry.note for entry in entries], priority=3),
        ]
    )


def _what(entry: AuditEntry) -> str:
    until = f" until {format_time(entry.until_ms)}" if entry.until_ms else ""
    changes = ", ".join(
        f"{key} {before or UNKNOWN} > {after or UNKNOWN}"
        for key, before, after in changed_limits(entry)
    )
    return f"{entry.action.value} {entry.subject}{until}{changes and f': {changes}'}"


def _time(time_ms: int) -> str:
    return format_time(time_ms).removesuffix(" UTC")


def _text(
    title: str, cells: Sequence[str | None], *, priority: int, width_min: int = 10
) -> Column:
    return Column(
        title=title,
        cells=[safe(cell) if cell else UNKNOWN for cell in cells],
        priority=priority,
        is_text=True,
        width_min=TIME_WIDTH if title.endswith(" UTC") else width_min,
        width_max=TEXT_WIDTH_MAX,
    )


def _print(columns: Sequence[Column]) -> None:
    console = Console()
    *lines, _ = table_lines(columns, width=console_width(console))
    print_lines(lines, console)
