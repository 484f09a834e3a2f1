"""The table of budgets, at the width of its terminal.

What is unconfirmed has a column only where there is any: processes died.
"""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from guardrails.cli.screens.amounts import money_cells
from guardrails.cli.screens.columns import limit_name
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.core.decisions import format_amount, format_time
from guardrails.core.policy import Measure
from guardrails.reports.budgets import BudgetRow

__all__ = ["print_budgets"]

NAME_WIDTH_MAX = 24


def print_budgets(
    title: str, rows: Sequence[BudgetRow], *, stop: str | None, unnamed: Sequence[str]
) -> None:
    """Prints a row per limit, below whose budgets they are."""
    console = Console()
    stopped = f" · stopped: {stop}" if stop else ""
    lines = [Text(f"Budgets · {safe(title)}{stopped}", style="bold")]
    if rows:
        lines += [*table_lines(_columns(rows), width=console_width(console))][:-1]
    else:
        lines.append(Text("Nothing is limited."))
    if unnamed:
        names = safe(", ".join(unnamed))
        note = f"Also kept per what was not named: {names}"
        lines += Text(note, style="yellow").wrap(console, console_width(console))
    print_lines(lines, console)


def _columns(rows: Sequence[BudgetRow]) -> list[Column]:
    def amounts(
        title: str, amount: Callable[[BudgetRow], int], priority: int
    ) -> Column:
        costs = [amount(row) for row in rows if row.measure is Measure.COST]
        money = iter(money_cells(costs))
        cells = [
            next(money)
            if row.measure is Measure.COST
            else format_amount(row.measure, amount(row))
            for row in rows
        ]
        return Column(title=title, cells=cells, priority=priority)

    ends = [
        "-" if row.ends_at_ms is None else format_time(row.ends_at_ms).split()[0]
        for row in rows
    ]
    unconfirmed = amounts("Unconfirmed", lambda row: row.unconfirmed, 2)
    is_all_known = not any(row.unconfirmed for row in rows)
    return [
        Column(
            title="Budget",
            cells=[
                safe(row.budget) + ("" if row.is_binding else " (alert)")
                for row in rows
            ],
            priority=1,
            is_text=True,
            width_max=NAME_WIDTH_MAX,
        ),
        Column(
            title="Measure",
            cells=[limit_name(row.measure) for row in rows],
            priority=1,
            is_text=True,
        ),
        amounts("Limit", lambda row: row.limit, 1),
        amounts("Used", lambda row: row.used, 1),
        amounts("Held", lambda row: row.held, 2),
        *([] if is_all_known else [unconfirmed]),
        amounts("Left", lambda row: row.remaining, 1),
        Column(title="Ends", cells=ends, priority=2, is_text=True),
    ]
