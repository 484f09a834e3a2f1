"""`guardrails check`: what a guard would enforce here, and where each value is from."""

import os
from pathlib import Path
from typing import Annotated

import typer

from guardrails.config import load_configuration
from guardrails.stores import open_store

__all__ = ["check"]


def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The ledger, instead of the configured one."),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The project, instead of the configured one."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The configuration, instead of the nearest guardrails.yaml.",
        ),
    ] = None,
) -> None:
    """Show what is configured, and where each value came from."""
    overrides = {"store": store, "project_id": project}
    configuration = load_configuration(
        config, environ=os.environ, cwd=Path.cwd(), overrides=overrides
    )
    # As a guard would: a URL that names no store is an error of configuration.
    opened = open_store(configuration.store or "sqlite")
    path = getattr(opened, "path", None)
    opened.close()
    # Imported late: it brings rich, which the other commands may not need.
    from guardrails.cli.settings import sheet_json, sheet_lines, sheet_of

    sheet = sheet_of(configuration, path=path if isinstance(path, Path) else None)
    if as_json:
        typer.echo(sheet_json(sheet))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line, style in sheet_lines(sheet):
        console.print(Text(line, style=style), soft_wrap=True)
