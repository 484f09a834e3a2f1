"""The table of alerts and their deliveries, at the width of its terminal."""

from collections.abc import Sequence

from rich.console import Console

from guardrails.alerts.words import headline, subject
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.core.alerting.deliveries import AlertLog, Delivery, DeliveryState
from guardrails.core.decisions import format_time

__all__ = ["print_alerts"]

ID_CHARACTERS = 10
"""Shown of an id: enough to tell some thousand alerts apart, and to type."""

WHAT_WIDTH_MIN, WHAT_WIDTH_MAX = 32, 60
"""Names are cut; the JSON has all of them."""

TIME_WIDTH = 11
"""A time is never cut."""

_STATES = {
    DeliveryState.WAITING: "waiting",
    DeliveryState.SENDING: "waiting",
    DeliveryState.DELIVERED: "sent",
    DeliveryState.DEAD: "given up",
}


def print_alerts(found: Sequence[AlertLog]) -> None:
    """Prints a row per delivery, newest first."""
    rows = [(log.alert, each) for log in found for each in log.deliveries]
    headlines = [headline(alert, who=subject(alert)) for alert, _ in rows]
    console = Console(highlight=False)
    columns = [
        _texts("Id", [alert.alert_id[:ID_CHARACTERS] for alert, _ in rows], 1),
        _texts("When UTC", [_time(alert.time_ms) for alert, _ in rows], 2, TIME_WIDTH),
        _texts("What", headlines, 1, WHAT_WIDTH_MIN),
        _texts("State", [_STATES[each.state] for _, each in rows], 1),
        _texts("Answer", [_answer(each) for _, each in rows], 1),
        _texts("To", [_where(each) for _, each in rows], 3),
        Column(
            title="Tries",
            cells=[f"{each.attempts:,}" for _, each in rows],
            priority=4,
        ),
        _texts("Next UTC", [_next(each) for _, each in rows], 4, TIME_WIDTH),
    ]
    *lines, _ = table_lines(columns, width=console_width(console))
    print_lines(lines, console)


def _texts(
    title: str, cells: Sequence[str], priority: int, width_min: int = ID_CHARACTERS
) -> Column:
    return Column(
        title=title,
        cells=[safe(cell) for cell in cells],
        priority=priority,
        is_text=True,
        width_min=width_min,
        width_max=WHAT_WIDTH_MAX,
    )


def _answer(delivery: Delivery) -> str:
    return " ".join(filter(None, (str(delivery.status or ""), delivery.text))) or "-"


def _next(delivery: Delivery) -> str:
    return "-" if delivery.next_ms is None else _time(delivery.next_ms)


def _where(delivery: Delivery) -> str:
    """Names a destination in few characters; its name if nothing was sent there."""
    return delivery.label.removeprefix("https://") or delivery.place


def _time(time_ms: int) -> str:
    """Writes an instant of the last days: without its year."""
    return format_time(time_ms).removesuffix(" UTC").partition("-")[2]
