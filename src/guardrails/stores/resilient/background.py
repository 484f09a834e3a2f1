"""The background: what is done in a while, once, however often it is asked for."""

import threading
from collections.abc import Callable

from guardrails.ports import Clock

__all__ = ["Background"]


class Background:
    """Does things later, each at most once at a time. Thread safe.

    Args:
        clock: Says when it is later, and has a thread for it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._waiting: set[Callable[[], None]] = set()

    def soon(self, ms: int, work: Callable[[], None]) -> None:
        """Has something done after a while, unless it will be done anyway.

        Where no thread can be started, it is left to whoever asks for it next.
        """
        with self._lock:
            if work in self._waiting:
                return
            self._waiting.add(work)
        try:
            self._clock.call_later(ms / 1000, lambda: self._do(work))
        except RuntimeError:  # There are too many, or the interpreter is ending.
            with self._lock:
                self._waiting.discard(work)

    def forget(self) -> None:
        """Begins anew in a child process: threads stay with the parent."""
        self._lock = threading.RLock()
        self._waiting.clear()

    def _do(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.discard(work)
        work()
