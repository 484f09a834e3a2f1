"""`guardrails demo`: a runaway agent, without a guard and with one."""

import importlib

import typer

from guardrails.cli.exits import EXIT_FAILURE

__all__ = ["demo"]


def demo() -> None:
    """Run an agent that gets stuck, unguarded and guarded. No key, no network."""
    typer.echo("Loading LangGraph, a few seconds ...", err=True)
    try:
        # By name: the demo is an agent of a framework, which nothing here imports.
        module = importlib.import_module("guardrails_langchain.demo")
    except ImportError as error:
        typer.echo(
            "guardrails: the demo is a real LangGraph agent, which is not installed: "
            'pip install "guardrails-runtime[langchain]"',
            err=True,
        )
        raise typer.Exit(EXIT_FAILURE) from error
    module.run()
