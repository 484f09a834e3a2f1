"""Sweeping: now and then a settled call turns expired holds into unconfirmed ones."""

from collections.abc import Callable

from guardrails.core.operations import Sweep
from guardrails.ports import Clock, Store
from guardrails.threads import new_lock

__all__ = ["Sweeping"]

SWEEP_EVERY = 256
"""Calls between two sweeps: rare enough to cost nothing, often enough that
what is over does not pile up."""


class Sweeping:
    """Sweeps a store, by the calls that are settled. Thread safe. Never raises.

    Args:
        store: What is swept.
        clock: Says what has expired.
        contain: Takes failures, and what failed.
    """

    def __init__(
        self, store: Store, clock: Clock, contain: Callable[[BaseException, str], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._contain = contain
        self._lock = new_lock()
        self._calls = 0

    def settled(self) -> None:
        """Counts a settled call, and sweeps if it is time."""
        if self._is_due():
            try:
                self._store.execute(Sweep(now_ms=self._clock.now_ms()))
            except Exception as error:
                self._contain(error, "sweeping")

    async def asettled(self) -> None:
        """Like `settled`, for asyncio."""
        if self._is_due():
            try:
                await self._store.aexecute(Sweep(now_ms=self._clock.now_ms()))
            except Exception as error:
                self._contain(error, "sweeping")

    def _is_due(self) -> bool:
        """Counts a call. The first one sweeps: there may be no other."""
        with self._lock:
            self._calls += 1
            return self._calls % SWEEP_EVERY == 1
