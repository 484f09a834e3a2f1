"""Columns: what a cost report shows of each row, and what of it matters most."""

from collections.abc import Callable, Sequence

from rich.filesize import decimal

from guardrails.cli.screens.amounts import money_cells, percent_text
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column
from guardrails.core.policy import Measure
from guardrails.core.reporting.rollups import LAYER, Spend
from guardrails.reports import CostReport, CostRow, SessionRow

__all__ = [
    "OF_CALLS",
    "TITLES",
    "UNATTRIBUTED",
    "bar",
    "columns_of",
    "end_cells",
    "known_cost",
    "limit_name",
    "name_columns",
]

UNATTRIBUTED = "(unattributed)"
UNKNOWN = "-"

NAME_WIDTH_MIN, NAME_WIDTH_MAX = 24, 40
"""Of the only name of a row. Of several, each is as wide as what has none."""

SESSION_WIDTH_MIN = 14
"""An id that guardrails makes."""

BAR_WIDTH = 10
PERCENT_MAX = 10_000
"""More is no change but a beginning."""

_EIGHTHS = " ▏▎▍▌▋▊▉"

TITLES = {
    "session_id": "Session",
    "agent": "Agent",
    "customer_id": "Customer",
    "user_id": "User",
    "feature": "Feature",
    "prompt_version": "Prompt version",
    "project_id": "Project",
    "tool": "Tool",
    "model": "Model",
    "root_agent": "Root agent",
    "kind": "Kind",
    "provider": "Provider",
    "server": "Server",
    "waste": "Waste",
    "refused_by": "Refused by",
    "layer": "Layer",
}

OF_CALLS = frozenset(
    ("tool", "model", "server", "provider", "kind", "waste", "refused_by")
)
"""Dimensions of calls and not of whom they are charged to."""

_NAMELESS = {"waste": "(no waste)", "refused_by": "(allowed)"}
"""What has no name there is what is as it should be."""

_ENDS = {
    "active": ("· active", "cyan"),
    "idle": ("· idle", "dim"),
    "completed": ("✓", "green"),
    "loop_detected": ("▲ loop", "yellow"),
    "killed": ("■ killed", "red"),
}

_LIMITS = {
    "max_cost_usd": "cost",
    "max_steps": "steps",
    "max_wall_time_s": "time",
    "max_tokens": "tokens",
    "max_model_calls": "models",
    "max_tool_calls": "tools",
}


def columns_of(report: CostReport) -> list[Column]:
    """Returns the columns of a report, left to right."""
    if report.by == "session_id":
        return _session_columns(report)
    names = name_columns(report.dimensions, [row.spend.names for row in report.rows])
    amounts = _amounts(report)
    change = [] if report.before is None else _change_columns(report)
    return [*names, *amounts, *change, _share(report), _bar(report), *_tokens(report)]


def _amounts(report: CostReport) -> list[Column]:
    if report.by == LAYER:  # It counts no calls.
        return [_money("Total", report, lambda spend: spend.total_nano_usd, priority=1)]
    if OF_CALLS & set(report.dimensions):
        return _call_columns(report)
    return _spend_columns(report)


def name_columns(
    dimensions: Sequence[str],
    names: Sequence[Sequence[str | None]],
    *,
    total: str = "Total",
) -> list[Column]:
    """Returns a column per dimension; the total stands below the first."""
    return [
        _texts(
            TITLES[dimension],
            [
                row[index]
                or _NAMELESS.get(dimension)
                or (UNKNOWN if _is_of_other_calls(dimension, row) else None)
                or UNATTRIBUTED
                for row in names
            ],
            priority=1,
            total=total if index == 0 else "",
            width_min=NAME_WIDTH_MIN if len(dimensions) == 1 else len(UNATTRIBUTED),
        )
        for index, dimension in enumerate(dimensions)
    ]


def _is_of_other_calls(dimension: str, names: Sequence[str | None]) -> bool:
    """Whether a call has no such name because it is of the other kind."""
    return dimension in OF_CALLS and any(names)


def limit_name(measure: Measure) -> str:
    """Names what a limit is of, in one word."""
    return _LIMITS[measure.value]


def _session_columns(report: CostReport) -> list[Column]:
    sessions = [row for row in report.rows if isinstance(row, SessionRow)]
    ends = [end_cells(row.end, row.reason) for row in sessions]
    columns = [
        Column(
            title="Session",
            cells=[safe(row.name or UNATTRIBUTED) for row in sessions],
            total="Total",
            priority=1,
            is_text=True,
            width_min=SESSION_WIDTH_MIN,
            width_max=NAME_WIDTH_MAX,
            keeps_end=True,
        ),
        _texts("Agent", [row.agent for row in sessions], priority=2),
        _texts("Customer", [row.customer_id for row in sessions], priority=4),
        *_spend_columns(report),
        _share(report),
        Column(
            title="End",
            cells=[cell for cell, _ in ends],
            styles=[style for _, style in ends],
            priority=1,
            is_text=True,
        ),
        *_tokens(report),
    ]
    return [column for column in columns if set(column.cells) != {UNKNOWN}]


def _spend_columns(report: CostReport) -> list[Column]:
    return [
        _counts("Steps", report, lambda spend: spend.steps, priority=2),
        _money(
            "LLM",
            report,
            lambda spend: _known(spend.model_nano_usd, spend.model_calls, spend),
            priority=3,
        ),
        _money(
            "Tools",
            report,
            lambda spend: _known(spend.tool_nano_usd, spend.tool_calls, spend),
            priority=3,
        ),
        _money("Total", report, known_cost, priority=1),
    ]


def _call_columns(report: CostReport) -> list[Column]:
    def per_call(spend: Spend) -> int | None:
        priced = spend.steps - spend.unpriced_calls
        return spend.total_nano_usd // priced if priced else None

    failed = _counts("Failed", report, lambda spend: spend.failed_calls, priority=4)
    return [
        _counts("Calls", report, lambda spend: spend.steps, priority=2),
        *([failed] if report.total.failed_calls else []),
        *_efforts(report),
        _money("Per call", report, per_call, priority=3, has_total=False),
        _money("Total", report, known_cost, priority=1),
    ]


def _efforts(report: CostReport) -> list[Column]:
    """Returns how long calls took and how much they moved, where that is known."""
    columns: list[Column] = []
    if report.total.latency_ms:
        cells = [_duration(row.spend) for row in report.rows]
        total = _duration(report.total)
        columns.append(Column(title="Latency", cells=cells, total=total, priority=4))
    if "tool" in report.dimensions and report.total.bytes_in + report.total.bytes_out:
        moved = [row.spend.bytes_in + row.spend.bytes_out for row in report.rows]
        total = decimal(report.total.bytes_in + report.total.bytes_out)
        cells = [decimal(count) for count in moved]
        columns.append(Column(title="Bytes", cells=cells, total=total, priority=4))
    return columns


def _duration(spend: Spend) -> str:
    mean_ms = spend.latency_ms / max(1, spend.steps)
    return f"{mean_ms:,.0f} ms" if mean_ms < 10_000 else f"{mean_ms / 1e3:,.0f} s"


def known_cost(spend: Spend) -> int | None:
    """Returns the cost; `None` if nothing of it is known."""
    return _known(spend.total_nano_usd, spend.steps, spend)


def _known(nano_usd: int, calls: int, spend: Spend) -> int | None:
    """Nothing spent is not known to be nothing where calls had no price."""
    return None if not nano_usd and calls and spend.unpriced_calls else nano_usd


def _texts(
    title: str,
    cells: Sequence[str | None],
    *,
    priority: int,
    total: str = "",
    width_min: int = 10,
) -> Column:
    return Column(
        title=title,
        cells=[safe(cell) if cell else UNKNOWN for cell in cells],
        total=total,
        priority=priority,
        is_text=True,
        width_min=width_min,
        width_max=NAME_WIDTH_MAX,
    )


def _counts(
    title: str, report: CostReport, count: Callable[[Spend], int], *, priority: int
) -> Column:
    return Column(
        title=title,
        cells=[f"{count(row.spend):,}" for row in report.rows],
        total=f"{count(report.total):,}",
        priority=priority,
    )


def _money(
    title: str,
    report: CostReport,
    amount_nano_usd: Callable[[Spend], int | None],
    *,
    priority: int,
    has_total: bool = True,
) -> Column:
    spends = [row.spend for row in report.rows]
    cells = money_cells(
        [amount_nano_usd(spend) for spend in [*spends, *[report.total] * has_total]]
    )
    total = cells.pop() if has_total else ""
    return Column(title=title, cells=cells, total=total, priority=priority)


def _change_columns(report: CostReport) -> list[Column]:
    assert report.before is not None
    earlier = [row.before or Spend(name=None) for row in report.rows]
    *cells, total = money_cells([known_cost(s) for s in (*earlier, report.before)])
    whole = CostRow(name=None, spend=report.total, share=None, before=report.before)
    changes = [_changed(row) for row in (*report.rows, whole)]
    return [
        Column(title="Before", cells=cells, total=total, priority=2),
        Column(title="Change", cells=changes[:-1], total=changes[-1], priority=1),
    ]


def _changed(row: CostRow) -> str:
    """Says how much more or less it cost; of the unknown nothing is said."""
    if row.before is not None and not row.before.steps:
        return "new" if row.spend.steps else UNKNOWN
    if row.change is None:
        return UNKNOWN
    percent = round(abs(row.change) * 100)
    if not percent:
        return "± 0%"
    sign = "▲" if row.change > 0 else "▼"
    return f"{sign} {percent:,}%" if percent < PERCENT_MAX else f"{sign} > 9,999%"


def _share(report: CostReport) -> Column:
    return Column(
        title="Share",
        cells=[
            UNKNOWN
            if row.share is None or known_cost(row.spend) is None
            else percent_text(row.share)
            for row in report.rows
        ],
        priority=5,
    )


def _bar(report: CostReport) -> Column:
    return Column(
        title="",
        cells=[bar(row.share) for row in report.rows],
        styles=["cyan"] * len(report.rows),
        priority=7,
        is_text=True,
    )


def bar(part: float | None) -> str:
    """Draws a part of a whole."""
    eighths = round((part or 0) * BAR_WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _tokens(report: CostReport) -> list[Column]:
    if not _count_tokens(report.total):
        return []
    column = Column(
        title="Tokens",
        cells=[_short(_count_tokens(row.spend)) for row in report.rows],
        total=_short(_count_tokens(report.total)),
        priority=6,
    )
    return [column]


def _count_tokens(spend: Spend) -> int:
    return spend.input_tokens + spend.output_tokens


def _short(count: int) -> str:
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:,.0f}k" if count < 1_000_000 else f"{count / 1e6:,.1f}M"


def end_cells(end: str, reason: str | None) -> tuple[str, str]:
    """Returns how a session ended, and the style of that."""
    if end == "budget_exceeded":
        return f"■ {_LIMITS.get(reason or '', 'budget')}", "red"
    return _ENDS.get(end, (safe(end), ""))
