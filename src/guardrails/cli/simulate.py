"""`guardrails simulate`: what other limits would have done with yesterday's calls."""

import json
from pathlib import Path
from typing import Annotated

import typer

from guardrails.cli.ledgers import reading
from guardrails.cli.options import (
    JsonOption,
    LimitOption,
    LookBackOption,
    ProjectOption,
    SinceOption,
    StoreOption,
    configured,
    hours_of,
)
from guardrails.cli.screens.suggestions import suggestions_json, suggestions_yaml
from guardrails.core.money import usd
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.errors import ConfigurationError
from guardrails.reports.simulation import Refused, Simulation, simulated
from guardrails.reports.suggestions import Suggestion, suggested
from guardrails.system.clock import SystemClock

__all__ = ["simulate"]

SCHEMA_VERSION = 1


def simulate(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The limits to try; else those configured here."
        ),
    ] = None,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest", help="Propose limits per agent from what its sessions used."
        ),
    ] = False,
    hours: LookBackOption = None,
    since: SinceOption = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
) -> None:
    """Try limits on calls that were made, before they stop anybody."""
    if suggest and config is not None:
        raise ConfigurationError(
            "--suggest and --config: the one makes limits, the other tries them. "
            "Choose one."
        )
    tried, back = (
        configured(config, store=store, project=project),
        hours_of(hours, since),
    )
    now_ms = SystemClock().now_ms()
    with reading(tried.store) as history:
        events = history.timeline(
            project_id=tried.project_id,
            since_ms=now_ms - back * HOUR_MS,
            until_ms=now_ms,
        )
        if suggest:
            _print_suggestions(suggested(events), hours=back, as_json=as_json)
            return
        result = simulated(events, tried.policy)
    rows = result.refused[: limit or None]
    if as_json:
        typer.echo(json.dumps(_document(result, rows, back), indent=2))
    else:
        # Imported late: it brings rich, which JSON has no use for.
        from guardrails.cli.screens.simulated import render_simulation

        name = str(config) if config is not None else _name(tried.sources)
        render_simulation(result, rows, hours=back, name=name)


def _print_suggestions(found: list[Suggestion], *, hours: int, as_json: bool) -> None:
    if as_json:
        typer.echo(suggestions_json(found, hours=hours))
        return
    for line in suggestions_yaml(found, hours=hours):
        typer.echo(line)


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
        "false_alarm_candidates": result.false_alarm_candidates,
        "soft_alerts": result.soft_alerts,
        "unpriced": dict(sorted(result.unpriced.items())),
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
        "session_calls": row.session_calls or None,
        "refused_usd": f"{usd(row.cost_nano_usd):f}",
    }
