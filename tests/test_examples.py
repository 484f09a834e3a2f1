"""Every example runs as it stands, offline, and prints what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

from guardrails.config import load_configuration

EXAMPLES = Path(__file__).parent.parent / "examples"
LINES_MAX = 60

OUTPUT = {
    "asyncio_service.py": [
        "acme: 20 of 50 requests served",
        "globex: 20 of 50 requests served",
    ],
    "callbacks_with_attribution.py": [
        "spent $0.006, $0.994 left, 2 steps",
        "acme ticket-summary v12 gpt-4o ok",
        "acme ticket-summary v12 gpt-4o ok",
        "globex is guarded too",
    ],
    "create_agent_two_lines.py": [
        "Stopped by max_cost_usd: $0.045 of $0.05 used",
        "The model was called 15 times",
    ],
    "guarded_function.py": [
        "billing/refund was called 3 times with the same result",
        "spent $0.0061425 in 4 steps: loop_detected",
    ],
}


def test_every_example_is_listed_here() -> None:
    """An example that is not executed is not trusted."""
    assert sorted(OUTPUT) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", sorted(OUTPUT))
def test_an_example_prints_what_it_promises(name: str, tmp_path: Path) -> None:
    """It runs in an empty directory and needs nothing."""
    path = EXAMPLES / name
    done = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == OUTPUT[name]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX
    assert list(tmp_path.iterdir()) == []


def test_the_example_configuration_loads() -> None:
    """Every key of it is one of this version."""
    loaded = load_configuration(
        EXAMPLES / "guardrails.yaml", environ={}, cwd=None, overrides={}
    )
    budget = loaded.policy.session_budget("support-agent")

    assert loaded.store == "sqlite"
    assert budget.limits.cost_nano_usd == 1_000_000_000
    assert budget.limits.steps == 40
    assert [shared.name for shared in loaded.policy.budgets] == [
        "customer-month",
        "everything",
    ]
