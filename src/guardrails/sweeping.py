"""Sweeping: says when it is time to turn expired holds into unconfirmed ones."""

from guardrails.core.operations import Sweep
from guardrails.ports import Clock
from guardrails.system.threads import new_lock

__all__ = ["Sweeping"]

SWEEP_EVERY = 256
"""Calls between two sweeps: rare enough to cost nothing, often enough that
what is over does not pile up."""


class Sweeping:
    """Counts the calls that are settled. Thread safe.

    Args:
        clock: Says what has expired.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = new_lock()
        self._calls = 0

    def due(self) -> Sweep | None:
        """Counts a call. The first one sweeps: there may be no other."""
        with self._lock:
            self._calls += 1
            is_due = self._calls % SWEEP_EVERY == 1
        return Sweep(now_ms=self._clock.now_ms()) if is_due else None
