"""The command line: `guardrails costs`, `doctor`, `check`, `wrap` and `demo`."""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line."""
    if sys.argv[1:2] == ["wrap"]:
        # Past typer and its commands, which take longer to import than a server of
        # somebody's takes to start: that one is started first.
        from importlib import import_module

        _prefer_own_modules()
        sys.exit(import_module("guardrails_mcp.stdio.command").main(sys.argv[2:]))
    from guardrails.cli.app import run

    run()


def _prefer_own_modules() -> None:
    """Puts the folders of `PYTHONPATH` behind all others, where we import from.

    Clients set it for the server, whose modules may be called as ours, or be of another
    Python. Not so if this package comes from there itself.
    """
    from pathlib import Path

    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    theirs = {Path(folder).resolve() for folder in given}
    if Path(__file__).resolve().parents[2] not in theirs:
        sys.path.sort(key=lambda folder: Path(folder).resolve() in theirs)
