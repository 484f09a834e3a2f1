"""Dispatcher: has alerts sent in a thread of its own, and never in an agent's.

Theory of operation. The ledger keeps what is to be told. An agent's thread that hears
of it wakes the dispatcher, and goes on. Its thread asks the store, by an `Outlet` per
project and destination, what to send next. Where processes share the store it also
asks from time to time unasked: another one may have died with something to tell. What
the ledger does not write by itself goes through a queue of this process, whose thread
has the store keep it; only what the store cannot keep, that it is away or back, goes to
a `Channel` per destination.

The thread begins with the first alert, or where processes share a store with the first
call, and ends when there has been nothing to do for a while and nothing to look for.
It alone touches channels and outlets.
"""

import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from guardrails.alerts.channel import Channel
from guardrails.alerts.cooldown import Cooldown
from guardrails.alerts.outlet import Outlet
from guardrails.core.alerting.alerts import Alert
from guardrails.core.telling import AlertKind
from guardrails.ports import Clock
from guardrails.system.ids import new_id
from guardrails.system.logs import host_log
from guardrails.system.threads import WeakList

__all__ = ["POLL_SECONDS", "Dispatcher"]

QUEUE_MAX = 10_000
"""Alerts that wait for the thread: megabytes, and more than one hour's reading. It
fills only while a receiver lets the thread wait. What is beyond is counted."""

PROJECTS_MAX = 64
"""Projects whose alerts one process sends: more than one program works for."""

FLUSH_MS = 2_000
"""How long closing may take: a receiver that works answers in a fraction of it."""

LINGER_SECONDS = 10.0
"""How long the thread waits for another alert before it ends."""

POLL_SECONDS = 30.0
"""How often a process looks for what others have left, where a store is shared."""

_log = host_log()


class Dispatcher:
    """Sends alerts. Its methods may be called from any thread, and never raise.

    Args:
        channels: One per destination, for what the store cannot keep.
        clock: The time.
        cooldown_ms: How long repetitions are held back.
        outlets_of: Opens the outlets of a project, one per destination.
        keep: Has the store keep an alert; returns whether it does.
        polls: Whether other processes share the store.
        release: Closes the store again, if the thread has used it after `close`.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        clock: Clock,
        cooldown_ms: int,
        outlets_of: Callable[[str], Sequence[Outlet]] | None = None,
        keep: Callable[[Alert], bool] | None = None,
        polls: bool = False,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.failures: int = 0
        """Failures of ours that were contained."""
        self._channels = channels
        self._clock = clock
        self._cooldown_ms = cooldown_ms
        self._outlets_of = outlets_of
        self._keep = keep
        self._polls = polls
        self._release = release
        self._begin()
        _dispatchers.add(self)

    def _begin(self) -> None:
        self.owner: str = new_id()
        """Names this process to the store."""
        self._queue: queue.SimpleQueue[Alert | None] = queue.SimpleQueue()
        self._cooldown = Cooldown(self._cooldown_ms)
        self._overflow: Counter[AlertKind] = Counter()
        self._lock = threading.RLock()
        """Guards what is below, and the overflow; never held while anything waits."""
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_woken = False
        self._flush_until_ms = 0
        self._projects: set[str] = set()
        self._outlets: dict[str, Sequence[Outlet]] = {}

    @property
    def is_running(self) -> bool:
        """Whether its thread is there."""
        return self._thread is not None

    def tell(self, alert: Alert) -> None:
        """Has an alert sent that is not in the store. Waits for nothing."""
        if self._queue.qsize() < QUEUE_MAX:
            self._queue.put(alert)
        else:
            with self._lock:
                self._overflow[alert.kind] += 1
        # Read after the alert was put: a thread that ends looks once more.
        if self._thread is None:
            self._start()

    def wake(self, project_id: str) -> None:
        """Has the store asked what a project's alerts are. Waits for nothing."""
        if project_id not in self._projects and len(self._projects) < PROJECTS_MAX:
            with self._lock:
                self._projects = {*self._projects, project_id}
        if not self._is_woken:
            self._is_woken = True
            self._queue.put(None)
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

    def end(self) -> None:
        """Has the thread send what waits and end, and does not wait for that."""
        with self._lock:
            if self._thread is None:
                return
            self._is_closing = True
            self._flush_until_ms = self._clock.monotonic_ms() + FLUSH_MS * 9 // 10
        self._queue.put(None)

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
        waits += [outlet.pump() for outlet in self._opened()]
        until_ms = self._cooldown.next_ms()
        waits.append(None if until_ms is None else until_ms - now_ms)
        return min((max(0, ms) / 1000 for ms in waits if ms is not None), default=None)

    def forget(self) -> None:
        """Begins anew in a child process: what waits is sent by the parent."""
        self._begin()
        for channel in self._channels:
            channel.forget()

    def _opened(self) -> list[Outlet]:
        """Returns the outlets of all projects; those of a new one are opened."""
        if self._outlets_of is None:
            return []
        for project_id in self._projects - self._outlets.keys():
            self._outlets[project_id] = self._outlets_of(project_id)
        return [outlet for each in self._outlets.values() for outlet in each]

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
            is_late = self._is_closing and self._is_late()
            if self._is_over():
                break
        if is_late and self._release is not None:
            self._release()

    def _waited(self, wait_s: float | None) -> bool:
        """Waits for an alert, or until something is due; False if nothing comes."""
        timeout = LINGER_SECONDS if wait_s is None else wait_s
        if self._polls:
            timeout = min(POLL_SECONDS, POLL_SECONDS if wait_s is None else wait_s)
        try:
            self._take(self._queue.get(timeout=timeout))
        except queue.Empty:
            return self._polls or wait_s is not None
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

    def _is_late(self) -> bool:
        """Whether who closes has stopped waiting for the thread."""
        return self._clock.monotonic_ms() > self._flush_until_ms + FLUSH_MS // 10

    def _pumped(self) -> float | None:
        try:
            return self.pump()
        except Exception as error:
            self._contain(error)
            return LINGER_SECONDS

    def _take(self, alert: Alert | None) -> None:
        if alert is None:
            self._is_woken = False  # What is told from now on wakes again.
            return
        if self._keep is not None and self._keep(alert):
            return
        now_ms = self._clock.monotonic_ms()
        if self._cooldown.admits(alert, now_ms=now_ms):
            self._hand_on([alert])

    def _hand_on(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            for channel in self._channels:
                channel.take(alert)

    def _flush(self) -> None:
        """Sends all that waits, one message per destination.

        What the store keeps waits there for whoever asks next; all else is given up.
        """
        try:
            while not self._queue.empty():
                self._take(self._queue.get_nowait())
            self._hand_on(self._cooldown.rest())
            for channel in self._channels:
                self._flush_channel(channel)
            for outlet in self._opened():
                self._flush_one(outlet)
        except Exception as error:
            self._contain(error)

    def _flush_channel(self, channel: Channel) -> None:
        self._flush_one(channel)
        if lost := channel.give_up():
            _log.error(
                "guardrails: closing. Alerts that could not be sent to %s: %d.",
                channel.name,
                lost,
            )

    def _flush_one(self, where: Channel | Outlet) -> None:
        while (left_ms := self._flush_until_ms - self._clock.monotonic_ms()) > 0:
            wait_ms = where.pump(all_at_once=True, within_ms=left_ms)
            if wait_ms is None or wait_ms > left_ms:
                break
            self._clock.sleep(wait_ms / 1000)

    def _contain(self, error: Exception) -> None:
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:  # The 1st, 2nd, 4th, 8th, …
            _log.error(
                "guardrails: sending alerts failed (%s); %d such failures so far.",
                type(error).__name__,
                self.failures,
            )


_dispatchers: WeakList[Dispatcher] = WeakList()


def _forget_all() -> None:
    for dispatcher in _dispatchers.alive():
        dispatcher.forget()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_forget_all)
