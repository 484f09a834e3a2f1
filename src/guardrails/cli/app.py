"""The commands of `guardrails`, put together.

Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 failure, 2 usage or
configuration, 3 a finding, 4 store unreachable; `wrap` returns its child's.
"""

import io
import sys
from typing import Annotated

import typer

from guardrails.cli import alerts, budget
from guardrails.cli.check import check
from guardrails.cli.costs import costs
from guardrails.cli.demo import demo
from guardrails.cli.doctor import doctor
from guardrails.cli.export import export
from guardrails.cli.init import init
from guardrails.cli.prices import prices
from guardrails.cli.retention import forget, prune
from guardrails.cli.schema import schema
from guardrails.cli.session import session
from guardrails.cli.sessions import sessions
from guardrails.cli.simulate import simulate
from guardrails.cli.stops import resume, stop, stops
from guardrails.cli.top import top
from guardrails.cli.watch import watch
from guardrails.cli.wrap import wrap
from guardrails.errors import ConfigurationError, GuardrailsError, StoreUnavailable

__all__ = ["app", "run"]

EXIT_FAILURE = 1
EXIT_CONFIGURATION = 2
EXIT_STORE = 4

app: typer.Typer = typer.Typer(
    name="guardrails",
    help="Budgets for agents that hold, and where the money went.",
    pretty_exceptions_enable=False,
    add_completion=False,
    # Plain help starts in half the time, and reads as well in a pager.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
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


app.command()(costs)
app.command()(sessions)
app.command()(top)
app.command()(watch)
app.command()(check)
app.command()(doctor)
app.command()(demo)
app.command()(export)
app.command()(init)
app.command()(prices)
app.command()(prune)
app.command()(forget)
app.command()(schema)
app.command()(session)
app.command()(simulate)
app.add_typer(alerts.app, name="alerts")
app.add_typer(budget.app, name="budget")
app.command()(stop)
app.command()(stops)
app.command()(resume)
app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)(wrap)


def run() -> None:
    """Runs the command that the command line names."""
    _replace_unknown_signs(sys.stdout)
    try:
        app()
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
