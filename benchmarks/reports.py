"""Reports of the last day in a month of a million events, beside plain readings."""

import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from operator import add
from pathlib import Path

import redis

from benchmarks.measuring import line
from guardrails.core.events import Event
from guardrails.core.layers import LAYERS
from guardrails.core.reporting.rollups import HOUR_MS, LAYER
from guardrails.ports import History
from guardrails.stores import rows
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.codec.layouts import DERIVED, LAYER_SUMS, SUMS
from guardrails.stores.sqlite import SQLiteStore
from guardrails.system.clock import SystemClock
from tests.exports.traffic import DAY_MS, Month
from tests.servers.processes import Server, binaries

__all__ = ["measure_reports"]

EVENTS = 1_000_000
SESSIONS = EVENTS // 100
DAYS = 30
ROUNDS = 9
SIZE = len(rows.ROLLUP_COLUMNS)
KEYS = 4
"""Columns of a row of sums that name its cell."""

ASKED: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "customer": (["customer_id"], {}),
    "session": (["session_id"], {}),
    "layer": (["layer"], {}),
    "customer and feature": (["customer_id", "feature"], {}),
    "model, of agent-1*": (["model"], {"agent": ["agent-1*"]}),
}

Cells = dict[tuple[object, ...], list[int]]


def measure_reports() -> Iterator[str]:
    """Measures both stores, and the command as a whole process."""
    now_ms = SystemClock().now_ms()
    month = Month(
        sessions=SESSIONS,
        events=EVENTS,
        days=DAYS,
        start_ms=now_ms - DAYS * DAY_MS,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        with closing(SQLiteStore(path)) as store:
            cells = _fill_sqlite(store, month)
            bare = _ms(lambda: _bare_sqlite(path, now_ms))
            yield from _reports("SQLite", store.history, now_ms, bare, "<= 50 ms")
            yield _session("SQLite", store.history, month)
        yield _process("no ledger yet", Path(folder) / "none.sqlite3", "<= 400 ms")
        yield _process(f"{EVENTS:,} events", path, "<= 700 ms")
    name, binary = next(iter(binaries().items()))
    with Server(binary) as server, closing(RedisStore(server.unix_url)) as store:
        client = redis.Redis(unix_socket_path=str(server.socket))
        _fill_redis(client, cells)
        hour, prefix = now_ms // HOUR_MS, keys.project_prefix("default")
        bare = _ms(
            lambda: [
                client.hgetall(keys.rollup(prefix, hour - n, "mix")) for n in range(25)
            ]
        )
        yield from _reports(name, store.history, now_ms, bare, "<= 20 ms")


def _reports(
    name: str, history: History, now_ms: int, bare: float, target: str
) -> Iterator[str]:
    for title, (by, where) in ASKED.items():
        measured = _ms(
            lambda by=by, where=where: history.spend(
                project_id="default",
                by=by,
                since_ms=now_ms - DAY_MS,
                until_ms=now_ms,
                where=where,
            )
        )
        yield line(
            f"{name}: 24 h by {title}",
            f"{measured:.1f} ms",
            f"{bare:.1f} ms",
            measured / bare,
            target,
        )


def _session(name: str, history: History, month: Month) -> str:
    event = next(month.all_events())
    session_id = event.attribution.session_id or ""
    measured = _ms(
        lambda: history.events(project_id="default", session_id=session_id, limit=5_000)
    )
    return line(
        f"{name}: events of a session", f"{measured:.1f} ms", "-", None, "<= 50 ms"
    )


def _process(title: str, path: Path, target: str) -> str:
    """Measures the command beside a Python that does nothing."""
    url = f"sqlite:///{path}"
    command = [
        "-c",
        "from guardrails.cli import main; main()",
        "costs",
        "--hours",
        "24",
    ]
    measured = _ms(lambda: _run([*command, "--store", url]))
    bare = _ms(lambda: _run(["-c", "pass"]))
    return line(
        f"guardrails costs, {title}",
        f"{measured:.0f} ms",
        f"{bare:.0f} ms",
        measured / bare,
        target,
    )


def _run(arguments: list[str]) -> None:
    environment = {k: v for k, v in os.environ.items() if "BYTECODE" not in k}
    subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, env=environment
    )


def _ms(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1_000)
    return statistics.median(times)


def _bare_sqlite(path: Path, now_ms: int) -> None:
    """Reads the cells of all names together, and does nothing with them."""
    hours = range((now_ms - DAY_MS) // HOUR_MS, now_ms // HOUR_MS + 1)
    query = (
        "SELECT * FROM rollups WHERE project_id = 'default' AND dimension = 'mix' "
        f"AND hour IN ({', '.join(map(str, hours))})"
    )
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(query).fetchall()


def _fill_sqlite(store: SQLiteStore, month: Month) -> Cells:
    """Writes events, and their cells as booking them one by one would."""
    cells: Cells = {}
    add_event = _insert("events", rows.EVENT_COLUMNS)
    add_cell = _insert("rollups", rows.ROLLUP_COLUMNS)

    def noted() -> Iterator[Event]:
        for event in month.all_events():
            columns = rows.rollup_columns(event)
            for start in range(0, len(columns), SIZE):
                key = tuple(columns[start : start + KEYS])
                sums = columns[start + KEYS : start + SIZE]
                known = cells.get(key)
                cells[key] = list(map(add, known, sums)) if known else sums
            yield event

    with store.reading() as connection:
        connection.execute("BEGIN")
        connection.executemany(add_event, map(rows.event_row, noted()))
        connection.executemany(add_cell, ((*key, *sums) for key, sums in cells.items()))
        connection.execute("COMMIT")
    return cells


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"


def _fill_redis(client: redis.Redis, cells: Cells) -> None:
    """Writes the same cells as the script lays them out."""
    prefix = keys.project_prefix("default")
    layers: dict[int, list[int]] = {}
    pipe = client.pipeline(transaction=False)
    for (_, hour, dimension, name), sums in cells.items():
        if dimension == LAYER:
            place = 2 * [layer.value for layer in LAYERS].index(name)
            numbers = layers.setdefault(hour, [0] * 2 * len(LAYERS))
            numbers[place : place + 2] = [sums[4] + sums[5], sums[0]]
        elif dimension not in DERIVED:
            pipe.hset(keys.rollup(prefix, hour, dimension), name, SUMS.pack(*sums))
        if len(pipe) >= 1_000:
            pipe.execute()
    for hour, numbers in layers.items():
        pipe.hset(keys.rollup(prefix, hour, LAYER), "", LAYER_SUMS.pack(*numbers))
    pipe.execute()
