"""Ledgers: opens the configured store to read it, and leaves no trace of that."""

import contextlib
from collections.abc import Generator
from pathlib import Path

import typer

from guardrails.ports import History
from guardrails.stores import open_store
from guardrails.stores.memory import MemoryStore

__all__ = ["reading", "shown_url"]


@contextlib.contextmanager
def reading(url: str | None) -> Generator[History]:
    """Lends what a store knows. A ledger that does not exist is not created.

    Args:
        url: The store; `None` is the default one.

    Raises:
        ConfigurationError: If the URL names no store of this version.
        StoreUnavailable: If the store cannot be read.
    """
    store = open_store(url or "sqlite")
    path = getattr(store, "path", None)
    if isinstance(path, Path) and _is_missing(path):
        typer.echo(
            f"guardrails: there is no ledger at {path} yet, so nothing was recorded.",
            err=True,
        )
        yield MemoryStore().history
        return
    if isinstance(store, MemoryStore):
        typer.echo(
            "guardrails: the store is memory://, which ends with the process that "
            "uses it. Configure a file to look into it from here.",
            err=True,
        )
    try:
        yield store.history
    finally:
        store.close()


def shown_url(url: str | None) -> str:
    """Returns a store's URL without credentials; `sqlite` is the default store."""
    if url is None or "://" not in url or url.startswith(("sqlite:", "memory:")):
        return url or "sqlite"
    # Imported late: it brings the client of Redis.
    from guardrails.stores.redis.topology import masked

    return masked(url)


def _is_missing(path: Path) -> bool:
    """Whether there certainly is no file. One that cannot be looked at may be."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
