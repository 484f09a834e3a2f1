"""Columns: the closed schema of an exported event, the same in every format. Pure."""

import enum
from collections.abc import Sequence
from datetime import UTC, datetime

from guardrails.core.layers import LAYER_GROUPS
from guardrails.core.reporting.flat_events import FLAT_SCHEMA_VERSION, FlatEvent

__all__ = ["COLUMNS", "ColumnType", "columns_of", "instant_text", "usd_text"]


class ColumnType(enum.Enum):
    """What the values of a column are."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    """Milliseconds since 1970; ISO 8601 in text."""
    USD = "usd"
    """Nano-USD; a decimal number of USD in the file."""
    JSON = "json"
    """JSON text; a value of its own in JSON."""


_RENAMED = {
    "time_ms": "time",
    "cost_nano_usd": "cost_usd",
    **{f"{group}_nano_usd": f"{group}_usd" for group in LAYER_GROUPS},
}
_TYPES = {
    "time": ColumnType.INSTANT,
    "cost_usd": ColumnType.USD,
    "agent_path": ColumnType.JSON,
    "tags": ColumnType.JSON,
    "latency_ms": ColumnType.INTEGER,
    "bytes_in": ColumnType.INTEGER,
    "bytes_out": ColumnType.INTEGER,
    "input_tokens": ColumnType.INTEGER,
    "cache_read_tokens": ColumnType.INTEGER,
    "cache_write_tokens": ColumnType.INTEGER,
    "output_tokens": ColumnType.INTEGER,
    "reasoning_tokens": ColumnType.INTEGER,
    "attempt": ColumnType.INTEGER,
    "is_repeat": ColumnType.BOOLEAN,
    **{f"{group}_tokens": ColumnType.INTEGER for group in LAYER_GROUPS},
    **{f"{group}_usd": ColumnType.USD for group in LAYER_GROUPS},
}
_LAST = {"estimated": ColumnType.BOOLEAN, "schema_version": ColumnType.INTEGER}

COLUMNS: dict[str, ColumnType] = {
    **{
        name: _TYPES.get(name, ColumnType.TEXT)
        for name in (_RENAMED.get(field, field) for field in FlatEvent._fields)
    },
    **_LAST,
}
"""Columns in their order. Later versions add at the end."""


def columns_of(events: Sequence[FlatEvent]) -> list[Sequence[object]]:
    """Returns the values of each of `COLUMNS`; instants and money are integers yet."""
    estimated = [event.is_estimated for event in events]
    versions = [FLAT_SCHEMA_VERSION] * len(events)
    return [*zip(*events, strict=True), estimated, versions]


def instant_text(time_ms: int) -> str:
    """Writes an instant in ISO 8601, in UTC and to the millisecond."""
    whole = datetime.fromtimestamp(time_ms // 1_000, tz=UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{time_ms % 1_000:03d}Z"


def usd_text(nano: int) -> str:
    """Writes an amount exactly, with cents at least: `0.0135`.

    A faster spelling of `core.money.usd`: there is one per event.
    """
    whole, rest = divmod(nano, 10**9)
    return f"{whole}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"
