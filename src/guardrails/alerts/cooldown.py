"""Cooldown: holds back an alert that only repeats an earlier one."""

from dataclasses import dataclass, field

from guardrails.core.alerting.alerts import Alert

__all__ = ["Cooldown"]

SUBJECTS_MAX = 10_000
"""Remembered at once, in a few megabytes. What is beyond is not held back: so many
alerts are summed up in digests anyway."""

HELD_MAX = 100
"""Of one subject. There is nothing new in the others, and the last one is kept."""


@dataclass(slots=True, kw_only=True)
class _Span:
    until_ms: int
    held: list[Alert] = field(default_factory=list[Alert])


class Cooldown:
    """Lets an alert pass, then holds back its repetitions for a while.

    What was held back passes when the while is over. Not thread safe.

    Args:
        span_ms: How long the while is; 0 holds nothing back.
    """

    def __init__(self, span_ms: int) -> None:
        self._span_ms = span_ms
        self._spans: dict[str, _Span] = {}
        self._holding: dict[str, _Span] = {}

    def admits(self, alert: Alert, *, now_ms: int) -> bool:
        """Whether an alert passes now."""
        span = self._spans.get(alert.subject)
        if span is None:
            if self._span_ms and len(self._spans) < SUBJECTS_MAX:
                until_ms = now_ms + self._span_ms
                self._spans[alert.subject] = _Span(until_ms=until_ms)
            return True
        if len(span.held) >= HELD_MAX:
            return True
        span.held.append(alert)
        self._holding[alert.subject] = span
        return False

    def due(self, *, now_ms: int) -> list[Alert]:
        """Returns the alerts that were held back for long enough."""
        passing: list[Alert] = []
        # In the order in which they began, which is that in which they end.
        while self._spans:
            subject, span = next(iter(self._spans.items()))
            if span.until_ms > now_ms:
                break
            del self._spans[subject]
            if self._holding.pop(subject, None) is not None:
                passing += span.held
                until_ms = now_ms + self._span_ms
                self._spans[subject] = _Span(until_ms=until_ms)
        return passing

    def next_ms(self) -> int | None:
        """Returns when the next span ends that holds anything back."""
        return min((span.until_ms for span in self._holding.values()), default=None)

    def rest(self) -> list[Alert]:
        """Returns all that is held back, and forgets everything."""
        held = [alert for span in self._holding.values() for alert in span.held]
        self._spans.clear()
        self._holding.clear()
        return held
