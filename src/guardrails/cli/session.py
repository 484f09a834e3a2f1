"""`guardrails session ID`: what one session did, and what each part of it cost."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from guardrails.cli.exits import EXIT_FAILURE
from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import time_text
from guardrails.cli.ledgers import reading
from guardrails.cli.near import near_names, recent_names
from guardrails.cli.options import (
    ConfigOption,
    JsonOption,
    LimitOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.cli.screens.limits import limit_text
from guardrails.cli.screens.names import safe
from guardrails.cli.session_report import SessionReport, session_report
from guardrails.core.money import usd
from guardrails.ports import History
from guardrails.reports.budgets import BudgetRow
from guardrails.reports.session_detail import CallRun, Tally
from guardrails.sessions.planning import checked_name

__all__ = ["session"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""


def session(
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session.")],
    limit: LimitOption = 30,
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the calls of a session in order, and who and what cost how much."""
    session_id = checked_name(session_id, "ID")
    configuration = configured(config, store=store, project=project)
    with reading(configuration.store) as history:
        report = session_report(history, configuration, session_id, limit=limit)
        if report.row is None and not report.detail.total.calls:
            _say_unknown(history, configuration.project_id, session_id)
            raise typer.Exit(EXIT_FAILURE)
    if as_json:
        content = _document(report, configuration.project_id)
        typer.echo(document(content))
        return
    # Imported late: it brings rich, which JSON has no use for.
    from guardrails.cli.screens.session import print_session

    print_session(report)


def _say_unknown(history: History, project_id: str, session_id: str) -> None:
    known = recent_names(history, project_id, by="session_id")
    typer.echo(
        f"guardrails: session {safe(session_id)} is not known in this project."
        f"{near_names(session_id, known)}",
        err=True,
    )


# --- JSON --------------------------------------------------------------------


def _document(report: SessionReport, project_id: str) -> dict[str, object]:
    row, account, detail = report.row, report.account, report.detail
    state = account.session if account else None
    stop = account.stop if account else None
    return {
        "schema_version": SCHEMA_VERSION,
        "project_id": project_id,
        "session_id": report.session_id,
        "agent": row and row.agent,
        "customer_id": row and row.customer_id,
        "end": row and row.end,
        "end_reason": row and row.reason,
        "stopped_by": stop and stop.by,
        "stop_note": stop and stop.note,
        "started": time_text(state and state.started_at_ms),
        "last_active": time_text(state and state.last_active_at_ms),
        "wall_time_ms": state and state.active_ms,
        "limits": [_limit(limit) for limit in report.limits],
        **_tally(detail.total),
        "agents": [
            {"agent_path": list(path), **_tally(tally)} for path, tally in detail.agents
        ],
        "names": [{"name": name, **_tally(tally)} for name, tally in detail.names],
        "runs_total": detail.runs_total,
        "runs": [_run(run) for run in detail.runs],
    }


def _limit(row: BudgetRow) -> dict[str, object]:
    return {
        "limit": row.measure.value,
        "used": limit_text(row.measure, row.used),
        "allowed": limit_text(row.measure, row.limit),
    }


def _run(run: CallRun) -> dict[str, object]:
    return {
        "name": run.name,
        "kind": run.kind,
        "agent_path": json.loads(run.agent_path),
        "first": time_text(run.first_ms),
        "last": time_text(run.last_ms),
        **_tally(run.tally),
        "cumulative_usd": f"{usd(run.cumulative_nano_usd):f}",
    }


def _tally(tally: Tally) -> dict[str, object]:
    counts = asdict(tally)
    counts.pop("cost_nano_usd")
    cost = tally.known_nano_usd
    return {"cost_usd": None if cost is None else f"{usd(cost):f}", **counts}
