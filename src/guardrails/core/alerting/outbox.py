"""The outbox: alerts that are to be sent, and what has become of them. Pure.

Theory of operation
-------------------
An alert is added by the operation that it tells of, in the same transaction, with a
row for each place it is to go to. It is added once: an alert that is known is not
added again. Whoever has something to send claims a place (`ClaimAlerts`), sends what
it is given, and notes what came of it (`NoteAlerts`); if it dies in between, the next
one is given the same message once the claim is over. So each alert is sent at least
once, and twice only if nobody knows whether it arrived.

A row of a place lives through

    waiting ──claim──▶ sending ──note──▶ delivered | dead
                          ▲──note: failed──┘             └──retry──▶ waiting

Rows that are in a message have a number as the instant at which they are due: they
come before all others, in their order. Between attempts it is the place that waits.
"""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass

from guardrails.core.alerting.alerts import Alert, digest_of
from guardrails.core.alerting.deliveries import (
    AlertLog,
    ClaimAlerts,
    Claimed,
    Delivery,
    DeliveryState,
    NoteAlerts,
    ReadAlerts,
    RetryAlerts,
)
from guardrails.core.windows import DAY_MS

__all__ = [
    "CALM_FORGOTTEN_MS",
    "CLAIM_MAX",
    "CLOCKS_MS",
    "HELD_MS_MAX",
    "KEPT_MS",
    "OUTBOX_MAX",
    "PAUSE_MS_MAX",
    "REST_MS_MAX",
    "TIDIED_MAX",
    "KeptAlert",
    "Outbox",
    "Place",
    "Row",
]

OUTBOX_MAX = 20_000
"""Alerts kept per project, about 15 MB: a storm of ten thousand, and as many again.
The oldest makes room for the next."""

CLAIM_MAX = 1_000
"""Alerts of one message: a digest names a few agents, and counts."""

KEPT_MS = 6 * DAY_MS
"""How long an alert is known. It is tried for three days, so that what has become of
it can be read for three more."""

TIDIED_MAX = 100
"""Alerts that one claim forgets, so that it never takes long."""

CALM_FORGOTTEN_MS = 3_600_000
"""How long after its end it is known that an alert was held back: clocks disagree."""

CLOCKS_MS = 60_000
"""How far clocks may be apart. What ends later than it may, and this, was written by
one that is further ahead, or was set back since: it counts as over."""

REST_MS_MAX = 10_000
"""How long a place rests after a digest: while alerts keep pouring in, the next one
sums up more of them. No other message that arrived has it rest for longer."""

PAUSE_MS_MAX = 3_600_000
"""How long it waits at most after one that did not, when many have failed."""

HELD_MS_MAX = DAY_MS
"""How long a repetition may be held back at most."""


@dataclass(slots=True, kw_only=True)
class Row:
    """An alert at a place. A row of the outbox."""

    alert_id: str
    place: str
    due_ms: int
    state: DeliveryState = DeliveryState.WAITING
    message_id: str | None = None
    attempts: int = 0
    at_ms: int | None = None
    status: int | None = None
    text: str = ""


@dataclass(slots=True, kw_only=True)
class Place:
    """A destination of one project. A row of the outbox."""

    name: str
    label: str = ""
    owner: str | None = None
    """Who sends to it now."""
    until_ms: int = 0
    """When somebody else may."""
    due_ms: int = 0
    """Before this nothing is sent to it."""
    rest_ms: int = 0
    """Before this only a process that ends sends anything to it."""
    failures: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAlert:
    """An alert, and where it is to go."""

    alert: Alert
    places: tuple[str, ...]


class Outbox:
    """The alerts of a ledger, and their rows. Not thread safe.

    Args:
        alerts: By id.
        rows: By alert and place.
        places: By project and name.
        calm: Until when repetitions wait, by project, place and subject.
    """

    def __init__(
        self,
        alerts: MutableMapping[str, KeptAlert] | None = None,
        rows: MutableMapping[tuple[str, str], Row] | None = None,
        places: MutableMapping[tuple[str, str], Place] | None = None,
        calm: MutableMapping[tuple[str, str, str], int] | None = None,
    ) -> None:
        self.alerts: MutableMapping[str, KeptAlert] = {} if alerts is None else alerts
        self.rows: MutableMapping[tuple[str, str], Row] = {} if rows is None else rows
        self.places: MutableMapping[tuple[str, str], Place] = (
            {} if places is None else places
        )
        self.calm: MutableMapping[tuple[str, str, str], int] = (
            {} if calm is None else calm
        )
        # What the last operation added and changed.
        self.added: list[KeptAlert] = []
        self.changed: list[Row] = []
        self.changed_places: list[Place] = []
        self.calmed: dict[tuple[str, str, str], int] = {}

    def begin(self) -> None:
        """Forgets what the last operation did."""
        if self.added or self.changed or self.changed_places or self.calmed:
            self.added, self.changed, self.changed_places = [], [], []
            self.calmed = {}

    def add(self, alert: Alert, places: tuple[str, ...]) -> None:
        """Adds an alert that is not known."""
        if alert.alert_id in self.alerts:
            return
        if len(self.alerts) >= OUTBOX_MAX:
            self._make_room(alert.project_id)
        kept = KeptAlert(alert=alert, places=places)
        self.alerts[alert.alert_id] = kept
        for place in places:
            self.rows[alert.alert_id, place] = Row(
                alert_id=alert.alert_id, place=place, due_ms=alert.time_ms
            )
        self.added.append(kept)

    def claim(self, op: ClaimAlerts) -> Claimed:
        """Gives out the next message for a place."""
        self._tidy(op.project_id, op.now_ms)
        waiting = self._open(op.project_id, op.place)[: CLAIM_MAX + 1]
        place = self.place(op.project_id, op.place)
        if not waiting:
            return Claimed()
        lease_ms = op.until_ms - op.now_ms
        is_claimed = _is_ahead(place.until_ms, op.now_ms, longest_ms=lease_ms)
        if place.owner not in (None, op.owner) and is_claimed:
            return Claimed(next_ms=place.until_ms)
        free_ms = place.due_ms if op.is_last else max(place.due_ms, place.rest_ms)
        pause_ms = PAUSE_MS_MAX if place.failures else REST_MS_MAX
        if _is_ahead(free_ms, op.now_ms, longest_ms=pause_ms):
            return Claimed(next_ms=free_ms)
        due = [row for row in waiting if self._is_due(row, op.now_ms)][:CLAIM_MAX]
        message_id = due[0].message_id if due else None
        members = [row for row in due if row.message_id == message_id]
        if message_id is None:
            members = self._begun(op, due)
        if not members:
            return Claimed(next_ms=min(row.due_ms for row in waiting))
        place.owner, place.until_ms = op.owner, op.until_ms
        self._keep(op.project_id, place)
        return Claimed(
            alerts=tuple([self.alerts[row.alert_id].alert for row in members]),
            message_id=members[0].message_id,
            failures=place.failures,
            lost=place.lost,
        )

    def note(self, op: NoteAlerts) -> int:
        """Notes what came of a message."""
        place = self.place(op.project_id, op.place)
        number = 0
        for alert_id in op.alert_ids:
            row = self.rows.get((alert_id, op.place))
            if row is None or not row.state.is_open:
                continue
            row.state, row.attempts = op.state, row.attempts + 1
            row.at_ms, row.status, row.text = op.now_ms, op.status, op.text
            self.changed.append(row)
            number += 1
            if op.state is DeliveryState.DELIVERED and op.cooldown_ms:
                subject = self.alerts[alert_id].alert.subject
                key = (op.project_id, op.place, subject)
                self.calm[key] = self.calmed[key] = op.now_ms + op.cooldown_ms
        if place.owner == op.owner:
            place.owner, place.until_ms = None, 0
        is_delivered = op.state is DeliveryState.DELIVERED
        place.label, place.rest_ms = op.label, op.rest_ms
        waits = _is_ahead(place.due_ms, op.now_ms, longest_ms=PAUSE_MS_MAX)
        place.due_ms = max(place.due_ms, op.due_ms) if waits else op.due_ms
        place.failures = 0 if is_delivered else place.failures + 1
        place.lost = max(0, place.lost - op.lost_told)
        if op.state is DeliveryState.DEAD:
            place.lost += number
        self._keep(op.project_id, place)
        return number

    def retry(self, op: RetryAlerts) -> int:
        """Has alerts tried again."""
        number = 0
        for key, kept in self.alerts.items():
            if kept.alert.project_id != op.project_id:
                continue
            for name in kept.places if op.alert_id in (None, key) else ():
                row = self.rows[key, name]
                if row.state is DeliveryState.DELIVERED:
                    continue
                if not row.state.is_open or row.message_id is None:
                    row.state, row.message_id = DeliveryState.WAITING, None
                    row.due_ms = op.now_ms
                    self.changed.append(row)
                number += 1
                known = self.places.get((op.project_id, name))
                if known is not None and known.due_ms > op.now_ms:
                    known.due_ms = op.now_ms
                    self._keep(op.project_id, known)
        return number

    def read(self, op: ReadAlerts) -> tuple[AlertLog, ...]:
        """Returns the last alerts."""
        found = [
            (kept.alert.time_ms, key)
            for key, kept in self.alerts.items()
            if kept.alert.project_id == op.project_id
        ]
        newest = sorted(found, reverse=True)[: op.limit]
        return tuple([self._log(self.alerts[key]) for _, key in newest])

    def place(self, project_id: str, name: str) -> Place:
        """Returns a place; a new one is not kept yet."""
        return self.places.get((project_id, name)) or Place(name=name)

    def _keep(self, project_id: str, place: Place) -> None:
        self.places[project_id, place.name] = place
        self.changed_places.append(place)

    def _open(self, project_id: str, place: str) -> list[Row]:
        """Returns what is to be sent to a place, in the order in which it is."""
        rows = [
            row
            for row in self.rows.values()
            if row.place == place
            and row.state.is_open
            and self.alerts[row.alert_id].alert.project_id == project_id
        ]
        return sorted(rows, key=lambda row: (row.due_ms, row.alert_id))

    def _is_due(self, row: Row, now_ms: int) -> bool:
        """Whether a row was held back for long enough, or not at all."""
        was_held = row.due_ms != self.alerts[row.alert_id].alert.time_ms
        return not (was_held and _is_ahead(row.due_ms, now_ms, longest_ms=HELD_MS_MAX))

    def _begun(self, op: ClaimAlerts, due: list[Row]) -> list[Row]:
        """Begins a message of what is due, and returns its rows."""
        passing: list[Row] = []
        for row in due:
            alert = self.alerts[row.alert_id].alert
            until_ms = self.calm.get((op.project_id, op.place, alert.subject), 0)
            is_calm = _is_ahead(until_ms, op.now_ms, longest_ms=HELD_MS_MAX)
            # It waits once: what was held back passes when the while is over.
            if is_calm and row.due_ms == alert.time_ms:
                row.due_ms = until_ms
                self.changed.append(row)
            else:
                passing.append(row)
        digest = None
        if len(passing) > op.singles_max:
            digest = digest_of(" ".join([row.alert_id for row in passing]))
        members = passing if digest else passing[:1]
        for number, row in enumerate(members):
            row.state, row.due_ms = DeliveryState.SENDING, number
            row.message_id = digest or row.alert_id
            self.changed.append(row)
        return members

    def _log(self, kept: KeptAlert) -> AlertLog:
        found: list[Delivery] = []
        for name in kept.places:
            row = self.rows[kept.alert.alert_id, name]
            place = self.place(kept.alert.project_id, name)
            is_open = row.state.is_open
            found.append(
                Delivery(
                    place=name,
                    label=place.label,
                    state=row.state,
                    message_id=row.message_id,
                    attempts=row.attempts,
                    at_ms=row.at_ms,
                    status=row.status,
                    text=row.text,
                    next_ms=max(row.due_ms, place.due_ms) if is_open else None,
                )
            )
        return AlertLog(alert=kept.alert, deliveries=tuple(found))

    def _make_room(self, project_id: str) -> None:
        """Forgets the oldest alert of a project that has as many as are kept."""
        known = [
            (kept.alert.time_ms, key)
            for key, kept in self.alerts.items()
            if kept.alert.project_id == project_id
        ]
        if len(known) >= OUTBOX_MAX:
            self._forget([min(known)[1]])

    def _tidy(self, project_id: str, now_ms: int) -> None:
        """Forgets what is known for long enough."""
        old = sorted(
            (kept.alert.time_ms, key)
            for key, kept in self.alerts.items()
            if kept.alert.project_id == project_id
            and kept.alert.time_ms <= now_ms - KEPT_MS
        )
        self._forget([key for _, key in old[:TIDIED_MAX]])
        ended_ms = now_ms - CALM_FORGOTTEN_MS
        for key in [key for key, until in self.calm.items() if until <= ended_ms]:
            del self.calm[key]

    def _forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            kept = self.alerts.pop(key)
            for name in kept.places:
                row = self.rows.pop((key, name))
                place = self.places.get((kept.alert.project_id, name))
                if row.state.is_open and place is not None:
                    place.lost += 1


def _is_ahead(at_ms: int, now_ms: int, *, longest_ms: int) -> bool:
    """Whether something has not ended, which takes as long as this at most."""
    return now_ms < at_ms <= now_ms + longest_ms + CLOCKS_MS
