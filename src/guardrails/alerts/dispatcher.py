"""Dispatcher: takes alerts from agents, and has them sent in a thread of its own.

An agent's thread appends to a queue that never blocks, and goes on. The thread of the
dispatcher begins with the first alert and ends when there has been nothing to do for a
while. It alone touches the channels.
"""

import logging
import os
import queue
import threading
import weakref
from collections import Counter
from collections.abc import Sequence

from guardrails.alerts.alert import Alert, AlertKind
from guardrails.alerts.channel import Channel
from guardrails.alerts.cooldown import Cooldown
from guardrails.ports import Clock

__all__ = ["Dispatcher"]

QUEUE_MAX = 10_000
"""Alerts that wait for the thread: megabytes, and more than one hour's reading. It
fills only while a receiver lets the thread wait. What is beyond is counted."""

FLUSH_MS = 2_000
"""How long closing may take: a receiver that works answers in a fraction of it."""

LINGER_SECONDS = 10.0
"""How long the thread waits for another alert before it ends."""

_log = logging.getLogger("guardrails")


class Dispatcher:
    """Sends alerts. Its methods may be called from any thread, and never raise.

    Args:
        channels: One per destination.
        clock: The time.
        cooldown_ms: How long repetitions are held back.
    """

    def __init__(
        self, channels: Sequence[Channel], *, clock: Clock, cooldown_ms: int
    ) -> None:
        self.failures: int = 0
        """Failures of ours that were contained."""
        self._channels = channels
        self._clock = clock
        self._cooldown_ms = cooldown_ms
        self._begin()
        _dispatchers.add(self)

    def _begin(self) -> None:
        self._queue: queue.SimpleQueue[Alert | None] = queue.SimpleQueue()
        self._cooldown = Cooldown(self._cooldown_ms)
        self._overflow: Counter[AlertKind] = Counter()
        self._lock = threading.Lock()
        """Guards what is below, and the overflow; never held while anything waits."""
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._flush_until_ms = 0

    def tell(self, alert: Alert) -> None:
        """Has an alert sent. Appends it to a queue, and waits for nothing."""
        if self._queue.qsize() < QUEUE_MAX:
            self._queue.put(alert)
        else:
            with self._lock:
                self._overflow[alert.kind] += 1
        # Read after the alert was put: a thread that ends looks once more.
        if self._thread is None:
            self._start()

    def close(self) -> None:
        """Sends what waits as far as two seconds allow, and ends the thread."""
        with self._lock:
            thread, self._is_closing = self._thread, True
            self._flush_until_ms = self._clock.monotonic_ms() + FLUSH_MS * 9 // 10
        if thread is None:
            self._flush()
            self._is_closing = False
            if not self._queue.empty():
                self._start()
        else:
            self._queue.put(None)
            thread.join(FLUSH_MS / 1000)

    def pump(self) -> float | None:
        """Sends what is due now; for the thread, and for tests without one.

        Returns:
            In how many seconds there is more to do; `None` if nothing waits.
        """
        try:
            while True:
                self._take(self._queue.get_nowait())
        except queue.Empty:
            pass
        now_ms = self._clock.monotonic_ms()
        self._hand_on(self._cooldown.due(now_ms=now_ms))
        with self._lock:
            overflow, self._overflow = self._overflow, Counter()
        for channel in self._channels:
            for kind, number in overflow.items():
                channel.count(kind, number)
        waits = [channel.pump() for channel in self._channels]
        until_ms = self._cooldown.next_ms()
        waits.append(None if until_ms is None else until_ms - now_ms)
        return min((max(0, ms) / 1000 for ms in waits if ms is not None), default=None)

    def forget(self) -> None:
        """Begins anew in a child process: what waits is sent by the parent."""
        self._begin()
        for channel in self._channels:
            channel.forget()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._is_closing:
                return
            thread = threading.Thread(
                target=self._run, name="guardrails-alerts", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # The interpreter is ending; closing sends the rest.
                return
            self._thread = thread

    def _run(self) -> None:
        while True:
            if self._is_closing:
                self._flush()
            else:
                wait_s = self._pumped()
                if self._is_closing or self._waited(wait_s):
                    continue
            if self._is_over():
                return

    def _waited(self, wait_s: float | None) -> bool:
        """Waits for an alert, or until something is due; False if nothing comes."""
        timeout = LINGER_SECONDS if wait_s is None else wait_s
        try:
            self._take(self._queue.get(timeout=timeout))
        except queue.Empty:
            return wait_s is not None
        return True

    def _is_over(self) -> bool:
        """Ends the thread, unless an alert has come meanwhile."""
        with self._lock:
            # In this order: whoever puts an alert looks for a thread afterwards.
            thread, self._thread = self._thread, None
            if self._queue.empty():
                self._is_closing = False
                return True
            self._thread = thread
            return False

    def _pumped(self) -> float | None:
        try:
            return self.pump()
        except Exception as error:
            self._contain(error)
            return LINGER_SECONDS

    def _take(self, alert: Alert | None) -> None:
        now_ms = self._clock.monotonic_ms()
        if alert is not None and self._cooldown.admits(alert, now_ms=now_ms):
            self._hand_on([alert])

    def _hand_on(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            for channel in self._channels:
                channel.take(alert)

    def _flush(self) -> None:
        """Sends all that waits, one message per channel, and gives up the rest."""
        try:
            while not self._queue.empty():
                self._take(self._queue.get_nowait())
            self._hand_on(self._cooldown.rest())
            for channel in self._channels:
                self._flush_channel(channel)
        except Exception as error:
            self._contain(error)

    def _flush_channel(self, channel: Channel) -> None:
        while (left_ms := self._flush_until_ms - self._clock.monotonic_ms()) > 0:
            wait_ms = channel.pump(all_at_once=True, within_ms=left_ms)
            if wait_ms is None or wait_ms > left_ms:
                break
            self._clock.sleep(wait_ms / 1000)
        if lost := channel.give_up():
            _log.error(
                "guardrails: closing with %d alerts that could not be sent to %s.",
                lost,
                channel.name,
            )

    def _contain(self, error: Exception) -> None:
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:  # The 1st, 2nd, 4th, 8th, …
            _log.error(
                "guardrails: sending alerts failed (%s); %d such failures so far.",
                type(error).__name__,
                self.failures,
            )


_dispatchers: "weakref.WeakSet[Dispatcher]" = weakref.WeakSet()


def _forget_all() -> None:
    for dispatcher in list(_dispatchers):
        dispatcher.forget()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_forget_all)
