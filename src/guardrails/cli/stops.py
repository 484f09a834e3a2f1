"""`guardrails stop`, `stops` and `resume`: the kill switch, and who used it."""

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from guardrails.cli.exits import EXIT_FAILURE
from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import time_text
from guardrails.cli.ledgers import ordering, reading
from guardrails.cli.near import NEAR_DAYS, near_names, recent_names
from guardrails.cli.options import (
    ByOption,
    ConfigOption,
    JsonOption,
    ProjectOption,
    StoreOption,
    configured,
    user_name,
)
from guardrails.cli.screens.limits import changed_limits
from guardrails.cli.screens.names import safe
from guardrails.core.decisions import format_time
from guardrails.core.stops import AuditEntry, StopKind, StopOrder, StopTarget
from guardrails.errors import ConfigurationError
from guardrails.orders import target_of
from guardrails.ports import History
from guardrails.spend.spans import seconds_of

__all__ = ["resume", "stop", "stops"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

LOG_MAX = 1_000
"""Entries of the log: as many as a ledger keeps."""

_OPTIONS = {
    StopKind.SESSION: "--session",
    StopKind.AGENT: "--agent",
    StopKind.CUSTOMER: "--customer",
    StopKind.EVERYTHING: "--all",
}

_DIMENSIONS = {
    StopKind.SESSION: "session_id",
    StopKind.AGENT: "agent",
    StopKind.CUSTOMER: "customer_id",
}

SessionOption = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="One session.")
]
AgentOption = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="NAME", help="An agent, wherever it is nested; no pattern."
    ),
]
CustomerOption = Annotated[
    str | None, typer.Option("--customer", metavar="ID", help="All for a customer.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Everything in the project.")]


def stop(
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; the stopped agent says so.")
    ],
    session: SessionOption = None,
    agent: AgentOption = None,
    customer: CustomerOption = None,
    everything: AllOption = False,
    span: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="For how long: 30m, 1h, 2d."),
    ] = None,
    by: ByOption = None,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Stop sessions, agents, customers or all. It holds from their next call."""
    target = _target(session, agent, customer, everything=everything)
    for_s = None if span is None else seconds_of(span, option="--for")
    if for_s == 0:
        raise ConfigurationError(f"--for: {span!r} is no time. Write more than 0.")
    configuration = configured(config, store=store, project=project)
    with ordering(configuration, creates=True) as orders:
        order = orders.stop(target, for_s=for_s, by=by or user_name(), reason=reason)
        # It holds already, while people are still being told.
        typer.echo(_said(order))
        typer.echo(f"To let it go on: {_resuming(target)}", err=True)
    with reading(configuration.store) as history:
        _say_if_unknown(history, configuration.project_id, target)


def stops(
    log: Annotated[
        bool,
        typer.Option("--log", help="What people stopped, resumed and raised, and why."),
    ] = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what is stopped: by whom, why and until when."""
    configuration = configured(config, store=store, project=project)
    entries: Sequence[AuditEntry] = ()
    found: Sequence[StopOrder] = ()
    with ordering(configuration, creates=False) as orders:
        if log:
            entries = orders.audit(LOG_MAX)
        else:
            found = orders.stops()
    if as_json:
        content = {"entries": [*map(_entry, entries)]} if log else {}
        listed = {} if log else {"stops": [*map(_order, found)]}
        head = {
            "schema_version": SCHEMA_VERSION,
            "project_id": configuration.project_id,
        }
        typer.echo(document(head | listed | content))
        return
    # Imported late: it brings rich, which JSON has no use for.
    from guardrails.cli.screens.stops import print_log, print_stops

    if log:
        print_log(entries)
    else:
        print_stops(found)


def resume(
    session: SessionOption = None,
    agent: AgentOption = None,
    customer: CustomerOption = None,
    everything: AllOption = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; kept in the log.")
    ] = None,
    by: ByOption = None,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Lift a stop. Of a session it lifts any, also that of a budget or a loop."""
    target = _target(session, agent, customer, everything=everything)
    configuration = configured(config, store=store, project=project)
    with ordering(configuration, creates=False) as orders:
        was_stopped = orders.resume(target, by=by or user_name(), reason=reason)
        others = orders.stops()
    what = safe(target.label)
    if not was_stopped and target.kind is StopKind.SESSION:
        typer.echo(f"guardrails: {what} is not known.", err=True)
        raise typer.Exit(EXIT_FAILURE)
    typer.echo(f"{what} goes on." if was_stopped else f"{what} was not stopped.")
    if others:
        typer.echo("Other stops are in force: guardrails stops", err=True)


def _target(
    session: str | None, agent: str | None, customer: str | None, *, everything: bool
) -> StopTarget:
    """Returns what the options name.

    Raises:
        ConfigurationError: If it is not exactly one thing, or no name.
    """
    names = [name for name in (session, agent, customer) if name is not None]
    if len(names) + everything != 1:
        raise ConfigurationError(
            "name one thing: --session ID, --agent NAME, --customer ID or --all."
        )
    return target_of(
        session_id=session, agent=agent, customer_id=customer, everything=everything
    )


def _say_if_unknown(history: History, project_id: str, target: StopTarget) -> None:
    """Says that a stop holds for nobody so far: its name may be misspelt."""
    by, name = _DIMENSIONS.get(target.kind), target.name
    if by is None or name is None:
        return
    known = recent_names(history, project_id, by=by)
    if name not in known:
        typer.echo(
            f"No call of {safe(target.label)} was booked in the last {NEAR_DAYS} days."
            f"{near_names(name, known)}",
            err=True,
        )


def _said(order: StopOrder) -> str:
    """Says what is in force, which may be an earlier and longer stop."""
    by = f" by {safe(order.by)}" if order.by else ""
    until = "until it is resumed"
    if order.until_ms is not None:
        until = f"until {format_time(order.until_ms)}"
    note = f": {safe(order.note)}" if order.note else ""
    return f"{safe(order.target.label)} is stopped{by} {until}{note}"


def _resuming(target: StopTarget) -> str:
    words = [_OPTIONS[target.kind], *([target.name] if target.name else [])]
    return f"guardrails resume {safe(shlex.join(words))}"


def _order(order: StopOrder) -> dict[str, object]:
    return {
        "kind": order.target.kind.value,
        "name": order.target.name,
        "by": order.by,
        "reason": order.note,
        "since": time_text(order.at_ms),
        "until": time_text(order.until_ms),
    }


def _entry(entry: AuditEntry) -> dict[str, object]:
    target = entry.target
    return {
        "time": time_text(entry.at_ms),
        "action": entry.action.value,
        "kind": target and target.kind.value,
        "name": target and target.name,
        "part": entry.part,
        "by": entry.by,
        "reason": entry.note,
        "until": time_text(entry.until_ms),
        "limits": {
            key: {"before": before, "after": after}
            for key, before, after in changed_limits(entry)
        },
    }
