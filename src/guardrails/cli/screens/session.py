"""The screen of one session: its end, its limits, its calls, who and what cost."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from guardrails.cli.screens.amounts import money_cells
from guardrails.cli.screens.columns import end_cells, limit_name
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column, console_width, print_lines, table_lines
from guardrails.cli.session_report import SessionReport
from guardrails.core.decisions import (
    format_amount,
    format_count,
    format_time,
    stop_text,
)
from guardrails.reports.session_detail import CallRun, Tally

__all__ = ["print_session"]

NAME_WIDTH_MAX = 44
NAMES_MAX = 10
"""Models and tools that are ranked."""

NO_AGENT = "(no agent)"


def print_session(report: SessionReport, console: Console | None = None) -> None:
    """Prints a session at the width of the terminal."""
    console = console or Console()
    print_lines(_lines(report, console_width(console), console), console)


def _lines(report: SessionReport, width: int, console: Console) -> Iterator[Text]:
    yield from Text(_headline(report), style="bold").wrap(console, width)
    for line in _facts(report):
        yield from Text(line).wrap(console, width)
    detail = report.detail
    if not detail.runs:
        yield Text(
            "No call of its own is kept. Sessions inside of it may have made some.",
            style="yellow",
        )
        return
    yield Text()
    hidden = detail.runs_total - len(detail.runs)
    *body, _ = table_lines(_run_columns(detail.runs), width=width)
    yield body[0]
    if hidden:
        yield Text(f"… {hidden:,} earlier (--limit 0)", style="dim")
    yield from body[1:]
    agents = [(_branch(path), tally) for path, tally in detail.agents]
    for title, found in (("Agent", agents), ("Model or tool", detail.names)):
        yield Text()
        *body, _ = table_lines(_tally_columns(title, found[:NAMES_MAX]), width=width)
        yield from body
        if len(found) > NAMES_MAX:
            yield Text(f"… {len(found) - NAMES_MAX:,} more", style="dim")
    for note in _notes(detail.total):
        yield from Text(note, style="yellow").wrap(console, width)


def _headline(report: SessionReport) -> str:
    row, total = report.row, report.detail.total
    parts = [safe(report.session_id)]
    if row is not None:
        parts += [safe(name) for name in (row.agent, row.customer_id) if name]
        parts += [end_cells(row.end, row.reason)[0]]
    return " · ".join([*parts, format_count(total.calls, "call"), _usd(total)])


def _facts(report: SessionReport) -> Iterator[str]:
    account = report.account
    stop = account.stop if account else None
    if stop is not None:
        yield f"Stopped at {format_time(stop.at_ms)}: {safe(stop_text(stop))}"
    state = account.session if account else None
    if state is not None:
        yield (
            f"Started {format_time(state.started_at_ms)}, last active "
            f"{format_time(state.last_active_at_ms)}, "
            f"{state.active_ms / 1_000:,.1f} s of work"
        )
    limits = [
        f"{limit_name(row.measure)} {format_amount(row.measure, row.used)} of "
        f"{format_amount(row.measure, row.limit)}"
        for row in report.limits
    ]
    if state is not None:
        none = "No limit is configured here; the agent's own code may set some."
        yield f"Used: {', '.join(limits)}" if limits else none


def _run_columns(runs: Sequence[CallRun]) -> list[Column]:
    tallies = [run.tally for run in runs]
    names = [
        safe(run.name) + (f" × {run.tally.calls:,}" if run.tally.calls > 1 else "")
        for run in runs
    ]
    return [
        Column(
            title="Time",
            cells=[f"{_instant(run.first_ms):%H:%M:%S}" for run in runs],
            priority=3,
        ),
        Column(
            title="Call",
            cells=names,
            priority=1,
            is_text=True,
            width_min=20,
            width_max=NAME_WIDTH_MAX,
            keeps_end=True,
        ),
        Column(
            title="Cost",
            cells=money_cells([tally.known_nano_usd for tally in tallies]),
            priority=1,
        ),
        Column(
            title="So far",
            cells=money_cells([run.cumulative_nano_usd for run in runs]),
            priority=2,
        ),
        *_marks(tallies),
    ]


def _tally_columns(title: str, found: Sequence[tuple[str, Tally]]) -> list[Column]:
    tallies = [tally for _, tally in found]
    return [
        Column(
            title=title,
            cells=[safe(name) for name, _ in found],
            priority=1,
            is_text=True,
            width_min=20,
            width_max=NAME_WIDTH_MAX,
        ),
        Column(
            title="Calls", cells=[f"{tally.calls:,}" for tally in tallies], priority=1
        ),
        Column(
            title="Cost",
            cells=money_cells([tally.known_nano_usd for tally in tallies]),
            priority=1,
        ),
        *_marks(tallies),
    ]


def _marks(tallies: Sequence[Tally]) -> list[Column]:
    """Returns what is to be known of calls beside their cost, if there is any."""
    cells = [", ".join(_mark(tally)) for tally in tallies]
    if not any(cells):
        return []
    marks = Column(
        title="",
        cells=cells,
        styles=["yellow"] * len(cells),
        priority=2,
        is_text=True,
        width_max=40,
    )
    return [marks]


def _mark(tally: Tally) -> Iterator[str]:
    for count, word in (
        (tally.failed, "failed"),
        (tally.estimated, "estimated"),
        (tally.unpriced, "unpriced"),
    ):
        if count:
            yield word if tally.calls == 1 else f"{count:,} {word}"


def _branch(path: Sequence[str]) -> str:
    """Draws an agent below its parent."""
    return "  " * (len(path) - 1) + path[-1] if path else NO_AGENT


def _instant(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1_000, tz=UTC)


def _usd(tally: Tally) -> str:
    return money_cells([tally.known_nano_usd])[0].strip()


def _notes(total: Tally) -> Iterator[str]:
    if total.unpriced:
        yield (
            f"{format_count(total.unpriced, 'call')} had no price and counted as "
            "nothing above: guardrails prices"
        )
    if total.estimated:
        yield (
            f"{format_count(total.estimated, 'call')} reported no usage; what they "
            "cost is an upper estimate."
        )
