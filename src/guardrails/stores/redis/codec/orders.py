"""Orders: stops by people, and the audit, as the scripts write them. Pure."""

import json
from collections.abc import Sequence
from typing import Any

from guardrails.core.accounts import Stop, StopReason
from guardrails.core.operations import (
    RaiseLimits,
    ReadAudit,
    ReadStops,
    Resume,
    ResumeScope,
    StopScope,
    StopSession,
)
from guardrails.core.stops import (
    SESSIONS_LISTED_MAX,
    STOPS_MAX,
    AuditAction,
    AuditEntry,
    StopOrder,
    Stops,
    StopTarget,
    project_in,
)
from guardrails.stores.alert_texts import who_text
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.codec.layouts import SEPARATOR, raised_from
from guardrails.stores.redis.codec.outbox import killing_text, order_text
from guardrails.stores.redis.codec.requests import limits_arguments, stop_text
from guardrails.stores.redis.codec.wire import Argument

__all__ = [
    "Stopping",
    "audit_from",
    "order_from",
    "raise_text",
    "stops_arguments",
    "stops_from",
]

Stopping = StopSession | Resume | StopScope | ResumeScope


def stops_arguments(
    op: Stopping | ReadStops | ReadAudit,
) -> tuple[str, list[str], list[Argument]]:
    """Returns the project's prefix, and the keys and arguments of `stops.lua`."""
    if isinstance(op, StopSession | Resume):
        key = op.account
        names = [keys.account_of(key), keys.traces_of(key)]
    elif isinstance(op, StopScope | ResumeScope):
        key, names = op.target.key(op.project_id), []
    else:
        key, names = f"{project_in(op.project_id)}/", []
    prefix = keys.prefix_of(key)
    common = [keys.version(prefix), keys.stops(prefix), keys.audit(prefix)]
    return prefix, [*common, *names], _arguments(op, key)


def _arguments(op: Stopping | ReadStops | ReadAudit, key: str) -> list[Argument]:
    match op:
        case ReadStops():
            return ["read", op.now_ms, ""]
        case ReadAudit():
            return ["read", 0, op.limit]
        case Resume() | ResumeScope():
            entry = _entry_text(op, AuditAction.RESUME, key)
            return ["resume", op.now_ms, keys.field_of(key), entry]
        case StopScope():
            until = "" if op.until_ms is None else op.until_ms
            entry = _entry_text(op, AuditAction.STOP, key, until_ms=op.until_ms)
            return [
                *("stop", op.now_ms, keys.field_of(key), entry),
                *(until, _order_text(op, until), STOPS_MAX),
                *("", "", order_text(op)),
            ]
        case StopSession():
            stop = Stop(
                reason=StopReason.KILLED, at_ms=op.now_ms, by=op.by, note=op.note
            )
            entry = _entry_text(op, AuditAction.STOP, key)
            return [
                *("stop", op.now_ms, keys.field_of(key), entry),
                *("", _order_text(op, ""), SESSIONS_LISTED_MAX),
                *(stop_text(stop), who_text(op.attribution), killing_text(op)),
            ]


def _order_text(op: StopSession | StopScope, until: Argument) -> str:
    """Writes an order. Names hold no control characters."""
    return SEPARATOR.join((str(until), str(op.now_ms), op.by or "", op.note or ""))


def order_from(key: str, text: bytes) -> StopOrder:
    """Reads an order."""
    target = StopTarget.of_key(key)
    assert target is not None
    until, at, by, note = text.decode().split(SEPARATOR)
    return StopOrder(
        target=target,
        at_ms=int(at),
        until_ms=int(until) if until else None,
        by=by or None,
        note=note or None,
    )


def stops_from(op: ReadStops, found: Sequence[bytes]) -> tuple[StopOrder, ...]:
    """Reads the orders that are in force, oldest first."""
    project = project_in(op.project_id)
    fields = [f"{project}/{field.decode()}" for field in found[::2]]
    texts = dict(zip(fields, found[1::2], strict=True))
    orders = {key: order_from(key, text) for key, text in texts.items()}
    return Stops(orders).in_force(project, op.now_ms)


def raise_text(op: RaiseLimits) -> str:
    """Writes the entry of a raise; the script adds the limits before and after."""
    policy = None
    if op.policy is not None:
        policy = ",".join(map(str, limits_arguments(op.policy)))
    return _entry_text(op, AuditAction.RAISE, op.account, policy=policy)


def _entry_text(
    op: Stopping | RaiseLimits, action: AuditAction, key: str, **more: object
) -> str:
    entry: dict[str, object] = {
        "at_ms": op.now_ms,
        "action": action.value,
        "key": key,
        "by": op.by,
        "note": op.note,
        **more,
    }
    return json.dumps({name: one for name, one in entry.items() if one is not None})


def audit_from(found: Sequence[bytes]) -> tuple[AuditEntry, ...]:
    """Reads the audit, newest first."""
    return tuple([_entry_from(text) for text in reversed(found)])


def _entry_from(text: bytes) -> AuditEntry:
    head, *limits = text.decode().split("\x1e")
    values: dict[str, Any] = json.loads(head)
    before, after = [raised_from(one) for one in limits] or (None, None)
    return AuditEntry(
        at_ms=values["at_ms"],
        action=AuditAction(values["action"]),
        key=values["key"],
        by=values.get("by"),
        note=values.get("note"),
        until_ms=values.get("until_ms"),
        policy=raised_from(values.get("policy", "")),
        raised_before=before,
        raised_after=after,
    )
