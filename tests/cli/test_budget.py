"""What budgets have left, and raising those of a session."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails import BudgetExceeded, Guard, TokenUsage
from guardrails.core.operations import Sweep
from guardrails.core.reporting.rollups import HOUR_MS
from tests.cli.conftest import Run

CONFIG = """
version: 1
store: {store}
defaults: {{ session: {{ max_cost_usd: 0.02, max_steps: 5, max_wall_time_s: 60 }} }}
budgets:
  - {{ name: customer-month, per: [customer_id], every: month, max_cost_usd: 25 }}
  - {{ name: feature-day, per: [customer_id, feature], every: day, max_cost_usd: 5,
      action: alert }}
  - {{ name: all, per: [], every: total, max_tokens: 1000000 }}
"""


@pytest.fixture
def guard(folder: Path, tmp_path: Path) -> Iterator[Guard]:
    """One whose session `s` is at its limit, with a call in flight."""
    config = folder / "guardrails.yaml"
    store = f"sqlite:///{tmp_path}/ledger.sqlite3"
    config.write_text(CONFIG.format(store=store), encoding="utf-8")
    guard = Guard()
    with guard.session("a", customer_id="acme", session_id="s"):
        ask(guard)
    yield guard
    guard.close()


def ask(guard: Guard) -> None:
    with guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    ) as call:
        call.settle(TokenUsage(input_tokens=4_000))


def test_shows_each_budget_of_a_session(command: Run, guard: Guard) -> None:
    """A row per limit in 80 columns, with what calls in flight hold."""
    with guard.session("a", customer_id="acme", session_id="s"):
        with guard.call(
            model="gpt-4o", provider="openai", input_tokens=400, max_output_tokens=0
        ):
            done = command("budget", "show", "--session", "s")
            content = json.loads(
                command("budget", "show", "--session", "s", "--json").out
            )

    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[0] == "Budgets · session s"
    titles = ["Budget", "Measure", "Limit", "Used", "Held", "Left", "Ends"]
    assert lines[1].split() == titles
    assert lines[2].split() == [
        *("session", "cost", "$0.02", "$0.01", "$0.001", "$0.009", "-")
    ]
    names = [line.split()[0] for line in lines[2:]]
    assert names == ["session"] * 3 + ["customer-month", "feature-day", "all"]
    assert max(map(len, lines)) <= 80
    first, *_, feature, _ = content["budgets"]
    assert content["schema_version"] == 1
    assert {key: first[key] for key in ("limit", "used", "held", "remaining")} == {
        "limit": "0.02",
        "used": "0.01",
        "held": "0.001",
        "remaining": "0.009",
    }
    assert (first["measure"], first["window_end"]) == ("max_cost_usd", None)
    assert (feature["action"], feature["scope"]) == (
        "alert",
        "customer_id=acme,feature=-",
    )
    assert feature["window_end"].endswith("T00:00:00+00:00")


def test_shows_what_calls_may_have_cost_whose_process_died(
    command: Run, guard: Guard
) -> None:
    """It counts as used, and nobody knows yet."""
    with guard.session("a", customer_id="acme", session_id="s"):
        call = guard.call(
            model="gpt-4o", provider="openai", input_tokens=400, max_output_tokens=0
        )
        call.reserve()
    guard.store.execute(Sweep(now_ms=guard.engine.clock.now_ms() + HOUR_MS))
    done = command("budget", "show", "--session", "s")

    titles, first = done.out.splitlines()[1:3]
    assert titles.split()[4:7] == ["Held", "Unconfirmed", "Left"]
    assert first.split()[4:7] == ["$0", "$0.001", "$0.009"]
    assert max(map(len, done.out.splitlines())) <= 80


def test_shows_the_budgets_of_a_customer(command: Run, guard: Guard) -> None:
    """And names those that it would take more to know."""
    done = command("budget", "show", "--customer", "acme")
    nobody = command("budget", "show", "--json")

    assert [line.split()[0] for line in done.out.splitlines()[2:4]] == [
        "customer-month",
        "all",
    ]
    assert "$0.01" in done.out
    assert "feature-day (customer_id, feature)" in done.out
    assert [row["budget"] for row in json.loads(nobody.out)["budgets"]] == ["all"]


def test_raising_lets_a_session_go_on(command: Run, guard: Guard) -> None:
    """The stop of its budget is lifted, and the log says who and why."""
    with guard.session("a", customer_id="acme", session_id="s"):
        ask(guard)
        with pytest.raises(BudgetExceeded):
            ask(guard)
        stopped = command("budget", "show", "--session", "s")
        raised = command(
            *("budget", "raise", "--session", "s", "--max-cost-usd", "2.00"),
            *("--max-steps", "4", "--by", "ops", "--reason", "big customer"),
        )
        ask(guard)
    entries = json.loads(command("stops", "--log", "--json").out)["entries"]

    assert "stopped: budget_exceeded" in stopped.out
    assert raised.code == 0
    assert raised.out == "max_cost_usd 0.02 > 2\nmax_steps stays 5\n"
    assert [(e["by"], e["reason"], e["name"]) for e in entries] == [
        ("ops", "big customer", "s")
    ]
    assert entries[0]["limits"] == {"max_cost_usd": {"before": "0.02", "after": "2"}}


def test_raising_a_limit_that_only_the_code_has_says_to_what(
    command: Run, folder: Path, tmp_path: Path
) -> None:
    """The log says so, too."""
    store = f"sqlite:///{tmp_path}/ledger.sqlite3"
    guard = Guard({}, store=store, max_cost_usd="0.02")
    with guard.session("a", session_id="s"):
        ask(guard)
        raised = command(
            *("budget", "raise", "--session", "s", "--max-cost-usd", "2.00"),
            *("--store", store, *WHY),
        )
        for _ in range(3):
            ask(guard)
    guard.close()
    log = command("stops", "--log", "--json", "--store", store).out

    assert raised.out == "max_cost_usd 2, if the agent's code limits it\n"
    [entry] = json.loads(log)["entries"]
    assert entry["limits"] == {"max_cost_usd": {"before": None, "after": "2"}}


def test_raising_lifts_no_stop_of_a_person(command: Run, guard: Guard) -> None:
    """It says so, and how to go on."""
    guard.stop("s", by="ops")
    done = command("budget", "raise", "--session", "s", "--max-steps", "9", *WHY)

    assert done.code == 0
    assert "still stopped (killed)" in done.err


WHY = ("--reason", "why")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "--session", "nobody"), 1, "session nobody is not known"),
        (
            ("raise", "--session", "nobody", "--max-steps", "9", *WHY),
            1,
            "session nobody is not known",
        ),
        (("raise", "--session", "s", *WHY), 2, "name a limit"),
        (("raise", "--session", "s", "--max-steps", "9"), 2, "--reason"),
        (
            ("raise", "--session", "s", "--max-cost-usd", "much", *WHY),
            2,
            "max_cost_usd",
        ),
        (("raise", "--max-steps", "9", *WHY), 2, "--session"),
        (("show", "--session", "s", "--customer", "acme"), 2, "names its customer"),
        (("show", "--customer", ""), 2, "customer_id"),
    ],
)
def test_what_is_wrong_is_said(
    command: Run, guard: Guard, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """With the exit code of its kind, and nothing on stdout."""
    done = command("budget", *arguments)

    assert done.code == code
    assert message in done.err
    assert done.out == ""


def test_without_a_ledger_a_session_is_not_known(command: Run) -> None:
    """And none is made."""
    done = command("budget", "show", "--session", "s")
    everything = command("budget", "show")

    assert done.code == 1
    assert "there is no ledger" in done.err
    assert "Nothing is limited." in everything.out
