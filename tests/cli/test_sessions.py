"""`guardrails sessions`: which sessions there are, in every format and width."""

import csv
import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from guardrails.cli.screens.sessions import render_sessions
from guardrails.core.reporting.rollups import Spend
from guardrails.reports import SessionInfo, SessionList, Span
from tests.cli.conftest import Run

NOW_MS = 1_764_001_800_000
SPAN = Span(hours=24, until_ms=NOW_MS)
CENT = 10_000_000


def info(
    session_id: str, cents: int, *, end: str = "completed", who: str | None = "support"
) -> SessionInfo:
    return SessionInfo(
        session_id=session_id,
        agent=who,
        customer_id=who and "acme",
        end=end,
        reason="max_cost_usd" if end == "budget_exceeded" else None,
        spend=Spend(name=session_id, tool_nano_usd=cents * CENT, tool_calls=cents),
        whole_nano_usd=cents * CENT,
        limit_nano_usd=100 * CENT if who else None,
        started_at_ms=NOW_MS - 3_600_000,
        last_active_at_ms=NOW_MS if who else None,
        active_ms=60_000,
    )


def listed(*rows: SessionInfo, count: int | None = None) -> SessionList:
    total = Spend(name=None)
    for row in rows:
        total = total.plus(row.spend)
    return SessionList(
        project_id="p", span=SPAN, rows=rows, count=count or len(rows), total=total
    )


def shown(found: SessionList, *, width: int) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    render_sessions(found, console)
    return file.getvalue()


ROWS = (
    info("sess_m3n4o5p6", 100, end="budget_exceeded"),
    info("sess_q7r8s9t0", 25, end="active"),
    info("sess_gone", 5, end="idle", who=None),
)


def test_at_80_columns() -> None:
    """When they began falls away first."""
    assert (
        shown(listed(*ROWS, count=9), width=80)
        == """\
9 sessions · last 24 h · 130 steps · since Nov 23, 16:00 UTC
Session        Agent    Customer  Steps  Spent  Limit  End       Last call
sess_m3n4o5p6  support  acme        100  $1.00  $1.00  ■ cost    Nov 24 16:30
sess_q7r8s9t0  support  acme         25  $0.25  $1.00  · active  Nov 24 16:30
sess_gone      -        -             5  $0.05   -     · idle    -
… 6 more (--limit 0)
Total                               130  $1.30
"""
    )


def test_at_140_columns() -> None:
    lines = shown(listed(*ROWS), width=140).splitlines()

    assert lines[1].endswith("Started       Last call")
    assert lines[2].endswith("Nov 24 15:30  Nov 24 16:30")


@pytest.mark.parametrize("width", [40, 80, 140])
def test_hostile_names_stay_in_their_lines(width: int) -> None:
    names = ("株式会社テスト" * 9, "\u200fעברית", "a\x1b]0;owned\x07\r\n", "=1+1")
    text = shown(listed(*[info(name, 1, who=name) for name in names]), width=width)

    assert "\x1b" not in text
    assert len(text.splitlines()) == len(names) + 3 + (width < 60)
    for line in text.splitlines():
        assert cell_len(line.replace("\u2068", "").replace("\u2069", "")) <= width


def test_lists_what_was_asked_for(command: Run, ledger: str) -> None:
    done = command("sessions", "--where", "customer=acme", "--store", ledger)

    assert done.code == 0
    assert done.out.startswith("2 sessions · last 24 h")
    stopped = command("sessions", "--status", "stopped", "--store", ledger).out
    assert stopped.startswith("1 stopped session")
    assert "▲ loop" in stopped


def test_as_json_and_csv(command: Run, ledger: str) -> None:
    """Both have the same rows, and amounts are exact texts."""
    done = command("sessions", "--sort", "steps", "--json", "--store", ledger)
    found = json.loads(done.out)
    text = command("sessions", "--sort", "steps", "--csv", "--store", ledger).out
    lines = list(csv.DictReader(io.StringIO(text)))

    assert (found["schema_version"], found["rows_total"]) == (1, 4)
    assert found["rows"][0]["session_id"] == lines[0]["session_id"] == "s-loop"
    assert found["rows"][0]["end"] == "loop_detected"
    assert found["rows"][0]["status"] == "stopped"
    assert [row["cost_usd"] for row in found["rows"]] == [
        line["cost_usd"] for line in lines
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sort", "name"), "--sort: 'name' is not known. Use one of cost, time"),
        (("--status", "gone"), "--status: 'gone' is not known. Use one of active"),
        (("--where", "x"), "--where: 'x' is no NAME=GLOB"),
        (("--json", "--csv"), "choose one"),
    ],
)
def test_what_does_not_fit_is_named(
    command: Run, ledger: str, options: tuple[str, ...], said: str
) -> None:
    done = command("sessions", *options, "--store", ledger)

    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_an_empty_ledger_says_what_to_do(command: Run) -> None:
    done = command("sessions")

    assert done.code == 0
    assert "0 sessions" in done.out
    assert "Nothing was recorded" in done.out
    assert "Nothing of that" in command("sessions", "--status", "active").out
