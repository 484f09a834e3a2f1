"""Rendering: a report as a table for people, at the width of their terminal."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from guardrails.core.money import NANO_PER_USD
from guardrails.core.rollups import Spend
from guardrails.reports import CostReport, CostRow, SessionRow

__all__ = ["render_costs"]

WIDTH_PIPED = 80
"""Columns where no terminal says how many it has."""

NAME_WIDTH_MIN = 10
NAME_WIDTH_MAX = 32

UNATTRIBUTED = "(unattributed)"

_ENDS = {
    "active": ("· active", "cyan"),
    "completed": ("✓", "green"),
    "budget_exceeded": ("■ budget", "red"),
    "loop_detected": ("▲ loop", "yellow"),
    "killed": ("■ killed", "red"),
}

_TITLES = {
    "session_id": "Session",
    "agent": "Agent",
    "customer_id": "Customer",
    "user_id": "User",
    "feature": "Feature",
    "prompt_version": "Prompt version",
    "project_id": "Project",
    "tool": "Tool",
    "model": "Model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column of numbers or a fixed text; the less important fall away first."""

    title: str
    cell: Callable[[CostRow], str]
    priority: int
    """1 always stays."""
    total: Callable[[Spend], str] | None = None
    is_text: bool = False
    style: Callable[[CostRow], str] | None = None


def render_costs(report: CostReport, console: Console | None = None) -> None:
    """Prints a report; columns fall away by importance until it fits."""
    console = console or Console(highlight=False, soft_wrap=True)
    width = console.width if console.is_terminal else max(console.width, WIDTH_PIPED)
    console.print(Text(_headline(report), style="bold"))
    if not report.rows:
        console.print(
            "Nothing was spent in this span. Guard an agent, or look further back "
            "with --hours."
        )
        return
    columns, name_width = _fitting(report, width)
    title = _TITLES.get(report.by, report.by)
    console.print(
        _line([title] + [c.title for c in columns], report, columns, name_width),
        style="dim",
    )
    for row in report.rows:
        cells = [_name(row), *(column.cell(row) for column in columns)]
        styles = [c.style(row) if c.style else "" for c in columns]
        console.print(_line(cells, report, columns, name_width, styles))
    if report.hidden:
        console.print(f"… {report.hidden:,} more (--limit 0)", style="dim")
    totals = [c.total(report.total) if c.total else "" for c in columns]
    console.print(
        _line(["Total", *totals], report, columns, name_width), style="bold"
    )
    for note in _notes(report.total):
        console.print(note, style="yellow")


def _headline(report: CostReport) -> str:
    hours = round((report.until_ms - report.since_ms) / 3_600_000)
    since = datetime.fromtimestamp(report.since_ms / 1000, tz=UTC)
    total = report.total
    if report.by == "session_id":
        parts = [
            f"Costs · last {hours} h",
            _count(report.names, "session"),
            _count(total.steps, "step"),
            f"{report.stopped:,} stopped",
        ]
    else:
        parts = [f"Costs by {report.by} · last {hours} h", _count(total.steps, "step")]
    return " · ".join([*parts, f"since {since:%Y-%m-%d %H:%M} UTC"])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _columns(report: CostReport) -> list[_Column]:
    session: list[_Column] = []
    end: list[_Column] = []
    if report.by == "session_id":
        session = [
            _Column(title="Agent", cell=_agent, priority=2, is_text=True),
            _Column(title="Customer", cell=_customer, priority=3, is_text=True),
        ]
        end = [
            _Column(
                title="End", cell=_end, priority=1, is_text=True, style=_end_style
            )
        ]
    return [
        *session,
        _Column(
            title="Steps",
            cell=lambda row: f"{row.spend.steps:,}",
            total=lambda total: f"{total.steps:,}",
            priority=2,
        ),
        _Column(
            title="LLM",
            cell=lambda row: _money(row.spend.model_nano_usd),
            total=lambda total: _money(total.model_nano_usd),
            priority=4,
        ),
        _Column(
            title="Tools",
            cell=lambda row: _money(row.spend.tool_nano_usd),
            total=lambda total: _money(total.tool_nano_usd),
            priority=4,
        ),
        _Column(
            title="Total",
            cell=lambda row: _money(row.spend.total_nano_usd),
            total=lambda total: _money(total.total_nano_usd),
            priority=1,
        ),
        *end,
        *(
            []
            if report.by == "session_id"
            else [_Column(title="Share", cell=_share, priority=5)]
        ),
        _Column(
            title="Tokens",
            cell=lambda row: _tokens(row.spend),
            total=_tokens,
            priority=6,
        ),
    ]


def _fitting(report: CostReport, width: int) -> tuple[list[_Column], int]:
    """Chooses the columns that fit, and the width of the names."""
    columns = _columns(report)
    longest = max(
        cell_len(_TITLES.get(report.by, report.by)),
        *(cell_len(_name(row)) for row in report.rows),
    )
    wanted = min(max(longest, NAME_WIDTH_MIN), NAME_WIDTH_MAX)
    while True:
        taken = sum(_width(column, report) + 2 for column in columns)
        dropping = max(column.priority for column in columns)
        if taken + wanted <= width or dropping == 1:
            return columns, max(NAME_WIDTH_MIN, min(wanted, width - taken))
        if dropping <= 4 and taken + NAME_WIDTH_MIN + 4 <= width:
            return columns, width - taken
        columns = [column for column in columns if column.priority != dropping]


def _width(column: _Column, report: CostReport) -> int:
    cells = [column.title, *(column.cell(row) for row in report.rows)]
    if column.total is not None:
        cells.append(column.total(report.total))
    widest = max(cell_len(cell) for cell in cells)
    return min(widest, 16) if column.is_text else widest


def _line(
    cells: list[str],
    report: CostReport,
    columns: list[_Column],
    name_width: int,
    styles: list[str] | None = None,
) -> Text:
    line = Text(_cut(cells[0], name_width), no_wrap=True)
    for index, (column, cell) in enumerate(zip(columns, cells[1:], strict=True)):
        width = _width(column, report)
        text = _cut(cell, width)
        if not column.is_text:
            text = text.rstrip().rjust(width)
        line.append("  ")
        line.append(text, style=styles[index] if styles else "")
    line.rstrip()
    return line


def _cut(text: str, width: int) -> str:
    """Fits a text into a width of terminal cells; wide characters take two."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)


def _name(row: CostRow) -> str:
    return UNATTRIBUTED if row.name is None else row.name


def _agent(row: CostRow) -> str:
    return (row.agent or "-") if isinstance(row, SessionRow) else ""


def _customer(row: CostRow) -> str:
    return (row.customer_id or "-") if isinstance(row, SessionRow) else ""


def _end(row: CostRow) -> str:
    return _ENDS[row.end][0] if isinstance(row, SessionRow) else ""


def _end_style(row: CostRow) -> str:
    return _ENDS[row.end][1] if isinstance(row, SessionRow) else ""


def _share(row: CostRow) -> str:
    return "-" if row.share is None else f"{row.share:.0%}"


def _tokens(spend: Spend) -> str:
    tokens = spend.input_tokens + spend.output_tokens
    if tokens < 10_000:
        return f"{tokens:,}"
    return f"{tokens / 1000:,.0f}k" if tokens < 10_000_000 else f"{tokens / 1e6:,.0f}M"


def _money(nano: int) -> str:
    """Writes money in a table: cents from a dollar up, else tenths of a cent
    and finer, so that cheap calls do not all read $0.00."""
    if nano == 0:
        return "$0"
    amount = nano / NANO_PER_USD
    if amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= 0.0001 else f"${amount:.6f}"


def _notes(total: Spend) -> list[str]:
    notes: list[str] = []
    if total.unpriced_calls:
        notes.append(
            f"{_count(total.unpriced_calls, 'call')} had no price and are not in the "
            "sums: add models: or tools: rows to guardrails.yaml."
        )
    if total.estimated_calls:
        notes.append(
            f"{_count(total.estimated_calls, 'call')} reported no usage; their cost is "
            "an upper estimate."
        )
    return notes
