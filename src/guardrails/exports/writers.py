"""Writers: one per format that events can be written in."""

from collections.abc import Sequence
from typing import BinaryIO, Protocol

from guardrails.core.flat_events import FlatEvent
from guardrails.errors import ConfigurationError
from guardrails.exports.texts import CSVWriter, JSONLinesWriter

__all__ = ["FORMATS", "EventWriter", "open_writer"]

FORMATS = ("jsonl", "csv", "parquet")
"""Formats of single events."""


class EventWriter(Protocol):
    """Writes events, in the order in which they come."""

    def write(self, events: Sequence[FlatEvent]) -> None:
        """Appends events."""
        ...

    def finish(self) -> None:
        """Writes what is left. The file stays open."""
        ...


def open_writer(form: str, out: BinaryIO) -> EventWriter:
    """Returns what writes events in one of `FORMATS`.

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
            return _parquet_writer(out)
        case _:
            raise ConfigurationError(
                f"--format: {form!r} is no format. Use one of {', '.join(FORMATS)}."
            )


def _parquet_writer(out: BinaryIO) -> EventWriter:
    try:
        # Imported late: an extra brings pyarrow, and it takes 0.1 s to load.
        from guardrails.exports.parquet import ParquetWriter
    except ImportError as error:
        raise ConfigurationError(
            f"--format: parquet needs pyarrow, which cannot be imported ({error}). "
            'Run: pip install "guardrails-runtime[export]". Or use csv or jsonl.'
        ) from error
    return ParquetWriter(out)
