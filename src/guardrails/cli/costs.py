"""`guardrails costs`: where the money went, and how that changed."""

from dataclasses import replace
from typing import Annotated

import typer

from guardrails.cli.exits import EXIT_FINDING
from guardrails.cli.formats import series, units
from guardrails.cli.formats.costs import csv_text, json_text
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
from guardrails.core.reporting.rollups import LAYER
from guardrails.errors import ConfigurationError
from guardrails.reports import CostReport, Series, Span, UnitReport
from guardrails.spend.asking import checked_by, checked_every
from guardrails.spend.reading import Asked, read_costs, read_series, read_units
from guardrails.system.clock import SystemClock

__all__ = ["costs"]

Report = CostReport | Series | UnitReport


def costs(
    hours: LookBackOption = None,
    since: SinceOption = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="session, agent, root_agent, customer, user, feature, prompt_version, "
            "tool, server, model, provider, kind, waste or refused_by; several with "
            "commas. Or layer: what tokens were for.",
        ),
    ] = None,
    where: WhereOption = None,
    every: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Step by step: hour, day or month (UTC)."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Beside the same time before.")
    ] = False,
    per: Annotated[
        str | None, typer.Option(metavar="session", help="What a session costs.")
    ] = None,
    limit: LimitOption = 20,
    fail_on: Annotated[
        str | None,
        typer.Option(metavar="anomaly", help="Exit with 3 if anything is unusual."),
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what was spent, by session or by other dimensions."""
    choose_format(as_json=as_json, as_csv=as_csv)
    _refuse_what_does_not_go_together(by, every=every, compare=compare, per=per)
    _check_fail_on(fail_on, is_series=bool(every or per))
    configuration = configured(config, store=store, project=project)
    asked = Asked(
        project_id=configuration.project_id,
        by=_dimensions(by, every=every, per=per),
        span=Span(hours=hours_of(hours, since), until_ms=SystemClock().now_ms()),
        limit=limit,
        where=where_of(where),
        every=checked_every(every, key="--every"),
    )
    with reading(configuration.store) as history:
        if per:
            report: Report = read_units(history, asked)
        elif every:
            report = read_series(history, asked)
        else:
            report = read_costs(history, asked, compares=compare)
            if fail_on or not as_csv:
                rules = configuration.alerts.anomaly
                report = replace(report, anomalies=asked.anomalies(history, rules))
    _print(report, as_json=as_json, as_csv=as_csv)
    if fail_on and isinstance(report, CostReport) and report.anomalies.found:
        raise typer.Exit(EXIT_FINDING)


def _dimensions(
    by: str | None, *, every: str | None, per: str | None
) -> tuple[str, ...]:
    """Returns what the rows are by; the steps of a series may be by nothing."""
    if by is not None:
        return checked_by(by, key="--by")
    return ("agent",) if per else () if every else ("session_id",)


def _refuse_what_does_not_go_together(
    by: str | None, *, every: str | None, compare: bool, per: str | None
) -> None:
    if per not in (None, "session"):
        raise ConfigurationError(f"--per: {per!r} is not known. Use --per session.")
    if compare and (every or per):
        raise ConfigurationError(
            "--compare: steps and sessions are not compared. Leave --every and --per "
            "out."
        )
    names = by is not None and [name.strip() for name in by.split(",")]
    has_session = names and ("session" in names or "session_id" in names)
    if compare and (by is None or has_session):
        raise ConfigurationError(
            "--compare: a session is hardly ever in both spans. Compare --by agent, "
            "for example."
        )
    if per and names and LAYER in names:
        raise ConfigurationError(
            "--per session: layers are summed up over whole projects. Leave --per out."
        )
    if per and has_session:
        raise ConfigurationError(
            "--per session: --by names what the sessions are of, such as feature."
        )


def _check_fail_on(fail_on: str | None, *, is_series: bool) -> None:
    if fail_on not in (None, "anomaly"):
        raise ConfigurationError(
            f"--fail-on: {fail_on!r} is not known. Use --fail-on anomaly."
        )
    if fail_on and is_series:
        raise ConfigurationError(
            "--fail-on: anomalies are looked for in costs as a whole. Leave --every "
            "and --per out."
        )


def _print(report: Report, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        typer.echo(_json_text(report))
    elif as_csv:
        typer.echo(_csv_text(report), nl=False)
    else:
        # Imported late: it brings rich, which the other formats have no use for.
        from guardrails.cli.screens.costs import render_costs
        from guardrails.cli.screens.steps import render_series, render_units

        if isinstance(report, Series):
            render_series(report)
        elif isinstance(report, UnitReport):
            render_units(report)
        else:
            render_costs(report)


def _json_text(report: Report) -> str:
    if isinstance(report, Series):
        return series.json_text(report)
    if isinstance(report, UnitReport):
        return units.json_text(report)
    return json_text(report)


def _csv_text(report: Report) -> str:
    if isinstance(report, Series):
        return series.csv_text(report)
    if isinstance(report, UnitReport):
        return units.csv_text(report)
    return csv_text(report)
