"""The outlier example: what it prints adds up, and its page shows what it prints."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from guardrails.cli import main

EXAMPLE = Path(__file__).parent.parent / "examples" / "outlier"
PAGE = (EXAMPLE / "README.md").read_text("utf-8")
COMMANDS = re.compile(r"^```console\n\$ (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = dict(COMMANDS.findall(PAGE))
"""What the page shows of each command."""

TIME = re.compile(r"\w{3} \d\d,? \d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d|\d\d:\d\d:\d\d")
OUTLIER = "ticket-631"

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where the example ran, and what it said."""
    folder = tmp_path_factory.mktemp("fleet")
    for name in ("fleet.py", "guardrails.yaml"):
        shutil.copy(EXAMPLE / name, folder)
    done = subprocess.run(
        [sys.executable, "fleet.py"],
        capture_output=True,
        check=False,
        cwd=folder,
        encoding="utf-8",
        env={**os.environ, "XDG_DATA_HOME": str(folder / "data")},
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def ask(
    fleet: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ask:
    """Calls `guardrails` where the example ran."""
    monkeypatch.chdir(fleet[0])
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["guardrails", *arguments])
        with pytest.raises(SystemExit, match=r"^(0|None)?$"):
            main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def report(ask: Ask) -> Callable[..., dict[str, Any]]:
    return lambda *arguments: json.loads(ask(*arguments, "--json"))


Report = Callable[..., dict[str, Any]]


def usd(row: dict[str, Any], key: str = "cost_usd") -> Decimal:
    return Decimal(row[key])


def without_times(text: str) -> str:
    return TIME.sub(lambda time: re.sub(r"\w", "0", time.group()), text)


def test_the_page_shows_what_it_prints(ask: Ask, fleet: tuple[Path, str]) -> None:
    """Every command of the page, run where the example ran."""
    run, *asked = SHOWN
    assert (run, SHOWN[run]) == ("python fleet.py", fleet[1])
    assert len(asked) == 6
    for command in asked:
        shown = SHOWN[command]
        said = ask(*command.removeprefix("guardrails ").split())
        assert without_times(said) == without_times(shown), command


@pytest.mark.parametrize("by", ["session", "tool", "agent", "customer", "agent,kind"])
def test_rows_and_what_is_hidden_add_up_to_the_total(report: Report, by: str) -> None:
    costs = report("costs", "--by", by, "--limit", "2")

    shown = sum(map(usd, costs["rows"]))
    others = usd(costs["others"]) if "others" in costs else 0
    assert shown + others == usd(costs)
    for row in (costs, *costs["rows"]):
        assert usd(row, "llm_usd") + usd(row, "tools_usd") == usd(row)
        assert row["model_calls"] + row["tool_calls"] == row["steps"]


def test_all_sessions_add_up_to_the_total(report: Report) -> None:
    costs = report("costs", "--limit", "0")

    rows = costs["rows"]
    assert len(rows) == costs["rows_total"] == 847
    for key in ("cost_usd", "llm_usd", "tools_usd"):
        assert sum(usd(row, key) for row in rows) == usd(costs, key)
    for key in ("steps", "model_calls", "tool_calls", "input_tokens"):
        assert sum(row[key] for row in rows) == costs[key]


def test_the_outlier_costs_so_many_medians_of_its_agent(
    ask: Ask, report: Report
) -> None:
    costs = report("costs", "--limit", "0")
    found, loop = costs["anomalies"]
    [outlier] = [row for row in costs["rows"] if row["session_id"] == OUTLIER]
    others = [
        usd(row)
        for row in costs["rows"]
        if row["agent"] == outlier["agent"] and row is not outlier
    ]

    median = statistics.median(others)
    assert (found["name"], found["n"]) == (OUTLIER, len(others))
    assert usd(found) == usd(found, "measured") == usd(outlier) == 47
    assert usd(found, "expected") == median
    assert found["ratio"] == pytest.approx(float(usd(outlier) / median), abs=0.01)
    assert f"cost $47.00, {usd(outlier) / median:.0f} times the median" in ask("costs")
    assert loop["excess_usd"] == costs["waste"]["by"]["repeat"]


def test_calls_of_the_loop_are_those_that_the_session_folds(report: Report) -> None:
    found, loop = report("costs")["anomalies"]
    session = report("session", OUTLIER, "--limit", "0")
    [tool] = [row for row in session["names"] if row["name"] == found["about"]]
    folded = [run for run in session["runs"] if run["name"] == found["about"]]

    assert [run["calls"] for run in folded] == [38] * 47
    assert sum(run["calls"] for run in folded) == tool["calls"] == found["calls"]
    assert loop["calls"] == found["calls"] - 1
    assert sum(map(usd, session["runs"])) == usd(session) == 47
    assert session["runs"][-1]["cumulative_usd"] == session["cost_usd"]
    assert f"{found['calls']:,} times" in (EXAMPLE / "fleet.py").read_text("utf-8")
