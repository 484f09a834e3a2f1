"""`guardrails top`: what is being spent now, again every two seconds."""

from typing import Annotated

import typer

from guardrails.cli.ledgers import reading
from guardrails.cli.options import (
    ConfigOption,
    ProjectOption,
    StoreOption,
    WhereOption,
    configured,
    where_of,
)
from guardrails.spend.reading import read_top
from guardrails.system.clock import SystemClock

__all__ = ["top"]


def top(
    once: Annotated[
        bool, typer.Option("--once", help="Show one picture, as in a pipe.")
    ] = False,
    where: WhereOption = None,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what is being spent now, until Ctrl-C."""
    # Imported late: it brings rich.
    from guardrails.cli.screens.top import show

    clock = SystemClock()
    filters = where_of(where)
    configuration = configured(config, store=store, project=project)
    with reading(configuration.store) as history:
        show(
            lambda: read_top(
                history,
                configuration.policy,
                project_id=configuration.project_id,
                where=filters,
                now_ms=clock.now_ms(),
            ),
            sleep=clock.sleep,
            once=once,
        )
