"""Imports what writes Parquet, late, since an extra brings pyarrow."""

import importlib
from types import ModuleType

from guardrails.errors import ConfigurationError

__all__ = ["parquet_module"]


def parquet_module() -> ModuleType:
    """Returns `guardrails.exports.parquet`; it takes 0.1 s to load.

    Raises:
        ConfigurationError: If pyarrow cannot be imported.
    """
    try:
        return importlib.import_module("guardrails.exports.parquet")
    except ImportError as error:
        raise ConfigurationError(
            f"--format: Parquet needs pyarrow, which cannot be imported ({error}). "
            'Run: pip install "guardrails-runtime[export]". Or use csv or jsonl.'
        ) from error
