"""`guardrails costs`: where the money went in the last hours."""

import os
from pathlib import Path
from typing import Annotated

import typer

from guardrails.cli.formats import csv_text, json_text
from guardrails.cli.render import render_costs
from guardrails.clock import SystemClock
from guardrails.config import load_configuration
from guardrails.core.rollups import HOUR_MS, ROLLUP_DIMENSIONS
from guardrails.errors import ConfigurationError
from guardrails.ports import Store
from guardrails.reports import CostReport, report_by, report_sessions
from guardrails.stores import open_store

__all__ = ["cost_report", "costs"]

_SHORT_NAMES = {
    "session": "session_id",
    "customer": "customer_id",
    "user": "user_id",
    "project": "project_id",
}


def costs(
    hours: Annotated[
        int, typer.Option(min=1, max=24 * 366, help="The span, in whole hours.")
    ] = 24,
    by: Annotated[
        str,
        typer.Option(
            help="session, agent, customer_id, user_id, feature, prompt_version, "
            "tool or model."
        ),
    ] = "session",
    limit: Annotated[int, typer.Option(min=0, help="Rows to show; 0 shows all.")] = 20,
    store: Annotated[str | None, typer.Option(help="The store's URL.")] = None,
    project: Annotated[str | None, typer.Option(help="The project.")] = None,
    config: Annotated[Path | None, typer.Option(help="The guardrails.yaml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show what was spent, by session or by another dimension."""
    overrides = {"store": store, "project_id": project}
    configuration = load_configuration(
        config,
        environ=os.environ,
        cwd=Path.cwd(),
        overrides={key: value for key, value in overrides.items() if value},
    )
    report = cost_report(
        open_store(configuration.store or "sqlite"),
        project_id=configuration.project_id,
        by=_dimension(by),
        hours=hours,
        limit=limit,
    )
    if as_json:
        typer.echo(json_text(report))
    elif as_csv:
        typer.echo(csv_text(report), nl=False)
    else:
        render_costs(report)


def cost_report(
    store: Store, *, project_id: str, by: str, hours: int, limit: int
) -> CostReport:
    """Reads a report from a store.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    until_ms = SystemClock().now_ms()
    since_ms = until_ms - hours * HOUR_MS
    spends = store.history.spend(
        project_id=project_id, by=by, since_ms=since_ms, until_ms=until_ms
    )
    if by != "session_id":
        return report_by(
            spends, by=by, since_ms=since_ms, until_ms=until_ms, limit=limit
        )
    accounts = store.history.session_accounts(
        project_id=project_id, session_ids=[spend.name or "" for spend in spends]
    )
    return report_sessions(
        spends, accounts, since_ms=since_ms, until_ms=until_ms, limit=limit
    )


def _dimension(by: str) -> str:
    dimension = _SHORT_NAMES.get(by, by)
    if dimension not in ROLLUP_DIMENSIONS:
        known = ", ".join(sorted({*_SHORT_NAMES, *ROLLUP_DIMENSIONS}))
        raise ConfigurationError(f"--by: {by!r} is not a dimension. Use one of {known}.")
    return dimension
