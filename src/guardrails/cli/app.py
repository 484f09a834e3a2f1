"""The commands of `guardrails`, put together.

Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 failure, 2 usage or
configuration, 3 a finding, 4 store unreachable; `wrap` returns its child's.
"""

import io
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from guardrails.cli.exits import EXIT_CONFIGURATION, EXIT_FAILURE, EXIT_STORE
from guardrails.errors import ConfigurationError, GuardrailsError, StoreUnavailable

__all__ = ["assembled", "run"]

_STDOUT = 1
"""The number of its file."""

_GROUPS = ("alerts", "budget")
_COMMANDS = {
    "costs": "costs",
    "sessions": "sessions",
    "top": "top",
    "watch": "watch",
    "check": "check",
    "doctor": "doctor",
    "demo": "demo",
    "export": "export",
    "init": "init",
    "prices": "prices",
    "prune": "retention",
    "forget": "retention",
    "schema": "schema",
    "session": "session",
    "simulate": "simulate",
    "alerts": "alerts",
    "budget": "budget",
    "stop": "stops",
    "stops": "stops",
    "resume": "stops",
    "wrap": "wrap",
}
"""Commands in the order of the help, and the module that each is in."""

_PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def assembled(names: Iterable[str] = tuple(_COMMANDS)) -> typer.Typer:
    """Puts commands together.

    Args:
        names: Those that are wanted: importing all of them takes twice as long as
            most reports.
    """
    app = typer.Typer(
        name="guardrails",
        help="Budgets for agents that hold, and where the money went.",
        pretty_exceptions_enable=False,
        add_completion=False,
        # Plain help starts in half the time, and reads as well in a pager.
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name in names:
        module = import_module(f"guardrails.cli.{_COMMANDS[name]}")
        if name in _GROUPS:
            app.add_typer(module.app, name=name)
        elif name == "wrap":
            app.command(add_help_option=False, context_settings=_PASSED_ON)(module.wrap)
        else:
            app.command()(getattr(module, name))
    return app


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.")
    ] = False,
) -> None:
    if version:
        import guardrails

        typer.echo(f"guardrails-runtime {guardrails.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run() -> None:
    """Runs the command that the command line names."""
    _replace_unknown_signs(sys.stdout)
    try:
        try:
            _run()
        finally:
            if sys.stdout is not None:  # Closed, as by `>&-`.
                sys.stdout.flush()
    except OSError as error:
        typer.echo(f"guardrails: {error}", err=True)
        # What is left to write would fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        sys.exit(EXIT_FAILURE)


def _run() -> None:
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        assembled([asked] if asked in _COMMANDS else tuple(_COMMANDS))()
    except ConfigurationError as error:
        typer.echo(f"guardrails: {error}", err=True)
        sys.exit(EXIT_CONFIGURATION)
    except StoreUnavailable as error:
        typer.echo(f"guardrails: {error}", err=True)
        sys.exit(EXIT_STORE)
    except GuardrailsError as error:
        typer.echo(f"guardrails: {error}", err=True)
        sys.exit(EXIT_FAILURE)


def _replace_unknown_signs(stream: object) -> None:
    """Lets a terminal without a sign show another, instead of a traceback."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
