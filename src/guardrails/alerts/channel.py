"""Channel: what one destination is sent, and when.

Theory of operation. A channel has alerts that wait, at most one message in flight,
and an instant before which it sends nothing. `pump` sends what is due:

* a message that was delivered is forgotten, and the next may follow in a second;
* one that was not, for a reason that may pass, stays in flight, the same with the same
  id, and is sent again after a pause that grows; the receiver may ask for a longer one;
* one that will never be taken is given up, and the next waits for the same pause.

Few waiting alerts become a message each. More than anybody would read, and more than
there is room for, become one digest: nothing of it is lost but the details, and its
counts are exact. What was given up is counted in the next digest.

It knows nothing of threads, and nothing of what a message says. Only what the store
cannot keep goes through a channel: that it is away, or back.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from guardrails.alerts.digest import Digest, Tally
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.outbox import PAUSE_MS_MAX, REST_MS_MAX
from guardrails.core.telling import AlertKind
from guardrails.ports import Clock
from guardrails.system.logs import host_log

if TYPE_CHECKING:
    from tenacity import Retrying

    from guardrails.alerts.delivery import Answer

__all__ = [
    "AGE_MS_MAX",
    "INTERVAL_MS",
    "SINGLE_MAX",
    "Channel",
    "Send",
    "answer_of",
    "pause_ms",
    "say_failure",
]

INTERVAL_MS = 1_000
"""Between two messages: what Slack allows an incoming webhook."""

SINGLE_MAX = 5
"""Waiting alerts that become a message each; nobody reads more at once."""

PAUSE_MS_MIN = 1_000
"""Between attempts, after the first failure."""

AGE_MS_MAX = 3 * 24 * 3_600_000
"""When a message is given up. An older alert helps nobody."""

Send = Callable[[Alert | Digest, int], "Answer"]
"""Sends a message within so many milliseconds."""

_log = host_log()


@dataclass(slots=True, kw_only=True)
class _Message:
    content: Alert | Digest
    since_ms: int
    """When it was first due, on the monotonic clock."""

    @property
    def total(self) -> int:
        """How many alerts are lost with it."""
        if isinstance(self.content, Digest):
            return self.content.total + self.content.lost
        return 1


class Channel:
    """Sends alerts to one destination. Not thread safe.

    Args:
        name: Of the destination, masked, for the log.
        send: Sends one message there.
        clock: The time.
    """

    def __init__(self, *, name: str, send: Send, clock: Clock) -> None:
        self.name = name
        self.delivered: int = 0
        """Messages that were taken."""
        self.failures: int = 0
        """Attempts that failed."""
        self._send = send
        self._clock = clock
        self._waiting: deque[Alert] = deque()
        self._tally = Tally()
        self._in_flight: _Message | None = None
        self._due_ms = 0
        self._failed_in_a_row = 0
        self._lost = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        is_lost_told = not self._lost or self._failed_in_a_row > 0
        return self._in_flight is None and not self._tally.total and is_lost_told

    def take(self, alert: Alert) -> None:
        """Adds an alert to what waits."""
        self._tally.add(alert)
        self._waiting.append(alert)
        if len(self._waiting) > SINGLE_MAX:
            self._waiting.popleft()  # It is counted, and details are for the few.

    def count(self, kind: AlertKind, number: int) -> None:
        """Adds alerts of which only their number is known."""
        self._tally.count(kind, number, time_ms=self._clock.now_ms())

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
        if self.is_empty:
            return None
        if now_ms < self._due_ms:
            return self._due_ms - now_ms
        if self._in_flight is None:
            content = self._next(all_at_once=all_at_once)
            self._in_flight = _Message(content=content, since_ms=now_ms)
        message = self._in_flight
        answer = answer_of(self._send, message.content, within_ms)
        now_ms = self._clock.monotonic_ms()
        if answer.is_delivered:
            self._in_flight = None
            self._failed_in_a_row = 0
            self.delivered += 1
            is_digest = isinstance(message.content, Digest)
            self._due_ms = now_ms + (REST_MS_MAX if is_digest else INTERVAL_MS)
        else:
            self._failed(message, answer, now_ms)
        return None if self.is_empty else self._due_ms - now_ms

    def wait_ms(self) -> int:
        """Returns for how many milliseconds nothing is to be sent."""
        return max(0, self._due_ms - self._clock.monotonic_ms())

    def rest(self, ms: int) -> None:
        """Sends nothing for a while, because something else was sent there."""
        self._due_ms = max(self._due_ms, self._clock.monotonic_ms() + ms)

    def give_up(self) -> int:
        """Forgets all that waits, and returns how many alerts that were."""
        lost = self._tally.total + (self._in_flight.total if self._in_flight else 0)
        self._lost += lost
        self._in_flight = None
        self._waiting.clear()
        self._tally = Tally()
        return lost

    def forget(self) -> None:
        """Begins anew in a child process: what waits is sent by the parent."""
        self.give_up()
        self._lost = 0

    def _next(self, *, all_at_once: bool) -> Alert | Digest:
        """Takes the next message from what waits."""
        total = self._tally.total
        is_few = total == 1 or (not all_at_once and total <= SINGLE_MAX)
        if total and is_few and total == len(self._waiting):
            alert = self._waiting.popleft()
            self._tally = Tally()
            for other in self._waiting:
                self._tally.add(other)
            return alert
        digest = self._tally.digest(lost=self._lost, now_ms=self._clock.now_ms())
        self._tally, self._lost = Tally(), 0
        self._waiting.clear()
        return digest

    def _failed(self, message: _Message, answer: "Answer", now_ms: int) -> None:
        self.failures += 1
        self._failed_in_a_row += 1
        is_over = answer.is_final or now_ms - message.since_ms >= AGE_MS_MAX
        if is_over:
            self._lost += message.total
            self._in_flight = None
        wait_ms = max(pause_ms(self._failed_in_a_row), answer.retry_after_ms or 0)
        self._due_ms = now_ms + wait_ms
        say_failure(
            self.name,
            answer,
            failures=self._failed_in_a_row,
            wait_ms=None if is_over else wait_ms,
        )


def answer_of(send: Send, content: Alert | Digest, within_ms: int) -> "Answer":
    """Sends a message. One that cannot be written must not hold up the others."""
    try:
        return send(content, within_ms)
    except Exception as error:
        from guardrails.alerts.delivery import Answer

        text = f"it could not be written ({type(error).__name__})"
        return Answer(text=text, is_final=True)


def say_failure(
    name: str, answer: "Answer", *, failures: int, wait_ms: int | None
) -> None:
    """Logs that a message did not arrive; not each time.

    Args:
        name: Of the destination, masked.
        answer: What came of it.
        failures: How many there were in a row.
        wait_ms: When it is sent again; `None` if it was given up.
    """
    if failures & (failures - 1) == 0:  # The 1st, 2nd, 4th, 8th, …
        _log.error(
            "guardrails: an alert could not be sent to %s: %s. %s",
            name,
            " ".join(filter(None, (str(answer.status or ""), answer.text))),
            "It was given up."
            if wait_ms is None
            else f"Again in {wait_ms / 1000:.0f} s.",
        )


def pause_ms(attempt: int) -> int:
    """Returns how long to wait after so many failures in a row, with jitter."""
    from tenacity import RetryCallState

    retrying = _retrying()
    state = RetryCallState(retrying, None, (), {})
    state.attempt_number = min(attempt, 64)
    return round(retrying.wait(state) * 1000)


@cache
def _retrying() -> "Retrying":
    # Loaded late: most processes have nothing to send again.
    from tenacity import Retrying, wait_random_exponential

    seconds_min, seconds_max = PAUSE_MS_MIN / 1000, PAUSE_MS_MAX / 1000
    return Retrying(
        wait=wait_random_exponential(
            multiplier=2 * seconds_min, min=seconds_min, max=seconds_max
        )
    )
