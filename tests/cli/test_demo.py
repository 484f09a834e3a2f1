"""The demo: what it claims is true, and it leaves nothing behind."""

import io
import logging
import os
import re
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from guardrails_langchain import demo
from tests.cli.conftest import Run
from tests.screens.screens import DEMO, demo_page


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the demo prints, run once, where a user has settings of their own."""
    file = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        Path("guardrails.yaml").write_text("mode: off\n", encoding="utf-8")
        patch.setenv("GUARDRAILS_MAX_STEPS", "1")
        patch.setenv("GUARDRAILS_SESSION_ID", "mine")
        patch.setenv("LANGSMITH_TRACING", "true")
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("tmp")))
        before = dict(os.environ)
        demo.run(Console(file=file, width=80, color_system=None))
        assert dict(os.environ) == before
        assert not list(Path(tempfile.gettempdir()).iterdir())
    return file.getvalue()


def scene(shown: str, number: int) -> str:
    """Returns the part of the output that shows one scene."""
    begin = shown.index(f"\n{number}. ")
    return shown[begin : shown.index("\n\n", begin)]


def fact(scene: str, label: str) -> str:
    """Returns what a scene says under a label, on one line."""
    found = re.search(rf"^   {label} +(.+(?:\n {{19}}.+)*)", scene, re.MULTILINE)
    assert found is not None, (label, scene)
    return re.sub(r"\n +", " ", found.group(1))


def test_the_proxy_limits_an_agent_that_knows_nothing_of_it(shown: str) -> None:
    """The model reads the refusal, and gives its answer."""
    wrapped = scene(shown, 4)

    assert fact(wrapped, "Tool calls").startswith("9 asked for, 8 reached the server")
    assert "guardrails refused it" in fact(wrapped, "Model was told")
    assert fact(wrapped, "Ended by").startswith("its own answer: I tried 8 addresses")


def test_the_screen_of_the_documentation_is_up_to_date(shown: str) -> None:
    assert demo_page(shown) == DEMO.read_text("utf-8"), "make screens"


def test_every_line_fits_80_columns(shown: str) -> None:
    """Also where the output goes into a file."""
    assert max(map(len, shown.splitlines())) <= 80


def test_nothing_stops_the_unguarded_agent(shown: str) -> None:
    """It is recorded, and ends only because the demo does."""
    first = scene(shown, 1)

    assert fact(first, "Ended by") == "the 300 steps that this demo gives it"
    assert fact(first, "Calls") == "150 of the model, 150 of the tool"
    assert fact(first, "Spent") == "$1.4025"


def test_the_limit_is_never_passed(shown: str) -> None:
    """The stop comes within one call of the limit, and not above it."""
    second = scene(shown, 2)

    assert fact(second, "Ended by").startswith("BudgetExceeded: support-agent stopped")
    spent, limit = re.findall(r"\$([0-9.]+)", fact(second, "Spent"))
    assert Decimal("0.23") < Decimal(spent) <= Decimal(limit) == Decimal("0.25")


def test_nothing_paid_starts_after_the_stop(shown: str) -> None:
    """The program runs the session again: it is refused before the first call."""
    second = scene(shown, 2)

    assert fact(second, "Run once more") == "BudgetExceeded"
    assert fact(second, "After the stop") == "0 model calls, 0 tool calls"


def test_a_loop_is_stopped_at_the_third_call(shown: str) -> None:
    """Long before the limit."""
    third = scene(shown, 3)

    assert fact(third, "Ended by").startswith("LoopDetected")
    assert fact(third, "Calls") == "3 of the model, 3 of the tool"


def test_the_tables_are_those_of_the_command(shown: str) -> None:
    """They show the ledger of the scenes: who spent it, and on what."""
    assert "$ guardrails costs --hours 24\nCosts · last 24 h · 4 sessions" in shown
    assert re.search(r"^1-unguarded .* \$1\.403 .* ✓", shown, re.MULTILINE)
    assert re.search(r"^2-limited .* ■ cost", shown, re.MULTILINE)
    assert re.search(r"^3-looping .* ▲ loop", shown, re.MULTILINE)
    assert re.search(r"^4-wrapped .* ■ cost", shown, re.MULTILINE)
    assert re.search(r"^Waste \$\d\.\d+ \(\d+%\): .*repeats", shown, re.MULTILINE)
    assert "insufficient_data: " in shown, "four sessions have no usual cost"
    assert re.search(r"^geocoding-mcp/geocode +187 ", shown, re.MULTILINE)


def test_warnings_are_shown_in_their_place(shown: str) -> None:
    """What the guard logs is part of the output, and the logger is as before."""
    logged = fact(scene(shown, 2), "Logged")

    assert logged.startswith("guardrails: support-agent stopped: budget_exceeded")
    assert logging.getLogger("guardrails").propagate


def test_without_langchain_the_demo_says_what_to_install(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base installation has no agent to show."""
    monkeypatch.setitem(sys.modules, "guardrails_langchain.demo", None)

    done = command("demo")

    assert done.code == 1
    assert 'pip install "guardrails-runtime[langchain]"' in done.err
    assert done.out == ""


def test_the_command_runs_the_demo(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`guardrails demo` is the same as `make demo`."""
    runs: list[str] = []
    monkeypatch.setattr(demo, "run", lambda: runs.append("run"))

    assert command("demo").code == 0
    assert runs == ["run"]
