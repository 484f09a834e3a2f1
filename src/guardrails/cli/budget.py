"""`guardrails budget show` and `budget raise`: what is left, and giving more."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer

from guardrails.cli.exits import EXIT_FAILURE
from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import time_text
from guardrails.cli.ledgers import ordering
from guardrails.cli.options import (
    ByOption,
    ConfigOption,
    JsonOption,
    ProjectOption,
    StoreOption,
    configured,
    user_name,
)
from guardrails.cli.screens.limits import limit_text, limit_texts
from guardrails.cli.screens.names import safe
from guardrails.config import Configuration
from guardrails.core.accounts import Account, Line
from guardrails.core.attribution import Attribution
from guardrails.core.limits import effective_limits
from guardrails.core.lines import session_line, shared_lines
from guardrails.core.policy import Budget, Limits
from guardrails.errors import ConfigurationError
from guardrails.orders import Orders
from guardrails.reports.budgets import BudgetRow, budget_rows
from guardrails.system.clock import SystemClock

__all__ = ["app"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

app: typer.Typer = typer.Typer(
    help="Show what budgets have left, and raise a session's.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

SessionOption = Annotated[
    str | None,
    typer.Option("--session", metavar="ID", help="All budgets of this session."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReport:
    """What is known of the budgets that apply."""

    title: str
    rows: list[BudgetRow]
    stop: str | None = None
    """Why the session is stopped."""
    unnamed: tuple[str, ...] = ()
    """Budgets that are kept per something that was not named."""


@app.command("show")
def show(
    session: SessionOption = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", help="For a customer.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="For a user.")
    ] = None,
    feature: Annotated[
        str | None, typer.Option("--feature", metavar="NAME", help="For a feature.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NAME", help="For an agent.")
    ] = None,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show limits that apply, what is used and left."""
    names = {
        "customer_id": customer,
        "user_id": user,
        "feature": feature,
        "agent": agent,
    }
    given = {key: name for key, name in names.items() if name is not None}
    if session is not None and given:
        raise ConfigurationError(
            "budget show: a session names its customer, user, feature and agent "
            "itself. Give --session or the others."
        )
    configuration = configured(config, store=store, project=project)
    with ordering(configuration, creates=False) as orders:
        if session is not None:
            report = _of_session(configuration, orders, session)
        else:
            report = _of_names(configuration, orders, given)
    if as_json:
        typer.echo(_json(report, configuration.project_id))
        return
    # Imported late: it brings rich, which JSON has no use for.
    from guardrails.cli.screens.budgets import print_budgets

    print_budgets(report.title, report.rows, stop=report.stop, unnamed=report.unnamed)


@app.command("raise")
def raise_(
    session: Annotated[
        str, typer.Option("--session", metavar="ID", help="The session.")
    ],
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; kept in the log of stops.")
    ],
    max_cost_usd: Annotated[
        str | None, typer.Option(metavar="USD", help="As in 2.00.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(metavar="N")] = None,
    max_model_calls: Annotated[int | None, typer.Option(metavar="N")] = None,
    max_tool_calls: Annotated[int | None, typer.Option(metavar="N")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N")] = None,
    max_wall_time_s: Annotated[float | None, typer.Option(metavar="SECONDS")] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this agent inside it.")
    ] = None,
    tool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this tool: server/tool.")
    ] = None,
    by: ByOption = None,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Raise a session's limits, and lift a budget's stop."""
    given: dict[str, object] = {
        "max_cost_usd": max_cost_usd,
        "max_steps": max_steps,
        "max_model_calls": max_model_calls,
        "max_tool_calls": max_tool_calls,
        "max_tokens": max_tokens,
        "max_wall_time_s": max_wall_time_s,
    }
    configuration = configured(config, store=store, project=project)
    with ordering(configuration, creates=False) as orders:
        stop = _known(orders, session).stop
        key, policy = orders.limited(session, agent=agent, tool=tool)
        before = orders.account_of(key)
        after = orders.raise_limits(
            session, given, agent=agent, tool=tool, by=by or user_name(), reason=reason
        )
    earlier = dict(limit_texts(effective_limits(policy, before and before.raised)))
    later = dict(limit_texts(effective_limits(policy, after.raised)))
    raised = dict(limit_texts(after.raised or Limits()))
    for key in [key for key, value in given.items() if value is not None]:
        if key in later:
            typer.echo(_change(key, earlier[key], later[key]))
        else:
            typer.echo(f"{key} {raised[key]}, if the agent's code limits it")
    if agent is None and tool is None:
        stop = after.stop
    if stop is not None:
        typer.echo(
            f"It is still stopped ({stop.reason.value}). To let it go on: "
            f"guardrails resume --session {safe(shlex.quote(session))}",
            err=True,
        )


def _change(key: str, earlier: str, later: str) -> str:
    return f"{key} stays {later}" if earlier == later else f"{key} {earlier} > {later}"


def _known(orders: Orders, session_id: str) -> Account:
    """Returns the account of a session; ends the command if it is not known."""
    account = orders.account(session_id)
    if account is None or account.session is None:
        typer.echo(
            f"guardrails: session {safe(session_id)} is not known in this project: "
            "it has made no call.",
            err=True,
        )
        raise typer.Exit(EXIT_FAILURE)
    return account


def _of_session(
    configuration: Configuration, orders: Orders, session_id: str
) -> BudgetReport:
    account = _known(orders, session_id)
    assert account.session is not None
    who, policy = account.session.attribution, configuration.policy
    own = session_line(policy.session_budget(who.agent), who)
    named = [("session", own), *_shared(policy.budgets, who)]
    return BudgetReport(
        title=f"session {session_id}",
        rows=budget_rows(named, _accounts(orders, named)),
        stop=account.stop and account.stop.reason.value,
    )


def _of_names(
    configuration: Configuration, orders: Orders, given: dict[str, str]
) -> BudgetReport:
    try:
        who = Attribution.of(tags=None, project_id=configuration.project_id, **given)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    known = {"project_id", *given}
    budgets = [b for b in configuration.policy.budgets if known.issuperset(b.per)]
    named = _shared(budgets, who)
    return BudgetReport(
        title=", ".join(f"{key} {name}" for key, name in given.items()) or "project",
        rows=budget_rows(named, _accounts(orders, named)),
        unnamed=tuple(
            f"{budget.name} ({', '.join(budget.per)})"
            for budget in configuration.policy.budgets
            if budget not in budgets
        ),
    )


def _shared(budgets: Iterable[Budget], who: Attribution) -> list[tuple[str, Line]]:
    now_ms = SystemClock().now_ms()
    return [
        (budget.name, line)
        for budget in budgets
        for line in shared_lines((budget,), who, now_ms=now_ms)
    ]


def _accounts(orders: Orders, named: list[tuple[str, Line]]) -> dict[str, Account]:
    found = [orders.account_of(line.account) for _, line in named]
    return {account.key: account for account in found if account is not None}


def _json(report: BudgetReport, project_id: str) -> str:
    content = {
        "schema_version": SCHEMA_VERSION,
        "project_id": project_id,
        "stop": report.stop,
        "budgets": [_row(row) for row in report.rows],
    }
    return document(content)


def _row(row: BudgetRow) -> dict[str, object]:
    amounts = {
        "limit": row.limit,
        "used": row.used,
        "held": row.held,
        "unconfirmed": row.unconfirmed,
        "remaining": row.remaining,
    }
    return {
        "budget": row.budget,
        "scope": row.scope,
        "measure": row.measure.value,
        **{name: limit_text(row.measure, value) for name, value in amounts.items()},
        "window_end": time_text(row.ends_at_ms),
        "action": "stop" if row.is_binding else "alert",
    }
