"""Stores: where the ledger is kept. `open_store(url)` chooses one."""

import os
from pathlib import Path
from urllib.parse import unquote

from platformdirs import user_data_path

from guardrails.errors import ConfigurationError
from guardrails.ports import Store
from guardrails.stores.memory import MemoryStore

__all__ = ["open_store"]

DATABASE_NAME = "ledger.sqlite3"


def open_store(url: str | os.PathLike[str]) -> Store:
    """Opens the store that a URL names. Nothing is read or written yet.

    Args:
        url: `sqlite` for the file in the user's data directory,
            `sqlite:///relative/path`, `sqlite:////absolute/path`, a path that
            ends in `.sqlite3` or `.db`, or `memory://`.

    Raises:
        ConfigurationError: If the URL names no store of this version.
    """
    text = os.fspath(url)
    if text == "memory://":
        return MemoryStore()
    if text in ("sqlite", "sqlite://"):
        return _sqlite(user_data_path("guardrails", appauthor=False) / DATABASE_NAME)
    if text.startswith("sqlite:///") and len(text) > len("sqlite:///"):
        return _sqlite(Path(unquote(text.removeprefix("sqlite:///"))).expanduser())
    if isinstance(url, os.PathLike) or text.endswith((".sqlite3", ".db")):
        return _sqlite(Path(text).expanduser())
    raise ConfigurationError(
        f"store: {_masked(text)!r} is not a store of this version. Use "
        '"sqlite", "sqlite:///ledger.sqlite3" or "memory://".'
    )


def _sqlite(path: Path) -> Store:
    # Imported late: a memory store has no use for sqlite3.
    from guardrails.stores.sqlite import SQLiteStore

    return SQLiteStore(path)


def _masked(url: str) -> str:
    """Hides the credentials of a URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else url
