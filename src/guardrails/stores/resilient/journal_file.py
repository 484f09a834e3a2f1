"""The file of a journal: rows on disk, and the lock that says that somebody lives."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from guardrails.core.accounts import Charging
from guardrails.core.operations import Release
from guardrails.stores.backlog import Entry
from guardrails.stores.resilient.journal_rows import charging_text, entry_row
from guardrails.system.logs import host_log

try:
    import fcntl
except ImportError:  # Windows: files of dead processes are not adopted.
    fcntl = None

__all__ = ["JournalFile", "forget_unused", "name_of", "paths_of", "tidy"]

CHARGINGS_MAX = 4_096
"""Chargings whose rows are known to be written."""

TIDIED_MAX = 1_024
"""Rows deleted at once: whoever writes meanwhile waits some milliseconds."""

FORGOTTEN_MAX = 100
"""Chargings deleted at once: likewise, a millisecond."""

_log = host_log()

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    number INTEGER PRIMARY KEY, hold_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    written_ms INTEGER NOT NULL, charging BLOB, content BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS chargings (
    digest BLOB PRIMARY KEY, content BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS acknowledged (hold_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_KEEP = (
    "INSERT OR REPLACE INTO operations (hold_id, kind, written_ms, charging, content) "
    "VALUES (?, ?, ?, ?, ?)"
)
_READ = (
    "SELECT operations.kind, operations.content, chargings.content, written_ms, number "
    "FROM operations LEFT JOIN chargings ON charging = digest "
)


def name_of(store: str) -> str:
    """Returns how the names of all files begin that are for a store."""
    return blake2b(store.encode(), digest_size=8).hexdigest()


def paths_of(folder: Path, store: str) -> list[Path]:
    """Returns the files of all processes, dead or alive, for a store."""
    return sorted(folder.glob(f"{name_of(store)}-*.sqlite3"))


class JournalFile:
    """One database file, and the lock that says that its process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._lock_file: int | None = os.open(f"{path}-lock", flags, 0o600)
        self._connection: sqlite3.Connection | None = None
        self._chargings: dict[int, tuple[Charging, bytes]] = {}
        """Those whose rows are written, by `id`, and their digests."""
        self._left: set[bytes] = set()
        """Digests of those that were: nothing may be kept of them any more."""
        try:
            if fcntl is not None:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except BaseException:
            os.close(self._lock_file)
            raise

    @classmethod
    def adopted(cls, path: Path) -> "JournalFile | None":
        """Opens the file of a dead process; `None` if its process lives."""
        if fcntl is None:
            return None
        try:
            file = cls(path)
        except BlockingIOError:
            return None
        return file

    def write(self, op: Entry, now_ms: int) -> None:
        """Writes an operation, in the place of an earlier one of its hold."""
        row = entry_row(op, now_ms, self._charging_of(op))
        self._database().execute(_KEEP, row)

    def _charging_of(self, op: Entry) -> bytes | None:
        """Writes the charging of an operation once, and returns its digest."""
        if isinstance(op, Release):
            return None
        known = self._chargings.get(id(op.charging))
        if known is not None and known[0] is op.charging:
            return known[1]
        content = charging_text(op.charging)
        digest = blake2b(content, digest_size=16).digest()
        statement = "INSERT OR IGNORE INTO chargings VALUES (?, ?)"
        self._database().execute(statement, (digest, content))
        if len(self._chargings) >= CHARGINGS_MAX:
            self._left.update(digest for _, digest in self._chargings.values())
            self._chargings.clear()
        self._left.discard(digest)
        self._chargings[id(op.charging)] = (op.charging, digest)
        return digest

    def left(self) -> frozenset[bytes]:
        """Returns digests of chargings of which nothing may be kept any more."""
        return frozenset(self._left)

    def forget(self, digests: Sequence[bytes]) -> None:
        """Deletes chargings of which nothing was kept, but those that came again."""
        mine = [digest for digest in digests if digest in self._left]
        if self._lock_file is None:
            return  # It was closed meanwhile.
        places = ", ".join("?" * len(mine))
        statement = f"DELETE FROM chargings WHERE digest IN ({places})"
        self._database().execute(statement, mine)
        self._left.difference_update(mine)

    def stamp(self, hold_ids: Sequence[str], now_ms: int) -> None:
        """Has rows count as written now."""
        places = ", ".join("?" * len(hold_ids))
        statement = f"UPDATE operations SET written_ms = ? WHERE hold_id IN ({places})"
        self._database().execute(statement, (now_ms, *hold_ids))

    def rows(
        self,
        *,
        hold_ids: Sequence[str] | None = None,
        since_ms: int = 0,
        after: int = 0,
        count: int = -1,
    ) -> list[tuple[object, ...]]:
        """Returns rows, oldest first: kind, content, charging, instant, number."""
        if hold_ids is not None:
            places = ", ".join("?" * len(hold_ids))
            query = f"{_READ} WHERE hold_id IN ({places}) ORDER BY number"
            values: tuple[object, ...] = (*hold_ids,)
        else:
            query = f"{_READ} WHERE written_ms >= ? AND number > ? "
            query, values = f"{query} ORDER BY number LIMIT ?", (since_ms, after, count)
        return self._database().execute(query, values).fetchall()

    def delete(self, hold_id: str) -> None:
        """Deletes what is kept of a hold."""
        statement = "DELETE FROM operations WHERE hold_id = ?"
        self._database().execute(statement, (hold_id,))

    def note_acknowledged(self, *, but: frozenset[str]) -> None:
        """Notes that the store has acknowledged all that is kept, but some holds."""
        database = self._database()
        found = database.execute("SELECT hold_id FROM operations").fetchall()
        statement = "INSERT OR IGNORE INTO acknowledged VALUES (?)"
        database.execute("BEGIN")
        database.executemany(statement, [row for row in found if row[0] not in but])
        database.execute("COMMIT")

    def acknowledged(self) -> frozenset[str]:
        """Returns the holds of which that was noted."""
        found = self._database().execute("SELECT hold_id FROM acknowledged")
        return frozenset(hold_id for (hold_id,) in found)

    def count_waiting(self) -> int:
        """Returns how many are kept of which that was not noted."""
        query = "SELECT count(*) FROM operations WHERE hold_id NOT IN "
        query += "(SELECT hold_id FROM acknowledged)"
        [(count,)] = self._database().execute(query).fetchall()
        return count

    def put_aside(self, number: int, content: bytes, error: Exception) -> None:
        """Moves a row that cannot be read to a file beside this one, and says so."""
        # Only the type: the text may hold names.
        _log.error(
            "guardrails: a row of the journal %s cannot be read (%s). It was put aside "
            "in %s.quarantine; its cost is missing from reports.",
            self.path,
            type(error).__name__,
            self.path,
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        quarantine = os.open(f"{self.path}.quarantine", flags, 0o600)
        try:
            os.write(quarantine, content + b"\n")
        finally:
            os.close(quarantine)
        self._database().execute("DELETE FROM operations WHERE number = ?", (number,))

    def is_empty(self) -> bool:
        """Whether no row is left."""
        query = "SELECT 1 FROM operations LIMIT 1"
        return self._database().execute(query).fetchone() is None

    def remove(self) -> None:
        """Deletes the file and those that belong to it."""
        self.disconnect()
        for suffix in ("", "-wal", "-shm", "-lock"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def disconnect(self) -> None:
        """Closes the database and keeps the lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Closes the database and ends the lock."""
        self.disconnect()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("PRAGMA wal_autocheckpoint = 0")  # See `tidy`.
                connection.executescript(_SCHEMA)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def forget_unused(file: JournalFile, lock: AbstractContextManager[object]) -> None:
    """Deletes chargings of which nothing is kept: each session has one of its own.

    Args:
        file: The file.
        lock: Held by whoever uses its connection. Nobody waits for it for long.
    """
    with lock:
        left = file.left()
    if not left:
        return
    query = "SELECT DISTINCT charging FROM operations"
    with contextlib.closing(sqlite3.connect(file.path)) as database:
        used = {digest for (digest,) in database.execute(query)}
    unused = iter(left - used)
    while page := [*islice(unused, FORGOTTEN_MAX)]:
        with lock:
            file.forget(page)


def tidy(path: Path, *, until_ms: int, kept: frozenset[str]) -> None:
    """Deletes rows that were written by an instant, and empties the log.

    By a connection of its own, so that the file can be written meanwhile: syncing
    the disk takes a while.

    Args:
        path: The file.
        until_ms: The instant.
        kept: Holds whose rows stay, however old they are.
    """
    if not path.stat().st_size:
        return  # Nothing was ever written.
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        query = "SELECT hold_id FROM operations WHERE written_ms <= ? LIMIT ?"
        count = TIDIED_MAX + len(kept)
        while old := [
            row
            for row in database.execute(query, (until_ms, count)).fetchall()
            if row[0] not in kept
        ]:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("DELETE FROM operations WHERE hold_id = ?", old)
            database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")
