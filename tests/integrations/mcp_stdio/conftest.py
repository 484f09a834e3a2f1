"""Hosts with servers behind the proxy, and ledgers to ask about them."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.mcp_stdio.hosts import WRAP, Host, clean_environment

Run = Callable[..., Any]


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Run]:
    """Starts servers without the proxy."""
    with ExitStack() as hosts:

        def start(*command: str, options: Any = None, **environ: str) -> Host:
            environment = clean_environment(tmp_path, **environ)
            host = Host(command, environ=environment, cwd=tmp_path, **(options or {}))
            return hosts.enter_context(host)

        yield start


@pytest.fixture
def proxied(direct: Run) -> Run:
    """Starts servers behind the proxy."""

    def start(*command: str, **options: Any) -> Host:
        return direct(*WRAP, "--server", "srv", "--", *command, **options)

    return start


@pytest.fixture
def guardrails(tmp_path: Path) -> Run:
    """Calls `guardrails` with `--json` on the ledger of this test."""

    def run(*arguments: str, **environ: str) -> Any:
        done = subprocess.run(
            [*WRAP[:-1], *arguments, "--json"],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env=clean_environment(tmp_path, **environ),
            timeout=50,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def balance(guardrails: Run) -> Callable[[], str]:
    """Asks the doctor whether the ledger adds up."""

    def ask() -> str:
        checks = {check["name"]: check for check in guardrails("doctor")["checks"]}
        return checks["balance"]["status"]

    return ask


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[str], None]:
    """Writes the `guardrails.yaml` of this test."""

    def write(text: str) -> None:
        (tmp_path / "guardrails.yaml").write_text(text, encoding="utf-8")

    return write
