"""The database file: creating, opening and migrating it, and saying what is wrong."""

import errno
import os
import sqlite3
import threading
import time
from functools import cache
from importlib.resources import files
from pathlib import Path

from guardrails.errors import StoreUnavailable

try:
    import fcntl
except ImportError:  # Windows: SQLite's own busy handler has to do.
    fcntl = None

__all__ = [
    "WAIT_SECONDS_MAX",
    "Transaction",
    "Turnstile",
    "explain",
    "file_id",
    "in_full",
    "is_locked",
    "open_database",
]

APPLICATION_ID = 0x6772646C
"""`grdl` in the file's header: this is a guardrails ledger."""

WAIT_SECONDS_MAX = 2.0
"""How long an operation waits for other processes. An operation takes about
0.1 ms, so a longer wait means that a process hangs in the middle of one."""

_POLL_SECONDS_MIN = 0.000_05
_POLL_SECONDS_MAX = 0.001
"""The longest sleep between two tries: a few operations of other processes."""

_creating = threading.RLock()
"""Keeps a thread from opening a new file while another has yet to close it."""


def open_database(path: Path) -> sqlite3.Connection:
    """Opens the ledger at `path`, creating or migrating it as needed.

    Raises:
        StoreUnavailable: If it is no guardrails ledger, or a newer one.
        sqlite3.Error: If it cannot be read or written.
        OSError: If it cannot be created.
    """
    _create(path)
    connection = sqlite3.connect(
        path,
        timeout=WAIT_SECONDS_MAX,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    try:
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def in_full(path: Path) -> Path:
    """Names a file in full: the process may go into another directory later."""
    try:
        return path.absolute()
    except OSError:  # Its directory has been deleted, which opening the file says.
        return path


def file_id(path: Path) -> tuple[int, int] | None:
    """Returns which file has a name now; `None` if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def explain(path: Path, error: Exception) -> str:
    """Says what is wrong with the file, and how to mend it."""
    text = str(error)
    is_read_only = "readonly" in text or getattr(error, "errno", None) == errno.EROFS
    if is_read_only or isinstance(error, PermissionError):
        fix = "Make the file and its directory writable for this user."
    elif "disk is full" in text or getattr(error, "errno", None) == errno.ENOSPC:
        fix = "The disk is full: free some space. Nothing of the ledger was changed."
    elif "disk I/O error" in text:
        fix = "The disk fails or its quota is used up: check it, or free some space."
    elif "not a database" in text or "malformed" in text:
        fix = (
            "The file is damaged or is something else. It was left as it is: move it "
            "away and a new ledger is started, or point `store` elsewhere."
        )
    elif is_locked(error):
        fix = (
            f"Another process held the file for {WAIT_SECONDS_MAX:g} s. Look for one "
            "that hangs, and keep the file off network file systems."
        )
    elif getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        fix = "Close some of what is open, or allow more of it with ulimit -n."
    elif "unable to open" in text or isinstance(error, OSError):
        fix = "Check that the path exists and is a writable file on a local disk."
    else:
        fix = "Point `store` elsewhere, or mend the file."
    return f"store: sqlite file {str(path)!r}: {text or type(error).__name__}. {fix}"


def is_locked(error: Exception) -> bool:
    """Whether all that is wrong is that another process has the file."""
    return "locked" in str(error)


class Turnstile:
    """Lets one process at a time write, in roughly fair turns.

    Only for fairness: SQLite's own lock guards the file. So where there are no
    file locks, passing through at once is correct.

    A context manager: it waits for a turn, and ends it on leaving.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(f"{path}-lock", flags, 0o600)

    def __enter__(self) -> None:
        """Waits for a turn, at most `WAIT_SECONDS_MAX`.

        Raises:
            TimeoutError: If another process kept its turn for so long.
        """
        if fcntl is None:
            return
        # A blocking lock could not be given up when its holder hangs.
        give_up_at = pause = 0.0
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not give_up_at:
                    give_up_at = time.monotonic() + WAIT_SECONDS_MAX
                elif time.monotonic() > give_up_at:
                    raise TimeoutError("locked by another process") from None
                pause = min(max(pause * 2, _POLL_SECONDS_MIN), _POLL_SECONDS_MAX)
                time.sleep(pause)
            else:
                return

    def __exit__(self, *error: object) -> None:
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Closes the lock file."""
        os.close(self._file)


class Transaction:
    """An immediate transaction; it is committed on leaving, or rolled back."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            # A commit may fail, and a full disk may have rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _create(path: Path) -> None:
    """Creates the file for its owner alone; SQLite's side files inherit that.

    One that is there is not opened: closing it again would end all locks on it that
    SQLite has in this process (https://sqlite.org/howtocorrupt.html, 2.2). The next
    process that closes would take itself for the last, and delete the log that this
    one goes on writing to.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _creating:
        if not path.is_file():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    migrations = _migrations()
    # Before anything is written: the file may be somebody else's.
    version = _checked_version(connection, path, known=len(migrations))
    if version != len(migrations):
        _use_write_ahead_log(connection)
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have migrated while this one waited.
        version = _checked_version(connection, path, known=len(migrations))
        # `executescript` would commit first, so statements run one by one.
        for script in migrations[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    # In WAL mode NORMAL survives kill -9; a power cut may lose the last moments.
    connection.execute("PRAGMA synchronous = NORMAL")
    # A checkpoint syncs the disk, so it is done once per 16 MiB of log, not 4.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Changes the journal mode, for which SQLite itself waits for nobody."""
    give_up_at = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > give_up_at:
                raise
            time.sleep(_POLL_SECONDS_MAX)
        else:
            return


def _checked_version(connection: sqlite3.Connection, path: Path, *, known: int) -> int:
    """Returns the schema of a ledger, 0 for an empty file; only reads."""
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreUnavailable(
            f"store: sqlite file {str(path)!r} belongs to another program. Point "
            "`store` elsewhere. The file was left as it is."
        )
    version = _pragma(connection, "user_version")
    if version > known:
        raise StoreUnavailable(
            f"store: sqlite file {str(path)!r} has schema {version}, this version of "
            f"guardrails knows up to {known}. Upgrade guardrails-runtime, or point "
            "`store` elsewhere. The file was left as it is."
        )
    return version


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@cache
def _migrations() -> tuple[str, ...]:
    """Returns the scripts in order; the n-th leads to schema n."""
    folder = files("guardrails.stores.sqlite") / "migrations"
    scripts = sorted(
        (script for script in folder.iterdir() if script.name.endswith(".sql")),
        key=lambda script: script.name,
    )
    return tuple([script.read_text(encoding="utf-8") for script in scripts])


@cache
def _statements(script: str) -> tuple[str, ...]:
    found: list[str] = []
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return tuple(found)
