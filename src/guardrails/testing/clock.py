"""A clock that goes only when it is told to."""

import threading

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

    def advance(self, *, seconds: float) -> None:
        """Lets time pass."""
        with self._lock:
            self._now_ms += round(seconds * 1000)
            self._monotonic_ms += round(seconds * 1000)

    def set(self, now_ms: int) -> None:
        """Sets the clock, as an administrator would; monotonic time goes on."""
        self._now_ms = now_ms
