"""`guardrails costs`: where the money went in the last hours."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from guardrails.cli.formats import csv_text, json_text
from guardrails.cli.ledgers import reading
from guardrails.cli.options import (
    ConfigOption,
    HoursOption,
    JsonOption,
    LimitOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.clock import SystemClock
from guardrails.core.rollups import ROLLUP_DIMENSIONS, Spend
from guardrails.errors import ConfigurationError
from guardrails.ports import History
from guardrails.reports import (
    CostReport,
    Span,
    report_by,
    report_sessions,
    unpriced_names,
    with_cause,
)

__all__ = ["cost_report", "costs"]

CAUSE_EVENTS_MAX = 5_000
"""The last calls of an outlier that its cause is looked for in: 0.1 s to read."""

_SHORT_NAMES = {
    "session": "session_id",
    "customer": "customer_id",
    "user": "user_id",
    "project": "project_id",
}


def costs(
    hours: HoursOption = 24,
    by: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="session, agent, customer_id, user_id, feature, prompt_version, "
            "tool or model.",
        ),
    ] = "session",
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what was spent, by session or by another dimension."""
    dimension = _dimension(by)
    if as_json and as_csv:
        raise ConfigurationError("--json and --csv: choose one of them.")
    configuration = configured(config, store=store, project=project)
    with reading(configuration.store) as history:
        report = cost_report(
            history,
            project_id=configuration.project_id,
            by=dimension,
            span=Span(hours=hours, until_ms=SystemClock().now_ms()),
            limit=limit,
        )
    if as_json:
        typer.echo(json_text(report))
    elif as_csv:
        typer.echo(csv_text(report), nl=False)
    else:
        _show(report)


def cost_report(
    history: History, *, project_id: str, by: str, span: Span, limit: int
) -> CostReport:
    """Reads a report.

    Args:
        history: What a store knows.
        project_id: The project.
        by: One of `ROLLUP_DIMENSIONS`.
        span: The hours to cover.
        limit: Rows to show; 0 shows all.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """

    def spend(by: str) -> Sequence[Spend]:
        return history.spend(
            project_id=project_id,
            by=by,
            since_ms=span.since_ms,
            until_ms=span.until_ms,
        )

    spends = spend(by)
    if by == "session_id":
        report = report_sessions(
            spends,
            history.session_accounts(
                project_id=project_id, session_ids=[s.name for s in spends if s.name]
            ),
            project_id=project_id,
            span=span,
            limit=limit,
        )
    else:
        report = report_by(spends, project_id=project_id, by=by, span=span, limit=limit)
    outliers = [
        with_cause(
            outlier,
            history.events(
                project_id=project_id,
                session_id=outlier.session_id,
                limit=CAUSE_EVENTS_MAX,
            ),
        )
        for outlier in report.outliers
    ]
    has_unpriced = report.total.unpriced_calls > 0
    return replace(
        report,
        outliers=outliers,
        unpriced=unpriced_names(spend("model"), spend("tool")) if has_unpriced else [],
    )


def _dimension(by: str) -> str:
    dimension = _SHORT_NAMES.get(by, by)
    if dimension not in ROLLUP_DIMENSIONS:
        known = ", ".join(ROLLUP_DIMENSIONS)
        raise ConfigurationError(
            f"--by: {by!r} is not a dimension. Use one of {known}."
        )
    return dimension


def _show(report: CostReport) -> None:
    # Imported late: it brings rich, which the other formats have no use for.
    from guardrails.cli.render import render_costs

    render_costs(report)
