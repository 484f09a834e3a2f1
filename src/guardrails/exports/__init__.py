"""Exports: writes events to a file for other programs. No store, no clock."""

from guardrails.exports.columns import COLUMNS, ColumnType
from guardrails.exports.writers import FORMATS, EventWriter, open_writer

__all__ = ["COLUMNS", "FORMATS", "ColumnType", "EventWriter", "open_writer"]
