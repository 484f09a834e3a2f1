"""Options: which ledger and which configuration, the same for every command."""

import getpass
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from guardrails.config import Configuration, load_configuration
from guardrails.core.attribution import clean_name
from guardrails.errors import ConfigurationError
from guardrails.spend.asking import HOURS_MAX, checked_hours, checked_where

__all__ = [
    "ByOption",
    "ConfigOption",
    "CsvOption",
    "JsonOption",
    "LimitOption",
    "LookBackOption",
    "ProjectOption",
    "SinceOption",
    "StoreOption",
    "WhereOption",
    "choose_format",
    "configured",
    "hours_of",
    "user_name",
    "where_of",
]

HOURS_DEFAULT = 24

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
SinceOption = Annotated[
    str | None, typer.Option(metavar="SPAN", help="The same, as in 24h or 7d.")
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=GLOB",
        help="Only what matches, as in agent='bot_*'; nothing after the = for what "
        "has no name. More than one of a name: any of them.",
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The ledger, instead of the configured one."),
]
ProjectOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The project, instead of the configured one."),
]
LookBackOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=HOURS_MAX,
        metavar="N",
        help=f"How far to look back; {HOURS_DEFAULT} by default.",
    ),
]
LimitOption = Annotated[
    int, typer.Option(min=0, metavar="N", help="Rows to show; 0 shows all.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The configuration, instead of the nearest guardrails.yaml.",
    ),
]


ByOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who says so, instead of the user here."),
]


def user_name() -> str | None:
    """Returns the name of the user of this process, if it has one."""
    try:
        return clean_name(getpass.getuser())
    except (ImportError, KeyError, OSError):
        return None


def configured(
    config: Path | None, *, store: str | None, project: str | None
) -> Configuration:
    """Loads the configuration as a guard here would, below the options.

    Raises:
        ConfigurationError: If it is wrong.
    """
    return load_configuration(
        config,
        environ=os.environ,
        cwd=Path.cwd(),
        overrides={"store": store, "project_id": project},
    )


def choose_format(*, as_json: bool, as_csv: bool) -> None:
    """Checks that there is one format.

    Raises:
        ConfigurationError: If there are two.
    """
    if as_json and as_csv:
        raise ConfigurationError("--json and --csv: choose one of them.")


def hours_of(hours: int | None, since: str | None) -> int:
    """Returns how far to look back.

    Raises:
        ConfigurationError: If both are given, or the span is wrong.
    """
    if since is None:
        return HOURS_DEFAULT if hours is None else hours
    if hours is not None:
        raise ConfigurationError("--hours and --since: choose one of them.")
    return checked_hours(since, key="--since")


def where_of(given: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """Returns the filter of a report.

    Raises:
        ConfigurationError: If one is no pair, or of no dimension.
    """
    found: dict[str, list[str]] = {}
    for pair in given or ():
        name, sign, pattern = pair.partition("=")
        if not sign:
            raise ConfigurationError(
                f"--where: {pair!r} is no NAME=GLOB. Write one as in "
                "--where agent='bot_*'."
            )
        found.setdefault(name, []).append(pattern)
    return checked_where(found, key="--where")
