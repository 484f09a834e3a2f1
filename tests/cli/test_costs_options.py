"""`guardrails costs` by any dimensions: options, formats, and what does not fit."""

import csv
import io
import json
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from guardrails import Guard, TokenUsage
from tests.cli.conftest import Run


def report(command: Run, ledger: str, *options: str) -> dict[str, Any]:
    done = command("costs", *options, "--json", "--store", ledger)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_by_two_dimensions_with_a_filter(command: Run, ledger: str) -> None:
    """Short names and globs; an empty pattern is what has no name."""
    found = report(
        command, ledger, "--by", "customer, tool",
        "--where", "tool=maps/*", "--where", "customer=a*", "--where", "customer=",
    )  # fmt: skip
    rows = [(row["customer_id"], row["tool"], row["cost_usd"]) for row in found["rows"]]

    assert found["by"] == "customer_id,tool"
    assert found["where"] == {"tool": ["maps/*"], "customer_id": ["a*", ""]}
    assert rows == [
        ("acme", "maps/geocode", "0.02"),
        (None, "maps/geocode", "0.005"),
    ]


@pytest.mark.parametrize(
    "options",
    [
        ("--by", "customer,feature"),
        ("--by", "kind"),
        ("--by", "model,tool"),
        ("--by", "root_agent"),
        ("--every", "day"),
        ("--every", "hour", "--by", "customer"),
        ("--per", "session", "--by", "customer"),
        ("--by", "agent", "--compare"),
        ("--by", "customer", "--since", "2d"),
    ],
)
def test_every_report_is_the_same_money(
    command: Run, ledger: str, options: tuple[str, ...]
) -> None:
    """The rows add up to the total, in JSON and in CSV."""
    total = report(command, ledger)["cost_usd"]
    found = report(command, ledger, *options, "--limit", "0")
    done = command("costs", *options, "--limit", "0", "--csv", "--store", ledger)
    lines = list(csv.DictReader(io.StringIO(done.out)))

    assert found["schema_version"] == 1
    assert found["cost_usd"] == total
    assert sum(Decimal(row["cost_usd"]) for row in found["rows"]) == Decimal(total)
    assert sum(Decimal(row["cost_usd"]) for row in lines) == Decimal(total)
    assert len(lines) == len(found["rows"])


def test_what_is_not_shown_is_counted(command: Run, ledger: str) -> None:
    found = report(command, ledger, "--by", "customer", "--limit", "1")
    shown = sum(Decimal(row["cost_usd"]) for row in found["rows"])

    assert found["rows_total"] == 3
    assert found["others"]["rows"] == 3 - len(found["rows"]) > 0
    rest = Decimal(found["others"]["cost_usd"])
    assert shown + rest == Decimal(found["cost_usd"])


def test_sessions_of_a_customer_cost_so_much(command: Run, ledger: str) -> None:
    found = report(command, ledger, "--per", "session", "--by", "customer")
    rows = {row["customer_id"]: row for row in found["rows"]}

    assert (found["per"], found["sessions"]) == ("session", 4)
    assert rows["acme"]["sessions"] == 2
    assert rows["globex"]["p50_usd"] == rows["globex"]["cost_usd"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--by", "color"), "--by: 'color' is not a dimension. Use one of"),
        (("--by", "agent,agent"), "each dimension once, and at most 4"),
        (("--by", ""), "'' is not a dimension"),
        (("--where", "agent"), "--where: 'agent' is no NAME=GLOB"),
        (("--where", "color=red"), "--where: 'color' is not a dimension"),
        (("--where", f"agent={'x' * 300}"), "is no pattern"),
        (("--every", "week"), "--every: 'week' is not known. Use one of hour, day"),
        (("--since", "soon"), "--since: 'soon' is no time"),
        (("--since", "900d"), "--since: '900d' is not between 1 hour and 366 days"),
        (("--since", "0h"), "--since: '0h' is not between"),
        (("--since", "7d", "--hours", "3"), "--hours and --since: choose one"),
        (("--compare",), "--compare: a session is hardly ever in both"),
        (("--compare", "--by", "agent", "--every", "day"), "Leave --every and --per"),
        (("--per", "call"), "--per: 'call' is not known. Use --per session"),
        (("--per", "session", "--by", "session"), "--per session: --by names"),
    ],
)
def test_what_does_not_fit_is_named(
    command: Run, ledger: str, options: tuple[str, ...], said: str
) -> None:
    done = command("costs", *options, "--store", ledger)

    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_names_are_no_formulas_in_any_csv(command: Run, tmp_path: Path) -> None:
    """A spreadsheet runs none of them, in whatever report."""
    url = f"sqlite:///{tmp_path}/hostile.sqlite3"
    guard = Guard({}, store=url)
    with guard.session("=1+1", customer_id="=1+1", session_id="=1+1"):
        with guard.call(tool="=1+1", cost_usd="0.01") as call:
            call.settle()
    guard.close()
    for options in (
        ("costs", "--by", "agent,customer,tool"),
        ("costs", "--every", "day", "--by", "agent"),
        ("costs", "--per", "session", "--by", "customer"),
        ("costs", "--by", "agent", "--compare"),
        ("sessions",),
    ):
        done = command(*options, "--csv", "--store", url)
        cells = {cell for line in csv.reader(io.StringIO(done.out)) for cell in line}

        assert "'=1+1" in cells, options
        assert not any(cell.startswith("=") for cell in cells), options


@pytest.fixture
def odd_ledger(tmp_path: Path) -> str:
    """Three dollars in the same call again and again, which nothing stopped."""
    path = f"{tmp_path}/odd.sqlite3"
    with closing(Guard({"store": f"sqlite:///{path}", "mode": "observe"},
                       max_cost_usd="1.00")) as guard:  # fmt: skip
        with guard.session("stuck-agent", customer_id="acme", session_id="s-1"):
            for _ in range(4):
                with guard.call(
                    tool="geocode", server="maps", cost_usd="0.75", arguments="x"
                ) as call:
                    call.settle(result="no match")
    return f"sqlite:///{path}"


def test_what_is_unusual_is_shown_and_may_fail_a_pipeline(
    command: Run, odd_ledger: str
) -> None:
    """With 3, after the report; without the option it is only shown."""
    shown = command("costs", "--store", odd_ledger)
    failing = command("costs", "--store", odd_ledger, "--fail-on", "anomaly")
    found = report(command, odd_ledger, "--by", "agent")

    assert (shown.code, failing.code) == (0, 3)
    assert shown.out == failing.out
    assert "▲ agent stuck-agent made 3 calls of maps/geocode again that" in shown.out
    assert "Waste $2.25 (75%): repeats $2.25." in shown.out
    text = " ".join(shown.out.split())
    assert (
        "Observe: 1 session and 3 calls would have been refused, $2.25: max_cost_usd "
        "of session."
    ) in text
    assert max(map(len, shown.out.splitlines())) <= 80
    assert found["anomalies"][0]["kind"] == "loop"
    assert found["waste"] == {"cost_usd": "2.25", "by": {"repeat": "2.25"}}
    assert found["observe"]["sessions"] == 1


def test_a_higher_floor_is_kept(command: Run, odd_ledger: str, folder: Path) -> None:
    (folder / "guardrails.yaml").write_text("alerts: { anomaly: { min_usd: 5 } }\n")
    done = command("costs", "--store", odd_ledger, "--fail-on", "anomaly", "--csv")
    assert done.code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fail-on", "waste"), "--fail-on: 'waste' is not known. Use --fail-on"),
        (("--fail-on", "anomaly", "--every", "day"), "Leave --every and --per out"),
    ],
)
def test_there_is_one_thing_to_fail_on(
    command: Run, ledger: str, options: tuple[str, ...], message: str
) -> None:
    done = command("costs", "--store", ledger, *options)
    assert done.code == 2
    assert message in done.err


def test_waste_and_refusals_are_dimensions(command: Run, odd_ledger: str) -> None:
    shown = command("costs", "--store", odd_ledger, "--by", "waste")
    refused = command("costs", "--store", odd_ledger, "--by", "refused_by")

    assert "Costs by waste" in shown.out
    assert "repeat" in shown.out
    assert "(no waste)" in shown.out
    assert "max_cost_usd of session" in refused.out
    assert "(allowed)" in refused.out


def test_losses_and_missing_prices_are_of_the_calls_that_are_shown(
    command: Run, tmp_path: Path
) -> None:
    """A report by model is not of tools, whose waste may be more than all models."""
    ledger = f"sqlite:///{tmp_path}/l.sqlite3"
    with closing(Guard({"store": ledger})) as guard, guard.session("bot"):
        for name, cost in (("search", "1.00"), ("free", None)):
            with pytest.raises(ConnectionError), guard.call(tool=name, cost_usd=cost):
                raise ConnectionError
        with guard.call(model="nobody-knows", input_tokens=9) as call:
            call.settle(TokenUsage(input_tokens=9))

    found = {
        by: (got["waste"]["cost_usd"], got["unpriced"])
        for by in ("model", "layer", "tool", "agent", "model,tool")
        for got in [report(command, ledger, "--by", by)]
    }
    shown = command("costs", "--store", ledger, "--by", "model")

    everything = ("1.00", ["free", "nobody-knows"])
    assert found == {
        "model": ("0.00", ["nobody-knows"]),
        "layer": ("0.00", ["nobody-knows"]),
        "tool": ("1.00", ["free"]),
        "agent": everything,
        "model,tool": everything,
    }
    assert (shown.code, "Waste" in shown.out) == (0, False)
