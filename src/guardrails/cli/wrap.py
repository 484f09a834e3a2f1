"""`guardrails wrap`: a stdio proxy in front of an MCP server."""

import importlib
from typing import Annotated

import typer

__all__ = ["wrap"]


def wrap(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTIONS] -- CMD ...")
    ] = None,
) -> None:
    """Guard an MCP server: put this in front of its command."""
    # By name: it lies with the integrations, which nothing here imports.
    module = importlib.import_module("guardrails_mcp.stdio.command")
    raise typer.Exit(module.main(command or ["--help"]))
