"""The system's clocks. The only module that reads the time."""

import asyncio
import threading
import time
from collections.abc import Callable

__all__ = ["SystemClock"]


class SystemClock:
    """The clocks of this machine."""

    def now_ms(self) -> int:
        """Returns milliseconds since 1970 (UTC)."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Returns milliseconds of a clock that is never set."""
        return time.monotonic_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Blocks the calling thread."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Suspends the calling task."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, work: Callable[[], object]) -> None:
        """Does something in a thread of its own, which no exit waits for."""
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        timer.start()
