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

REDIS_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)


def open_store(url: str | os.PathLike[str]) -> Store:
    """Opens the store that a URL names. Nothing is read or written yet.

    Args:
        url: `sqlite` for the file in the user's data directory,
            `sqlite:///relative/path`, `sqlite:////absolute/path`, a path that
            ends in `.sqlite3` or `.db`, `memory://`, or for a fleet
            `redis://host:6379/0`, `rediss://`, `unix:///path`,
            `redis+sentinel://host:26379,other:26379/service/0` or
            `redis+cluster://host:6379,other:6379`.

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
    if text.partition("://")[0] in REDIS_SCHEMES and "://" in text:
        return _redis(text)
    raise ConfigurationError(
        f"store: {_masked(text)!r} is not a store of this version. Use "
        '"sqlite", "sqlite:///ledger.sqlite3", "redis://host:6379/0" or "memory://".'
    )


def _sqlite(path: Path) -> Store:
    # Imported late: a memory store has no use for sqlite3.
    from guardrails.stores.sqlite import SQLiteStore

    return SQLiteStore(path)


def _redis(url: str) -> Store:
    # Imported late: the client takes longer to load than all the rest.
    from guardrails.stores.redis import RedisStore

    return RedisStore(url)


def _masked(url: str) -> str:
    """Hides the credentials of a URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else url
