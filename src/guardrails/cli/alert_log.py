"""`guardrails alerts log` and `retry`: what was sent, where to, with which answer."""

from typing import Annotated

import typer

from guardrails.alerts.words import headline, subject
from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import time_text
from guardrails.cli.ledgers import opened
from guardrails.cli.options import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.cli.telling import telling
from guardrails.core.alerting.deliveries import (
    AlertLog,
    Delivery,
    ReadAlerts,
    RetryAlerts,
)
from guardrails.core.alerting.outbox import OUTBOX_MAX
from guardrails.errors import ConfigurationError
from guardrails.ports import Store
from guardrails.system.clock import SystemClock

__all__ = ["alert_log", "retry_alerts"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

ID_CHARACTERS_MIN = 4
"""Of what is typed: less may soon name another alert."""


def alert_log(
    limit: Annotated[
        int, typer.Option(min=1, max=OUTBOX_MAX, metavar="N", help="Alerts to show.")
    ] = 20,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the last alerts: where each went, when, and with which answer."""
    configuration = configured(config, store=store, project=project)
    read = ReadAlerts(project_id=configuration.project_id, limit=limit)
    with opened(configuration.store) as ledger:
        found = ledger.execute(read)
    if as_json:
        content = {
            "schema_version": SCHEMA_VERSION,
            "project_id": configuration.project_id,
            "alerts": [*map(_entry, found)],
        }
        typer.echo(document(content))
    elif not found:
        typer.echo("No alerts in the last days.")
    else:
        # Imported late: it brings rich, which JSON has no use for.
        from guardrails.cli.screens.alerts import print_alerts

        print_alerts(found)


def retry_alerts(
    alert_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="As `alerts log` shows it.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that wait or were given up.")
    ] = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Have alerts sent again now that were given up, or that wait."""
    if (alert_id is None) is not everything:
        raise ConfigurationError(
            "alerts retry: name an alert by its id, as `guardrails alerts log` shows "
            "it, or pass --all; not both."
        )
    configuration = configured(config, store=store, project=project)
    project_id = configuration.project_id
    with (
        opened(configuration.store) as ledger,
        telling(ledger, configuration) as tell,
    ):
        if alert_id is not None:
            alert_id = _known_id(ledger, project_id, alert_id)
        retry = RetryAlerts(
            project_id=project_id, now_ms=SystemClock().now_ms(), alert_id=alert_id
        )
        count = ledger.execute(retry)
        typer.echo(f"Deliveries that are tried again: {count}")
        if count:
            typer.echo(
                "What is not sent from here now is sent by the next process that has "
                "these destinations, within half a minute.",
                err=True,
            )
            tell()


def _known_id(ledger: Store, project_id: str, text: str) -> str:
    """Returns the only id that begins so."""
    read = ReadAlerts(project_id=project_id, limit=OUTBOX_MAX)
    ids = [log.alert.alert_id for log in ledger.execute(read)]
    found = [one for one in ids if one.startswith(text)]
    if len(text) < ID_CHARACTERS_MIN or len(found) != 1:
        what = "no alert" if not found else "more than one alert"
        what = "too short" if len(text) < ID_CHARACTERS_MIN else what
        raise ConfigurationError(
            f"ID: {text!r} is {what}. Take one from guardrails alerts log."
        )
    return found[0]


def _entry(log: AlertLog) -> dict[str, object]:
    alert, who = log.alert, log.alert.attribution
    return {
        "id": alert.alert_id,
        "kind": alert.kind.value,
        "time": time_text(alert.time_ms),
        "headline": headline(alert, who=subject(alert)),
        "scope": alert.scope,
        "agent": who and who.agent,
        "customer_id": who and who.customer_id,
        "session_id": who and who.session_id,
        "deliveries": [*map(_delivery, log.deliveries)],
    }


def _delivery(delivery: Delivery) -> dict[str, object]:
    return {
        "place": delivery.place,
        "to": delivery.label or None,
        "state": delivery.state.value,
        "message_id": delivery.message_id,
        "attempts": delivery.attempts,
        "time": time_text(delivery.at_ms),
        "status": delivery.status,
        "text": delivery.text,
        "next": time_text(delivery.next_ms),
    }
