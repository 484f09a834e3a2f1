"""Deliveries: what can be asked of an outbox, and its replies, as plain values.

An outbox has one row per alert, and one per alert and place: a destination, by its
name in `Telling.places`.
"""

import enum
from dataclasses import dataclass

from guardrails.core.alerting.alerts import Alert
from guardrails.core.operations import Operation

__all__ = [
    "AlertLog",
    "ClaimAlerts",
    "Claimed",
    "Delivery",
    "DeliveryState",
    "NoteAlerts",
    "ReadAlerts",
    "RetryAlerts",
    "TellAlerts",
]


class DeliveryState(enum.StrEnum):
    """What has become of an alert at a place."""

    WAITING = "waiting"
    """Nobody has begun to send it."""
    SENDING = "sending"
    """It is in a message; unless that arrives, the same message is sent again."""
    DELIVERED = "delivered"
    DEAD = "dead"
    """It was given up."""

    @property
    def is_open(self) -> bool:
        """Whether it is still to be sent."""
        return self in (DeliveryState.WAITING, DeliveryState.SENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An alert at a place."""

    place: str
    label: str = ""
    """Where that is, masked; empty until somebody has sent something there."""
    state: DeliveryState = DeliveryState.WAITING
    message_id: str | None = None
    """Of the message that it is in: its own, or that of a digest."""
    attempts: int = 0
    at_ms: int | None = None
    """When it was last tried."""
    status: int | None = None
    """The last answer, of HTTP; `None` if there was none."""
    text: str = ""
    """A word of the receiver, or what went wrong."""
    next_ms: int | None = None
    """When it is tried next; `None` once it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLog:
    """An alert, and what has become of it."""

    alert: Alert
    deliveries: tuple[Delivery, ...]
    """One per place, in the order in which they were configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The answer to `ClaimAlerts`."""

    alerts: tuple[Alert, ...] = ()
    """What the next message is about, oldest first; nothing if none is due."""
    message_id: str | None = None
    """Of the message: that of its only alert, or one of a digest."""
    failures: int = 0
    """Attempts in a row that have failed there."""
    lost: int = 0
    """Alerts that were given up since a digest told how many."""
    next_ms: int | None = None
    """If none is due: when to ask again. `None` if nothing waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimAlerts(Operation[Claimed]):
    """Take the next message for a place, and the place with it for a while.

    One owner has a place at a time, and a place has an instant before which nothing is
    sent to it: so a fleet sends as slowly as one process. A message that was begun
    comes first, unchanged. Otherwise up to `singles_max` due alerts become a message
    each, and more of them one digest. An alert that repeats what was delivered a
    moment ago waits until that is long enough ago.
    """

    project_id: str
    place: str
    owner: str
    now_ms: int
    until_ms: int
    """When somebody else may take the place."""
    singles_max: int
    is_last: bool = False
    """Whether the process ends: then it need not wait for more to sum up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAlerts(Operation[int]):
    """Note what came of a message, and give the place back.

    The reply is how many of its alerts were still to be sent. Noting it again, or late,
    changes nothing that is settled.
    """

    project_id: str
    place: str
    label: str
    owner: str
    alert_ids: tuple[str, ...]
    now_ms: int
    state: DeliveryState
    """`SENDING`: it failed, and is tried again."""
    due_ms: int
    """Before this nothing is sent to the place."""
    rest_ms: int = 0
    """Before this only a process that ends sends anything there."""
    cooldown_ms: int
    """How long what repeats a delivered alert waits."""
    status: int | None = None
    text: str = ""
    lost_told: int = 0
    """Of the lost ones, how many the message told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAlerts(Operation[int]):
    """Try an alert again now, or all that wait or were given up.

    The reply is how many deliveries that are.
    """

    project_id: str
    now_ms: int
    alert_id: str | None = None
    """`None` for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TellAlerts(Operation[tuple[str, ...]]):
    """Add alerts that no operation makes, such as those of a watch.

    The reply is the ids of those that were not known. All are of one project.
    Idempotent.
    """

    project_id: str
    alerts: tuple[Alert, ...]
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAlerts(Operation[tuple[AlertLog, ...]]):
    """Read the last alerts of a project and what has become of them, newest first."""

    project_id: str
    limit: int
    """At least 1."""
