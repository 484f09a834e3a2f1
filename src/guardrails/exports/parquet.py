"""Parquet: events in columns, through pyarrow, which the extra `export` brings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from guardrails.core.reporting.flat_events import FLAT_SCHEMA_VERSION, FlatEvent
from guardrails.exports.columns import COLUMNS, ColumnType, columns_of

__all__ = ["FocusTable", "ParquetWriter"]

GROUP_ROWS = 65_536
"""Of a row group: enough for its statistics to skip something, about 10 MB here."""

USD_TYPE = pa.decimal128(38, 9)

_TYPES = {
    ColumnType.TEXT: pa.string(),
    ColumnType.JSON: pa.string(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.INSTANT: pa.timestamp("ms", tz="UTC"),
    ColumnType.USD: USD_TYPE,
}
_SCHEMA = pa.schema(
    [(name, _TYPES[kind]) for name, kind in COLUMNS.items()],
    metadata={"guardrails_schema_version": str(FLAT_SCHEMA_VERSION)},
)


class ParquetWriter:
    """Writes Parquet, compressed with Zstandard, in groups of 65,536 rows.

    Args:
        out: Where the bytes go. It stays open.
    """

    left_out: int = 0
    """Every event is written."""

    def __init__(self, out: BinaryIO) -> None:
        self._file = pq.ParquetWriter(out, _SCHEMA, compression="zstd")
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0

    def write(self, events: Sequence[FlatEvent]) -> None:
        """Appends events. They are kept as columns until a group is full."""
        arrays = [
            _usd_array(values)
            if kind is ColumnType.USD
            else pa.array(values, field.type)
            for values, kind, field in zip(
                columns_of(events), COLUMNS.values(), _SCHEMA, strict=True
            )
        ]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        self._rows += len(events)
        if self._rows >= GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Writes what is left, and the footer. Without it there is no file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, schema=_SCHEMA)
            self._file.write_table(table, row_group_size=self._rows)
        self._batches, self._rows = [], 0


class FocusTable:
    """Writes rows of plain values, each call a group.

    Args:
        out: Where the bytes go. It stays open.
        columns: Names and kinds: `text`, `number` or `instant`.
    """

    def __init__(self, out: BinaryIO, columns: Mapping[str, str]) -> None:
        kinds = {
            "text": pa.string(),
            "number": pa.decimal128(38, 12),
            "instant": pa.timestamp("ms", tz="UTC"),
        }
        self._schema = pa.schema([(name, kinds[of]) for name, of in columns.items()])
        self._file = pq.ParquetWriter(out, self._schema, compression="zstd")

    def write(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Appends rows."""
        found = list(rows)
        if found:
            self._file.write_table(pa.Table.from_pylist(found, schema=self._schema))

    def close(self) -> None:
        """Writes the footer. Without it there is no file."""
        self._file.close()


def _usd_array(nano_usd: Sequence[object]) -> pa.Array:
    """Makes amounts of nano-USD exact decimals of USD.

    The number inside such a decimal is the amount in nano-USD, so its bytes are
    taken as they are: a `Decimal` for each would take most of the time.
    """
    whole = pa.array(nano_usd, pa.int64()).cast(pa.decimal128(38, 0))
    return pa.Array.from_buffers(USD_TYPE, len(whole), whole.buffers())
