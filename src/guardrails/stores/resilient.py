"""The resilient store: what happens while the real store cannot be reached.

By policy it refuses (`closed`), goes on enforcing in this process from the last
known totals (`local`), or lets every call pass (`open`). In the latter two it
keeps what happened, in order, and applies it once the store is back: every
operation is idempotent by its id, so applying it again is safe.
"""

import logging
import threading
from collections import OrderedDict, deque
from dataclasses import replace
from typing import Any, TypeVar

from guardrails.core.accounts import Account
from guardrails.core.ledger import Ledger
from guardrails.core.operations import (
    Operation,
    Release,
    Reserve,
    Reserved,
    Settle,
    Settled,
    Verdict,
)
from guardrails.core.policy import OnStoreError
from guardrails.errors import StoreUnavailable
from guardrails.ports import Clock, History, Store

__all__ = ["ResilientStore"]

PROBE_MS = 1_000
"""How often a store that failed is tried again; in between no call waits."""

BACKLOG_MAX = 10_000
"""Operations kept for a store that is away, about 10 MB. Past it nothing more
can be promised to be booked, so calls are refused."""

TALLIES_MAX = 10_000
"""Accounts whose totals are remembered for `local`."""

SAY_AGAIN_MS = 60_000
"""How often a lasting trouble is logged."""

R = TypeVar("R")

_log = logging.getLogger("guardrails")


class ResilientStore:
    """Wraps a store with a failure policy. Thread safe.

    Args:
        store: The real store.
        on_error: What to do while it cannot be reached.
        clock: Times the probes.
    """

    def __init__(self, store: Store, *, on_error: OnStoreError, clock: Clock) -> None:
        self._store = store
        self._on_error = on_error
        self._clock = clock
        self._lock = threading.RLock()
        self._local: Ledger | None = None
        self._backlog: deque[Operation[object]] = deque()
        self._tallies: OrderedDict[str, Account] = OrderedDict()
        self._probe_at_ms = 0
        self._said_at_ms: int | None = None
        self.degraded_operations: int = 0
        """Operations that the real store did not answer in time."""

    @property
    def history(self) -> History:
        """What was spent, as far as the real store knows."""
        return self._store.history

    @property
    def is_degraded(self) -> bool:
        """Whether limits are kept without the real store."""
        return self._local is not None

    def execute(self, operation: Operation[R]) -> R:
        """Applies an operation to the store, or by the policy.

        Raises:
            StoreUnavailable: If the policy is `closed`, or the operation is a
                question or an order of a person.
        """
        if self._local is not None and not self._recover():
            return self._degraded(operation, None)
        try:
            reply = self._store.execute(operation)
        except StoreUnavailable as error:
            return self._degraded(operation, error)
        self._remember(operation, reply)
        return reply

    async def aexecute(self, operation: Operation[R]) -> R:
        """Like `execute`, without blocking the event loop for long."""
        if self._local is not None and not self._recover():
            return self._degraded(operation, None)
        try:
            reply = await self._store.aexecute(operation)
        except StoreUnavailable as error:
            return self._degraded(operation, error)
        self._remember(operation, reply)
        return reply

    def secret(self) -> bytes:
        """Returns the real store's random key."""
        return self._store.secret()

    def close(self) -> None:
        """Tries to book what is left, and closes the store."""
        with self._lock:
            self._probe_at_ms = 0
            if self._local is not None and not self._recover():
                _log.error(
                    "guardrails: closing with %d operations that the store did not "
                    "take; their cost is missing from reports.",
                    len(self._backlog),
                )
        self._store.close()

    def _degraded(
        self, operation: Operation[Any], error: StoreUnavailable | None
    ) -> Any:
        """Answers without the store."""
        is_call = isinstance(operation, Reserve | Settle | Release)
        with self._lock:
            self.degraded_operations += 1
            self._fail(error)
            if self._on_error is OnStoreError.CLOSED or not is_call:
                raise error or StoreUnavailable(
                    "store: still unavailable; tried again every "
                    f"{PROBE_MS / 1000:g} s."
                )
            if len(self._backlog) >= BACKLOG_MAX and isinstance(operation, Reserve):
                raise StoreUnavailable(
                    f"store: unavailable, and {BACKLOG_MAX} operations are waiting "
                    "to be booked. Calls are refused until it is back."
                )
            if self._local is None:
                self._local = Ledger(
                    {key: tally.copy() for key, tally in self._tallies.items()}
                )
            if self._on_error is OnStoreError.OPEN:
                operation = _unenforced(operation)
            reply = self._local.apply(operation)
            if isinstance(operation, Reserve):
                # Admitted here; the store has no say in it afterwards.
                operation = _unenforced(operation)
            # A release may be of a hold that only the store knows.
            if self._local.changed_holds or isinstance(operation, Release):
                self._backlog.append(operation)
            return reply

    def _fail(self, error: StoreUnavailable | None) -> None:
        now_ms = self._clock.monotonic_ms()
        if error is not None:
            self._probe_at_ms = now_ms + PROBE_MS
        if self._said_at_ms is None or now_ms - self._said_at_ms >= SAY_AGAIN_MS:
            self._said_at_ms = now_ms
            _log.error(
                "guardrails: the store does not answer (on_store_error: %s). %s",
                self._on_error.value,
                error or "",
            )

    def _recover(self) -> bool:
        """Books the backlog if the store is back; returns whether it is."""
        with self._lock:
            if self._local is None:
                return True
            if self._clock.monotonic_ms() < self._probe_at_ms:
                return False
            try:
                while self._backlog:
                    reply = self._store.execute(self._backlog[0])
                    self._remember(self._backlog.popleft(), reply)
            except StoreUnavailable as error:
                self._fail(error)
                return False
            self._local = None
            self._said_at_ms = None
            _log.warning("guardrails: the store is back; everything is booked.")
            return True

    def _remember(self, operation: Operation[R], reply: object) -> None:
        """Keeps what `local` starts from.

        That is what this process settled, and the stops and raised limits that it
        was told of.
        """
        if self._on_error is OnStoreError.CLOSED:
            return
        with self._lock:
            if isinstance(operation, Settle):
                self._remember_settled(operation, reply)
            elif isinstance(operation, Reserve) and isinstance(reply, Reserved):
                if reply.refusal is not None and reply.refusal.stop is not None:
                    self._tally(reply.refusal.line.account).stop = reply.refusal.stop
                elif reply.verdict is Verdict.ALLOW:
                    self._forget_stops(operation)
            elif isinstance(reply, Account):
                tally = self._tally(reply.key)
                tally.stop, tally.raised = reply.stop, reply.raised

    def _remember_settled(self, operation: Settle, reply: object) -> None:
        stop = reply.new_stop if isinstance(reply, Settled) else None
        for line in operation.charging.lines:
            tally = self._tally(line.account)
            tally.posted_nano_usd += operation.cost_nano_usd
            tally.posted_tokens += operation.tokens
            tally.count(operation.kind, 1)
            if stop is not None and line.is_session and line.scope == stop.scope:
                tally.stop = stop

    def _forget_stops(self, operation: Reserve) -> None:
        """Notes that the store admitted a call: somebody lifted the stop."""
        for line in operation.charging.lines:
            if line.is_session and line.account in self._tallies:
                self._tallies[line.account].stop = None

    def _tally(self, key: str) -> Account:
        """Returns what is remembered of an account, now the last to be forgotten."""
        tally = self._tallies.setdefault(key, Account(key=key))
        self._tallies.move_to_end(key)
        if len(self._tallies) > TALLIES_MAX:
            self._tallies.popitem(last=False)
        return tally


def _unenforced(operation: Operation[Any]) -> Operation[Any]:
    """Returns the operation such that no limit refuses it."""
    if isinstance(operation, Reserve | Settle):
        charging = replace(operation.charging, is_enforced=False)
        return replace(operation, charging=charging)
    return operation
