"""Ledgers: opens the configured store to read it, and leaves no trace of that."""

import contextlib
from collections.abc import Generator
from pathlib import Path

import typer

from guardrails.cli.telling import telling
from guardrails.config import Configuration
from guardrails.errors import ConfigurationError
from guardrails.orders import Orders
from guardrails.ports import History, Store
from guardrails.stores import open_store
from guardrails.stores.memory import MemoryStore
from guardrails.system.clock import SystemClock

__all__ = ["opened", "ordering", "reading", "refuse_memory", "shown_url"]


@contextlib.contextmanager
def reading(url: str | None) -> Generator[History]:
    """Lends what a store knows. A ledger that does not exist is not created.

    Args:
        url: The store; `None` is the default one.

    Raises:
        ConfigurationError: If the URL names no store of this version.
        StoreUnavailable: If the store cannot be read.
    """
    with opened(url) as store:
        if isinstance(store, MemoryStore) and url == "memory://":
            typer.echo(
                "guardrails: the store is memory://, which ends with the process that "
                "uses it. Configure a file to look into it from here.",
                err=True,
            )
        yield store.history


@contextlib.contextmanager
def opened(url: str | None, *, creates: bool = False) -> Generator[Store]:
    """Lends a store; an empty one for a ledger that does not exist.

    Args:
        url: The store; `None` is the default one.
        creates: Whether a ledger that does not exist is made.

    Raises:
        ConfigurationError: If the URL names no store of this version.
        StoreUnavailable: If the store cannot be read.
    """
    store = open_store(url or "sqlite")
    path = getattr(store, "path", None)
    if not creates and isinstance(path, Path) and _is_missing(path):
        typer.echo(
            f"guardrails: there is no ledger at {path} yet, so nothing was recorded.",
            err=True,
        )
        yield MemoryStore()
        return
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def ordering(configuration: Configuration, *, creates: bool) -> Generator[Orders]:
    """Lends what gives a ledger the orders of people, who are told of them.

    Args:
        configuration: Names the store, the project and the policy.
        creates: Whether a ledger that does not exist is made.

    Raises:
        ConfigurationError: If no other process can see the store.
        StoreUnavailable: If the store cannot be reached.
    """
    refuse_memory(configuration)
    with (
        opened(configuration.store, creates=creates) as store,
        telling(store, configuration) as tell,
    ):
        yield Orders(
            store,
            project_id=configuration.project_id,
            clock=SystemClock(),
            policy=configuration.policy,
            telling=configuration.alerts.telling,
            told=tell,
        )


def refuse_memory(configuration: Configuration) -> None:
    """Refuses a store that no other process can see.

    Raises:
        ConfigurationError: If the configured one is in memory.
    """
    if configuration.store == "memory://":
        raise ConfigurationError(
            "store: memory:// ends with the process that uses it, and nothing else can "
            "reach it. Configure a file, or Redis."
        )


def shown_url(url: str | None) -> str:
    """Returns a store's URL without credentials; `sqlite` is the default store."""
    if url is None or "://" not in url or url.startswith(("sqlite:", "memory:")):
        return url or "sqlite"
    # Imported late: it brings the client of Redis.
    from guardrails.stores.redis.connection.topology import masked

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
