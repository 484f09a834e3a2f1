"""Each end of a budget holds over two processes with one ledger and one thread.

A round of two tools costs two cents and an answer one, of ten. What ran is counted
where it ran, in a file that both write to.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from guardrails import Guard
from tests.integrations.langchain.stages import run, runs_in

PROJECT = Path(__file__).parents[3]
CENT = 10_000_000


def started(name: str, folder: Path, *options: str) -> "subprocess.Popen[str]":
    stages = "tests.integrations.langchain.stages"
    return subprocess.Popen(
        [sys.executable, "-m", stages, name, str(folder), *options],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = process.communicate(timeout=50)
    assert process.returncode == 0
    return json.loads(out)


def elsewhere(name: str, folder: Path, on_limit: str) -> dict[str, Any]:
    """Runs a stage in another process."""
    return ended(started(name, folder, on_limit))


def guard_of(folder: Path) -> Guard:
    return Guard({}, store=f"sqlite:///{folder}/ledger.sqlite3")


def account_of(folder: Path) -> Any:
    guard = guard_of(folder)
    account = guard.account("t-1")
    guard.close()
    assert account is not None
    assert account.held_nano_usd == account.unconfirmed_nano_usd == 0
    runs = Counter(runs_in(folder))
    assert account.model_calls == runs["model"] + runs["closing"]
    assert account.tool_calls == runs["tool"]
    assert account.posted_nano_usd == (
        CENT * account.model_calls + CENT // 2 * account.tool_calls
    )
    return account


def raise_limit(folder: Path) -> None:
    guard = guard_of(folder)
    guard.raise_limit("t-1", max_cost_usd="1")
    guard.close()


def test_finishing(tmp_path: Path) -> None:
    """The second process ends at the limit that the first one came close to."""
    first = elsewhere("ask", tmp_path, "finish")
    second = run("ask", tmp_path, "finish")

    assert first["last"] == "done"
    assert first["mark"] is None
    assert second["last"] == "this is what I have"
    assert second["mark"]["cut_short"]
    assert not second["defects"]
    assert second["next"] == []
    assert runs_in(tmp_path)[-1] == "closing"
    assert 8 * CENT < account_of(tmp_path).posted_nano_usd <= 10 * CENT

    third = run("ask", tmp_path, "finish")
    assert third["raised"] == "BudgetExceeded"
    raise_limit(tmp_path)
    fourth = run("go on", tmp_path, "finish")
    assert fourth["last"] == "done"
    assert not fourth["defects"]
    account_of(tmp_path)


def test_finishing_at_once(tmp_path: Path) -> None:
    """Two processes in one session: one closing call, and no limit passed."""
    other = started("ask", tmp_path, "finish", "thread-2")
    ends = [run("ask", tmp_path, "finish", f"thread-{n}") for n in (1, 3, 4)]
    ends.append(ended(other))

    assert runs_in(tmp_path).count("closing") == 1
    assert account_of(tmp_path).posted_nano_usd <= 10 * CENT
    marked = [end for end in ends if end["mark"] and end["mark"]["cut_short"]]
    assert len(marked) == 1
    assert {end["raised"] for end in ends if end not in marked} <= {
        None,
        "BudgetExceeded",
    }


def test_pausing(tmp_path: Path) -> None:
    """A person answers in another process than the one that asked."""
    run("ask", tmp_path, "pause")
    first = elsewhere("ask", tmp_path, "pause")
    before = account_of(tmp_path)
    second = run("resume", tmp_path, "pause")

    (question,) = first["questions"]
    assert question["allowed"] == "0.10"
    assert question["session_id"] == "t-1"
    assert before.posted_nano_usd <= 10 * CENT
    assert second["last"] == "done"
    assert not second["defects"]
    assert second["questions"] == []
    account_of(tmp_path)
    guard = guard_of(tmp_path)
    assert [entry.by for entry in guard.audit()] == ["ann"]
    guard.close()


@pytest.mark.parametrize("blocked", ["tools", "model"])
def test_raising(tmp_path: Path, blocked: str) -> None:
    """Only what was blocked runs again; whatever ran keeps its result, billed once."""
    run("ask", tmp_path, "raise")
    if blocked == "model":  # Half a cent more, and both tools still fit.
        guard = guard_of(tmp_path)
        with guard.session(session_id="t-1"), guard.call(tool="x", cost_usd="0.005"):
            pass
        guard.close()
        with (tmp_path / "runs.log").open("a", encoding="utf-8") as log:
            log.write("tool\n")
    first = elsewhere("ask", tmp_path, "raise")
    before = runs_in(tmp_path)
    raise_limit(tmp_path)
    second = run("go on", tmp_path, "raise")

    assert first["raised"] == "BudgetExceeded"
    assert set(first["next"]) == {blocked}
    assert second["last"] == "done"
    assert not second["defects"]
    assert runs_in(tmp_path)[: len(before)] == before
    assert len(set(second["results"])) == len(second["results"]) == 2 * 6
    account_of(tmp_path)
