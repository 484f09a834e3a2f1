"""Examples: each runs as it stands, offline, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guardrails import Guard

FOLDER = Path(__file__).parent.parent / "examples"
LINES_MAX = 60

OUTPUTS = {
    "create_agent_two_lines": """\
support-agent spent $0.0435 of $0.05 in 20 steps
most of it on gpt-4o: $0.0435 in 10 calls
status: budget_exceeded
""",
    "callbacks_with_attribution": """\
spent $0.017 in 2 steps, completed
remaining $0.033
gpt-4o for acme/ticket-summary/v12
gpt-4o for acme/ticket-summary/v12
globex $0.0085
""",
    "mcp_gateway": """\
sunny in Paris
sunny in Rome
Not called: guardrails refused it
""",
    "mcp_session": """\
no match for 0 Main Street
no match for 1 Main Street
no match for 2 Main Street
support-agent: $0.015 of $0.015
geocoding-mcp/geocode ok
""",
    "finish_with_an_answer": """\
After 8 searches: it is probably geese.
cut short by max_cost_usd: 0.04
spent $0.03915 in 17 steps, budget_exceeded
""",
    "guarded_function": """\
Refund order A-17.
A-17: try again later
A-17: try again later
A-17: try again later
billing/refund made the same call 3 times for $0.006
spent $0.00618, loop_detected
""",
}


NEEDS = {"mcp_gateway": "fastmcp", "mcp_session": "mcp"}
"""What an example needs that not every environment has."""


def run(name: str) -> str:
    """Runs an example where a user would find it, beside guardrails.yaml."""
    done = subprocess.run(
        [sys.executable, f"{name}.py"],
        capture_output=True,
        check=False,
        cwd=FOLDER,
        encoding="utf-8",
        # Whatever tries to reach the network fails at once.
        env={**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9"},
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_an_example_shows_what_it_is_there_for(name: str) -> None:
    """What it prints is the same each time."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    assert run(name) == OUTPUTS[name]


def test_customers_share_no_budget_and_pass_none() -> None:
    """Eight runs of one customer want $0.04 of its $0.03; the other has enough."""
    lines = run("asyncio_service").splitlines()

    answered = lines.count("acme: answered")
    assert 1 <= answered <= 5
    assert lines.count("globex: answered") == 2
    refused = [line for line in lines if not line.endswith("answered")]
    assert len(refused) == 8 - answered
    assert all(re.match("acme: .* budget ", line) for line in refused)


def test_the_configuration_loads_and_limits() -> None:
    """Every key of the commented file is one of this version."""
    guard = Guard(FOLDER / "guardrails.yaml", store="memory://")

    policy = guard.configuration.policy
    assert guard.configuration.project_id == "shop"
    assert [budget.name for budget in policy.budgets] == [
        "customer-month",
        "feature-day",
    ]
    assert str(guard.session("summarizer").remaining) == "0.05"
    assert str(guard.session("anybody").remaining) == "0.50"


def test_examples_are_short_and_tested() -> None:
    """What does not fit on a screen is a program, not an example."""
    paths = [*FOLDER.glob("*.py"), *FOLDER.glob("*.yaml")]
    lengths = {path.stem: len(path.read_text("utf-8").splitlines()) for path in paths}

    assert lengths.keys() == {*OUTPUTS, "asyncio_service", "guardrails"}
    assert not {name: length for name, length in lengths.items() if length > LINES_MAX}
