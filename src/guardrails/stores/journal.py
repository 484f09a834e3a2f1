"""The journal: a backlog on disk, for stores that other machines keep.

Theory of operation
-------------------
Each process has a file of its own, so that nobody waits for anybody. A settlement
is written before it is sent and stays for a minute after it was acknowledged: a
server that fails over or loses its last second has lost acknowledged settlements,
and they are sent again. All operations are idempotent by their id, for 25 hours.

Which rows were acknowledged is known in memory only. When a process dies, its lock
on the file ends, and the next process of this machine adopts it: it sends all rows
again and deletes the file. A row older than a day is sent only if no event of the
store has its id, since the store no longer knows which ids are finished.

SQLite's write-ahead log survives the death of the process without any sync; a power
cut of this machine may lose the last moments.
"""

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from pydantic import TypeAdapter

from guardrails.core.accounts import Charging
from guardrails.core.operations import Release, Reserve, Settle
from guardrails.ids import new_id
from guardrails.ports import Clock
from guardrails.stores.backlog import Entry

try:
    import fcntl
except ImportError:  # Windows: files of dead processes are not adopted.
    fcntl = None

__all__ = ["Journal"]

KEPT_MS = 60_000
"""How long a row stays after it was acknowledged: failovers take seconds, and
`appendfsync everysec` loses two at most."""

LATE_MS = 1_000
"""An acknowledgement that comes later than this begins the minute anew."""

PRUNED_EVERY = 256
"""Operations between two deletions of rows that are no longer needed."""

ROWS_MAX = 500_000
"""Past it no new call is promised a booking: about 64 MiB of disk per 100,000."""

RETENTION_MS = 24 * 3_600_000
"""How long a store surely knows the ids of what it has booked."""

PAGE = 100
"""Rows read at once: some milliseconds."""

CHARGINGS_MAX = 4_096
"""Chargings whose rows are known to be written."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    number INTEGER PRIMARY KEY, hold_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    written_ms INTEGER NOT NULL, charging BLOB, content BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS chargings (
    digest BLOB PRIMARY KEY, content BLOB NOT NULL
) WITHOUT ROWID;
"""
_KEEP = (
    "INSERT OR REPLACE INTO operations (hold_id, kind, written_ms, charging, content) "
    "VALUES (?, ?, ?, ?, ?)"
)
_READ = (
    "SELECT operations.kind, operations.content, chargings.content, written_ms, number "
    "FROM operations LEFT JOIN chargings ON charging = digest "
)

_log = logging.getLogger("guardrails")

_settle = TypeAdapter(Settle)
_reserve = TypeAdapter(Reserve)
_release = TypeAdapter(Release)
_charging = TypeAdapter(Charging)


class Journal:
    """Keeps operations in a file of this process. Thread safe, and safe to fork.

    Args:
        folder: Where the files of all processes are. It is created with mode 0700.
        store: Names the store; only journals of the same one are adopted.
        clock: Says when a row was written.

    Raises:
        OSError: If the folder or the file cannot be written.
        sqlite3.Error: Likewise.
    """

    def __init__(self, folder: Path, *, store: str, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._name = blake2b(store.encode(), digest_size=8).hexdigest()
        self._lock = threading.RLock()
        self._unacknowledged: dict[str, int] = {}
        """Ids by when they were written."""
        self._chargings: dict[int, tuple[Charging, bytes]] = {}
        self._count = 0
        self._file: _File | None = None
        self._process_id = os.getpid()
        with self._lock:
            self._opened()

    @property
    def path(self) -> Path:
        """The file of this process."""
        with self._lock:
            return self._opened().path

    @property
    def is_full(self) -> bool:
        """Whether `ROWS_MAX` operations wait."""
        return len(self._unacknowledged) >= ROWS_MAX

    def __len__(self) -> int:
        """Returns how many operations were not acknowledged."""
        return len(self._unacknowledged)

    def before(self, op: Entry) -> None:
        """Keeps a settlement: what is paid must be booked, whatever happens now."""
        if isinstance(op, Settle):
            self.keep(op)

    def keep(self, op: Entry) -> None:
        """Writes an operation, in the place of an earlier one of its hold.

        Raises:
            sqlite3.Error: If it cannot be written.
            OSError: Likewise.
        """
        with self._lock:
            if op.hold_id in self._unacknowledged and isinstance(op, Settle):
                kept = self._opened().kind_of(op.hold_id)
                if kept == "settle":
                    return
            file, now_ms = self._opened(), self._clock.now_ms()
            self._unacknowledged[op.hold_id] = now_ms
            file.write(_row(op, now_ms, self._charging_of(op, file)))
            self._count += 1
            if self._count % PRUNED_EVERY == 0:
                file.prune(now_ms - KEPT_MS, self._unacknowledged)

    def done(self, hold_id: str) -> None:
        """Notes that the store has acknowledged it. The row stays for a while."""
        with self._lock:
            written_ms = self._unacknowledged.pop(hold_id, None)
            now_ms = self._clock.now_ms()
            if written_ms is not None and now_ms - written_ms > LATE_MS:
                self._opened().stamp(hold_id, now_ms)

    def drop(self, hold_id: str) -> bool:
        """Deletes the row of a hold that was never sent."""
        with self._lock:
            if hold_id not in self._unacknowledged:
                return False
            del self._unacknowledged[hold_id]
            self._opened().delete(hold_id)
            return True

    def waiting(self, count: int) -> Sequence[Entry]:
        """Returns the oldest operations that were not acknowledged."""
        with self._lock:
            wanted = list(islice(self._unacknowledged, count))
            file = self._opened()
            rows = [row for one in wanted for row in file.rows(hold_id=one)]
        found = [op for op, _ in self._read(rows, file)]
        # What cannot be read was put aside, or the disk has lost it.
        for hold_id in {*wanted} - {op.hold_id for op in found}:
            self.done(hold_id)
        return found

    def recent(self) -> Iterator[Entry]:
        """Yields what was acknowledged within the last minute, oldest first."""
        since_ms, after = self._clock.now_ms() - KEPT_MS, 0
        while True:
            # By pages, so that nobody who writes waits for long.
            with self._lock:
                file = self._opened()
                rows = file.rows(since_ms=since_ms, after=after, count=PAGE)
            for op, _ in self._read(rows, file):
                if op.hold_id not in self._unacknowledged:
                    yield op
            if len(rows) < PAGE:
                return
            after = _int(rows[-1][4])

    def adopt(
        self, send: Callable[[Entry], object], *, is_booked: Callable[[Settle], bool]
    ) -> int:
        """Sends what processes of this machine left behind when they died.

        Args:
            send: Applies an operation to the store.
            is_booked: Asks the store's events for one that is older than a day.

        Returns:
            How many operations were sent.

        Raises:
            StoreUnavailable: From `send`. What is left stays for the next time.
        """
        sent = 0
        for path in sorted(self._folder.glob(f"{self._name}-*.sqlite3")):
            with contextlib.suppress(OSError, sqlite3.Error):
                file = _File.adopted(path)
                if file is None:
                    continue
                try:
                    sent += self._sent_again(file, send, is_booked)
                    file.remove()
                finally:
                    file.close()
        return sent

    def close(self) -> None:
        """Closes the file, and deletes it if nobody can need it any more."""
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            with contextlib.suppress(OSError, sqlite3.Error):
                file.prune(self._clock.now_ms() - KEPT_MS, self._unacknowledged)
                if file.is_empty():
                    file.remove()
            file.close()

    def before_fork(self) -> None:
        """Keeps others out, and closes the database: SQLite must not be forked."""
        self._lock.acquire()
        if self._file is not None:
            self._file.disconnect()

    def after_fork(self) -> None:
        """Lets others in again; a child gets a file of its own."""
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            if self._file is not None:
                self._file.close()
            self._file, self._unacknowledged, self._chargings = None, {}, {}
        self._lock.release()

    def _opened(self) -> "_File":
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = f"{self._name}-{os.getpid()}-{new_id()}.sqlite3"
            self._file = _File(self._folder / name)
            self._chargings = {}
        return self._file

    def _charging_of(self, op: Entry, file: "_File") -> bytes | None:
        """Writes the charging of an operation once, and returns its digest."""
        if isinstance(op, Release):
            return None
        known = self._chargings.get(id(op.charging))
        if known is not None and known[0] is op.charging:
            return known[1]
        content = _charging.dump_json(op.charging)
        digest = blake2b(content, digest_size=16).digest()
        file.write_charging(digest, content)
        if len(self._chargings) >= CHARGINGS_MAX:
            self._chargings.clear()
        self._chargings[id(op.charging)] = (op.charging, digest)
        return digest

    def _sent_again(
        self,
        file: "_File",
        send: Callable[[Entry], object],
        is_booked: Callable[[Settle], bool],
    ) -> int:
        now_ms, sent = self._clock.now_ms(), 0
        for op, written_ms in self._read(file.rows(), file):
            is_old = now_ms - written_ms > RETENTION_MS
            if is_old and (not isinstance(op, Settle) or is_booked(op)):
                continue
            if isinstance(op, Settle):
                self.keep(op)  # It may be lost again while it is new.
            send(op)
            self.done(op.hold_id)
            sent += 1
        return sent

    def _read(
        self, rows: Sequence[tuple[object, ...]], file: "_File"
    ) -> Iterator[tuple[Entry, int]]:
        for kind, content, charging, written_ms, number in rows:
            try:
                op = _operation(str(kind), _bytes(content), charging)
            except (TypeError, ValueError) as error:  # pydantic's is a ValueError.
                # Only the type: the text may hold names.
                _log.error(
                    "guardrails: a row of the journal %s cannot be read (%s). It was "
                    "put aside in %s.quarantine; its cost is missing from reports.",
                    file.path,
                    type(error).__name__,
                    file.path,
                )
                with self._lock:
                    file.put_aside(_int(number), str(content).encode())
            else:
                yield op, _int(written_ms)


class _File:
    """One database file, and the lock that says that its process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._lock_file: int | None = os.open(f"{path}-lock", flags, 0o600)
        self._connection: sqlite3.Connection | None = None
        try:
            if fcntl is not None:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except BaseException:
            os.close(self._lock_file)
            raise

    @classmethod
    def adopted(cls, path: Path) -> "_File | None":
        """Opens the file of a dead process; `None` if its process lives."""
        if fcntl is None:
            return None
        try:
            file = cls(path)
        except BlockingIOError:
            return None
        return file

    def write(self, row: tuple[object, ...]) -> None:
        self._database().execute(_KEEP, row)

    def write_charging(self, digest: bytes, content: bytes) -> None:
        statement = "INSERT OR IGNORE INTO chargings VALUES (?, ?)"
        self._database().execute(statement, (digest, content))

    def stamp(self, hold_id: str, now_ms: int) -> None:
        """Has a row count as written now."""
        statement = "UPDATE operations SET written_ms = ? WHERE hold_id = ?"
        self._database().execute(statement, (now_ms, hold_id))

    def kind_of(self, hold_id: str) -> str | None:
        query = "SELECT kind FROM operations WHERE hold_id = ?"
        found = self._database().execute(query, (hold_id,)).fetchone()
        return None if found is None else found[0]

    def rows(
        self,
        *,
        hold_id: str | None = None,
        since_ms: int = 0,
        after: int = 0,
        count: int = -1,
    ) -> list[tuple[object, ...]]:
        if hold_id is not None:
            query, values = f"{_READ} WHERE hold_id = ?", (hold_id,)
        else:
            query = f"{_READ} WHERE written_ms >= ? AND number > ? "
            query, values = f"{query} ORDER BY number LIMIT ?", (since_ms, after, count)
        return self._database().execute(query, values).fetchall()

    def delete(self, hold_id: str) -> None:
        statement = "DELETE FROM operations WHERE hold_id = ?"
        self._database().execute(statement, (hold_id,))

    def prune(self, before_ms: int, unacknowledged: Container[str]) -> None:
        """Deletes rows that were acknowledged a while ago."""
        database = self._database()
        query = "SELECT hold_id FROM operations WHERE written_ms < ?"
        old = [
            row
            for row in database.execute(query, (before_ms,)).fetchall()
            if row[0] not in unacknowledged
        ]
        if old:
            database.execute("BEGIN")
            database.executemany("DELETE FROM operations WHERE hold_id = ?", old)
            database.execute("COMMIT")

    def put_aside(self, number: int, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        quarantine = os.open(f"{self.path}.quarantine", flags, 0o600)
        try:
            os.write(quarantine, content + b"\n")
        finally:
            os.close(quarantine)
        self._database().execute("DELETE FROM operations WHERE number = ?", (number,))

    def is_empty(self) -> bool:
        query = "SELECT 1 FROM operations LIMIT 1"
        return self._database().execute(query).fetchone() is None

    def remove(self) -> None:
        self.disconnect()
        for suffix in ("", "-wal", "-shm", "-lock"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self.disconnect()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            connection.executescript(_SCHEMA)
            self._connection = connection
        return self._connection


def _row(op: Entry, now_ms: int, charging: bytes | None) -> tuple[object, ...]:
    match op:
        case Settle():
            content = _settle.dump_json(op, exclude={"charging"})
            return (op.hold_id, "settle", now_ms, charging, content)
        case Reserve():
            content = _reserve.dump_json(op, exclude={"charging"})
            return (op.hold_id, "reserve", now_ms, charging, content)
        case Release():
            content = _release.dump_json(op)
            return (op.hold_id, "release", now_ms, None, content)


def _operation(kind: str, content: bytes, charging: object) -> Entry:
    if kind == "release":
        return _release.validate_json(content)
    if charging is None:
        raise ValueError("journal: whom the call is charged to is missing")
    # The two parts of one JSON object.
    whole = content[:-1] + b',"charging":' + _bytes(charging) + b"}"
    return (_settle if kind == "settle" else _reserve).validate_json(whole)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"journal: {type(value).__name__} instead of bytes")
    return value
