"""Stores: where the ledger is kept. `open_store(url)` chooses one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from platformdirs import user_data_path

from guardrails.errors import ConfigurationError
from guardrails.ports import Clock, Store
from guardrails.stores.memory import MemoryStore
from guardrails.system.logs import host_log

if TYPE_CHECKING:
    from guardrails.stores.resilient.journal import Journal

__all__ = [
    "is_relative",
    "journal_folder",
    "journal_store",
    "open_journal",
    "open_store",
    "shared_url",
]

_log = host_log()

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
    path = Path(text).expanduser() if isinstance(url, os.PathLike) else _path(text)
    if path is not None and path.name == ":memory:":
        raise ConfigurationError(
            f'store: {text!r} would be a file of that name. Use "memory://" for one '
            "that ends with its process."
        )
    if path is not None:
        return _sqlite(path)
    if _is_redis(text):
        return _redis(text)
    shown = _masked(text).partition("?")[0]
    raise ConfigurationError(
        f"store: {shown!r} is not a store of this version. Use "
        '"sqlite", "sqlite:///ledger.sqlite3", "redis://host:6379/0" or "memory://".'
    )


def shared_url(url: str) -> str:
    """Returns the URL by which a process elsewhere opens the same store.

    That of a file names it in full: another process has another working directory,
    and its user's data may be elsewhere. What cannot be shared stays as it is.
    """
    path = _path(url)
    if path is None:
        return url
    # Imported late, as below.
    from guardrails.stores.sqlite.database import in_full

    return f"sqlite:///{quote(os.fspath(in_full(path)))}"


def is_relative(url: str) -> bool:
    """Whether a URL names another file in each working directory."""
    path = _path(url)
    return path is not None and not path.is_absolute()


def open_journal(
    url: str, clock: Clock, *, has_failed: bool = False
) -> "Journal | None":
    """Opens this process's journal for the store of a URL, if it needs one.

    A store on another machine does: it can be away, and can lose what it had
    acknowledged. A file needs one as long as it cannot be written, and where a process
    has died meanwhile. Without a journal, which is said once, a settlement that the
    store does not take is kept in memory only.

    Args:
        url: The store's.
        clock: For the journal.
        has_failed: Whether the store has just failed.
    """
    is_remote = _is_redis(url)
    if not is_remote and _path(url) is None:
        return None
    store, is_needed = journal_store(url), is_remote or has_failed
    folder: Path | str = "the user's home"
    try:
        folder = journal_folder()
        if not is_needed and not _has_left(folder, store):
            return None
        # Imported late, as below.
        from guardrails.stores.resilient.journal import KEPT_MS, Journal

        kept_ms = KEPT_MS if is_remote else 0  # What a file has, it does not lose.
        return Journal(folder, store=store, clock=clock, kept_ms=kept_ms)
    except Exception as error:
        if is_needed:
            _log.warning(
                "guardrails: no journal can be kept in %s (%s). Make it a directory "
                "that this user may write, on a local disk. Until then what a store "
                "that fails has not booked is lost with this process.",
                folder,
                type(error).__name__,
            )
        return None


def journal_store(url: str) -> str:
    """Returns what names the store of a URL in journals: without credentials."""
    return shared_url(_masked(url))


def _has_left(folder: Path, store: str) -> bool:
    """Whether there is a journal that somebody may have to adopt."""
    # Imported late, as below.
    from guardrails.stores.resilient.journal_file import paths_of

    return bool(paths_of(folder, store))


def journal_folder() -> Path:
    """Returns where the journals of this user's processes are."""
    return _data_folder() / "journal"


def _data_folder() -> Path:
    """Returns where data of this user are.

    Raises:
        ConfigurationError: If nobody knows. Some containers run as a user who is in no
            list, and has no `HOME`.
    """
    try:
        folder = user_data_path("guardrails", appauthor=False)
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():  # Older versions would begin it at a `~` right here.
        raise ConfigurationError(
            "store: this user has no home, where the ledger and its journal are kept "
            "by default. Set HOME or XDG_DATA_HOME to an absolute path."
        )
    return folder


def _path(url: str) -> Path | None:
    """Returns the file that a URL names."""
    if url in ("sqlite", "sqlite://"):
        return _data_folder() / DATABASE_NAME
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return Path(unquote(url.removeprefix("sqlite:///"))).expanduser()
    # What looks like a URL is one, though wrong: no file in a folder `sqlite:`.
    is_url = "://" in url or url.startswith("sqlite:")
    if url.endswith((".sqlite3", ".db")) and not is_url:
        return Path(url).expanduser()
    return None


def _sqlite(path: Path) -> Store:
    # Imported late: a memory store has no use for sqlite3.
    from guardrails.stores.sqlite import SQLiteStore

    return SQLiteStore(path)


def _is_redis(url: str) -> bool:
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme in REDIS_SCHEMES


def _redis(url: str) -> Store:
    # Imported late: the client takes longer to load than all the rest.
    from guardrails.stores.redis import RedisStore

    return RedisStore(url)


def _masked(url: str) -> str:
    """Hides the credentials of a URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else url
