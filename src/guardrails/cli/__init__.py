"""The command line: `guardrails costs`, `doctor`, `check`, `wrap` and `demo`."""

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line."""
    if sys.argv[1:2] == ["wrap"]:
        # Past typer and its commands, which take longer to import than a server of
        # somebody's takes to start: that one is started first.
        from importlib import import_module

        sys.exit(import_module("guardrails_mcp.stdio.command").main(sys.argv[2:]))
    from guardrails.cli.app import run

    run()
