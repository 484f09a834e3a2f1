"""`guardrails prune` and `forget`: what is old goes, and what one customer left."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from guardrails.cli.ledgers import opened
from guardrails.cli.options import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.cli.screens.names import safe
from guardrails.config import Configuration
from guardrails.core.decisions import format_count
from guardrails.core.retention import Forgotten, Pruned
from guardrails.core.windows import DAY_MS
from guardrails.errors import ConfigurationError
from guardrails.ports import Keeper, KeptStore
from guardrails.sessions.planning import checked_name
from guardrails.system.clock import SystemClock

__all__ = ["forget", "prune"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Count what would change, and change nothing.")
]


def prune(
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Delete what is older than retention: in guardrails.yaml says."""
    configuration = configured(config, store=store, project=project)
    retention = configuration.retention
    if retention.events_days is None and retention.rollups_days is None:
        raise ConfigurationError(
            "retention: nothing says how long to keep what. Write retention: "
            "{ events_days: 90, rollups_days: 400 } to guardrails.yaml."
        )
    now_ms = SystemClock().now_ms()
    with opened(configuration.store) as ledger:
        pruned = Pruned()
        if keeper := _keeper(ledger, configuration):
            pruned = keeper.prune(
                project_id=configuration.project_id,
                events_before_ms=_before(now_ms, retention.events_days),
                rollups_before_ms=_before(now_ms, retention.rollups_days),
                is_dry_run=dry_run,
            )
    if as_json:
        _print_json(configuration.project_id, pruned, dry_run)
        return
    would = "Would delete" if dry_run else "Deleted"
    typer.echo(
        f"{would} {format_count(pruned.events, 'event')} and "
        f"{format_count(pruned.rollups, 'hourly sum')}."
    )


def forget(
    customer: Annotated[str, typer.Option("--customer", metavar="ID", help="Whose.")],
    dry_run: DryRunOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Make all that was recorded of a customer anonymous. Totals stay."""
    customer_id = checked_name(customer, "--customer")
    configuration = configured(config, store=store, project=project)
    if not dry_run and not yes:
        _ask(customer_id)
    with opened(configuration.store) as ledger:
        forgotten = Forgotten()
        if keeper := _keeper(ledger, configuration):
            forgotten = keeper.forget(
                project_id=configuration.project_id,
                customer_id=customer_id,
                now_ms=SystemClock().now_ms(),
                is_dry_run=dry_run,
            )
    if as_json:
        _print_json(configuration.project_id, forgotten, dry_run)
        return
    _say(forgotten, customer_id, is_dry_run=dry_run)


def _keeper(ledger: object, configuration: Configuration) -> Keeper | None:
    """Returns what deletes in a ledger; `None` if there is no ledger yet."""
    if isinstance(ledger, KeptStore):
        return ledger.keeper
    if configuration.store == "memory://":
        raise ConfigurationError(
            "store: memory:// ends with the process that uses it, so nothing of it is "
            "kept. Configure a file, or Redis."
        )
    return None


def _ask(customer_id: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "--yes: this cannot be undone, and there is nobody to ask. Try --dry-run, "
            "and then --yes."
        )
    typer.confirm(
        f"Forget who {safe(customer_id)} is? This cannot be undone.",
        abort=True,
        err=True,
    )


def _before(now_ms: int, days: int | None) -> int | None:
    return None if days is None else now_ms - days * DAY_MS


def _say(forgotten: Forgotten, customer_id: str, *, is_dry_run: bool) -> None:
    counts = (
        (forgotten.events, "event", "made anonymous"),
        (forgotten.rollups, "hourly sum", "moved to (unattributed)"),
        (forgotten.sessions, "session", "deleted"),
        (forgotten.alerts, "alert", "deleted"),
    )
    to_be = "to be " if is_dry_run else ""
    typer.echo(f"Customer {safe(customer_id)}:")
    for count, noun, done in counts:
        typer.echo(f"  {format_count(count, noun)} {to_be}{done}")
    if forgotten.sessions_in_use:
        typer.echo(
            f"{format_count(forgotten.sessions_in_use, 'session')} stay: they were "
            "active within a day, and may go on.\nDo this again tomorrow.",
            err=True,
        )
    typer.echo(
        "What is in force stays: shared budgets of the customer until their window\n"
        "ends, stops, and the log of what people did. Exports and backups stay too.",
        err=True,
    )


def _print_json(project_id: str, counts: Pruned | Forgotten, is_dry_run: bool) -> None:
    content = {
        "schema_version": SCHEMA_VERSION,
        "project_id": project_id,
        "dry_run": is_dry_run,
        **asdict(counts),
    }
    typer.echo(json.dumps(content, indent=2))
