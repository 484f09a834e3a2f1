"""Options: which ledger and which configuration, the same for every command."""

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer

from guardrails.config import Configuration, load_configuration
from guardrails.core.attribution import clean_name

__all__ = [
    "ByOption",
    "ConfigOption",
    "HoursOption",
    "JsonOption",
    "LimitOption",
    "ProjectOption",
    "StoreOption",
    "configured",
    "user_name",
]

HOURS_MAX = 24 * 366
"""A leap year."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StoreOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The ledger, instead of the configured one."),
]
ProjectOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The project, instead of the configured one."),
]
HoursOption = Annotated[
    int, typer.Option(min=1, max=HOURS_MAX, metavar="N", help="How far to look back.")
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
