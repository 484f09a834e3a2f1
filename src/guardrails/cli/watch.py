"""`guardrails watch`: looks for anomalies and budgets that will not last, and tells."""

from typing import Annotated

import typer

from guardrails.alerts import Alert
from guardrails.alerts.words import headline, subject
from guardrails.cli.formats.times import time_text
from guardrails.cli.ledgers import opened, refuse_memory
from guardrails.cli.options import (
    ConfigOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.cli.screens.names import safe
from guardrails.cli.telling import telling
from guardrails.config import Configuration
from guardrails.errors import ConfigurationError, StoreUnavailable
from guardrails.ports import Clock, Store
from guardrails.spend.watching import Watch
from guardrails.system.clock import SystemClock

__all__ = ["watch", "watch_ledger"]

EVERY_S_MIN = 10
"""A look reads two weeks of sums; more often only costs."""

EVERY_S_MAX = 1_800
"""The end of a day is looked at within the hour after it."""


def watch(
    every: Annotated[
        int,
        typer.Option(
            min=EVERY_S_MIN,
            max=EVERY_S_MAX,
            metavar="SECONDS",
            help="How long to wait between two looks.",
        ),
    ] = 300,
    once: Annotated[
        bool, typer.Option("--once", help="Look once, as from a scheduler.")
    ] = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell people of anomalies, of budgets that will not last, and of each day.

    Each is told once, however many watch. While nobody watches, nobody is told.
    """
    configuration = configured(config, store=store, project=project)
    if not configuration.alerts.is_on:
        raise ConfigurationError(
            "alerts: nothing says where they go, or about what. Set alerts.slack, "
            "alerts.webhook or alerts.apprise, and leave alerts.on out or name kinds "
            "in it."
        )
    refuse_memory(configuration)
    with opened(configuration.store) as ledger:
        try:
            watch_ledger(ledger, configuration, every_s=None if once else every)
        except KeyboardInterrupt:
            typer.echo("guardrails: nobody watches any more.", err=True)


def watch_ledger(
    store: Store,
    configuration: Configuration,
    *,
    every_s: int | None,
    clock: Clock | None = None,
) -> None:
    """Looks, and has sent what is new, until it is interrupted.

    Args:
        store: The ledger.
        configuration: The project, its budgets, and who is told.
        every_s: How long to wait between two looks; `None` looks once.
        clock: The time; the system's by default.

    Raises:
        StoreUnavailable: If it looks once, and the store does not answer.
    """
    clock = clock or SystemClock()
    watching = Watch(
        store,
        policy=configuration.policy,
        settings=configuration.alerts,
        project_id=configuration.project_id,
    )
    with telling(store, configuration, clock=clock) as tell:
        while True:
            _look(watching, clock, is_last=every_s is None)
            tell()
            if every_s is None:
                return
            clock.sleep(every_s)


def _look(watching: Watch, clock: Clock, *, is_last: bool) -> None:
    now_ms = clock.now_ms()
    try:
        found = watching.look(now_ms)
    except StoreUnavailable as error:
        if is_last:
            raise
        typer.echo(f"guardrails: {error} It is looked at again later.", err=True)
        return
    for alert in found:
        typer.echo(f"{time_text(now_ms)}  {_line(alert)}")


def _line(alert: Alert) -> str:
    return f"{alert.kind.value:<8} {safe(headline(alert, who=subject(alert)))}"
