"""The memory store: the pure ledger under a lock. One process, nothing kept."""

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from guardrails.core.accounts import Account
from guardrails.core.alerting.outbox import Outbox
from guardrails.core.events import Event
from guardrails.core.ledger import Ledger
from guardrails.core.operations import Operation, settled_by
from guardrails.core.reporting.flat_events import FlatEvent, flat_event
from guardrails.core.reporting.groups import Every, SpendQuery, grouped, in_order
from guardrails.core.reporting.rollups import (
    HOUR_MS,
    LAYER,
    Mix,
    Spend,
    added_up,
    amounts_of,
    by_layer,
    layer_spends,
    spend_of,
)
from guardrails.ports import FOREVER_MS
from guardrails.system.forks import close_at_fork
from guardrails.system.ids import new_key

__all__ = ["MemoryStore"]

EVENTS_MAX = 100_000
"""Events kept for reports, about 100 MB. Limits do not depend on them."""

R = TypeVar("R")


class MemoryStore:
    """Keeps the ledger in this process. For tests, demos and single processes."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ledger = Ledger()
        self._history = _MemoryHistory(self._ledger, self._lock)
        self._secret = new_key()
        self._process_id = os.getpid()
        close_at_fork(self)

    @property
    def history(self) -> "_MemoryHistory":
        """What was spent."""
        return self._history

    def execute(self, operation: Operation[R]) -> R:
        """Applies an operation. Thread safe."""
        with self._lock:
            reply = self._ledger.apply(operation)
            settle, settled = settled_by(operation, reply)
            if settle is not None and settled is not None and settled.is_applied:
                self._history.add(settle.event)
            return reply

    async def aexecute(self, operation: Operation[R]) -> R:
        """Applies an operation; it takes microseconds, so it is done at once."""
        return self.execute(operation)

    def secret(self) -> bytes:
        """Returns this store's random key."""
        return self._secret

    def close(self) -> None:
        """Does nothing: the store lives as long as the object."""

    def before_fork(self) -> None:
        """Waits for the running operation, and keeps others out."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Lets operations in again. What is to be told stays with the parent."""
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            self._ledger.outbox = Outbox()
        self._lock.release()


class _MemoryHistory:
    """Sums and events of a memory store; guarded by the store's lock."""

    def __init__(self, ledger: Ledger, lock: threading.RLock) -> None:
        self._ledger = ledger
        self._lock = lock
        self._events: deque[Event] = deque(maxlen=EVENTS_MAX)

    def add(self, event: Event) -> None:
        """Books an event; the caller holds the lock."""
        self._events.append(event)

    def spend(
        self,
        *,
        project_id: str,
        by: str | Sequence[str],
        since_ms: int,
        until_ms: int,
        where: Mapping[str, Sequence[str]] | None = None,
        every: Every | None = None,
    ) -> Sequence[Spend]:
        """Sums whole hours, as the port says."""
        query = SpendQuery.of(
            project_id=project_id,
            by=by,
            since_ms=since_ms,
            until_ms=until_ms,
            where=where,
            every=every,
        )
        with self._lock:
            events = [
                event
                for event in self._events
                if event.attribution.project_id == project_id
                and event.time_ms // HOUR_MS in query.hours
            ]
        if query.dimension == LAYER:
            parts = [part for event in events for part in layer_spends(event)]
            return in_order(by_layer(added_up(parts), map(spend_of, events)))
        cells = [
            (event.time_ms // HOUR_MS, Mix.of(event).pack(), amounts_of(event))
            for event in events
        ]
        return grouped(query, cells, lambda text: query.names_of(Mix.unpack(text)))

    def session_accounts(
        self, *, project_id: str, session_ids: Sequence[str]
    ) -> Sequence[Account]:
        """Returns the accounts of sessions that are known."""
        wanted = set(session_ids)
        with self._lock:
            return [
                account.copy()
                for account in self._ledger.accounts.values()
                if account.session is not None
                and account.session.attribution.project_id == project_id
                and account.session.attribution.session_id in wanted
            ]

    def events(
        self, *, project_id: str, session_id: str, limit: int
    ) -> Sequence[Event]:
        """Returns the last events of a session, oldest first."""
        with self._lock:
            events = [
                event
                for event in self._events
                if event.attribution.session_id == session_id
                and event.attribution.project_id == project_id
            ]
        return events[-limit:]

    def timeline(
        self, *, project_id: str, since_ms: int, until_ms: int
    ) -> Iterator[Event]:
        """Yields the events of a project in a span, as they were booked."""
        with self._lock:
            events = list(self._events)
        for event in events:
            is_asked = event.attribution.project_id == project_id
            if is_asked and since_ms <= event.time_ms <= until_ms:
                yield event

    def event_pages(
        self,
        *,
        project_id: str,
        since_ms: int = 0,
        until_ms: int = FOREVER_MS,
        session_id: str | None = None,
    ) -> Iterator[Sequence[FlatEvent]]:
        """Yields events as flat rows, as they were booked, in one page."""
        events = self.timeline(
            project_id=project_id, since_ms=since_ms, until_ms=until_ms
        )
        page = [
            flat_event(event)
            for event in events
            if session_id in (None, event.attribution.session_id)
        ]
        if page:
            yield page
