"""Telling: which kinds of alerts people want, and where they are to go. Pure."""

import enum
from dataclasses import dataclass

__all__ = ["AlertKind", "Telling"]


class AlertKind(enum.StrEnum):
    """What an alert is about."""

    SOFT = "soft"
    """A soft threshold was crossed; the agent goes on."""
    STOP = "stop"
    """A session was stopped, or a person stopped something."""
    LIMIT = "limit"
    """The hard limit of a shared budget was reached; its calls are refused."""
    LOOP = "loop"
    """An agent repeats itself, and goes on."""
    RAISED = "raised"
    """A person raised a limit."""
    DEGRADED = "degraded"
    """The store does not answer."""
    RECOVERED = "recovered"
    """The store is back."""
    ANOMALY = "anomaly"
    """Something is unusual about what is spent."""
    PACE = "pace"
    """A shared budget will be gone before its window ends."""
    DAILY = "daily"
    """What a day cost that is over."""
    UNPRICED = "unpriced"
    """The price of a model is not known."""
    TEST = "test"
    """Somebody tries whether alerts arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """What the ledger tells people of. Without one it tells nobody."""

    kinds: tuple[AlertKind, ...]
    places: tuple[str, ...]
    """The destinations, by names of their own: a ledger keeps no URL."""
