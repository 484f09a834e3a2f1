"""FOCUS in a file: hourly charges as CSV or Parquet."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import BinaryIO

from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.exports.focus import FOCUS_COLUMNS, Charges, FocusRow, MeterRates
from guardrails.exports.parquet_module import parquet_module
from guardrails.exports.texts import write_table

__all__ = ["FocusCSVWriter", "FocusParquetWriter"]

PRICE_DECIMALS = 12
"""Of a price per unit, which is a quotient."""


class FocusCSVWriter:
    """Writes charges as CSV.

    Args:
        out: Where the bytes go. It stays open.
        rates: Tells the rates by which a charge is divided.
    """

    def __init__(self, out: BinaryIO, rates: MeterRates) -> None:
        self._out = out
        self._charges = Charges(rates)
        write_table(out, [list(FOCUS_COLUMNS)])

    @property
    def left_out(self) -> int:
        """Calls of unknown cost, which are not in the file."""
        return self._charges.unpriced_calls

    def write(self, events: Sequence[FlatEvent]) -> None:
        """Adds events; hours that are over are written."""
        self._put(self._charges.add(events))

    def finish(self) -> None:
        """Writes the hours that are left."""
        self._put(self._charges.rest())

    def _put(self, rows: Iterable[FocusRow]) -> None:
        write_table(
            self._out,
            [[_text(row[name]) for name in FOCUS_COLUMNS] for row in rows],
        )


class FocusParquetWriter:
    """Writes charges as Parquet.

    Args:
        out: Where the bytes go. It stays open.
        rates: Tells the rates by which a charge is divided.

    Raises:
        ConfigurationError: If pyarrow is not installed.
    """

    def __init__(self, out: BinaryIO, rates: MeterRates) -> None:
        self._charges = Charges(rates)
        self._file = parquet_module().FocusTable(out, FOCUS_COLUMNS)

    @property
    def left_out(self) -> int:
        """Calls of unknown cost, which are not in the file."""
        return self._charges.unpriced_calls

    def write(self, events: Sequence[FlatEvent]) -> None:
        """Adds events; hours that are over are written."""
        self._file.write(map(_exact, self._charges.add(events)))

    def finish(self) -> None:
        """Writes the hours that are left, and the footer."""
        self._file.write(map(_exact, self._charges.rest()))
        self._file.close()


def _exact(row: FocusRow) -> FocusRow:
    """Gives amounts the decimals that their columns have."""
    return {
        name: _rounded(value) if isinstance(value, Decimal) else value
        for name, value in row.items()
    }


def _rounded(value: Decimal) -> Decimal:
    return round(value, PRICE_DECIMALS)


def _text(value: str | Decimal | datetime | None) -> str | None:
    if isinstance(value, Decimal):
        return f"{_rounded(value).normalize():f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    return value
