"""`guardrails simulate`: limits are tried on what is in the ledger."""

import json
from contextlib import closing
from pathlib import Path

from guardrails import Guard, TokenUsage
from tests.cli.conftest import Run


def limits(folder: Path, text: str) -> str:
    path = folder / "tried.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_it_shows_what_would_have_been_refused(
    command: Run, folder: Path, ledger: str
) -> None:
    tried = limits(folder, "defaults: { session: { max_steps: 1 } }\n")

    done = command("simulate", "--config", tried, "--store", ledger)

    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith(f"Simulated {tried}"[:40])
    assert lines[1] == "5 calls ($0.025) refused, 4 sessions stopped by their limits"
    assert any(line.startswith("s-loop") and "max_steps" in line for line in lines)
    assert max(map(len, lines)) <= max(80, len(lines[0]))


def test_json_has_exact_amounts(command: Run, folder: Path, ledger: str) -> None:
    tried = limits(
        folder,
        "budgets:\n  - { name: all, per: [], every: total, max_cost_usd: 0.02 }\n",
    )

    done = command("simulate", "--config", tried, "--store", ledger, "--json")

    document = json.loads(done.out)
    assert document["schema_version"] == 1
    assert document["calls"] == 9
    assert document["stopped_sessions"] == 0
    assert document["refused_calls"] == sum(
        row["refused_calls"] for row in document["rows"]
    )
    assert {row["limit"] for row in document["rows"]} == {"max_cost_usd"}


def test_limits_that_refuse_nothing_say_so(
    command: Run, folder: Path, ledger: str
) -> None:
    tried = limits(folder, "defaults: { session: { max_steps: 100 } }\n")

    done = command("simulate", "--config", tried, "--store", ledger)

    assert "Nothing would have been refused." in done.out


def test_nothing_is_changed(command: Run, folder: Path, ledger: str) -> None:
    before = command("costs", "--store", ledger, "--json").out
    tried = limits(folder, "defaults: { session: { max_steps: 1 } }\n")

    command("simulate", "--config", tried, "--store", ledger)

    after = command("costs", "--store", ledger, "--json").out
    assert json.loads(before)["rows"] == json.loads(after)["rows"]


def test_limits_that_are_wrong_are_said(command: Run, folder: Path) -> None:
    done = command("simulate", "--config", limits(folder, "max_cost: 1\n"))

    assert done.code == 2
    assert "unknown key" in done.err


def test_suggested_limits_are_a_configuration_that_can_be_tried(
    command: Run, folder: Path
) -> None:
    """Each has its reason; names are no patterns, and too few sessions say nothing."""
    store = f"sqlite:///{folder / 'ledger.sqlite3'}"
    guard = Guard({}, store=store)
    for agent, sessions in (("bot[1]*", 25), ("new", 3)):
        for number in range(sessions):
            with guard.session(agent, session_id=f"{agent}-{number}"):
                for _ in range(1 + number % 3):
                    with guard.call(tool="t", cost_usd="0.01"):
                        pass
    guard.close()

    done = command("simulate", "--suggest", "--since", "2d", "--store", store)

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[3:] == [
        "version: 1",
        "agents:",
        '  "bot[[]1][*]":  # 25 sessions',
        "    session:",
        "      # half used up to $0.02, 99 % up to $0.03; none used more",
        "      max_cost_usd: 0.045",
        "      # half used up to 2, 99 % up to 3; none used more",
        "      max_steps: 4",
        "# new: 3 sessions, too few to say; 20 would do.",
    ]
    tried = limits(folder, done.out)
    again = command("simulate", "--config", tried, "--since", "2d", "--store", store)
    assert "Nothing would have been refused." in again.out
    both = command("simulate", "--config", tried, "--suggest", "--store", store)
    assert both.code == 2
    document = json.loads(
        command("simulate", "--suggest", "--json", "--store", store).out
    )
    assert document["agents"][0]["limits"]["max_cost_usd"] == {
        "limit": "0.045",
        "median": "0.02",
        "p99": "0.03",
        "most": "0.03",
        "sessions_beyond": 0,
    }


def test_it_names_models_that_a_limit_of_cost_would_refuse(
    command: Run, folder: Path
) -> None:
    """Without a price they cost nothing, so that no limit is seen to meet them."""
    ledger = f"sqlite:///{folder}/unpriced.sqlite3"
    with closing(Guard({"store": ledger})) as guard, guard.session("bot"):
        for model in ("nobody-knows", "nobody-knows", "gpt-4o"):
            with guard.call(model=model, provider="openai", input_tokens=9) as call:
                call.settle(TokenUsage(input_tokens=9))

    def tried(text: str) -> tuple[str, dict[str, int]]:
        options = ("simulate", "--config", limits(folder, text), "--store", ledger)
        lines = command(*options).out.splitlines()
        assert max(map(len, lines[1:])) <= 80
        shown = " ".join(lines)
        return shown, json.loads(command(*options, "--json").out)["unpriced"]

    limit = "session: { max_cost_usd: 1 }"
    shown, found = tried(f"defaults: {{ {limit} }}\n")
    assert found == {"nobody-knows": 2}
    assert "2 calls had no price (nobody-knows) and cost nothing here." in shown
    allowed = f"defaults: {{ {limit}, on_unpriced: allow }}\n"
    for harmless in (allowed, "defaults: { session: { max_steps: 9 } }\n"):
        shown, found = tried(harmless)
        assert (found, "no price" in shown) == ({}, False)
