"""A command line to call, and a ledger to ask it about."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guardrails import Guard, LoopDetected, TokenUsage

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Run:
    """Calls `guardrails` in a process of its own, in an empty directory."""
    folder = tmp_path / "cwd"
    folder.mkdir()

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from guardrails.cli import main; main()"]
            + list(arguments),
            capture_output=True,
            check=False,
            cwd=folder,
            encoding="utf-8",
            env={
                **os.environ,
                "COLUMNS": "80",
                "PYTHONIOENCODING": "utf-8",
                **environ,
            },
            timeout=50,
        )

    return run


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """The URL of a ledger with three sessions of two customers."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    guard = Guard({}, store=url, max_cost_usd="0.10")
    for number, customer_id in enumerate(("acme", "globex", None), start=1):
        with guard.session(
            "support-agent", customer_id=customer_id, session_id=f"s-{number}"
        ):
            with guard.call(
                model="gpt-4o", provider="openai", input_tokens=4_000 * number
            ) as call:
                call.settle(TokenUsage(input_tokens=4_000 * number, output_tokens=0))
            with guard.call(
                tool="geocode", server="maps", cost_usd="0.005", arguments=number
            ) as call:
                call.settle(result="no match")
    _loop(guard)
    guard.close()
    return url


def _loop(guard: Guard) -> None:
    @guard.tool(server="maps", cost_usd="0.005")
    def geocode(address: str) -> str:
        return "no match"

    with guard.session("support-agent", customer_id="acme", session_id="s-loop"):
        try:
            while True:
                geocode("Atlantis")
        except LoopDetected:
            pass
