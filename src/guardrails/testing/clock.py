"""A clock that goes only when it is told to."""

import heapq
import itertools
import threading
from collections.abc import Callable

__all__ = ["FakeClock"]


class FakeClock:
    """A clock for tests; sleeping moves it on. Thread safe.

    Args:
        now_ms: Milliseconds since 1970 (UTC).
    """

    def __init__(self, now_ms: int = 1_764_000_000_000) -> None:
        self._lock = threading.Lock()
        self._now_ms = now_ms
        self._monotonic_ms = 0
        self._numbers = itertools.count()
        self._later: list[tuple[int, int, Callable[[], object]]] = []

    def now_ms(self) -> int:
        """Returns milliseconds since 1970 (UTC)."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Returns milliseconds of a clock that is never set."""
        return self._monotonic_ms

    def sleep(self, seconds: float) -> None:
        """Moves the clock on."""
        self.advance(seconds=seconds)

    async def asleep(self, seconds: float) -> None:
        """Moves the clock on."""
        self.advance(seconds=seconds)

    def call_later(self, seconds: float, work: Callable[[], object]) -> None:
        """Does something when `advance` comes to that instant."""
        with self._lock:
            due_ms = self._monotonic_ms + round(seconds * 1000)
            heapq.heappush(self._later, (due_ms, next(self._numbers), work))

    def advance(self, *, seconds: float) -> None:
        """Lets time pass, and does in order what is due meanwhile."""
        until_ms = self._monotonic_ms + round(seconds * 1000)
        while (work := self._next_until(until_ms)) is not None:
            work()

    def _next_until(self, until_ms: int) -> Callable[[], object] | None:
        """Moves on to what is due next, at most to an instant."""
        with self._lock:
            is_due = bool(self._later) and self._later[0][0] <= until_ms
            to_ms = self._later[0][0] if is_due else until_ms
            passed_ms = max(0, to_ms - self._monotonic_ms)
            self._now_ms += passed_ms
            self._monotonic_ms += passed_ms
            return heapq.heappop(self._later)[2] if is_due else None

    def set(self, now_ms: int) -> None:
        """Sets the clock, as an administrator would; monotonic time goes on."""
        self._now_ms = now_ms
