"""Spend by any dimensions, with any filter: every store finds what the events say."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.layers import Layer, LayerPart
from guardrails.core.reporting.groups import SPEND_DIMENSIONS
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from guardrails.ports import Store
from guardrails.stores.memory import MemoryStore
from guardrails.stores.redis import RedisStore
from guardrails.stores.sqlite import SQLiteStore
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.stores.spending import HOURS, START_MS, event_lists, settle_of

pytestmark = pytest.mark.usefixtures("patient")

NUMBERS = itertools.count()

CALLS = 300
"""Booked while reports are read."""

Opened = Callable[[], Any]

PATTERNS = ("", "*", "a*", "?", "[!a]*", "a", "*/ab", "model", "Ünï*", 'q"\\*', "none")

queries = st.fixed_dictionaries(
    {
        "by": st.lists(st.sampled_from(SPEND_DIMENSIONS), max_size=3),
        "where": st.dictionaries(
            st.sampled_from(SPEND_DIMENSIONS),
            st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2),
            max_size=2,
        ),
        "every": st.sampled_from((None, "hour", "day", "month")),
        "since_ms": st.integers(-HOUR_MS, HOURS * HOUR_MS).map(START_MS.__add__),
        "hours": st.integers(0, HOURS),
    }
)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with Server(next(iter(BINARIES.values()))) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "server"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, patient: None) -> Opened:
    """Opens an empty store."""
    kind: str = request.param
    server: Server | None = None
    if kind == "server":
        server = request.getfixturevalue("redis_server")

    @contextmanager
    def opening() -> Iterator[Store]:
        if server is not None:
            server.ask("FLUSHALL")
            store: Store = RedisStore(server.unix_url)
        elif kind == "sqlite":
            store = SQLiteStore(tmp_path / f"{next(NUMBERS)}.sqlite3")
        else:
            store = MemoryStore()
        with closing(store):
            yield store

    return opening


def name_in(event: Event, dimension: str) -> str | None:
    who = event.attribution
    if dimension == "root_agent":
        return who.agent_path[0] if who.agent_path else None
    if dimension == "kind":
        return event.kind.value
    if dimension == "tool":
        return f"{event.server}/{event.tool}" if event.server else event.tool
    if dimension in ("server", "model", "provider", "waste", "refused_by"):
        return getattr(event, dimension)
    return getattr(who, dimension)


def is_asked(event: Event, query: dict[str, Any]) -> bool:
    hours = range(query["since_ms"] // HOUR_MS, query["until_ms"] // HOUR_MS + 1)
    kinds = {
        CallKind.MODEL if by in ("model", "provider") else CallKind.TOOL
        for by in query["by"]
        if by in ("model", "provider", "tool", "server")
    }
    if event.time_ms // HOUR_MS not in hours or (kinds and event.kind not in kinds):
        return False
    for dimension, globs in query["where"].items():
        name = name_in(event, dimension)
        if name is None and "" not in globs:
            return False
        if name is not None and not any(fnmatchcase(name, one) for one in globs):
            return False
    return True


def start_of(time_ms: int, every: str | None) -> int | None:
    then = datetime.fromtimestamp(time_ms / 1000, tz=UTC)
    then = then.replace(minute=0, second=0, microsecond=0)
    if every == "day":
        then = then.replace(hour=0)
    elif every == "month":
        then = then.replace(day=1, hour=0)
    return round(then.timestamp() * 1000) if every else None


def expected(events: list[Event], query: dict[str, Any]) -> dict[Any, list[int]]:
    """Adds up the events themselves."""
    sums: dict[Any, list[int]] = defaultdict(lambda: [0] * 9)
    for event in events:
        if not is_asked(event, query):
            continue
        names = tuple(name_in(event, by) for by in query["by"]) or (None,)
        start_ms = start_of(event.time_ms, query["every"])
        cost, usage = event.charge.cost_nano_usd, event.usage
        for index, amount in enumerate(
            (
                cost or 0,
                1,
                cost is None,
                usage.input_tokens if usage else 0,
                usage.cache_read_tokens if usage else 0,
                usage.cache_write_tokens if usage else 0,
                usage.reasoning_tokens if usage else 0,
                0 if event.status.value == "ok" else cost or 0,
                event.latency_ms or 0,
            )
        ):
            sums[start_ms, names][index] += amount
    return dict(sums)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=event_lists(), hours=st.integers(0, HOURS))
def test_layers_add_up_to_what_model_calls_cost(
    opened: Opened, events: list[Event], hours: int
) -> None:
    """What is in no layer has no name; an hour that is not asked for does not count."""
    until_ms = START_MS + hours * HOUR_MS
    sums: dict[str | None, list[int]] = defaultdict(lambda: [0, 0, 0])
    for event in events:
        if event.usage is None or event.time_ms // HOUR_MS > until_ms // HOUR_MS:
            continue
        usage, cost = event.usage, event.charge.cost_nano_usd or 0
        rest = [cost, usage.input_tokens, usage.output_tokens]
        for part in event.layers or ():
            is_output = part.layer.group == "response"
            for index, amount in enumerate(
                (
                    part.cost_nano_usd or 0,
                    0 if is_output else part.tokens,
                    part.tokens if is_output else 0,
                )
            ):
                sums[part.layer.value][index] += amount
                rest[index] -= amount
        sums[None] = [a + b for a, b in zip(sums[None], rest, strict=True)]
    asked = {"project_id": "default", "since_ms": START_MS, "until_ms": until_ms}
    with opened() as store:
        for event in events:
            store.execute(settle_of(event))
        found = store.history.spend(by=["layer"], **asked)
        models = store.history.spend(by="model", **asked)

    assert {
        spend.name: [spend.total_nano_usd, spend.input_tokens, spend.output_tokens]
        for spend in found
    } == {name: amounts for name, amounts in sums.items() if any(amounts) or name}
    for name in ("total_nano_usd", "input_tokens", "output_tokens", "reasoning_tokens"):
        whole = sum(getattr(spend, name) for spend in models)
        assert sum(getattr(spend, name) for spend in found) == whole
    assert all(spend.steps == 0 for spend in found)


def found_in(spends: list[Spend]) -> dict[Any, list[int]]:
    found = {
        (spend.since_ms, spend.names): [
            spend.total_nano_usd,
            spend.steps,
            spend.unpriced_calls,
            spend.input_tokens,
            spend.cache_read_tokens,
            spend.cache_write_tokens,
            spend.reasoning_tokens,
            spend.failed_nano_usd,
            spend.latency_ms,
        ]
        for spend in spends
    }
    assert len(found) == len(spends), "a group came twice"
    return found


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=event_lists(), asked=st.lists(queries, min_size=4, max_size=4))
def test_is_what_the_events_add_up_to(
    opened: Opened, events: list[Event], asked: list[dict[str, Any]]
) -> None:
    """For any dimensions, filter, span and step, whatever the order of the calls."""
    with opened() as store:
        for event in (*events, *events[::2]):  # What is told twice counts once.
            store.execute(settle_of(event))
        for query in asked:
            hours = query.pop("hours")
            query["until_ms"] = query["since_ms"] + hours * HOUR_MS
            spends = store.history.spend(project_id="default", **query)

            assert found_in(spends) == expected(events, query), query
            costs = [(one.since_ms or 0, -one.total_nano_usd) for one in spends]
            assert costs == sorted(costs)


@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=event_lists())
def test_mixes_and_single_cells_say_the_same(
    opened: Opened, events: list[Event]
) -> None:
    """A report of one dimension reads other cells than one that has a filter."""
    span = {"since_ms": START_MS, "until_ms": START_MS + HOURS * HOUR_MS}
    with opened() as store:
        for event in events:
            store.execute(settle_of(event))
        for by in SPEND_DIMENSIONS:
            plain = store.history.spend(project_id="default", by=by, **span)
            filtered = store.history.spend(
                project_id="default", by=by, where={"kind": ["*"]}, **span
            )
            assert list(plain) == list(filtered), by


@pytest.mark.parametrize("by", ["customer_id", "layer"])
def test_what_has_no_name_is_never_less_than_nothing(opened: Opened, by: str) -> None:
    """It is what the rest is not, also while calls are booked."""
    layer = LayerPart(layer=Layer.PROMPT_USER, tokens=10, cost_nano_usd=1_000)
    who = Attribution(agent="a", customer_id="acme", session_id="s-1")
    with opened() as store, ThreadPoolExecutor(max_workers=2) as pool:

        def book(worker: int) -> None:
            for number in range(CALLS):
                event = Event(
                    event_id=f"{worker}-{number}",
                    time_ms=START_MS,
                    attribution=who,
                    kind=CallKind.MODEL,
                    model="m",
                    status=CallStatus.OK,
                    usage=TokenUsage(input_tokens=10),
                    charge=Charge(cost_nano_usd=1_000, status=PriceStatus.PRICED),
                    reserved_nano_usd=1_000,
                    layers=(layer,),
                )
                store.execute(settle_of(event))

        booking = [pool.submit(book, worker) for worker in range(2)]
        found: set[str | None] = set()
        is_over = False
        while not is_over:
            is_over = all(one.done() for one in booking)
            spends = store.history.spend(
                project_id="default", by=by, since_ms=START_MS, until_ms=START_MS
            )
            found |= {spend.name for spend in spends}
        for one in booking:
            one.result()

    assert found == {"acme" if by == "customer_id" else layer.layer.value}


def test_an_unknown_dimension_is_named(opened: Opened) -> None:
    with opened() as store:
        for asked in ({"by": "colour"}, {"by": (), "where": {"colour": ["*"]}}):
            with pytest.raises(ValueError, match="'colour' is not a dimension"):
                store.history.spend(
                    project_id="default", since_ms=0, until_ms=0, **asked
                )
