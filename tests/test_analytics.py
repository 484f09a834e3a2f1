"""The page on analytics is true: its queries run, and views say what events say."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails import Guard, TokenUsage
from guardrails.cli import main
from guardrails.core.events import Event
from guardrails.core.reporting.flat_events import FlatEvent, flat_event
from guardrails.exports.columns import COLUMNS, instant_text, usd_text
from guardrails.stores import rows
from guardrails.stores.sqlite import SQLiteStore
from tests.exports.strategies import events

PAGE = Path(__file__).parent.parent / "examples" / "analytics" / "README.md"


def queries(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite3"
    guard = Guard({}, store=path)
    for customer_id in ("acme", "acme", None):
        with (
            guard.session("support", customer_id=customer_id, feature="triage"),
            guard.call(model="gpt-4o", provider="openai") as call,
        ):
            call.settle(TokenUsage(input_tokens=1_000, output_tokens=100))
    guard.close()
    return path


def reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def test_the_page_names_every_field() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("| field |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]

    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(COLUMNS)


def test_queries_of_the_page_answer(ledger: Path) -> None:
    by_customer, by_model = queries("sql")
    today = f"{datetime.now(tz=UTC):%Y-%m-%d}"  # noqa: TID251 - as the page asks
    with closing(reading(ledger)) as connection:
        assert connection.execute(by_customer).fetchall() == [
            ("acme", "triage", 2, 0.007, 0),
            ("(unattributed)", "triage", 1, 0.0035, 0),
        ]
        [(day, *rest)] = connection.execute(by_model).fetchall()
    assert day in {today, f"{datetime.now(tz=UTC):%Y-%m-%d}"}  # noqa: TID251
    assert rest == ["gpt-4o", 0.0105, 3]


def test_views_are_read_only(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        for view in ("guardrails_events", "guardrails_spend_hourly"):
            with pytest.raises(sqlite3.OperationalError, match="cannot modify"):
                connection.execute(f"DELETE FROM {view}")


def test_parquet_answers_as_the_page_says(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [command] = queries("sh")
    [query] = queries("duckdb")
    export = command.splitlines()[1].split()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [*export, "--store", f"sqlite:///{ledger}"])
    with pytest.raises(SystemExit, match=r"^(0|None)?$"):
        main()
    with duckdb.connect() as connection:
        [(agent, usd, calls)] = connection.execute(query).fetchall()

    assert (agent, str(usd), calls) == ("support", "0.010500000", 3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path_factory.mktemp("views") / "ledger.sqlite3")
    with store.reading():  # Creates it.
        pass
    yield store
    store.close()


@settings(deadline=None, max_examples=50)
@given(st.lists(events(), max_size=4))
def test_the_view_of_events_says_what_events_say(
    store: SQLiteStore, drawn: list[Event]
) -> None:
    """Column by column, and tags and paths as the export writes them."""
    add = f"INSERT INTO events VALUES ({', '.join('?' * len(rows.EVENT_COLUMNS))})"
    with store.reading() as connection:
        connection.execute("BEGIN")
        for number, event in enumerate(drawn):
            row = list(rows.event_row(event))
            row[rows.EVENT_COLUMNS.index("event_id")] = f"{number}"
            connection.execute(add, row)
        found = connection.execute(
            "SELECT * FROM guardrails_events ORDER BY event_id"
        ).fetchall()
        names = [
            column[1]
            for column in connection.execute("PRAGMA table_info(guardrails_events)")
        ]
        connection.execute("ROLLBACK")

    for number, (event, row) in enumerate(zip(drawn, found, strict=True)):
        said = dict(zip(names, row, strict=True))
        flat = flat_event(event)
        assert said.pop("event_id") == f"{number}"
        assert said.pop("time") == instant_text(flat.time_ms)
        assert said.pop("estimated") == flat.is_estimated
        cost = said.pop("cost_usd")
        known = flat.cost_nano_usd
        whole = None if known is None else usd_text(known)
        assert (cost and f"{cost.rstrip('0')}") == (whole and whole.rstrip("0"))
        for name in ("agent_path", "tags"):
            assert json.loads(said.pop(name)) == json.loads(getattr(flat, name)), name
        for name, value in said.items():
            assert value == getattr(flat, name), name
    assert set(FlatEvent._fields) - {"time_ms"} <= set(names)
