"""The outbox: one alert in the fleet, sent at least once, in few messages."""

import os
import random  # noqa: TID251 - seeded, so that every run kills at like moments
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from guardrails.alerts import AlertSettings, WebhookSettings
from guardrails.alerts.delivery import Answer, Post
from guardrails.alerts.sink import AlertSink
from guardrails.core.accounts import Charging, Threshold
from guardrails.core.alerting import outbox
from guardrails.core.alerting.deliveries import DeliveryState, ReadAlerts, RetryAlerts
from guardrails.core.operations import StopScope
from guardrails.core.policy import Limits, Measure, OnStoreError
from guardrails.core.stops import StopKind, StopTarget
from guardrails.core.telling import AlertKind
from guardrails.ports import Store
from guardrails.stores import open_store
from guardrails.stores.memory import MemoryStore
from guardrails.stores.redis import RedisStore
from guardrails.stores.resilient import ResilientStore
from guardrails.stores.sqlite import SQLiteStore, outbox_rows
from guardrails.testing import FakeClock
from guardrails.testing.conformance import CENT, NOW_MS, TELLING, charging, settle
from tests.alerts.conftest import SECRET, SLACK, Receiver, content_of
from tests.servers.processes import Server
from tests.servers.waiting import until
from tests.stores.flaky import FlakyStore
from tests.stores.mutants import mutated_script
from tests.stores.running import CONTEXT, insist, together

Start = Callable[..., Receiver]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROCESSES = 64
ROUNDS = 3
KILLS = 12


# --- one alert in the fleet -------------------------------------------------


@needs_fork
def test_many_processes_that_cross_at_once_make_one_alert(tmp_path: Path) -> None:
    _cross(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", rounds=ROUNDS)


@needs_fork
def test_many_processes_that_cross_at_once_make_one_alert_in_redis(
    server: Server,
) -> None:
    _cross(server.unix_url, rounds=ROUNDS)


@needs_fork
@pytest.mark.soak
def test_many_processes_that_cross_a_hundred_times_make_a_hundred_alerts(
    tmp_path: Path, server: Server
) -> None:
    _cross(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", rounds=100)
    _cross(server.unix_url, rounds=100)


def _cross(place: str, *, rounds: int) -> None:
    """All settle a cent in each round, half of which crosses a threshold; twice."""
    os.environ["ROUNDS"] = str(rounds)
    with closing(open_store(place)) as store:  # Makes the file.
        store.secret()
    together(_settle_rounds, place, processes=PROCESSES)
    with closing(open_store(place)) as store:
        found = store.execute(ReadAlerts(project_id="default", limit=10_000))
    told = Counter(
        (log.alert.attribution.session_id, log.alert.kind)
        for log in found
        if log.alert.attribution is not None
    )
    assert told == {
        (f"round-{number}", kind): 1
        for number in range(rounds)
        for kind in (AlertKind.SOFT, AlertKind.STOP)
    }


def _settle_rounds(place: str, number: int, barrier: Barrier) -> None:
    with closing(open_store(place)) as store:
        for one in range(int(os.environ["ROUNDS"])):
            to = _halfway(f"round-{one}")
            barrier.wait()
            for _ in range(2):
                insist(store, settle(f"{one}-{number}", to))


def _halfway(session: str, *, cents: int = PROCESSES - 1) -> Charging:
    """A session whose threshold is at half of its cents."""
    half = Threshold(measure=Measure.COST, value=cents * CENT // 2, label="half")
    limits = Limits(cost_nano_usd=cents * CENT)
    return charging(session=session, limits=limits, thresholds=(half,), telling=TELLING)


# --- a dispatcher that dies -------------------------------------------------


@needs_fork
def test_each_alert_arrives_although_dispatchers_are_killed(
    tmp_path: Path, receive: Start
) -> None:
    _survive(partial(SQLiteStore, tmp_path / "ledger.sqlite3"), receive, kills=KILLS)


@needs_fork
def test_each_alert_arrives_from_redis_although_dispatchers_are_killed(
    server: Server, receive: Start
) -> None:
    _survive(partial(RedisStore, server.url), receive, kills=4)


@needs_fork
@pytest.mark.soak
def test_each_alert_arrives_although_a_hundred_dispatchers_are_killed(
    tmp_path: Path, receive: Start
) -> None:
    _survive(partial(SQLiteStore, tmp_path / "ledger.sqlite3"), receive, kills=100)


def _survive(
    opening: Callable[[], SQLiteStore | RedisStore], receive: Start, *, kills: int
) -> None:
    dice = random.Random(7)
    receiver = receive()
    settings = _webhook(receiver)
    for kill in range(kills):
        with closing(opening()) as store:
            for number in range(3):
                _stop_agent(store, settings, f"{kill}-{number}")
        process = CONTEXT.Process(
            target=_send_for_ever, args=(opening, settings, kill), daemon=True
        )
        process.start()
        before = len(receiver.requests)
        until(
            lambda before=before: len(receiver.requests) > before,
            "a message of this process",
        )
        process.join(dice.random() * 0.02)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with closing(opening()) as store:
        clock = FakeClock(NOW_MS + kills * 600_000)
        _pump(_sink(store, settings, clock), clock)
        found = store.execute(ReadAlerts(project_id="default", limit=10_000))
    ids = Counter(content_of(body)["id"] for _, body in receiver.requests)
    assert {log.deliveries[0].state for log in found} == {DeliveryState.DELIVERED}
    assert {log.deliveries[0].message_id for log in found} == {*ids}
    assert len(found) == 3 * kills
    # One that was being sent may be sent again: nobody heard the answer.
    assert ids.total() - len(ids) <= kills


def _send_for_ever(
    opening: Callable[[], SQLiteStore | RedisStore], settings: AlertSettings, kill: int
) -> None:
    """Sends at the speed of light: its clock goes on while it would wait."""
    clock = FakeClock(NOW_MS + kill * 600_000)
    sink = _sink(opening(), settings, clock)
    while True:
        sink.dispatcher.wake("default")
        clock.advance(seconds=sink.dispatcher.pump() or 0.001)


# --- storms -----------------------------------------------------------------


def test_ten_thousand_sessions_are_at_most_seventy_messages() -> None:
    """And the counts of the digests are exact."""
    store, clock, posts = MemoryStore(), FakeClock(NOW_MS), Posts()
    settings = AlertSettings(webhook=WEBHOOK)
    sink = _sink(store, settings, clock, posts)
    sink.dispatcher.wake("default")
    for number in range(10_000):
        to = _halfway(f"s-{number}", cents=2)
        to = replace(to, telling=settings.telling)
        store.execute(settle(f"{number}", to, now_ms=clock.now_ms()))
        if number % 10 == 0:
            sink.dispatcher.pump()
            clock.advance(seconds=0.06)
    _pump(sink, clock)
    assert len(posts.to(WEBHOOK.url)) <= 70
    bodies = [content_of(post.body) for post in posts.to(WEBHOOK.url)]
    counts = [body["data"].get("counts", {"soft": 1}) for body in bodies]
    assert sum(count["soft"] for count in counts) == 10_000
    times = posts.times(WEBHOOK.url)
    assert min(later - time for time, later in pairwise(times)) >= 1_000


def test_closing_waits_for_no_message_that_there_is_not() -> None:
    """Two in a second are one too many, but here is only one."""
    store, clock, posts = MemoryStore(), FakeClock(NOW_MS), Posts()
    settings = AlertSettings(webhook=WEBHOOK)
    sink = _sink(store, settings, clock, posts)
    del sink.dispatcher._start
    _stop_agent(store, settings, "a")
    sink.dispatcher.wake("default")
    sink.close()

    assert posts.times(WEBHOOK.url) == [NOW_MS]
    assert clock.now_ms() <= NOW_MS + 1


def test_closing_keeps_the_pace_between_two_messages() -> None:
    store, clock, posts = MemoryStore(), FakeClock(NOW_MS), Posts()
    settings = AlertSettings(webhook=WEBHOOK)
    sink = _sink(store, settings, clock, posts)
    for name in ("a", "b"):
        _stop_agent(store, settings, name)
        sink.dispatcher.wake("default")
        sink.dispatcher.pump()
    del sink.dispatcher._start
    sink.dispatcher.wake("default")
    sink.close()

    first, second = posts.times(WEBHOOK.url)
    assert second - first >= 1_000


# --- what fails -------------------------------------------------------------


def test_a_place_that_fails_has_nothing_sent_again_to_the_others() -> None:
    """And the one that fails is sent the same, under the same id."""
    store, clock = MemoryStore(), FakeClock(NOW_MS)
    posts = Posts({WEBHOOK.url: [Answer(text="no answer"), Answer(status=500)]})
    settings = AlertSettings(slack=SLACK, webhook=WEBHOOK)
    _stop_agent(store, settings, "a")
    _pump(_sink(store, settings, clock, posts), clock)
    assert len(posts.to(SLACK)) == 1
    first, second, third = [content_of(post.body) for post in posts.to(WEBHOOK.url)]
    assert first == second == third
    [log] = store.execute(ReadAlerts(project_id="default", limit=9))
    slack, webhook = log.deliveries
    assert (slack.attempts, webhook.attempts) == (1, 3)
    assert (webhook.label, webhook.status) == ("https://alerts.example.org/***", 200)


def test_a_place_that_hangs_makes_no_other_late() -> None:
    """One thread sends to all, for all projects: by five seconds at most."""
    store, clock = MemoryStore(), FakeClock(NOW_MS)
    settings = AlertSettings(slack=SLACK, webhook=WEBHOOK)
    posts = Hanging()
    sink = _sink(store, settings, clock, posts)
    late_ms: list[int] = []
    for number in range(20):
        told_ms = clock.now_ms()
        for project_id in "abcde":
            target = StopTarget(kind=StopKind.AGENT, name=f"{number}")
            store.execute(
                StopScope(
                    project_id=project_id,
                    target=target,
                    now_ms=told_ms,
                    telling=settings.telling,
                )
            )
            sink.dispatcher.wake(project_id)
        while clock.now_ms() < told_ms + 30_000:
            wait = sink.dispatcher.pump()
            left = (told_ms + 30_000 - clock.now_ms()) / 1000
            clock.advance(seconds=max(0.001, min(left, left if wait is None else wait)))
        assert len(posts.to(SLACK)) == 5 * (number + 1)
        late_ms.append(posts.times(SLACK)[-1] - told_ms)
    assert len(posts.to(WEBHOOK.url)) > 10
    # Five messages with a second between two, and one attempt that hangs.
    assert max(late_ms) <= 10_000


def test_what_is_given_up_is_kept_for_who_asks_and_can_be_sent_again() -> None:
    store, clock = MemoryStore(), FakeClock(NOW_MS)
    posts = Posts({WEBHOOK.url: [Answer(status=404, is_final=True)]})
    settings = AlertSettings(webhook=WEBHOOK)
    sink = _sink(store, settings, clock, posts)
    _stop_agent(store, settings, "a")
    _pump(sink, clock)
    [log] = store.execute(ReadAlerts(project_id="default", limit=9))
    assert log.deliveries[0].state is DeliveryState.DEAD
    retry = RetryAlerts(project_id="default", now_ms=clock.now_ms())
    assert store.execute(retry) == 1
    clock.advance(seconds=1)
    _pump(sink, clock)
    [log] = store.execute(ReadAlerts(project_id="default", limit=9))
    assert log.deliveries[0].state is DeliveryState.DELIVERED


def test_a_receiver_that_is_away_for_three_days_is_given_up() -> None:
    store, clock = MemoryStore(), FakeClock(NOW_MS)
    posts = Posts({WEBHOOK.url: [Answer(text="no answer")] * 10_000})
    settings = AlertSettings(webhook=WEBHOOK)
    _stop_agent(store, settings, "a")
    _pump(_sink(store, settings, clock, posts), clock)
    assert 3 * 86_400_000 <= clock.now_ms() - NOW_MS <= 3 * 86_400_000 + 7_200_000
    [log] = store.execute(ReadAlerts(project_id="default", limit=9))
    assert log.deliveries[0].state is DeliveryState.DEAD


def test_what_happened_while_the_store_was_away_is_told_when_it_is_booked() -> None:
    flaky, clock = FlakyStore(), FakeClock(NOW_MS)
    store = ResilientStore(flaky, on_error=OnStoreError.LOCAL, clock=clock)
    to = _halfway("s", cents=2)
    flaky.is_away = True
    store.execute(settle("1", to))
    assert store.is_degraded
    assert not flaky.real.execute(ReadAlerts(project_id="default", limit=9))
    flaky.is_away = False
    clock.advance(seconds=2)
    [log] = flaky.real.execute(ReadAlerts(project_id="default", limit=9))
    assert log.alert.kind is AlertKind.SOFT
    assert not store.is_degraded


# --- bounds -----------------------------------------------------------------


def test_the_oldest_makes_room(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every store, and what it was waiting for is counted as lost."""
    monkeypatch.setattr(outbox, "OUTBOX_MAX", 3)
    monkeypatch.setattr(outbox_rows, "OUTBOX_MAX", 3)
    redis = RedisStore(server.unix_url)
    for which in ("stops", "outbox"):
        small = mutated_script(which, "OUTBOX_TTL_S = 20000", "OUTBOX_TTL_S = 3")
        setattr(redis, f"_{which}", small)
    posts, settings = Posts(), AlertSettings(webhook=WEBHOOK)
    for store in (MemoryStore(), SQLiteStore(tmp_path / "l.sqlite3"), redis):
        clock = FakeClock(NOW_MS)
        with closing(store):
            sink = _sink(store, settings, clock, posts)
            for number in range(6):
                _stop_agent(store, settings, f"{number}", now_ms=NOW_MS + number)
                if number == 0:
                    sink.dispatcher.wake("default")
                    sink.dispatcher.pump()
            found = store.execute(ReadAlerts(project_id="default", limit=9))
            agents = [log.alert.scope for log in found]
            assert agents == ["agent 5", "agent 4", "agent 3"], type(store).__name__
            clock.advance(seconds=20)
            claimed = sink._outlets_of("default")[0]._claim(is_last=True)
            assert claimed.lost == 2


# --- helpers ----------------------------------------------------------------

WEBHOOK = WebhookSettings(url="https://alerts.example.org/hunter2", secrets=(SECRET,))


class Posts:
    """Takes what is posted; each URL answers as it is told, then well."""

    def __init__(self, answers: dict[str, list[Answer]] | None = None) -> None:
        self.answers = answers or {}
        self.posts: list[tuple[int, Post]] = []
        self.clock: FakeClock | None = None

    def post(self, post: Post, *, within_ms: int) -> Answer:
        assert self.clock is not None
        self.posts.append((self.clock.now_ms(), post))
        waiting = self.answers.get(post.url)
        return waiting.pop(0) if waiting else Answer(status=200)

    def to(self, url: str) -> list[Post]:
        return [post for _, post in self.posts if post.url == url]

    def times(self, url: str) -> list[int]:
        return [at for at, post in self.posts if post.url == url]


class Hanging(Posts):
    """Slack answers; anybody else lets one wait for five seconds."""

    def post(self, post: Post, *, within_ms: int) -> Answer:
        super().post(post, within_ms=within_ms)
        if post.url == SLACK:
            return Answer(status=200)
        assert self.clock is not None
        self.clock.advance(seconds=5)
        return Answer(text="no answer in time")


def _webhook(receiver: Receiver) -> AlertSettings:
    url = receiver.url()
    return AlertSettings(
        webhook=WebhookSettings(url=url, secrets=(SECRET,), allow_private=True)
    )


def _sink(
    store: Store,
    settings: AlertSettings,
    clock: FakeClock,
    posts: Posts | None = None,
) -> AlertSink:
    """Opens a sink whose dispatcher has no thread: the test pumps."""
    if posts is not None:
        posts.clock = clock
    sink = AlertSink(
        settings,
        project_id="default",
        ask=store.execute,
        history=lambda: store.history,
        clock=clock,
        is_shared=False,
        delivery=posts,  # type: ignore[arg-type]
    )
    sink.dispatcher._start = lambda: None
    return sink


def _pump(sink: AlertSink, clock: FakeClock) -> None:
    """Sends until nothing waits."""
    sink.dispatcher.wake("default")
    while (wait := sink.dispatcher.pump()) is not None:
        clock.advance(seconds=wait)


def _stop_agent(
    store: Store, settings: AlertSettings, name: str, *, now_ms: int = NOW_MS
) -> None:
    """Has one alert added."""
    target = StopTarget(kind=StopKind.AGENT, name=name)
    store.execute(
        StopScope(
            project_id="default",
            target=target,
            now_ms=now_ms,
            telling=settings.telling,
        )
    )
