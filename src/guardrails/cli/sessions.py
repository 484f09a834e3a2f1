"""`guardrails sessions`: which sessions there are, and how they ended."""

from typing import Annotated

import typer

from guardrails.cli.formats.sessions import csv_text, json_text
from guardrails.cli.ledgers import reading
from guardrails.cli.options import (
    ConfigOption,
    CsvOption,
    JsonOption,
    LimitOption,
    LookBackOption,
    ProjectOption,
    SinceOption,
    StoreOption,
    WhereOption,
    choose_format,
    configured,
    hours_of,
    where_of,
)
from guardrails.reports import SESSION_ORDERS, SESSION_STATES, Span
from guardrails.spend.asking import check_one_of
from guardrails.spend.reading import Asked, read_sessions
from guardrails.system.clock import SystemClock

__all__ = ["sessions"]


def sessions(
    hours: LookBackOption = None,
    since: SinceOption = None,
    where: WhereOption = None,
    status: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="active, idle, completed or stopped."),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(metavar="NAME", help="cost, time (newest first) or steps."),
    ] = "cost",
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show sessions, what each may spend, and how it ended."""
    choose_format(as_json=as_json, as_csv=as_csv)
    check_one_of(sort, SESSION_ORDERS, key="--sort")
    if status is not None:
        check_one_of(status, SESSION_STATES, key="--status")
    configuration = configured(config, store=store, project=project)
    asked = Asked(
        project_id=configuration.project_id,
        span=Span(hours=hours_of(hours, since), until_ms=SystemClock().now_ms()),
        limit=limit,
        where=where_of(where),
    )
    with reading(configuration.store) as history:
        found = read_sessions(
            history, asked, configuration.policy, sort=sort, state=status
        )
    if as_json:
        typer.echo(json_text(found))
    elif as_csv:
        typer.echo(csv_text(found), nl=False)
    else:
        # Imported late: it brings rich, which the other formats have no use for.
        from guardrails.cli.screens.sessions import render_sessions

        render_sessions(found)
