"""Every report says of a random history what a plain sum of its calls says."""

import itertools
import json
import random  # noqa: TID251 - seeded, so that every run asks alike
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from guardrails import Guard
from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.core.reporting.groups import SPEND_DIMENSIONS
from guardrails.ports import KeptStore
from guardrails.stores import open_store
from guardrails.testing import FakeClock
from tests.reports.histories import (
    CONFIGURATION,
    HOUR_MS,
    PROJECT,
    Done,
    History,
    forgotten,
    steps_of,
    summed,
    told,
)
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server

DIMENSIONS = [one for one in SPEND_DIMENSIONS if one not in ("waste", "refused_by")]
HOURS = {None: 8_784, "hour": 200, "day": 1_000, "month": 8_784}
LATER_MS = 26 * HOUR_MS
"""When no session is in use any more."""

SEEDS = [
    pytest.param(seed, marks=[pytest.mark.soak] if seed > 1 else [])
    for seed in range(40)
]


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[Server]:
    with Server(next(iter(BINARIES.values()))) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The ledger, of each kind."""
    if request.param == "server":
        server: Server = request.getfixturevalue("shared_redis")
        server.ask("FLUSHALL")
        return server.unix_url
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/l.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(url: str, clock: FakeClock) -> Iterator[Guard]:
    with closing(Guard(CONFIGURATION, store=url, clock=clock)) as guard:
        yield guard


def events_of(guard: Guard) -> list[FlatEvent]:
    pages = guard.store.history.event_pages(project_id=PROJECT)
    return [event for page in pages for event in page]


def is_taken(name: str | None, glob: str | None) -> bool:
    if name is None or glob is None:
        return name is glob
    return fnmatchcase(name, glob)


def check_events(guard: Guard, calls: list[Done]) -> None:
    """Each call is one event, with its names and its cost."""
    assert sorted(
        (one.time_ms, one.session_id or "", one.agent_path, str(one.cost_nano_usd))
        for one in events_of(guard)
    ) == sorted(
        (
            call.time_ms,
            call.who.session_id or "",
            json.dumps(call.who.agent_path, ensure_ascii=False, separators=(",", ":")),
            str(call.cost_nano_usd),
        )
        for call in calls
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_are_those_of_the_calls(guard: Guard, clock: FakeClock, seed: int) -> None:
    """By every dimension, some pairs, filters and steps, to the nano-dollar."""
    draw = random.Random(seed)
    calls = History(seed, clock).play(guard, sessions=30)
    check_events(guard, calls)
    now_ms = clock.now_ms()
    pairs = draw.sample(list(itertools.permutations(DIMENSIONS, 2)), 8)
    for by in [*((one,) for one in DIMENSIONS), *pairs]:
        every = draw.choice([None, None, "hour", "day", "month"])
        where = draw.choice(DIMENSIONS)
        names = {call.name(where) for call in calls}
        glob = draw.choice([None, "*", *sorted(f"{n[0]}*" for n in names if n)])
        since_ms = (now_ms // HOUR_MS - HOURS[every]) * HOUR_MS

        meant = [
            call
            for call in calls
            if call.time_ms >= since_ms and is_taken(call.name(where), glob)
        ]
        rows = guard.spend(
            by, since=timedelta(hours=HOURS[every]), where={where: glob}, every=every
        )

        assert told(rows) == summed(meant, by, every=every), (by, where)
        cost = sum(row.usd for row in rows)
        for row in rows if cost else ():
            assert row.share == pytest.approx(float(row.usd / cost))
        if every is not None:
            steps = [row.since for row in rows]
            assert list(dict.fromkeys(steps)) == steps_of(since_ms, now_ms, every)


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_stay_when_a_customer_is_forgotten(
    guard: Guard, url: str, clock: FakeClock, seed: int
) -> None:
    """What it spent is nobody's then; what is pruned is no longer there."""
    if url == "memory://":
        pytest.skip("what is in memory is not kept")
    calls = History(seed, clock).play(guard, sessions=30)
    clock.advance(seconds=LATER_MS / 1_000)
    customer_id = next(call.who.customer_id for call in calls if call.who.customer_id)
    before_ms = clock.now_ms() - 240 * HOUR_MS
    with closing(open_store(url)) as store:
        assert isinstance(store, KeptStore)
        done = store.keeper.forget(
            project_id=PROJECT,
            customer_id=customer_id,
            now_ms=clock.now_ms(),
            is_dry_run=False,
        )
        left = [forgotten(call, customer_id) for call in calls]
        assert done.events == sum(call not in calls for call in left)
        for by in DIMENSIONS:
            rows = guard.spend(by, since=timedelta(hours=8_784))
            assert told(rows) == summed(left, (by,)), by
        store.keeper.prune(
            project_id=PROJECT,
            events_before_ms=before_ms,
            rollups_before_ms=before_ms,
            is_dry_run=False,
        )
    kept = [call for call in left if call.time_ms // HOUR_MS >= before_ms // HOUR_MS]
    rows = guard.spend("customer_id", since=timedelta(hours=8_784))
    assert told(rows) == summed(kept, ("customer_id",))
    cost = sum(one.cost_nano_usd or 0 for one in events_of(guard))
    young = [call for call in left if call.time_ms >= before_ms]
    assert cost == sum(call.cost_nano_usd or 0 for call in young)
    assert all(one.customer_id != customer_id for one in events_of(guard))
