"""`guardrails export`: the same events and the same money in every format."""

import csv
import io
import json
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails.cli.screens.progress import Progress
from guardrails.core.events import Event
from guardrails.core.money import usd
from guardrails.core.reporting.flat_events import flat_event
from guardrails.exports import COLUMNS, open_writer
from guardrails.exports.cells import inert, restored
from guardrails.exports.columns import usd_text
from guardrails.exports.focus import FOCUS_COLUMNS
from tests.cli.conftest import Run
from tests.exports.strategies import events, names, no_rates

READERS = {
    "jsonl": ("read_json", "cost_usd", "count(*)"),
    "csv": ("read_csv", "cost_usd", "count(*)"),
    "parquet": ("read_parquet", "cost_usd", "count(*)"),
    # Each model call of this ledger has one meter.
    "focus": ("read_csv", "BilledCost", "sum(x_Calls)"),
    "focus-parquet": ("read_parquet", "BilledCost", "sum(x_Calls)"),
}
"""How another program reads each format: by what, the amount, and the calls."""


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_writes_one_line_of_json_per_call(command: Run, ledger: str) -> None:
    """With the closed schema, oldest first."""
    done = command("export", "--store", ledger)
    lines = records(done.out)

    assert done.code == 0
    assert len(lines) == 9
    assert all(list(line) == list(COLUMNS) for line in lines)
    assert {line["schema_version"] for line in lines} == {1}
    assert {line["customer_id"] for line in lines} == {"acme", "globex", None}


@pytest.mark.parametrize("form", list(READERS))
def test_every_format_adds_up_to_the_report(
    command: Run, ledger: str, form: str
) -> None:
    """Read by another program, to the nano-dollar."""
    report = json.loads(command("costs", "--store", ledger, "--json").out)
    done = command(
        "export", "--store", ledger, "--format", form, "--output", f"out.{form}"
    )
    reader, cost, count = READERS[form]
    with duckdb.connect() as connection:
        [(total, calls)] = connection.execute(
            f"SELECT sum({cost}::DECIMAL(38, 9)), {count} FROM {reader}('out.{form}')"
        ).fetchall()

    assert done.code == 0
    assert (total, calls) == (Decimal(report["cost_usd"]), report["steps"])


@settings(max_examples=40, deadline=None)
@given(st.lists(events(), min_size=1, max_size=4))
def test_csv_and_json_give_back_what_was_written(drawn: list[Event]) -> None:
    """Whatever the names hold: quotes, line breaks, formulas, wide signs."""
    flat = [flat_event(event) for event in drawn]
    found = {form: io.BytesIO() for form in ("csv", "jsonl")}
    for form, out in found.items():
        writer = open_writer(form, out, no_rates)
        writer.write(flat)
        writer.finish()
    text = found["csv"].getvalue().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    lines = [json.loads(line) for line in found["jsonl"].getvalue().split(b"\n")[:-1]]

    for event, row, line in zip(flat, rows, lines, strict=True):
        for name in ("customer_id", "agent", "session_id", "model", "tool", "server"):
            said = getattr(event, name)
            assert line[name] == said
            assert (restored(row[name]) or None) == said
        assert json.loads(row["tags"]) == line["tags"] == json.loads(event.tags)
        cost = line["cost_usd"]
        assert row["cost_usd"] == (cost or "")
        assert (cost and Decimal(cost) * 10**9) == event.cost_nano_usd


@given(names)
def test_no_cell_is_a_formula(name: str) -> None:
    """And each becomes the name again."""
    cell = inert(name)

    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert restored(cell) == name


@given(st.integers(0, 10**17))
def test_amounts_are_written_as_everywhere(nano: int) -> None:
    assert usd_text(nano) == f"{usd(nano):f}"


@settings(max_examples=30, deadline=None)  # The first one loads pyarrow.
@given(st.lists(events(), min_size=1, max_size=4))
def test_parquet_keeps_amounts_and_instants_exact(drawn: list[Event]) -> None:
    """Amounts are decimals with nine places, and unknown is null."""
    parquet = pytest.importorskip("pyarrow.parquet")
    flat = [flat_event(event) for event in drawn]
    out = io.BytesIO()
    writer = open_writer("parquet", out, no_rates)
    writer.write(flat[:1])
    writer.write(flat[1:] or flat[:1])
    writer.finish()
    table = parquet.read_table(io.BytesIO(out.getvalue()))
    rows = table.to_pylist()

    assert table.column_names == list(COLUMNS)
    assert str(table.schema.field("cost_usd").type) == "decimal128(38, 9)"
    for event, row in zip([*flat[:1], *(flat[1:] or flat[:1])], rows, strict=True):
        cost = row["cost_usd"]
        assert (cost if cost is None else int(cost.scaleb(9))) == event.cost_nano_usd
        assert round(row["time"].timestamp() * 1_000) == event.time_ms
        assert row["session_id"] == event.session_id
        assert row["estimated"] is event.is_estimated


def test_writes_only_what_is_asked_for(command: Run, ledger: str) -> None:
    """Patterns of one name are alternatives; of several, all must match."""

    def sessions(*conditions: str) -> set[object]:
        options = [word for one in conditions for word in ("--where", one)]
        done = command("export", "--store", ledger, *options)
        assert done.code == 0
        return {line["session_id"] for line in records(done.out)}

    assert sessions("customer=acme") == {"s-1", "s-loop"}
    assert sessions("customer_id=") == {"s-3"}
    assert sessions("session=s-[12]", "agent=support-*") == {"s-1", "s-2"}
    assert sessions("session_id=s-2") == {"s-2"}
    assert sessions("customer=acme", "customer=globex") == {"s-1", "s-2", "s-loop"}
    assert sessions("tool=maps/geo*", "session=s-1") == {"s-1"}
    assert sessions("tool=geocode") == set()
    assert sessions("agent=nobody") == set()


def test_a_file_is_there_as_a_whole_or_not_at_all(
    command: Run, ledger: str, folder: Path
) -> None:
    """A file that exists stays, and nothing unfinished is left."""
    target = folder / "events.csv"
    target.write_text("mine")
    options = ("export", "--store", ledger, "--format", "csv", "--output", target.name)
    refused = command(*options)

    assert refused.code == 2
    assert "--force" in refused.err
    assert target.read_text() == "mine"

    done = command(*options, "--force")

    assert done.code == 0
    assert done.err == "9 events in events.csv\n"
    assert target.stat().st_mode & 0o077 == 0
    assert [path.name for path in folder.iterdir()] == ["events.csv"]


def test_an_empty_ledger_makes_an_empty_file(command: Run, folder: Path) -> None:
    """That is readable all the same."""
    for form in READERS:
        done = command(
            *("export", "--store", "sqlite:///none.sqlite3", "--format", form),
            *("--output", f"none.{form}"),
        )
        assert done.code == 0
        assert "0 events in" in done.err
    with duckdb.connect() as connection:
        for form, (reader, _, _) in READERS.items():
            if form == "jsonl":
                continue
            found = connection.execute(f"SELECT * FROM {reader}('none.{form}')")
            columns = FOCUS_COLUMNS if form.startswith("focus") else COLUMNS
            assert [column[0] for column in found.description or ()] == list(columns)
            assert not found.fetchall()
    assert (folder / "none.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format", "xml"), "--format: 'xml' is no format"),
        (("--where", "acme"), "'acme' is no condition"),
        (("--where", "colour=red"), "'colour' is no name of an event"),
        (("--since", "soon"), "--since: 'soon' is no time"),
        (("--since", "1h", "--hours", "1"), "choose one of them"),
        (("--output", "none/at/all.csv"), "--output: 'none/at/all.csv' cannot be"),
        (("--output", "."), "is a directory"),
    ],
)
def test_says_what_is_wrong(
    command: Run, ledger: str, options: tuple[str, ...], words: str
) -> None:
    done = command("export", "--store", ledger, *options)

    assert done.code == 2
    assert words in done.err
    assert not done.out


def test_names_the_extra_that_parquet_needs(
    command: Run, ledger: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "guardrails.exports.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = command(
        "export", "--store", ledger, "--format", "parquet", "--output", "out.parquet"
    )

    assert done.code == 2
    assert 'pip install "guardrails-runtime[export]"' in done.err
    assert not list(folder.iterdir())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_shows_progress_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes it away when it is done."""
    for screen in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", screen)
        with Progress("Exporting", "events") as progress:
            progress.show(50_000, of=100_000)
            progress.show(50_001, of=100_000)
        shown = "\rExporting: 50,000 events (50%)\x1b[K\r\x1b[K"
        assert screen.getvalue() == (shown if screen.isatty() else "")
