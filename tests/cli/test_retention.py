"""`guardrails prune` and `forget`: what goes is gone, and all totals are as before."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from guardrails import Guard, TokenUsage
from guardrails.clock import SystemClock
from guardrails.core.attribution import Attribution
from guardrails.core.daily import Daily
from guardrails.core.deliveries import TellAlerts
from guardrails.core.lines import account_key
from guardrails.core.operations import Resume, StopSession
from guardrails.core.rollups import ROLLUP_DIMENSIONS
from guardrails.core.watch_alerts import alert_of_anomaly, alert_of_day
from guardrails.core.windows import Window
from guardrails.stores.sqlite import SQLiteStore
from guardrails.testing import FakeClock
from guardrails.testing.conformance import PLACES, TELLING
from tests.cli.conftest import Run
from tests.cli.reports import OUTLIER
from tests.servers.processes import Server

DAY_MS = 86_400_000
NOW_MS = SystemClock().now_ms()
SPAN = {"since_ms": NOW_MS - 120 * DAY_MS, "until_ms": NOW_MS + DAY_MS}
SECRETS = ("acme", "u-acme", "s-acme", "ticket-77", "u-both")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two customers who share a user, and one who is nobody, over three months."""
    path = tmp_path / "ledger.sqlite3"
    clock = FakeClock(now_ms=SystemClock().now_ms() - 100 * DAY_MS)
    guard = Guard({}, store=path, clock=clock)
    for day in range(0, 100, 10):
        for customer, user in (
            ("acme", "u-acme"),
            ("acme", "u-both"),
            ("globex", "u-both"),
            (None, None),
        ):
            with guard.session(
                "support",
                customer_id=customer,
                user_id=user,
                feature="triage",
                session_id=f"s-{customer}-{user}-{day}",
                tags={"ticket": "ticket-77"} if customer == "acme" else {},
            ):
                for number in range(2):
                    with guard.call(model="gpt-4o", provider="openai") as call:
                        call.settle(TokenUsage(input_tokens=1_000 + day + number))
                    with guard.call(tool="geocode", cost_usd="0.01") as call:
                        call.settle()
        clock.advance(seconds=10 * 86_400)
    guard.close()
    with closing(SQLiteStore(path)) as store:
        # The log of what people did stays, so the session has no name of anybody.
        for number, customer in enumerate(("acme", "globex")):
            who = Attribution(session_id=f"s-{number}", customer_id=customer)
            key = account_key(who, per=("session_id",), every=Window.SESSION, now_ms=0)
            store.execute(
                StopSession(
                    account=key,
                    attribution=who,
                    now_ms=NOW_MS - 90 * DAY_MS,
                    telling=TELLING,
                )
            )
            store.execute(Resume(account=key, now_ms=NOW_MS - 89 * DAY_MS))
    return path


def totals(path: Path) -> dict[str, tuple[int, int]]:
    """What each dimension adds up to: money and calls."""
    store = SQLiteStore(path)
    found = {
        by: store.history.spend(project_id="default", by=by, **SPAN)
        for by in ROLLUP_DIMENSIONS
    }
    store.close()
    return {
        by: (sum(s.total_nano_usd for s in spends), sum(s.steps for s in spends))
        for by, spends in found.items()
    }


def everything(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump())


def events(path: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT count(*), sum(cost_nano_usd) FROM events"
        return connection.execute(query).fetchone()


@pytest.fixture
def config(folder: Path) -> Iterator[Path]:
    file = folder / "guardrails.yaml"
    file.write_text("retention: { events_days: 45, rollups_days: 75 }")
    return file


def test_forgets_a_customer_and_keeps_every_total(command: Run, path: Path) -> None:
    """No name of the customer is left, and no sum has changed."""
    before, booked = totals(path), events(path)
    url = f"sqlite:///{path}"
    dry = command("forget", "--customer", "acme", "--store", url, "--dry-run")

    assert dry.code == 0
    assert "80 events to be made anonymous" in dry.out
    assert "21 sessions to be deleted" in dry.out
    assert "1 alert to be deleted" in dry.out
    assert "acme" in everything(path)

    done = command("forget", "--customer", "acme", "--store", url, "--yes")
    text = everything(path)

    assert done.code == 0
    assert dry.out.replace("to be ", "") == done.out
    assert "budgets" in done.err
    assert not [secret for secret in SECRETS[:-1] if secret in text]
    assert not [s for s in SECRETS[:-1] if s.encode() in path.read_bytes()]
    assert "globex" in text
    assert "u-both" in text  # Of the other customer.
    assert totals(path) == before
    assert events(path) == booked

    again = command("forget", "--customer", "acme", "--store", url, "--yes", "--json")
    assert json.loads(again.out) == {
        "schema_version": 1,
        "project_id": "default",
        "dry_run": False,
        "events": 0,
        "rollups": 0,
        "sessions": 0,
        "sessions_in_use": 0,
        "alerts": 0,
    }


def test_sums_of_single_and_of_all_names_agree_afterwards(
    command: Run, path: Path
) -> None:
    """A user of two customers keeps what the other one spent on them."""
    url = f"sqlite:///{path}"
    command("forget", "--customer", "acme", "--store", url, "--yes")
    store = SQLiteStore(path)
    span = {"project_id": "default", **SPAN}
    for by in ("user_id", "customer_id", "session_id"):
        single = store.history.spend(by=by, **span)  # type: ignore[arg-type]
        mixed = store.history.spend(by=(by, "project_id"), **span)  # type: ignore[arg-type]
        assert {s.name: (s.total_nano_usd, s.steps) for s in single} == {
            s.name: (s.total_nano_usd, s.steps) for s in mixed
        }
    users = store.history.spend(by="user_id", **span)  # type: ignore[arg-type]
    store.close()

    assert {s.name: s.steps for s in users} == {None: 120, "u-both": 40}


def test_a_session_in_use_stays(command: Run, tmp_path: Path) -> None:
    """Its account is its limit, and it may go on."""
    path = tmp_path / "ledger.sqlite3"
    guard = Guard({}, store=path)
    with (
        guard.session("a", customer_id="acme", session_id="s-now"),
        guard.call(tool="t", cost_usd="0.01") as call,
    ):
        call.settle()
    guard.close()
    done = command(
        "forget", "--customer", "acme", "--store", f"sqlite:///{path}", "--yes"
    )
    store = SQLiteStore(path)
    accounts = store.history.session_accounts(
        project_id="default", session_ids=["s-now"]
    )
    store.close()

    assert "1 session stay" in done.err
    assert [account.posted_nano_usd for account in accounts] == [10_000_000]


def test_prunes_what_is_older_than_it_may_be(
    command: Run, path: Path, config: Path
) -> None:
    """Events by the instant, sums by the hour; what is younger stays."""
    url = f"sqlite:///{path}"
    before = totals(path)
    dry = command("prune", "--store", url, "--dry-run", "--json")
    counts = json.loads(dry.out)

    assert totals(path) == before
    assert counts["dry_run"] is True
    assert counts["events"] == 6 * 16

    done = command("prune", "--store", url)

    assert done.out == f"Deleted 96 events and {counts['rollups']} hourly sums.\n"
    assert events(path)[0] == 4 * 16
    after = totals(path)
    assert len(set(after.values()) - {after["model"], after["tool"]}) == 1
    assert after["project_id"][1] == 7 * 16
    again = command("prune", "--store", url)
    assert again.out == "Deleted 0 events and 0 hourly sums.\n"


def test_says_that_nothing_is_configured(command: Run, path: Path) -> None:
    done = command("prune", "--store", f"sqlite:///{path}")

    assert done.code == 2
    assert "retention: { events_days: 90" in done.err


def test_asks_before_it_forgets(command: Run, path: Path) -> None:
    """And where there is nobody to ask, it does nothing."""
    before = everything(path)
    done = command("forget", "--customer", "acme", "--store", f"sqlite:///{path}")

    assert done.code == 2
    assert "--yes" in done.err
    assert everything(path) == before


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 300])
def test_a_name_that_is_none_is_refused(command: Run, path: Path, name: str) -> None:
    done = command(
        "forget", "--customer", name, "--store", f"sqlite:///{path}", "--yes"
    )

    assert done.code == 2
    assert "--customer" in done.err


def test_an_unknown_customer_changes_nothing(command: Run, path: Path) -> None:
    """Names are compared as they are, whatever they hold."""
    before = everything(path)
    for name in ("nobody", "ac%", "acme' OR '1'='1"):
        done = command(
            "forget", "--customer", name, "--store", f"sqlite:///{path}", "--yes"
        )
        assert done.code == 0
        assert "  0 events made anonymous" in done.out
    assert everything(path) == before


def test_redis_is_refused_with_what_it_does_itself(
    command: Run, server: Server, config: Path
) -> None:
    for words in (("forget", "--customer", "acme", "--yes"), ("prune",)):
        done = command(*words, "--store", server.unix_url)
        assert done.code == 2
        assert "SQLite files only" in done.err


def test_an_empty_ledger_has_nothing_to_forget(command: Run, config: Path) -> None:
    for words in (("forget", "--customer", "acme", "--yes"), ("prune",)):
        done = command(*words, "--store", "sqlite:///none.sqlite3")
        assert done.code == 0


def test_forgets_what_a_watch_told_of_the_customer(command: Run, path: Path) -> None:
    """Also a report of a day that names it beside others, and an odd session of it."""
    shares = (("globex", 2), ("acme", 1))
    daily = Daily(
        day_ms=0,
        cost_nano_usd=3,
        before_nano_usd=2,
        sessions=1,
        wasted_nano_usd=0,
        anomalies=0,
        customers=shares,
    )
    others = replace(daily, day_ms=DAY_MS, customers=shares[:1])
    session = replace(OUTLIER, customer_id="acme")
    told = TellAlerts(
        project_id="default",
        alerts=(
            alert_of_day(daily, "default", now_ms=NOW_MS),
            alert_of_day(others, "default", now_ms=NOW_MS),
            alert_of_anomaly(session, "default", now_ms=NOW_MS),
        ),
        places=PLACES,
    )
    with closing(SQLiteStore(path)) as store:
        store.execute(told)
    url = f"sqlite:///{path}"
    done = command("forget", "--customer", "acme", "--store", url, "--yes")

    assert "3 alerts deleted" in done.out
    assert "acme" not in everything(path)
    assert others.customers[0][0] in everything(path)
