"""Rows of a journal: operations as JSON, apart from whom they are charged to. Pure.

Most operations of a session are charged alike, so a charging is written once.
"""

from pydantic import TypeAdapter

from guardrails.core.accounts import Charging
from guardrails.core.operations import Release, Reserve, Settle
from guardrails.stores.backlog import Entry

__all__ = ["charging_text", "entry_from", "entry_row"]

_settle = TypeAdapter(Settle)
_reserve = TypeAdapter(Reserve)
_release = TypeAdapter(Release)
_charging = TypeAdapter(Charging)


def charging_text(charging: Charging) -> bytes:
    """Writes whom operations are charged to."""
    return _charging.dump_json(charging)


def entry_row(op: Entry, now_ms: int, charging: bytes | None) -> tuple[object, ...]:
    """Returns the columns of an operation, with the digest of its charging."""
    match op:
        case Settle():
            kind, content = "settle", _settle.dump_json(op, exclude={"charging"})
        case Reserve():
            kind, content = "reserve", _reserve.dump_json(op, exclude={"charging"})
        case Release():
            kind, content = "release", _release.dump_json(op)
    return (op.hold_id, kind, now_ms, charging, content)


def entry_from(kind: object, content: object, charging: object) -> Entry:
    """Rebuilds an operation.

    Raises:
        TypeError: If a column is of another type.
        ValueError: If what is in it is no operation.
    """
    if kind == "release":
        return _release.validate_json(_bytes(content))
    if charging is None:
        raise ValueError("journal: whom the call is charged to is missing")
    # The two parts of one JSON object.
    whole = _bytes(content)[:-1] + b',"charging":' + _bytes(charging) + b"}"
    return (_settle if kind == "settle" else _reserve).validate_json(whole)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"journal: {type(value).__name__} instead of bytes")
    return value
