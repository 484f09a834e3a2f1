"""`guardrails simulate`: what other limits would have done with yesterday's calls."""

import json
from pathlib import Path
from typing import Annotated

import typer

from guardrails.cli.ledgers import reading
from guardrails.cli.options import (
    HoursOption,
    JsonOption,
    LimitOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.clock import SystemClock
from guardrails.core.money import usd
from guardrails.core.rollups import HOUR_MS
from guardrails.reports.simulation import Refused, Simulation, simulated

__all__ = ["simulate"]

SCHEMA_VERSION = 1


def simulate(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The limits to try; else those configured here."
        ),
    ] = None,
    hours: HoursOption = 24,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
) -> None:
    """Try limits on calls that were made, before they stop anybody."""
    tried = configured(config, store=store, project=project)
    now_ms = SystemClock().now_ms()
    with reading(tried.store) as history:
        result = simulated(
            history.timeline(
                project_id=tried.project_id,
                since_ms=now_ms - hours * HOUR_MS,
                until_ms=now_ms,
            ),
            tried.policy,
        )
    rows = result.refused[: limit or None]
    if as_json:
        typer.echo(json.dumps(_document(result, rows, hours), indent=2))
    else:
        # Imported late: it brings rich, which JSON has no use for.
        from guardrails.cli.simulated import render_simulation

        name = str(config) if config is not None else _name(tried.sources)
        render_simulation(result, rows, hours=hours, name=name)


def _name(sources: tuple[str, ...]) -> str:
    return sources[0] if sources else "no limits"


def _document(result: Simulation, rows: list[Refused], hours: int) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "hours": hours,
        "currency": "USD",
        "calls": result.calls,
        "cost_usd": f"{usd(result.cost_nano_usd):f}",
        "refused_calls": result.refused_calls,
        "refused_usd": f"{usd(result.refused_nano_usd):f}",
        "stopped_sessions": result.stopped_sessions,
        "soft_alerts": result.soft_alerts,
        "rows_total": len(result.refused),
        "rows": [_row(row) for row in rows],
    }


def _row(row: Refused) -> dict[str, object]:
    return {
        "scope": row.scope,
        "limit": row.measure and row.measure.value,
        "session_id": row.session_id,
        "agent": row.agent,
        "customer_id": row.customer_id,
        "at_ms": row.at_ms,
        "refused_calls": row.calls,
        "refused_usd": f"{usd(row.cost_nano_usd):f}",
    }
