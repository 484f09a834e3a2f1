"""Settings: where alerts go, and about what."""

from dataclasses import dataclass, field

from guardrails.alerts.alert import AlertKind

__all__ = ["COOLDOWN_MS", "KINDS", "AlertSettings", "WebhookSettings"]

KINDS = (AlertKind.SOFT, AlertKind.STOP, AlertKind.LOOP, AlertKind.DEGRADED)
"""What alerts can be about. Whoever hears of an outage hears of its end too."""

COOLDOWN_MS = 900_000
"""A quarter of an hour: long enough that a flapping store is no alarm clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """A receiver of signed JSON."""

    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """At least one; each signs, so that a receiver may know the old or the new."""
    allow_private: bool = False
    """Whether it may be at a private or loopback address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """Everything about alerts."""

    slack: str | None = field(default=None, repr=False)
    """The URL of an incoming webhook: whoever has it can post."""
    webhook: WebhookSettings | None = None
    on: tuple[AlertKind, ...] = KINDS
    cooldown_ms: int = COOLDOWN_MS
    """How long an alert that only repeats an earlier one is held back."""

    @property
    def is_on(self) -> bool:
        """Whether alerts go anywhere."""
        return bool(self.on) and (self.slack is not None or self.webhook is not None)

    def includes(self, kind: AlertKind) -> bool:
        """Whether people want to hear of a kind."""
        if kind is AlertKind.RECOVERED:
            kind = AlertKind.DEGRADED
        return kind is AlertKind.TEST or kind in self.on
