"""`guardrails check`: what a guard would enforce here, and where each value is from."""

from pathlib import Path

import typer

from guardrails.cli.options import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.stores import open_store

__all__ = ["check"]


def check(
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what is configured, and where each value came from."""
    configuration = configured(config, store=store, project=project)
    # As a guard would: a URL that names no store is an error of configuration.
    opened = open_store(configuration.store or "sqlite")
    path = getattr(opened, "path", None)
    opened.close()
    # Imported late: it brings rich, which the other commands may not need.
    from guardrails.cli.screens.settings import sheet_json, sheet_lines, sheet_of

    sheet = sheet_of(configuration, path=path if isinstance(path, Path) else None)
    if as_json:
        typer.echo(sheet_json(sheet))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line, style in sheet_lines(sheet):
        console.print(Text(line, style=style), soft_wrap=True)
