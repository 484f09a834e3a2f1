"""`guardrails top`: one picture in a pipe, and one after another on a terminal."""

import io
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console

from guardrails import Guard
from guardrails.cli.screens.top import EVERY_SECONDS, show
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.reports import SessionInfo, SessionList, Span, Top, report_top
from tests.cli.conftest import Run

NOW_MS = 1_764_001_800_000
"""Half past an hour, in the afternoon."""

HOUR_START_MS = NOW_MS // HOUR_MS * HOUR_MS
CENT = 10_000_000


def running(name: str, cents: int, *, limit: int | None = 100) -> SessionInfo:
    return SessionInfo(
        session_id=name,
        agent=name,
        customer_id="acme",
        end="active",
        reason=None,
        spend=Spend(name=name, model_nano_usd=cents * CENT, model_calls=1),
        whole_nano_usd=cents * CENT,
        limit_nano_usd=None if limit is None else limit * CENT,
        started_at_ms=NOW_MS,
        last_active_at_ms=NOW_MS,
        active_ms=HOUR_MS // 4,
    )


def top(*rows: SessionInfo) -> Top:
    found = SessionList(
        project_id="p",
        span=Span(hours=1, until_ms=NOW_MS),
        rows=rows,
        count=len(rows),
        total=Spend(name=None),
    )
    hours = [
        Spend(name=None, since_ms=HOUR_START_MS, model_nano_usd=50 * CENT),
        Spend(name=None, since_ms=HOUR_START_MS - HOUR_MS, model_nano_usd=7 * CENT),
    ]
    return report_top(hours, found, now_ms=NOW_MS)


def pictures(
    found: Top, *, count: int, height: int = 24, width: int = 80, once: bool = False
) -> tuple[str, list[float]]:
    """Shows pictures on a terminal until Ctrl-C, and returns the sleeps."""
    file, slept = io.StringIO(), list[float]()
    console = Console(
        file=file, width=width, height=height, force_terminal=True, color_system=None
    )

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == count:
            raise KeyboardInterrupt

    show(lambda: found, sleep=sleep, once=once, console=console)
    return file.getvalue(), slept


def test_sums_up_the_hour_the_day_and_the_pace() -> None:
    """Half an hour cost half a dollar; the fastest session comes first."""
    found = top(running("slow", 2), running("fast", 20))

    assert found.hour.total_nano_usd == 50 * CENT
    assert found.today.total_nano_usd == 57 * CENT
    assert found.pace_nano_usd == 100 * CENT
    assert [row.session_id for row in found.running] == ["fast", "slow"]
    assert found.running[0].pace_nano_usd == 80 * CENT


def test_one_picture_at_80_columns() -> None:
    text, slept = pictures(
        top(running("s-1", 90), running("s-2", 20)), count=1, once=True
    )

    assert slept == []
    assert (
        text
        == """\
this hour $0.50 ($1.00/h) · today $0.57 · 2 sessions running · 16:30:00 UTC
Session  Agent  Customer  Spent  Per hour  Limit  Used
s-1      s-1    acme      $0.90     $3.60  $1.00  █████████
s-2      s-2    acme      $0.20     $0.80  $1.00  ██
"""
    )


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (60, "this hour $0.50 ($1.00/h) · today $0.57 · 1 session running"),
        (58, "this hour $0.50 ($1.00/h) · today $0.57"),
        (38, "this hour $0.50 ($1.00/h)"),
        (10, "this hour $0.50 ($1.00/h)"),
    ],
)
def test_a_narrow_terminal_shows_fewer_amounts_and_cuts_none(
    width: int, line: str
) -> None:
    text, _ = pictures(top(running("s-1", 90)), count=1, width=width, once=True)

    assert text.splitlines()[0] == line


def test_a_terminal_shows_one_picture_after_another_until_ctrl_c() -> None:
    text, slept = pictures(top(running("s-1", 90)), count=3)

    assert slept == [EVERY_SECONDS] * 3
    assert text.count("this hour") >= 3


def test_a_picture_stays_on_one_screen() -> None:
    found = top(*[running(f"s-{number:05d}", number) for number in range(10_000)])
    text, _ = pictures(found, count=1, height=12)

    assert "10,000 sessions running" in text
    assert len({word for word in text.split() if word.startswith("s-0")}) == 6
    assert "… 9,994 more" in text


@pytest.mark.parametrize("width", [80, 140])
def test_hostile_names_stay_in_their_lines(width: int) -> None:
    names = ("株式会社テスト" * 9, "\u200fעברית", "a\x1b]0;owned\x07\r\n", "=1+1")
    text, _ = pictures(
        top(*[running(name, 1, limit=None) for name in names]),
        count=1, width=width, once=True,
    )  # fmt: skip

    assert "\x1b" not in text
    assert len(text.splitlines()) == len(names) + 2
    for line in text.splitlines():
        assert cell_len(line.replace("\u2068", "").replace("\u2069", "")) <= width


def test_an_empty_ledger_is_one_quiet_line(command: Run) -> None:
    done = command("top")

    assert done.code == 0
    assert "0 sessions running" in done.out
    said = "No open session made a call in the last ten minutes.\n"
    assert done.out.endswith(said)


def test_shows_what_runs_in_the_ledger(
    command: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A session that has ended does not run; a filter applies."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.sqlite3"
    guard = Guard({}, store=url)
    book: Callable[..., object] = guard.tool(cost_usd="0.02")(lambda: None)
    with guard.session("ended", session_id="s-ended"):
        book()
    with guard.session("support", customer_id="acme", session_id="s-runs"):
        book()
        text = command("top", "--once", "--store", url).out
        other = command("top", "--where", "agent=ended", "--store", url).out
    guard.close()

    assert "1 session running" in text
    assert "s-runs" in text
    assert "s-ended" not in text
    assert "0 sessions running" in other


def test_a_filter_that_is_none_is_named(command: Run) -> None:
    done = command("top", "--where", "color=red")

    assert (done.code, done.out) == (2, "")
    assert "--where: 'color' is not a dimension" in done.err
