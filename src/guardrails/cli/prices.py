"""`guardrails prices`: what was called, at which price, and is it the right one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from guardrails.cli.exits import EXIT_FINDING
from guardrails.cli.formats.documents import document
from guardrails.cli.ledgers import reading
from guardrails.cli.options import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.cli.priced import Priced, differences, expected_prices, priced
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.progress import Progress
from guardrails.core.money import usd
from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.core.windows import DAY_MS
from guardrails.ports import History
from guardrails.reports.called import called_in
from guardrails.system.clock import SystemClock

__all__ = ["prices"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

DAYS_MAX = 366


def prices(
    days: Annotated[
        int,
        typer.Option(min=1, max=DAYS_MAX, metavar="N", help="How far to look back."),
    ] = 7,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare with expected prices: models: and tools: as in "
            "guardrails.yaml. Exits with 3 if one differs.",
        ),
    ] = None,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show models and tools that were called, and what they cost."""
    expected = None if check is None else expected_prices(check)
    configuration = configured(config, store=store, project=project)
    now_ms = SystemClock().now_ms()
    with reading(configuration.store) as history:
        since_ms = now_ms - days * DAY_MS
        pages = _pages(history, configuration.project_id, since_ms)
        rows = priced(called_in(pages), configuration, now_ms=now_ms)
    found = (
        None
        if expected is None
        else list(differences(rows, expected, configuration, now_ms=now_ms))
    )
    if as_json:
        content = _document(rows, configuration.project_id, days, found)
        typer.echo(document(content))
    else:
        # Imported late: it brings rich, which JSON has no use for.
        from guardrails.cli.screens.prices import print_prices

        print_prices(rows, days=days)
    for difference in found or ():
        typer.echo(f"guardrails: {safe(difference)}", err=True)
    if found:
        raise typer.Exit(EXIT_FINDING)


def _pages(
    history: History, project_id: str, since_ms: int
) -> Iterator[Sequence[FlatEvent]]:
    read = 0
    with Progress("Reading", "events") as progress:
        for page in history.event_pages(project_id=project_id, since_ms=since_ms):
            read += len(page)
            progress.show(read, of=0)
            yield page


def _document(
    rows: Sequence[Priced], project_id: str, days: int, found: Sequence[str] | None
) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "project_id": project_id,
        "days": days,
        "currency": "USD",
        "prices": [_row(row) for row in rows],
        **({} if found is None else {"differences": list(found)}),
    }


def _row(row: Priced) -> dict[str, object]:
    one, per_call = row.called, row.per_call_nano_usd
    return {
        "kind": one.kind.value,
        "name": one.name,
        "provider": one.provider,
        "source": row.source,
        **{name: f"{value.normalize():f}" for name, value in row.rates.items()},
        **({} if per_call is None else {"cost_per_call_usd": f"{usd(per_call):f}"}),
        "calls": one.calls,
        "unpriced_calls": one.unpriced_calls,
        "reported_calls": one.reported_calls,
        "cost_usd": f"{usd(one.cost_nano_usd):f}",
        "sources_seen": sorted(one.sources),
    }
