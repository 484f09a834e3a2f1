"""Outlet: sends one destination what the store's outbox has for it.

Theory of operation. The outbox (`core/alerting/outbox.py`) decides what is next; an
outlet asks for it, sends it, and notes what came of that. While it does it has the
place to itself in the whole fleet. If its process dies, another one is given the same
message once the claim is over. So a message may arrive twice, under the same id, but
only if nobody heard the answer to the first.

It knows nothing of threads, and nothing of what a message says.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from guardrails.alerts.channel import (
    AGE_MS_MAX,
    INTERVAL_MS,
    SINGLE_MAX,
    Channel,
    Send,
    answer_of,
    pause_ms,
    say_failure,
)
from guardrails.alerts.digest import Digest, Tally
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.deliveries import (
    ClaimAlerts,
    Claimed,
    DeliveryState,
    NoteAlerts,
)
from guardrails.core.alerting.outbox import REST_MS_MAX
from guardrails.core.operations import Operation
from guardrails.errors import StoreUnavailable
from guardrails.ports import Clock

__all__ = ["AWAY_MS", "Asking", "Outlet"]

LEASE_MS = 15_000
"""How long a claim lasts: a message takes five seconds at most, and clocks of machines
disagree. So long another process waits for one that died."""

ASK_MS = 100
"""Between two questions while a place is taken or rests, however many alerts come."""

PATIENCE = 10
"""A place that lets us wait for nothing is left alone for so many times as long: the
thread sends to the others, too, and for several projects."""

AWAY_MS = 30_000
"""When a store that did not answer is asked again."""

R = TypeVar("R")


class Asking(Protocol):
    """Applies an operation to the store."""

    def __call__(self, operation: Operation[R], /) -> R:
        """Returns the reply.

        Raises:
            StoreUnavailable: If the store does not answer.
        """
        ...


class Outlet:
    """Sends what waits for one place. Not thread safe.

    Args:
        place: Its name in the store.
        channel: What sends outages there; the two share its pace.
        send: Sends one message there.
        ask: Applies operations to the store.
        project_id: Whose alerts.
        owner: Names this process in the store.
        clock: The time.
        cooldown_ms: How long what repeats a delivered alert waits.
    """

    def __init__(
        self,
        *,
        place: str,
        channel: Channel,
        send: Send,
        ask: Asking,
        project_id: str,
        owner: Callable[[], str],
        clock: Clock,
        cooldown_ms: int,
    ) -> None:
        self.delivered: int = 0
        """Messages that were taken."""
        self.channel = channel
        self._place = place
        self._send = send
        self._ask = ask
        self._project_id = project_id
        self._owner = owner
        self._clock = clock
        self._cooldown_ms = cooldown_ms
        self._ask_ms = 0
        self._unnoted: NoteAlerts | None = None
        """What came of a message that the store does not know of yet."""

    def pump(
        self, *, all_at_once: bool = False, within_ms: int = 1 << 30
    ) -> int | None:
        """Sends what is due, one message at most.

        Args:
            all_at_once: Put all that waits into one message: it is the last.
            within_ms: How long sending may take.

        Returns:
            In how many milliseconds there is more to do; `None` if nothing waits.
        """
        now_ms = self._clock.monotonic_ms()
        wait_ms = max(self.channel.wait_ms(), self._ask_ms - now_ms)
        if wait_ms > 0 and not all_at_once:
            return wait_ms
        try:
            self._note()
            # At the end it is asked at once: mostly nothing waits any more.
            claimed = self._claim(is_last=all_at_once)
            if claimed.message_id is not None:
                if wait_ms > 0:
                    return wait_ms
                pause_ms = self._sent(claimed, within_ms)
                return 1 if all_at_once else pause_ms
        except StoreUnavailable:
            self._ask_ms = now_ms + AWAY_MS
            return AWAY_MS
        if claimed.next_ms is None:
            return None
        wait_ms = max(1, claimed.next_ms - self._clock.now_ms())
        self._ask_ms = now_ms + min(wait_ms, ASK_MS)
        return wait_ms

    def _claim(self, *, is_last: bool) -> Claimed:
        now_ms = self._clock.now_ms()
        return self._ask(
            ClaimAlerts(
                project_id=self._project_id,
                place=self._place,
                owner=self._owner(),
                now_ms=now_ms,
                until_ms=now_ms + LEASE_MS,
                singles_max=1 if is_last else SINGLE_MAX,
                is_last=is_last,
            )
        )

    def _sent(self, claimed: Claimed, within_ms: int) -> int:
        """Sends a message and notes what came of it; returns the pause after it."""
        content = _content(claimed, now_ms=self._clock.now_ms())
        begun_ms = self._clock.monotonic_ms()
        answer = answer_of(self._send, content, within_ms)
        took_ms = self._clock.monotonic_ms() - begun_ms
        now_ms = self._clock.now_ms()
        is_digest = isinstance(content, Digest)
        is_old = now_ms - claimed.alerts[0].time_ms >= AGE_MS_MAX
        due_ms, rest_ms = now_ms + INTERVAL_MS, INTERVAL_MS
        if answer.is_delivered:
            state, self.delivered = DeliveryState.DELIVERED, self.delivered + 1
        else:
            is_over, failures = answer.is_final or is_old, claimed.failures + 1
            state = DeliveryState.DEAD if is_over else DeliveryState.SENDING
            rest_ms = max(rest_ms, took_ms * PATIENCE)
            wait_ms = max(pause_ms(failures), answer.retry_after_ms or 0, rest_ms)
            due_ms = now_ms + wait_ms
            say_failure(
                self.channel.name,
                answer,
                failures=failures,
                wait_ms=None if is_over else wait_ms,
            )
        # A person may have it tried again at once, and the store knows: so one that
        # refuses quickly rests no longer than others.
        self.channel.rest(rest_ms)
        self._ask_ms = 0
        self._unnoted = NoteAlerts(
            project_id=self._project_id,
            place=self._place,
            label=self.channel.name,
            owner=self._owner(),
            alert_ids=tuple([alert.alert_id for alert in claimed.alerts]),
            now_ms=now_ms,
            state=state,
            due_ms=due_ms,
            rest_ms=now_ms + REST_MS_MAX if is_digest else 0,
            cooldown_ms=self._cooldown_ms,
            status=answer.status,
            text=answer.text,
            lost_told=claimed.lost if is_digest and answer.is_delivered else 0,
        )
        self._note()
        return max(INTERVAL_MS, due_ms - now_ms)

    def _note(self) -> None:
        """Has the store know what came of the last message."""
        if self._unnoted is not None:
            self._ask(self._unnoted)
            self._unnoted = None


def _content(claimed: Claimed, *, now_ms: int) -> Alert | Digest:
    """Returns what a message is about: its only alert, or a digest of several."""
    first = claimed.alerts[0]
    assert claimed.message_id is not None
    if claimed.message_id == first.alert_id:
        return first
    tally = Tally()
    for alert in claimed.alerts:
        tally.add(alert)
    return tally.digest(lost=claimed.lost, now_ms=now_ms, digest_id=claimed.message_id)
