"""One month has the same totals wherever they are read, to the nano-dollar."""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from guardrails.core.accounts import Charging, Line
from guardrails.core.events import Event
from guardrails.core.operations import Settle
from guardrails.core.policy import Limits
from guardrails.exports import open_writer
from guardrails.ports import Store
from guardrails.stores.memory import MemoryStore
from guardrails.stores.redis import RedisStore
from guardrails.stores.sqlite import SQLiteStore
from guardrails.system.clock import SystemClock
from tests.exports.month import MONTH_MS, month
from tests.exports.strategies import no_rates
from tests.servers.processes import Server

Totals = dict[str | None, int]

READERS = {"jsonl": "read_json", "csv": "read_csv", "parquet": "read_parquet"}


def book(store: Store, event: Event) -> None:
    who = event.attribution
    line = Line(
        account=f"{who.project_id}/session/session_id={who.session_id}",
        scope="session",
        limits=Limits(),
        is_session=True,
    )
    store.execute(
        Settle(
            hold_id=event.event_id,
            charging=Charging(attribution=who, lines=(line,)),
            kind=event.kind,
            cost_nano_usd=event.charge.cost_nano_usd or 0,
            tokens=event.usage.total_tokens if event.usage else 0,
            now_ms=event.time_ms,
            active_ms=(0,),
            event=event,
        )
    )


def of_rollups(store: Store, now_ms: int) -> Totals:
    found = store.history.spend(
        project_id="default",
        by="customer_id",
        since_ms=now_ms - MONTH_MS,
        until_ms=now_ms,
    )
    return {spend.name: spend.total_nano_usd for spend in found}


def of_file(store: Store, form: str, folder: Path) -> Totals:
    """Exports everything, and has another program add it up."""
    path = folder / f"events.{form}"
    with path.open("wb") as out:
        writer = open_writer(form, out, no_rates)
        for page in store.history.event_pages(project_id="default"):
            writer.write(page)
        writer.finish()
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT customer_id, sum(coalesce(cost_usd::DECIMAL(38, 9), 0)) "
            f"FROM {READERS[form]}('{path}') GROUP BY customer_id"
        ).fetchall()
    return {name: int(Decimal(total).scaleb(9)) for name, total in rows}


def check(store: Store, count: int, folder: Path) -> None:
    now_ms = SystemClock().now_ms()
    totals: Counter[str | None] = Counter()
    for event in month(count, until_ms=now_ms):
        totals[event.attribution.customer_id] += event.charge.cost_nano_usd or 0
        book(store, event)
        if event.event_id.endswith("7"):
            book(store, event)  # Comes again, and counts once.
    expected = dict(totals)

    assert of_rollups(store, now_ms) == expected
    for form in READERS:
        assert of_file(store, form, folder) == expected, form


class OneMonth:
    """The same on every store."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    def test_totals_are_the_same_everywhere(self, store: Store, tmp_path: Path) -> None:
        check(store, 1_500, tmp_path)


class TestMemory(OneMonth):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestSQLite(OneMonth):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SQLiteStore]:
        store = SQLiteStore(tmp_path / "ledger.sqlite3")
        yield store
        store.close()

    @pytest.mark.soak
    @pytest.mark.timeout(1_800)
    def test_totals_of_a_million_events_are_the_same(
        self, store: Store, tmp_path: Path
    ) -> None:
        check(store, 1_000_000, tmp_path)


@pytest.mark.usefixtures("patient")
class TestRedis(OneMonth):
    @pytest.fixture
    def store(self, server: Server) -> Iterator[RedisStore]:
        store = RedisStore(server.unix_url)
        yield store
        store.close()
