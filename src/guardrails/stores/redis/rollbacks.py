"""Rollbacks: says that a server has lost what it had acknowledged, once in a minute.

A server that evicts keys under pressure, or stale Sentinels, lose something with every
call: whoever reads the log needs to know that once, and how often it was.
"""

from guardrails.ports import Clock
from guardrails.system.clock import SystemClock
from guardrails.system.logs import host_log

__all__ = ["SAY_AGAIN_MS", "Rollbacks"]

SAY_AGAIN_MS = 60_000
"""How long losses of a project are only counted, once one was said."""

_log = host_log()


class Rollbacks:
    """Says losses. One thread at a time."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._next_ms: dict[str, int] = {}
        self._unsaid: dict[str, int] = {}

    def lost(self, prefix: str, *, seen: int, found: int) -> None:
        """Notes that a project's version is lower than it was seen."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._next_ms.get(prefix, now_ms):
            self._unsaid[prefix] = self._unsaid.get(prefix, 0) + 1
            return
        self._next_ms[prefix] = now_ms + SAY_AGAIN_MS
        unsaid = self._unsaid.pop(prefix, 0)
        _log.error(
            "guardrails: the store has lost acknowledged changes of %s: version %d "
            "was seen, it is at %d. It failed over, was restored or was flushed%s.",
            prefix,
            seen,
            found,
            f", or evicts keys: {unsaid} more such losses since this was last said"
            if unsaid
            else "",
        )
