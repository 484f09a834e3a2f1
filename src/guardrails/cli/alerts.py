"""`guardrails alerts`: whether they arrive, before they have to, and afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import typer

from guardrails.alerts import AlertKind, AlertSettings
from guardrails.cli.alert_log import alert_log, retry_alerts
from guardrails.cli.exits import EXIT_FAILURE
from guardrails.cli.formats.documents import document
from guardrails.cli.options import ConfigOption, JsonOption, ProjectOption, configured
from guardrails.errors import ConfigurationError
from guardrails.ports import Clock, History
from guardrails.stores.memory import MemoryStore
from guardrails.system.clock import SystemClock

__all__ = ["Tried", "app", "tries"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

INTERVAL_SECONDS = 1.0
"""Between two messages to one destination: what Slack allows."""

app: typer.Typer = typer.Typer(
    help="Try whether alerts arrive, and see what has become of them.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.command("log")(alert_log)
app.command("retry")(retry_alerts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of a sample."""

    kind: AlertKind
    to: str
    """Where it was sent, masked."""
    status: int | None
    """Of HTTP; `None` if there was no answer."""
    text: str
    """A word of the receiver, or what went wrong."""
    is_delivered: bool


@app.command("test")
def send_samples(
    kind: Annotated[
        AlertKind | None, typer.Option(help="One kind, instead of one of each.")
    ] = None,
    as_json: JsonOption = False,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Send samples of alerts, and show which answers came back."""
    configuration = configured(config, store=None, project=project)
    alerts = configuration.alerts
    if not alerts.places:
        raise ConfigurationError(
            "alerts: nothing says where they go. Set alerts.slack, alerts.webhook or "
            "alerts.apprise, or GUARDRAILS_SLACK_WEBHOOK_URL, GUARDRAILS_WEBHOOK_URL "
            "or GUARDRAILS_APPRISE_URLS."
        )
    kinds = (kind,) if kind else tuple(AlertKind)
    found: list[Tried] = []
    for tried in tries(
        alerts, kinds, project_id=configuration.project_id, clock=SystemClock()
    ):
        found.append(tried)
        if not as_json:
            typer.echo(_line(tried))
    if as_json:
        content = {"schema_version": SCHEMA_VERSION, "sent": [*map(_entry, found)]}
        typer.echo(document(content))
    if not all(tried.is_delivered for tried in found):
        raise typer.Exit(EXIT_FAILURE)


def tries(
    alerts: AlertSettings,
    kinds: tuple[AlertKind, ...],
    *,
    project_id: str,
    clock: Clock,
) -> Iterator[Tried]:
    """Sends a sample of each kind to each destination, and yields what came of it."""
    # Imported late: the other commands send nothing.
    from guardrails.alerts.delivery import DEADLINE_MS
    from guardrails.alerts.samples import samples
    from guardrails.alerts.sink import senders

    found = senders(alerts, project_id=project_id, history=_no_history, clock=clock)
    now_ms = clock.now_ms()
    alerts_of = (samples(one, project_id=project_id, now_ms=now_ms) for one in kinds)
    for index, alert in enumerate(chain.from_iterable(alerts_of)):
        if index:
            clock.sleep(INTERVAL_SECONDS)
        for name, send in found:
            answer = send(alert, DEADLINE_MS)
            yield Tried(
                kind=alert.kind,
                to=name,
                status=answer.status,
                text=answer.text,
                is_delivered=answer.is_delivered,
            )


def _no_history() -> History:
    return MemoryStore().history  # A sample is about no session.


def _line(tried: Tried) -> str:
    answer = " ".join(filter(None, (str(tried.status or ""), tried.text)))
    mark = "ok" if tried.is_delivered else "FAIL"
    return f"{mark:<6}{tried.kind.value:<11}{tried.to}  {answer}"


def _entry(tried: Tried) -> dict[str, object]:
    return {
        "kind": tried.kind.value,
        "to": tried.to,
        "status": tried.status,
        "text": tried.text,
        "delivered": tried.is_delivered,
    }
