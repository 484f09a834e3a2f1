"""Export of a month to Parquet, beside a bare reading of the same rows."""

import gc
import io
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring import line
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from guardrails.exports import open_writer
from guardrails.stores import rows
from guardrails.stores.sqlite import SQLiteStore
from guardrails.stores.sqlite.flat_rows import FLAT_COLUMNS

__all__ = ["measure_export"]

EVENTS = 200_000
ROUNDS = 3
NOW_MS = 1_764_000_000_000


def measure_export() -> Iterator[str]:
    """Measures what the export takes on top of what SQLite takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        store = SQLiteStore(path)
        _fill(store)

        def export() -> None:
            writer = open_writer("parquet", io.BytesIO(), lambda *_: None)
            for page in store.history.event_pages(project_id="default"):
                writer.write(page)
            writer.finish()

        def bare() -> None:
            with sqlite3.connect(path) as connection:
                found = connection.execute(
                    f"SELECT {', '.join(FLAT_COLUMNS)} FROM events "
                    "ORDER BY time_ms, event_id"
                )
                while found.fetchmany(2_000):
                    pass

        gc.disable()  # As the command does.
        times = [(_seconds(export), _seconds(bare)) for _ in range(ROUNDS)]
        gc.enable()
        store.close()
    exported, read = sorted(times)[ROUNDS // 2]
    yield line(
        f"SQLite: {EVENTS:,} events to Parquet",
        f"{EVENTS / exported / 1_000:.0f} k/s",
        f"{EVENTS / read / 1_000:.0f} k/s",
        exported / read,
        ">= 100 k/s; <= 2 x a bare SELECT",
    )


def _fill(store: SQLiteStore) -> None:
    add = f"INSERT INTO events VALUES ({', '.join('?' * len(rows.EVENT_COLUMNS))})"
    with store.reading() as connection:
        connection.execute("BEGIN")
        connection.executemany(add, map(rows.event_row, map(_event, range(EVENTS))))
        connection.execute("COMMIT")


def _event(number: int) -> Event:
    is_tool = number % 3 == 0
    session = number * 7_919 % (EVENTS // 100)
    return Event(
        event_id=f"{number * 7_919 % EVENTS:012x}",
        time_ms=NOW_MS + number * 10_000,
        attribution=Attribution(
            customer_id=f"customer-{session % 200}",
            feature=f"feature-{session % 7}",
            agent="worker",
            agent_path=("router", "worker"),
            session_id=f"session-{session}",
            tags=(("env", "prod"),),
        ),
        kind=CallKind.TOOL if is_tool else CallKind.MODEL,
        provider=None if is_tool else "openai",
        model=None if is_tool else "gpt-4o",
        server="maps" if is_tool else None,
        tool="geocode" if is_tool else None,
        status=CallStatus.OK,
        latency_ms=number % 3_000,
        usage=None if is_tool else TokenUsage(input_tokens=number, output_tokens=9),
        charge=Charge(
            cost_nano_usd=number, status=PriceStatus.PRICED, source="genai-prices"
        ),
        reserved_nano_usd=number,
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
