"""`guardrails demo`: a runaway agent, without and with a guard."""

import importlib

import typer

__all__ = ["demo"]


def demo() -> None:
    """Run an agent that gets stuck, first unguarded, then guarded. No keys needed."""
    try:
        # By name: the demo is an agent of a framework, which nothing here imports.
        module = importlib.import_module("guardrails_langchain.demo")
    except ImportError as error:
        typer.echo(
            "guardrails: the demo runs a real LangGraph agent. Install it with: "
            'pip install "guardrails-runtime[langchain]"',
            err=True,
        )
        raise typer.Exit(1) from error
    module.run()
