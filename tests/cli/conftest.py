"""A command line to call, and a ledger to ask it about."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from guardrails import Guard, LoopDetected, TokenUsage
from guardrails.cli import main
from guardrails.system.clock import SystemClock
from guardrails.testing import FakeClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command left: as of a process, whether it was one or not."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]

GUARDRAILS = (sys.executable, "-c", "from guardrails.cli import main; main()")
"""The command, whether or not its script is on the PATH."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    return folder


@pytest.fixture
def command(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Calls `guardrails` in this process."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["guardrails", *arguments])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        assert isinstance(code, int | None)
        return Done(code=code or 0, out=said.out, err=said.err)

    return run


@pytest.fixture
def process(folder: Path) -> Run:
    """Calls `guardrails` in a process of its own."""

    def run(*arguments: str, **environ: str) -> Done:
        done = subprocess.run(
            [*GUARDRAILS, *arguments],
            capture_output=True,
            check=False,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **environ},
            timeout=50,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """The URL of a ledger with three sessions of two customers."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    # Its calls take no time, however busy the machine is: no report tells of any.
    clock = FakeClock(now_ms=SystemClock().now_ms())
    guard = Guard({}, store=url, max_cost_usd="0.10", clock=clock)
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
