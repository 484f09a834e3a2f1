"""Texts: events as lines of JSON, and as CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import BinaryIO

from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.exports.cells import inert
from guardrails.exports.columns import (
    COLUMNS,
    ColumnType,
    columns_of,
    instant_text,
    usd_text,
)

__all__ = ["CSVWriter", "JSONLinesWriter", "write_table"]

Value = object


class JSONLinesWriter:
    """Writes one JSON object per line, in UTF-8.

    Args:
        out: Where the bytes go. It stays open.
    """

    left_out: int = 0
    """Every event is written."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, events: Sequence[FlatEvent]) -> None:
        """Appends events."""
        for values in _converted(_JSON, events):
            line = dict(zip(COLUMNS, values, strict=True))
            self._out.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def finish(self) -> None:
        """Writes what is left: nothing."""


class CSVWriter:
    """Writes CSV as RFC 4180 has it: a header, lines that end in CR LF, UTF-8.

    What is not known is an empty cell. A cell that a spreadsheet would run, and one
    that begins with a quote, gets a quote in front.

    Args:
        out: Where the bytes go. It stays open.
    """

    left_out: int = 0
    """Every event is written."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        out.write(_csv_bytes([list(COLUMNS)]))

    def write(self, events: Sequence[FlatEvent]) -> None:
        """Appends events."""
        self._out.write(_csv_bytes(list(_converted(_CSV, events))))

    def finish(self) -> None:
        """Writes what is left: nothing."""


def write_table(out: BinaryIO, rows: Sequence[Sequence[str | None]]) -> None:
    """Writes rows of plain values as CSV, in the same way."""
    out.write(
        _csv_bytes(
            [[inert(v) if isinstance(v, str) else v for v in row] for row in rows]
        )
    )


def _csv_bytes(rows: Sequence[Sequence[Value]]) -> bytes:
    text = io.StringIO()
    # With CR in its line ending, `csv` quotes a cell that holds a lone one.
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _converted(
    converts: Sequence[Callable[[Value], Value] | None], events: Sequence[FlatEvent]
) -> Iterator[Sequence[Value]]:
    """Yields the values of each event, converted column by column."""
    columns = zip(converts, columns_of(events), strict=True)
    changed = [
        column if convert is None else map(convert, column)
        for convert, column in columns
    ]
    return zip(*changed, strict=True)


def _known(convert: Callable[[int], str]) -> Callable[[Value], Value]:
    return lambda value: convert(value) if isinstance(value, int) else None


@lru_cache(maxsize=4_096)
def _parsed(value: Value) -> Value:
    assert isinstance(value, str)
    return json.loads(value)


def _cell(value: Value) -> Value:
    return inert(value) if isinstance(value, str) else value


def _flag(value: Value) -> Value:
    return "true" if value else "false"


_SHARED: dict[ColumnType, Callable[[Value], Value] | None] = {
    ColumnType.INTEGER: None,
    ColumnType.INSTANT: _known(instant_text),
    ColumnType.USD: _known(usd_text),
}
_JSON = [
    {
        **_SHARED,
        ColumnType.TEXT: None,
        ColumnType.BOOLEAN: None,
        ColumnType.JSON: _parsed,
    }[kind]
    for kind in COLUMNS.values()
]
_CSV = [
    {
        **_SHARED,
        ColumnType.TEXT: _cell,
        ColumnType.BOOLEAN: _flag,
        ColumnType.JSON: None,
    }[kind]
    for kind in COLUMNS.values()
]
