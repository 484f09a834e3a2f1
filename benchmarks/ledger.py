"""Reserve and settle over a session and two shared accounts, on each store."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring import interleaved_us, line
from guardrails.core.accounts import Charging
from guardrails.core.admission import (
    plan_reserve,
    plan_settle,
)
from guardrails.core.attribution import Attribution
from guardrails.core.calls import ModelCall, Outcome
from guardrails.core.lines import session_line, shared_lines
from guardrails.core.policy import Budget, Limits
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from guardrails.core.windows import Window
from guardrails.ports import Store
from guardrails.stores.memory import MemoryStore
from guardrails.stores.sqlite import SQLiteStore
from guardrails.system.ids import new_id

__all__ = ["measure_ledger"]

NOW_MS = 1_764_000_000_000
PLENTY = Limits(cost_nano_usd=10**15)


def measure_ledger() -> Iterator[str]:
    """Measures the stores against nothing, and against a bare transaction."""
    (memory,) = interleaved_us(_pair(MemoryStore()))
    yield line(
        "memory: plan, reserve and settle", f"{memory:.1f} us", "-", None, "<= 15 us"
    )
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder) / "ledger.sqlite3")
        pair, bare = interleaved_us(_pair(store), _bare(Path(folder) / "bare.sqlite3"))
        store.close()
    yield line(
        "SQLite: plan, reserve and settle",
        f"{pair:.0f} us",
        f"{bare:.0f} us",
        pair / bare,
        "<= 3 x a bare immediate transaction",
    )


def _pair(store: Store) -> Callable[[], object]:
    """Returns one guarded call on a store."""
    who = Attribution.of(agent="a", customer_id="acme", session_id="s")
    session = Budget(
        name="session", per=("session_id",), every=Window.SESSION, limits=PLENTY
    )
    shared = (
        Budget(name="month", per=("customer_id",), every=Window.MONTH, limits=PLENTY),
        Budget(name="day", per=(), every=Window.DAY, limits=PLENTY),
    )
    charging = Charging(
        attribution=who,
        lines=(session_line(session, who), *shared_lines(shared, who, now_ms=NOW_MS)),
    )
    call = ModelCall(model="gpt-4o", provider="openai", input_tokens_max=1_000)
    charge = Charge(cost_nano_usd=1_000, status=PriceStatus.PRICED, source="bench")
    usage = TokenUsage(input_tokens=500, output_tokens=20)
    outcome = Outcome(usage=usage, latency_ms=1)

    def pair() -> None:
        reservation = plan_reserve(
            call,
            hold_id=new_id(),
            charging=charging,
            charge=charge,
            output_tokens=100,
            now_ms=NOW_MS,
            ttl_ms=1_000,
            active_ms=(5,),
        )
        store.execute(reservation.op)
        store.execute(
            plan_settle(
                reservation,
                outcome=outcome,
                usage=usage,
                charge=charge,
                now_ms=NOW_MS,
                active_ms=(5,),
            )
        )

    return pair


def _bare(path: Path) -> Callable[[], object]:
    """Returns a bare immediate transaction with one update."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE t (k TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID")
    connection.execute("INSERT INTO t VALUES ('x', 0)")

    def bare() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE t SET n = n + 1 WHERE k = 'x'")
        connection.execute("COMMIT")

    return bare
