"""What is unusual in a ledger: every store finds the same, and a command says it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from guardrails.core.alerting.anomalies import AnomalyKind
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.lines import shared_lines
from guardrails.core.policy import Budget
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from guardrails.ports import Store
from guardrails.reports import Anomalies, Span
from guardrails.spend.unusual import read_anomalies
from guardrails.stores import open_store
from guardrails.stores.memory import MemoryStore
from guardrails.testing.conformance import NOW_MS
from tests.reports.traffic import DAY_MS
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.stores.spending import settle_of

CENT = 10_000_000

NOON_MS = NOW_MS // DAY_MS * DAY_MS + DAY_MS // 2

SPAN = Span(hours=11, until_ms=NOON_MS)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with Server(next(iter(BINARIES.values()))) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "server"])
def store(
    request: pytest.FixtureRequest, redis_server: Server, tmp_path: Path
) -> Iterator[Store]:
    redis_server.ask("FLUSHALL")
    redis = redis_server.unix_url
    urls = {"sqlite": f"sqlite:///{tmp_path}/l.sqlite3", "server": redis}
    opened = open_store(urls.get(request.param, "memory://"))
    with closing(opened) as store:
        yield store


@dataclass
class Calls:
    """Books calls, each of many of its kind."""

    events: list[Event] = field(default_factory=list)
    noon_ms: int = NOON_MS

    def call(
        self,
        session: str,
        cents: int,
        *,
        days_ago: int = 0,
        agent: str = "support",
        customer: str = "acme",
        model: str | None = None,
        tool: str | None = None,
        tokens: int = 100,
        **more: object,
    ) -> None:
        who = Attribution(customer_id=customer, session_id=session).under(agent)
        charge = Charge(cost_nano_usd=cents * CENT, status=PriceStatus.PRICED)
        event = Event(
            event_id=f"e{len(self.events)}",
            time_ms=self.noon_ms - days_ago * DAY_MS - 60_000,
            attribution=who,
            kind=CallKind.TOOL if tool else CallKind.MODEL,
            model=model,
            tool=tool,
            status=CallStatus.OK,
            usage=None if tool else TokenUsage(input_tokens=tokens, output_tokens=0),
            charge=charge,
            reserved_nano_usd=0,
        )
        self.events.append(replace(event, **more))  # type: ignore[arg-type]

    def book(self, store: Store, *budgets: Budget) -> None:
        """Charges each to its session, and to what shared budgets it falls under."""
        for event in self.events:
            op, who = settle_of(event), event.attribution
            shared = shared_lines(budgets, who, now_ms=event.time_ms)
            lines = (*op.charging.lines, *shared)
            charging = replace(op.charging, lines=lines)
            active_ms = (0,) * len(lines)
            store.execute(replace(op, charging=charging, active_ms=active_ms))


def a_month_that_went_wrong() -> Calls:
    """Two clean weeks, and a day on which everything is odd."""
    calls = Calls()
    for day in range(1, 15):
        for number in range(5):
            name = f"d{day}-{number}"
            calls.call(name, 10, days_ago=day, model="mini", tokens=3_000)
            calls.call(name, 10, days_ago=day, tool="search")
            calls.call(name, 2, days_ago=day, agent="clerk", model="mini")
    for number in range(6):  # acme, and the tool, far more often than before.
        for _ in range(8):
            calls.call(f"t-{number}", 15, tool="search")
    calls.call("big", 2_000, model="mini", tokens=500_000)
    for number in range(10):
        calls.call(f"n-{number}", 20, model="mini", tokens=20_000)
    for _ in range(3):
        calls.call("loop", 100, customer="b", agent="looper", tool="search",
                   is_repeat=True)  # fmt: skip
        calls.call("again", 100, customer="c", agent="trier", tool="search",
                   status=CallStatus.ERROR)  # fmt: skip
    for number in range(20):
        calls.call(f"w-{number}", 50, customer="d", agent="clerk", model="opus")
    return calls


def test_every_store_finds_what_was_injected(store: Store) -> None:
    """Each kind once, with its name, and the same as in memory."""
    calls = a_month_that_went_wrong()
    calls.book(store)
    memory = MemoryStore()
    calls.book(memory)

    def found(of: Store) -> Anomalies:
        return read_anomalies(
            of.history, project_id="default", span=SPAN, rules=AnomalyRules()
        )

    anomalies = found(store)
    assert anomalies == found(memory)
    names = {(one.kind, one.name, one.about) for one in anomalies.found}
    assert names == {
        (AnomalyKind.CUSTOMER_SPIKE, "acme", None),
        (AnomalyKind.SESSION_OUTLIER, "big", "mini"),
        (AnomalyKind.LOOP, "looper", "search"),
        (AnomalyKind.RETRIES, "c", "search"),
        (AnomalyKind.TOOL_OVERUSE, "search", None),
        (AnomalyKind.LARGE_CONTEXTS, "support", None),
        (AnomalyKind.EXPENSIVE_MODEL, "clerk", "opus"),
        (AnomalyKind.NEW_NAME, "opus", None),
    }
    big = next(one for one in anomalies.found if one.name == "big")
    assert big.customer_id == "acme"
    assert {one.name for one in anomalies.insufficient} >= {"b", "c", "d"}


def test_a_filter_is_one_of_anomalies_too(store: Store) -> None:
    a_month_that_went_wrong().book(store)
    anomalies = read_anomalies(
        store.history,
        project_id="default",
        span=SPAN,
        rules=AnomalyRules(),
        where={"customer_id": ("c",)},
    )
    assert [one.kind for one in anomalies.found] == [AnomalyKind.RETRIES]


def test_an_empty_store_and_clean_weeks_have_none(store: Store) -> None:
    """Not even with a clock that is days ahead, or behind."""
    calls = a_month_that_went_wrong()
    clean = Calls(events=[e for e in calls.events if e.time_ms < NOON_MS - DAY_MS // 2])
    for book in (Calls(), clean):
        book.book(store)
        for days in (-3, 0, 3):
            span = Span(hours=11, until_ms=NOON_MS + days * DAY_MS)
            found = read_anomalies(
                store.history, project_id="default", span=span, rules=AnomalyRules()
            )
            assert not found.found


def test_of_a_long_span_only_the_last_week_is_looked_at() -> None:
    memory = MemoryStore()
    a_month_that_went_wrong().book(memory)

    def found(days: int) -> int:
        span = Span(hours=30 * 24, until_ms=NOON_MS + days * DAY_MS)
        read = read_anomalies(
            memory.history, project_id="default", span=span, rules=AnomalyRules()
        )
        return len(read.found)

    assert found(6) > found(9) == 0
