"""Outbox: alerts and their rows, as the scripts write them. Pure."""

from collections.abc import Sequence
from typing import Any

from guardrails.core.accounts import Account, Charging, SessionState, Stop, StopReason
from guardrails.core.alerting.alerts import (
    Alert,
    alert_of_killing,
    alert_of_order,
    alert_of_raise,
)
from guardrails.core.alerting.deliveries import (
    AlertLog,
    ClaimAlerts,
    Claimed,
    DeliveryState,
    NoteAlerts,
    ReadAlerts,
    RetryAlerts,
    TellAlerts,
)
from guardrails.core.alerting.outbox import (
    CALM_FORGOTTEN_MS,
    CLAIM_MAX,
    KEPT_MS,
    TIDIED_MAX,
    KeptAlert,
    Outbox,
    Place,
    Row,
)
from guardrails.core.operations import RaiseLimits, StopScope, StopSession
from guardrails.core.stops import StopOrder
from guardrails.core.telling import AlertKind, Telling
from guardrails.stores.alert_texts import PART, alert_text, kept_from, who_text
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.codec.layouts import SEPARATOR
from guardrails.stores.redis.codec.wire import Argument

__all__ = [
    "OutboxOperation",
    "killing_text",
    "order_text",
    "outbox_arguments",
    "outbox_reply",
    "raising_text",
    "telling_text",
]

OutboxOperation = ClaimAlerts | NoteAlerts | RetryAlerts | ReadAlerts | TellAlerts

WHO, STEPS, RAISED = "\x1c", "\x1b", "\x1a"
"""Stand for what the script fills in."""

WHO_AT, STEPS_AT, RAISED_AT = 2, 11, 14
"""Which parts of a text that is; see `alert_text`."""


def telling_text(charging: Charging) -> str:
    """Writes what is told of calls; empty if nobody wants to know."""
    telling = charging.telling
    if telling is None:
        return ""
    kinds = ",".join(telling.kinds)
    places = " ".join(telling.places)
    return f"{PART}{kinds}{PART}{who_text(charging.attribution)}{PART}{places}"


def killing_text(op: StopSession) -> str:
    """Writes what is told of a session that a person stops for good."""
    if op.telling is None or AlertKind.STOP not in op.telling.kinds:
        return ""
    stop = Stop(reason=StopReason.KILLED, at_ms=op.now_ms, by=op.by)
    session = SessionState(
        attribution=op.attribution,
        started_at_ms=op.now_ms,
        last_active_at_ms=op.now_ms,
    )
    account = Account(key=op.account, stop=stop, session=session)
    return _with_gaps(alert_of_killing(account), op.telling)


def raising_text(op: RaiseLimits) -> tuple[str, str]:
    """Writes what is told of a raised limit, and whose account it is by its key."""
    if op.telling is None or AlertKind.RAISED not in op.telling.kinds:
        return "", ""
    account = Account(key=op.account, raised=op.limits)
    alert = alert_of_raise(account, by=op.by, now_ms=op.now_ms)
    assert alert.attribution is not None
    return _with_gaps(alert, op.telling), who_text(alert.attribution)


def order_text(op: StopScope) -> str:
    """Writes what is told of what a person stops."""
    if op.telling is None or AlertKind.STOP not in op.telling.kinds:
        return ""
    order = StopOrder(target=op.target, at_ms=op.now_ms, until_ms=op.until_ms, by=op.by)
    return alert_text(alert_of_order(order, op.project_id), op.telling.places)


def _with_gaps(alert: Alert, telling: Telling) -> str:
    """Writes an alert, with gaps for what only the account knows."""
    parts = alert_text(alert, telling.places).split(PART)
    parts[WHO_AT], parts[STEPS_AT], parts[RAISED_AT] = WHO, STEPS, RAISED
    return PART.join(parts)


def outbox_arguments(
    op: OutboxOperation,
) -> tuple[str, list[str], list[Argument]]:
    """Returns the project's prefix, and the keys and arguments of `outbox.lua`."""
    prefix = keys.project_prefix(op.project_id)
    return prefix, [keys.outbox(prefix)], _arguments(op)


def _arguments(op: OutboxOperation) -> list[Argument]:
    match op:
        case ClaimAlerts():
            return [
                *("claim", op.now_ms, op.place, op.owner, op.until_ms, op.singles_max),
                *(CLAIM_MAX, op.now_ms - KEPT_MS, TIDIED_MAX, int(op.is_last)),
            ]
        case NoteAlerts():
            calm_ttl_ms = op.cooldown_ms and op.cooldown_ms + CALM_FORGOTTEN_MS
            return [
                *("note", op.now_ms, op.place, op.owner, op.state.value, op.due_ms),
                *(calm_ttl_ms, "" if op.status is None else op.status, op.text),
                *(op.lost_told, op.label, op.now_ms + op.cooldown_ms, op.rest_ms),
                *op.alert_ids,
            ]
        case RetryAlerts():
            return ["retry", op.now_ms, "", op.alert_id or ""]
        case ReadAlerts():
            return ["read", 0, "", op.limit]
        case TellAlerts():
            texts = [
                (alert.alert_id, alert.time_ms, alert_text(alert, op.places))
                for alert in op.alerts
            ]
            return ["tell", 0, "", *(part for text in texts for part in text)]


def outbox_reply(
    op: OutboxOperation, reply: Any
) -> Claimed | int | tuple[AlertLog, ...] | tuple[str, ...]:
    """Reads the answer of `outbox.lua`."""
    match op:
        case ClaimAlerts():
            return _claimed(reply)
        case NoteAlerts() | RetryAlerts():
            return reply
        case ReadAlerts():
            return _read(op, reply)
        case TellAlerts():
            return tuple([alert_id.decode() for alert_id in reply])


def _claimed(reply: Sequence[bytes]) -> Claimed:
    if len(reply) == 1:
        return Claimed(next_ms=int(reply[0]) if reply[0] else None)
    _, message_id, failures, lost, *found = reply
    kept = map(_kept, found[::2], found[1::2])
    return Claimed(
        alerts=tuple([one.alert for one in kept]),
        message_id=message_id.decode(),
        failures=int(failures),
        lost=int(lost),
    )


def _read(op: ReadAlerts, reply: Sequence[Any]) -> tuple[AlertLog, ...]:
    known, *found = reply
    places = [_place(*pair) for pair in zip(known[::2], known[1::2], strict=True)]
    outbox = Outbox(places={(op.project_id, place.name): place for place in places})
    for alert_id, text, rows in found:
        kept = _kept(alert_id, text)
        outbox.alerts[kept.alert.alert_id] = kept
        for name, row in zip(rows[::2], rows[1::2], strict=True):
            key = (kept.alert.alert_id, name.decode())
            outbox.rows[key] = _row(kept, key[1], row)
    return outbox.read(op)


def _kept(alert_id: bytes, text: bytes) -> KeptAlert:
    return kept_from(alert_id.decode(), text.decode())


def _place(name: bytes, text: bytes) -> Place:
    owner, until, due, failures, lost, label, rest = text.decode().split(SEPARATOR)
    return Place(
        name=name.decode(),
        label=label,
        owner=owner or None,
        until_ms=int(until),
        due_ms=int(due),
        failures=int(failures),
        lost=int(lost),
        rest_ms=int(rest),
    )


def _row(kept: KeptAlert, place: str, row: bytes) -> Row:
    state, message, attempts, at, status, text, due = row.decode().split(SEPARATOR)
    return Row(
        alert_id=kept.alert.alert_id,
        place=place,
        due_ms=int(due) if due else kept.alert.time_ms,
        state=DeliveryState(state),
        message_id=message or None,
        attempts=int(attempts),
        at_ms=int(at) if at else None,
        status=int(status) if status else None,
        text=text,
    )
