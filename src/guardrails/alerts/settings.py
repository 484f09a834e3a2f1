"""Settings: where alerts go, and about what."""

from dataclasses import dataclass, field
from hashlib import blake2b

from guardrails.alerts.links import Link
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.telling import AlertKind, Telling

__all__ = ["COOLDOWN_MS", "KINDS", "AlertSettings", "WebhookSettings"]

KINDS = (
    AlertKind.SOFT,
    AlertKind.STOP,
    AlertKind.LOOP,
    AlertKind.ANOMALY,
    AlertKind.DAILY,
    AlertKind.UNPRICED,
    AlertKind.DEGRADED,
)
"""What people can ask for."""

_HEARD_WITH = {
    AlertKind.LIMIT: AlertKind.STOP,
    AlertKind.RAISED: AlertKind.STOP,
    AlertKind.RECOVERED: AlertKind.DEGRADED,
    AlertKind.PACE: AlertKind.ANOMALY,
}
"""What is told to whoever asked for another kind: who hears of stops hears of shared
limits that refuse and of raised ones, who hears of an outage hears of its end, and who
hears of anomalies hears of budgets that will not last."""

_IN_LEDGER = (
    AlertKind.SOFT,
    AlertKind.STOP,
    AlertKind.LIMIT,
    AlertKind.LOOP,
    AlertKind.RAISED,
)
"""What the ledger tells of by itself; a watch or a guard tells of the rest."""

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
    services: tuple[str, ...] = field(default=(), repr=False)
    """Addresses of apprise, which hold secrets."""
    links: tuple[Link, ...] = ()
    """Pages that an alert leads to."""
    on: tuple[AlertKind, ...] = KINDS
    cooldown_ms: int = COOLDOWN_MS
    """How long an alert that only repeats an earlier one is held back."""
    anomaly: AnomalyRules = field(default_factory=AnomalyRules)
    """From when on spend is unusual, in reports too."""

    @property
    def is_on(self) -> bool:
        """Whether alerts go anywhere."""
        return bool(self.on and self.places)

    @property
    def telling(self) -> Telling | None:
        """What the ledger is to tell of, and where."""
        kinds = tuple(kind for kind in _IN_LEDGER if self.includes(kind))
        if not kinds or not self.is_on:
            return None
        return Telling(kinds=kinds, places=tuple(self.places))

    @property
    def places(self) -> dict[str, str]:
        """The URLs by the names that the ledger knows them by."""
        slack = {"slack": self.slack} if self.slack is not None else {}
        webhook = {"webhook": self.webhook.url} if self.webhook is not None else {}
        services = [(url.partition(":")[0], url) for url in self.services]
        named = [*slack.items(), *webhook.items(), *services]
        return {_place(name, url): url for name, url in named}

    def includes(self, kind: AlertKind) -> bool:
        """Whether people want to hear of a kind."""
        kind = _HEARD_WITH.get(kind, kind)
        return kind is AlertKind.TEST or kind in self.on


def _place(name: str, url: str) -> str:
    """Names a destination: whoever sends to the same URL has the same name for it."""
    return f"{name}-{blake2b(url.encode(), digest_size=6).hexdigest()}"
