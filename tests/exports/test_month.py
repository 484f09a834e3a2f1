"""One month, five ways to add it up: the same totals to the nano-dollar."""

import csv
from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from guardrails.core.events import Event
from guardrails.core.layers import LAYER_GROUPS
from guardrails.exports import open_writer
from guardrails.ports import History, Store
from guardrails.stores.redis import RedisStore
from guardrails.stores.sqlite import SQLiteStore
from tests.exports.traffic import DAY_MS, START_MS, Month
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.stores.spending import settle_of

SMALL = Month(sessions=40, events=4_000)
FULL = Month(sessions=10_000, events=1_000_000)
BY = ("customer_id", "agent", "model", "tool", "feature")

Sums = dict[Any, int]


def told(month: Month) -> dict[str, Sums]:
    """What the generator says, added up without anything of ours."""
    sums: dict[str, Counter[Any]] = {name: Counter() for name in (*BY, "group", "all")}
    for event in month.all_events():
        nano = event.charge.cost_nano_usd or 0
        names = {
            "customer_id": event.attribution.customer_id,
            "agent": event.attribution.agent,
            "feature": event.attribution.feature,
            "all": "all",
            **(
                {"tool": f"{event.server}/{event.tool}"}
                if event.tool
                else {"model": event.model}
            ),
        }
        for dimension, name in names.items():
            sums[dimension][name] += nano
        for part in event.layers or ():
            sums["group"][part.layer.group] += part.cost_nano_usd or 0
    return {name: dict(found) for name, found in sums.items()}


def reported(history: History, month: Month) -> dict[str, Sums]:
    """What reports of a store say."""
    asked: dict[str, Any] = {
        "project_id": "default",
        "since_ms": START_MS,
        "until_ms": START_MS + month.days * DAY_MS - 1,
    }
    sums: dict[str, Sums] = {
        by: {s.name: s.total_nano_usd for s in history.spend(by=by, **asked)}
        for by in BY
    }
    groups: Counter[str] = Counter()
    for spend in history.spend(by=["layer"], **asked):
        groups[(spend.name or "").partition(".")[0]] += spend.total_nano_usd
    (whole,) = history.spend(by=(), **asked)
    pairs = history.spend(by=["customer_id", "feature"], every="day", **asked)
    assert sum(spend.total_nano_usd for spend in pairs) == whole.total_nano_usd
    return {**sums, "group": dict(groups), "all": {"all": whole.total_nano_usd}}


def exported(history: History, form: str, path: Path) -> Path:
    with path.open("wb") as file:
        writer = open_writer(form, file, lambda *_: None)
        for page in history.event_pages(project_id="default"):
            writer.write(page)
        writer.finish()
    return path


def read_csv(path: Path) -> dict[str, Sums]:
    """Adds up a CSV with nothing but decimals."""
    sums: dict[str, Counter[Any]] = {name: Counter() for name in (*BY, "group", "all")}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            nano = int(Decimal(row["cost_usd"] or 0) * 10**9)
            for by in ("customer_id", "agent", "feature"):
                sums[by][row[by] or None] += nano
            is_tool = row["kind"] == "tool"
            name = f"{row['server']}/{row['tool']}" if is_tool else row["model"]
            sums["tool" if is_tool else "model"][name] += nano
            sums["all"]["all"] += nano
            if not is_tool:
                for group in LAYER_GROUPS:
                    usd = Decimal(row[f"{group}_usd"] or 0)
                    sums["group"][group] += int(usd * 10**9)
    return {name: dict(found) for name, found in sums.items()}


def read_parquet(path: Path) -> dict[str, Sums]:
    """Has DuckDB add up a Parquet file."""
    by = {
        **dict.fromkeys(("customer_id", "agent", "feature", "model"), ""),
        "tool": "server || '/' || ",
    }
    where = {"model": "WHERE model IS NOT NULL", "tool": "WHERE tool IS NOT NULL"}
    sums: dict[str, Sums] = {}
    for name in BY:
        query = (
            f"SELECT {by[name]}{name} AS name, "
            "coalesce(sum(cost_usd) * 1000000000, 0)::HUGEINT "
            f"FROM '{path}' {where.get(name, '')} GROUP BY 1"
        )
        sums[name] = dict(duckdb.sql(query).fetchall())
    costs = ", ".join(f"(sum({g}_usd) * 1000000000)::HUGEINT" for g in LAYER_GROUPS)
    (whole, *groups) = duckdb.sql(
        f"SELECT (sum(cost_usd) * 1000000000)::HUGEINT, {costs} FROM '{path}'"
    ).fetchall()[0]
    found = dict(zip(LAYER_GROUPS, groups, strict=True))
    return {**sums, "group": found, "all": {"all": whole}}


def book(store: Store, events: Any) -> None:
    event: Event
    for event in events:
        store.execute(settle_of(event))


@pytest.mark.parametrize(
    "month",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(
            FULL, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3_000)]
        ),
    ],
)
def test_a_month_adds_up_alike_wherever_it_is_read(
    month: Month, tmp_path: Path
) -> None:
    """Reports of both stores, both exports, and DuckDB, which knows nothing of ours."""
    truth = told(month)
    assert set(truth["group"]) == set(LAYER_GROUPS)

    with closing(SQLiteStore(tmp_path / "ledger.sqlite3")) as store:
        book(store, month.all_events())
        assert reported(store.history, month) == truth
        csv_file = exported(store.history, "csv", tmp_path / "events.csv")
        parquet = exported(store.history, "parquet", tmp_path / "events.parquet")
    assert read_csv(csv_file) == truth
    assert read_parquet(parquet) == truth

    binary = next(iter(BINARIES.values()))
    with Server(binary) as server, closing(RedisStore(server.unix_url)) as store:
        book(store, month.all_events())
        assert reported(store.history, month) == truth
