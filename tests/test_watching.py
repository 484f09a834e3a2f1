"""Watching: what people should know is told once, however many watch."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from guardrails.alerts import Alert, AlertKind, AlertSettings
from guardrails.core.alerting.anomalies import AnomalyKind
from guardrails.core.alerting.daily import Daily
from guardrails.core.alerting.deliveries import ReadAlerts
from guardrails.core.lines import shared_lines
from guardrails.core.operations import RaiseLimits
from guardrails.core.policy import Budget, Limits, Policy
from guardrails.core.windows import Window
from guardrails.ports import Store
from guardrails.spend.watching import Watch
from guardrails.stores import open_store
from guardrails.stores.memory import MemoryStore
from tests.alerts.conftest import SLACK
from tests.reports.traffic import DAY_MS
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.test_unusual import CENT, NOON_MS, Calls

USD = 100 * CENT
HOUR_MS = 3_600_000

LATER_MS = round(datetime(2100, 11, 24, 12, tzinfo=UTC).timestamp()) * 1000
"""Redis forgets accounts of months that are over."""

SETTINGS = AlertSettings(slack=SLACK)

MONTH = Budget(
    name="customer-month",
    per=("customer_id",),
    every=Window.MONTH,
    limits=Limits(cost_nano_usd=100 * USD),
)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with Server(next(iter(BINARIES.values()))) as server:
        yield server


@pytest.fixture(params=["sqlite", "server"])
def url(request: pytest.FixtureRequest, redis_server: Server, tmp_path: Path) -> str:
    redis_server.ask("FLUSHALL")
    if request.param == "server":
        return redis_server.unix_url
    return f"sqlite:///{tmp_path}/l.sqlite3"


def watch(
    store: Store,
    *,
    on: tuple[AlertKind, ...] = SETTINGS.on,
    policy: Policy | None = None,
) -> Watch:
    return Watch(
        store,
        policy=policy or Policy(),
        settings=replace(SETTINGS, on=on),
        project_id="default",
    )


def a_spike(*, days: int = 1) -> Calls:
    """Two weeks of a dollar a day, then some of ten."""
    calls = Calls()
    for day in range(days, 15 + days):
        calls.call(f"d{day}", 100, days_ago=day, model="mini", tokens=9_000)
    for day in range(days):
        calls.call(f"d{day}", 1_000, days_ago=day, model="mini", tokens=90_000)
    return calls


def told(store: Store) -> Counter[str]:
    logs = store.execute(ReadAlerts(project_id="default", limit=1_000))
    return Counter(log.alert.kind.value for log in logs)


def test_a_spike_is_told_once_and_yesterday_too(url: str) -> None:
    """By whoever looks first; a clock that is set back changes nothing."""
    with closing(open_store(url)) as store:
        a_spike().book(store)
        first = watch(store).look(NOON_MS)
        later = watch(store).look(NOON_MS + HOUR_MS)
        back = watch(store).look(NOON_MS - DAY_MS)
        again = watch(store).look(NOON_MS + 60_000)

    kinds = [(one.kind, one.anomaly and one.anomaly.kind) for one in first]
    assert kinds == [
        (AlertKind.ANOMALY, AnomalyKind.CUSTOMER_SPIKE),
        (AlertKind.DAILY, None),
    ]
    assert first[0].attribution is not None
    assert first[0].attribution.customer_id == "acme"
    assert later == again == []
    assert [one.kind for one in back] == [AlertKind.DAILY], "of the day before"


def test_many_watchers_tell_once(url: str) -> None:
    """Each with a connection of its own, all at once."""
    with closing(open_store(url)) as store:
        a_spike().book(store)
    found: list[Alert] = []
    barrier = threading.Barrier(8)
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(open_store(url))) for _ in range(8)]

        def look(store: Store) -> None:
            watching = watch(store)
            barrier.wait()
            found.extend(watching.look(NOON_MS))

        threads = [threading.Thread(target=look, args=(one,)) for one in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = told(stores[0])

    assert counts == {"anomaly": 1, "daily": 1}
    assert len(found) == 2


def test_what_lasts_is_told_once_and_what_comes_again_twice() -> None:
    """A day that is calm ends it."""
    lasting, store = a_spike(days=2), MemoryStore()
    lasting.book(store)
    on = (AlertKind.ANOMALY,)
    yesterday = watch(store, on=on).look(NOON_MS - DAY_MS)
    today = watch(store, on=on).look(NOON_MS)
    assert len(yesterday) == 1
    assert today == []

    coming, store = a_spike(days=1), MemoryStore()
    coming.call("once", 1_000, days_ago=3, model="mini", tokens=90_000)
    coming.book(store)
    assert len(watch(store, on=on).look(NOON_MS - 3 * DAY_MS)) == 1
    assert len(watch(store, on=on).look(NOON_MS)) == 1


def test_the_end_of_a_day_is_looked_at_after_midnight() -> None:
    store = MemoryStore()
    a_spike().book(store)
    midnight_ms = NOON_MS // DAY_MS * DAY_MS + DAY_MS
    watching = watch(store, on=(AlertKind.ANOMALY,))

    assert watching.look(midnight_ms + 2 * HOUR_MS) == []
    assert len(watching.look(midnight_ms + HOUR_MS // 2)) == 1


def test_what_goes_on_after_midnight_is_told_once_in_the_look_at_both_days(
    url: str,
) -> None:
    """As the outbox keeps it: as it was yesterday, when it began."""
    calls = a_spike(days=2)
    calls.events[-2] = replace(
        calls.events[-2], time_ms=NOON_MS // DAY_MS * DAY_MS + 60_000
    )
    with closing(open_store(url)) as store:
        calls.book(store)
        midnight_ms = NOON_MS // DAY_MS * DAY_MS
        (alert,) = watch(store, on=(AlertKind.ANOMALY,)).look(midnight_ms + 120_000)
        (log,) = store.execute(ReadAlerts(project_id="default", limit=9))

    assert log.alert == alert
    assert alert.anomaly is not None
    assert alert.anomaly.since_ms == midnight_ms - DAY_MS


def test_a_day_is_told_with_what_it_was_spent_on() -> None:
    store, calls = MemoryStore(), Calls()
    calls.call("s-1", 700, days_ago=1, tool="geocode")
    calls.call("s-2", 300, days_ago=1, customer="b", model="mini", is_repeat=True)
    calls.call("s-3", 400, days_ago=2, model="mini")
    calls.book(store)
    watching = watch(store, on=(AlertKind.DAILY,))
    (alert,) = watching.look(NOON_MS)

    assert alert.daily == Daily(
        day_ms=NOON_MS // DAY_MS * DAY_MS - DAY_MS,
        cost_nano_usd=10 * USD,
        before_nano_usd=4 * USD,
        sessions=2,
        wasted_nano_usd=3 * USD,
        anomalies=1,
        customers=(("acme", 7 * USD), ("b", 3 * USD)),
        agents=(("support", 10 * USD),),
        tools=(("geocode", 7 * USD),),
    )
    assert watching.look(NOON_MS + 1) == []
    assert [one.kind for one in watching.look(NOON_MS + DAY_MS)] == []


def test_a_budget_that_will_not_last_is_told_until_it_is_raised(url: str) -> None:
    """Of each customer apart; the window and the limit are part of the id."""
    policy = Policy(budgets=(MONTH,))
    calls = Calls(noon_ms=LATER_MS)
    for day in range(4):
        calls.call(f"s-{day}", 1_500, days_ago=day, model="mini")
        calls.call(f"b-{day}", 50, days_ago=day, customer="b", model="mini")
    with closing(open_store(url)) as store:
        calls.book(store, MONTH)
        watching = watch(store, on=(AlertKind.ANOMALY,), policy=policy)
        found = [one for one in watching.look(LATER_MS) if one.pace]
        again = [one for one in watching.look(LATER_MS + HOUR_MS) if one.pace]
        (alert,) = found
        assert alert.attribution is not None
        (line,) = shared_lines((MONTH,), alert.attribution, now_ms=LATER_MS)
        store.execute(
            RaiseLimits(
                account=line.account,
                limits=Limits(cost_nano_usd=110 * USD),
                now_ms=LATER_MS,
            )
        )
        raised = [one for one in watching.look(LATER_MS + 60_000) if one.pace]

    assert (alert.kind, alert.scope) == (AlertKind.PACE, "customer_id=acme")
    assert alert.limit == 100 * USD
    assert alert.pace is not None
    assert LATER_MS < alert.pace.gone_at_ms < alert.pace.ends_at_ms
    assert again == []
    assert [one.limit for one in raised] == [110 * USD]


def test_only_what_people_ask_for_is_told() -> None:
    store = MemoryStore()
    a_spike().book(store)
    assert watch(store, on=(AlertKind.STOP,)).look(NOON_MS) == []
    (daily,) = watch(store, on=(AlertKind.DAILY,)).look(NOON_MS)
    assert daily.kind is AlertKind.DAILY


def test_an_empty_ledger_has_no_news(url: str) -> None:
    with closing(open_store(url)) as store:
        assert watch(store, policy=Policy(budgets=(MONTH,))).look(NOON_MS) == []


def test_a_ledger_keeps_all_of_what_is_told(url: str) -> None:
    """And gives it out as it was told, to be sent."""
    with closing(open_store(url)) as store:
        a_spike().book(store)
        found = watch(store).look(NOON_MS)
        logs = store.execute(ReadAlerts(project_id="default", limit=9))

    assert sorted((log.alert for log in logs), key=repr) == sorted(found, key=repr)
    assert {log.deliveries[0].place for log in logs} == set(SETTINGS.places)
