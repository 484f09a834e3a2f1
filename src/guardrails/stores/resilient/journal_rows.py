"""Rows of a journal: operations as JSON, apart from whom they are charged to. Pure.

Most operations of a session are charged alike, so a charging is written once.
"""

from typing import TypeVar

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from guardrails.core.accounts import Charging
from guardrails.core.operations import Release, Reserve, Settle
from guardrails.stores.backlog import Entry

__all__ = ["charging_text", "entry_from", "entry_row"]

T = TypeVar("T")

_settle = TypeAdapter(Settle)
_reserve = TypeAdapter(Reserve)
_release = TypeAdapter(Release)
_charging = TypeAdapter(Charging)


def charging_text(charging: Charging) -> bytes:
    """Writes whom operations are charged to."""
    return _json(_charging, charging)


def entry_row(op: Entry, now_ms: int, charging: bytes | None) -> tuple[object, ...]:
    """Returns the columns of an operation, with the digest of its charging."""
    match op:
        case Settle():
            kind, content = "settle", _json(_settle, op, but={"charging"})
        case Reserve():
            kind, content = "reserve", _json(_reserve, op, but={"charging"})
        case Release():
            kind, content = "release", _json(_release, op)
    return (op.hold_id, kind, now_ms, charging, content)


def _json(adapter: TypeAdapter[T], value: T, *, but: set[str] | None = None) -> bytes:
    try:
        return adapter.dump_json(value, exclude=but)
    except PydanticSerializationError as error:
        interrupt = _interrupt_in(str(error))
        if interrupt is None:
            raise
        raise interrupt from None


def _interrupt_in(text: str) -> BaseException | None:
    """Returns what a signal's handler has raised while pydantic was writing.

    pydantic 2.14 makes an error of its own of it, which keeps only its text.
    """
    name, _, message = text.removeprefix("Error serializing to JSON: ").partition(": ")
    if name == KeyboardInterrupt.__name__:
        return KeyboardInterrupt()
    if name == SystemExit.__name__:
        return SystemExit(int(message) if message.isdecimal() else message or None)
    return None


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
