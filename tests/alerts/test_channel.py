"""Channel: one message a second, digests above it, and pauses after failures."""

import itertools
from collections.abc import Callable

import pytest

from guardrails.alerts.channel import (
    AGE_MS_MAX,
    PAUSE_MS_MIN,
    SINGLE_MAX,
    Channel,
    pause_ms,
)
from guardrails.alerts.delivery import Answer
from guardrails.alerts.digest import Digest
from guardrails.alerts.dispatcher import QUEUE_MAX, Dispatcher
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.outbox import PAUSE_MS_MAX
from guardrails.core.telling import AlertKind
from guardrails.testing import FakeClock
from tests.alerts.conftest import WHO, an_alert

OK = Answer(status=200)
AWAY = Answer(text="no connection (ConnectError)")
BUSY = Answer(status=429, retry_after_ms=120_000)
GONE = Answer(status=404, text="no_service", is_final=True)


class Destination:
    """A channel on a clock that goes only as far as the channel says."""

    def __init__(self, *answers: Answer) -> None:
        self.clock = FakeClock()
        self.answers = list(answers)
        self.sent: list[tuple[int, Alert | Digest]] = []
        self.channel = Channel(name="there", send=self.send, clock=self.clock)

    def send(self, content: Alert | Digest, within_ms: int) -> Answer:
        self.sent.append((self.clock.monotonic_ms(), content))
        return self.answers.pop(0) if self.answers else OK

    def run(self, pump: Callable[[], float | None] | None = None) -> list[object]:
        """Pumps until nothing waits, and returns what was sent."""
        while (wait := (pump or self._pump)()) is not None:
            self.clock.advance(seconds=wait)
        return [content for _, content in self.sent]

    def _pump(self) -> float | None:
        wait_ms = self.channel.pump()
        return None if wait_ms is None else wait_ms / 1000


def alerts(number: int, kind: AlertKind = AlertKind.SOFT) -> list[Alert]:
    return [an_alert(kind, alert_id=f"{kind.value}-{i}") for i in range(number)]


def test_few_alerts_are_a_message_each_a_second_apart() -> None:
    there = Destination()
    some = alerts(SINGLE_MAX)
    for alert in some:
        there.channel.take(alert)

    assert there.run() == some
    times = [at for at, _ in there.sent]
    assert times == [0, 1_000, 2_000, 3_000, 4_000]


def test_many_alerts_are_one_digest() -> None:
    there = Destination()
    for alert in alerts(SINGLE_MAX + 1):
        there.channel.take(alert)
    [digest] = there.run()
    assert isinstance(digest, Digest)
    assert digest.counts == {AlertKind.SOFT: SINGLE_MAX + 1}


def test_ten_thousand_alerts_at_once_are_few_messages_with_exact_counts() -> None:
    there = Destination()
    dispatcher = Dispatcher([there.channel], clock=there.clock, cooldown_ms=900_000)
    dispatcher._start = lambda: None  # No thread: this test pumps.
    for index in range(10_000):
        kind = AlertKind.STOP if index % 4 == 0 else AlertKind.SOFT
        who = WHO.under(f"agent-{index % 3}")
        dispatcher.tell(
            an_alert(kind, alert_id=str(index), attribution=who, scope=str(index))
        )

    sent = there.run(dispatcher.pump)

    assert len(sent) <= 5
    counts = {AlertKind.SOFT: 0, AlertKind.STOP: 0}
    for content in sent:
        if isinstance(content, Digest):
            for kind, number in content.counts.items():
                counts[kind] += number
        elif isinstance(content, Alert):
            counts[content.kind] += 1
    assert counts == {AlertKind.SOFT: 7_500, AlertKind.STOP: 2_500}


def test_ten_thousand_alerts_within_a_minute_are_at_most_seventy_messages() -> None:
    there = Destination()
    dispatcher = Dispatcher([there.channel], clock=there.clock, cooldown_ms=900_000)
    dispatcher._start = lambda: None
    for index in range(10_000):
        dispatcher.tell(an_alert(alert_id=str(index), scope=str(index)))
        dispatcher.pump()
        there.clock.advance(seconds=0.006)
    sent = there.run(dispatcher.pump)
    assert len(sent) <= 70
    assert sum(each.total if isinstance(each, Digest) else 1 for each in sent) == 10_000


def test_what_the_queue_has_no_room_for_is_counted() -> None:
    there = Destination()
    dispatcher = Dispatcher([there.channel], clock=there.clock, cooldown_ms=0)
    dispatcher._start = lambda: None
    for alert in alerts(QUEUE_MAX) + alerts(7, AlertKind.STOP):
        dispatcher.tell(alert)
    [digest] = there.run(dispatcher.pump)
    assert isinstance(digest, Digest)
    assert digest.counts == {AlertKind.SOFT: QUEUE_MAX, AlertKind.STOP: 7}


# --- failures ---------------------------------------------------------------


def test_what_may_pass_is_sent_again_as_it_was() -> None:
    there = Destination(AWAY, AWAY, Answer(status=500), OK)
    alert = an_alert()
    there.channel.take(alert)
    assert there.run() == [alert] * 4
    times = [at for at, _ in there.sent]
    assert all(b - a >= PAUSE_MS_MIN for a, b in itertools.pairwise(times))
    assert (there.channel.delivered, there.channel.failures) == (1, 3)


def test_a_receiver_is_left_alone_for_as_long_as_it_asks() -> None:
    there = Destination(BUSY, OK)
    there.channel.take(an_alert())
    there.run()
    assert [at for at, _ in there.sent] == [0, 120_000]


def test_meanwhile_the_others_become_a_digest() -> None:
    there = Destination(BUSY)
    first, *others = alerts(9)
    there.channel.take(first)
    there.channel.pump()
    for alert in others:
        there.channel.take(alert)
    sent = there.run()
    assert sent[:2] == [first, first]
    assert isinstance(sent[2], Digest)
    assert sent[2].total == 8


def test_what_will_never_be_taken_is_given_up_and_counted() -> None:
    there = Destination(GONE)
    first, second = alerts(2)
    there.channel.take(first)
    there.channel.take(second)

    sent = there.run()

    assert sent[:2] == [first, second]
    assert isinstance(sent[2], Digest)
    assert (sent[2].total, sent[2].lost) == (0, 1)
    assert len(sent) == 3


def test_a_destination_that_is_gone_is_not_hammered() -> None:
    there = Destination(*[GONE] * 50)
    for alert in alerts(4):
        there.channel.take(alert)
    there.run()
    assert len(there.sent) == 4
    assert there.channel.is_empty


def test_after_three_days_a_message_is_given_up() -> None:
    there = Destination(*[AWAY] * 10_000)
    there.channel.take(an_alert())
    there.run()
    last, _ = there.sent[-1]
    assert AGE_MS_MAX <= last <= AGE_MS_MAX + PAUSE_MS_MAX
    assert len(there.sent) < 400


@pytest.mark.parametrize("attempt", [1, 2, 5, 12, 100, 100_000])
def test_pauses_grow_up_to_an_hour(attempt: int) -> None:
    high = min(PAUSE_MS_MAX, 2_000 * 2 ** min(attempt - 1, 30))
    pauses = {pause_ms(attempt) for _ in range(50)}
    assert min(pauses) >= PAUSE_MS_MIN
    assert max(pauses) <= high
    assert len(pauses) > 1  # Processes do not come back all at once.


# --- cooldown ---------------------------------------------------------------


def test_what_only_repeats_an_alert_waits_for_the_end_of_the_cooldown() -> None:
    there = Destination()
    dispatcher = Dispatcher([there.channel], clock=there.clock, cooldown_ms=900_000)
    dispatcher._start = lambda: None
    for index in range(20):
        dispatcher.tell(an_alert(AlertKind.DEGRADED, alert_id=str(index)))
        dispatcher.tell(an_alert(AlertKind.RECOVERED, alert_id=str(index)))

    sent = there.run(dispatcher.pump)

    assert [type(each) for each in sent] == [Alert, Alert, Digest]
    assert isinstance(sent[2], Digest)
    assert sent[2].counts == {AlertKind.DEGRADED: 19, AlertKind.RECOVERED: 19}
    assert there.sent[2][0] == 900_000


def test_another_session_or_threshold_is_no_repetition() -> None:
    there = Destination()
    dispatcher = Dispatcher([there.channel], clock=there.clock, cooldown_ms=900_000)
    dispatcher._start = lambda: None
    dispatcher.tell(an_alert())
    dispatcher.tell(an_alert(threshold="max_cost_usd:0.9"))
    dispatcher.tell(an_alert(attribution=WHO.of(agent="a", session_id="other")))
    dispatcher.tell(an_alert(scope="customer_id=acme", is_session=False))
    assert len(there.run(dispatcher.pump)) == 4
    assert there.clock.monotonic_ms() < 10_000
