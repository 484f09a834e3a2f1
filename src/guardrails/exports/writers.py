"""Writers: one per format that events can be written in."""

from collections.abc import Sequence
from typing import BinaryIO, Protocol

from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.errors import ConfigurationError
from guardrails.exports.focus import MeterRates
from guardrails.exports.focus_files import FocusCSVWriter, FocusParquetWriter
from guardrails.exports.parquet_module import parquet_module
from guardrails.exports.texts import CSVWriter, JSONLinesWriter

__all__ = ["FORMATS", "EventWriter", "open_writer"]

FORMATS = ("jsonl", "csv", "parquet", "focus", "focus-parquet")
"""Single events, and the hourly charges of FOCUS as CSV and Parquet."""


class EventWriter(Protocol):
    """Writes events, in the order in which they come."""

    @property
    def left_out(self) -> int:
        """How many events have no place in the format."""
        ...

    def write(self, events: Sequence[FlatEvent]) -> None:
        """Appends events."""
        ...

    def finish(self) -> None:
        """Writes what is left. The file stays open."""
        ...


def open_writer(form: str, out: BinaryIO, rates: MeterRates) -> EventWriter:
    """Returns what writes events in one of `FORMATS`.

    Args:
        form: The format.
        out: Where the bytes go. It stays open.
        rates: Tells the rates by which FOCUS divides what a call cost.

    Raises:
        ConfigurationError: If the format is not known, or needs a package that is
            not installed.
    """
    match form:
        case "jsonl":
            return JSONLinesWriter(out)
        case "csv":
            return CSVWriter(out)
        case "parquet":
            return parquet_module().ParquetWriter(out)
        case "focus":
            return FocusCSVWriter(out, rates)
        case "focus-parquet":
            return FocusParquetWriter(out, rates)
        case _:
            raise ConfigurationError(
                f"--format: {form!r} is no format. Use one of {', '.join(FORMATS)}."
            )
