"""The SQLite store: the embedded default, one file that all processes share.

Theory of operation
-------------------
Each operation is one immediate transaction: it loads the rows that the
operation names, runs the pure ledger on them, and writes back what changed. So
the semantics are those of `core/ledger.py`, and a process that dies leaves
either all of an operation or nothing. Write-ahead logging lets reports read
while agents write. Rows of calls are not loaded again while nobody else writes; see
`kept_rows.py`.

SQLite makes a second writer sleep and retry, which starves one of eight
processes for seconds. A lock file in front of the transaction shortens its
sleep; it is only there for fairness, correctness does not depend on it.

A closed store may be used again: the connection is opened when it is needed.
None is carried across a fork. SQLite would take the parent's locks for the
child's own, and the parent's closing would delete the log that the child goes
on writing to. So a fork waits for the running operation and closes first.

A file that was deleted or replaced is left for the one that has its name now: what
went on in the old one would be seen by nobody.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Never, TypeVar, cast

from guardrails.core.operations import Operation
from guardrails.core.tracebacks import interrupt_in
from guardrails.errors import StoreUnavailable
from guardrails.stores.sqlite.database import (
    Transaction,
    Turnstile,
    explain,
    file_id,
    in_full,
    is_locked,
    open_database,
)
from guardrails.stores.sqlite.history import SQLiteHistory
from guardrails.stores.sqlite.kept_rows import KeptRows
from guardrails.stores.sqlite.operations import apply_operation
from guardrails.stores.sqlite.retention import SQLiteRetention
from guardrails.system.forks import close_at_fork
from guardrails.system.ids import new_key
from guardrails.system.logs import host_log
from guardrails.system.threads import WeakList, Worker, asking, may_block

__all__ = ["SQLiteStore"]

R = TypeVar("R")

_log = host_log()


class SQLiteStore:
    """Keeps the ledger in one file, shared by the processes of one machine.

    Args:
        path: The database file. It is created with mode 0600, its directory
            with mode 0700. Not for network file systems.

    Raises:
        StoreUnavailable: From every method, if the file cannot be opened, read
            or written, is no guardrails ledger, or comes from a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._named = Path(path)
        self._path = in_full(self._named)
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._turnstile: Turnstile | None = None
        self._kept = KeptRows()
        self._file_id: tuple[int, int] | None = None
        self._process_id = os.getpid()
        self._worker = Worker()
        self._history = SQLiteHistory(self.reading)
        self.keeper: SQLiteRetention = SQLiteRetention(self)
        """Deletes what is in it."""
        close_at_fork(self)
        _stores.add(self)

    @property
    def path(self) -> Path:
        """The database file, as it was named."""
        return self._named

    @property
    def history(self) -> SQLiteHistory:
        """What was spent."""
        return self._history

    @may_block
    def execute(self, operation: Operation[R]) -> R:
        """Applies an operation in one transaction. Thread safe."""
        thread_id = threading.get_ident()
        was_asking = thread_id in asking  # Not in the thread of `aexecute`.
        with self._lock:
            try:
                asking.add(thread_id)
                connection, turnstile = self._opened()
                with turnstile:
                    return cast("R", apply_operation(connection, operation, self._kept))
            except BaseException as error:
                self._fail(error)
            finally:
                if not was_asking:
                    asking.discard(thread_id)

    async def aexecute(self, operation: Operation[R]) -> R:
        """Applies an operation in a thread, since it waits for the disk."""
        return await self._worker.do(lambda: self.execute(operation))

    @may_block
    def secret(self) -> bytes:
        """Returns the file's random key, made by whoever asks first."""
        with self.reading() as connection:
            # A statement of its own is a transaction of its own.
            connection.execute(
                "INSERT INTO secrets (name, value) VALUES ('fingerprint', ?) "
                "ON CONFLICT (name) DO NOTHING",
                (new_key(),),
            )
            query = "SELECT value FROM secrets WHERE name = 'fingerprint'"
            return connection.execute(query).fetchone()[0]

    def close(self) -> None:
        """Closes the file. The next operation opens it again."""
        self._worker.close()
        self._close()

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            turnstile, self._turnstile = self._turnstile, None
            self._kept.forget()
            if connection is not None:
                connection.close()
            if turnstile is not None:
                turnstile.close()

    def before_fork(self) -> None:
        """Waits for the running operation, keeps others out, and closes."""
        self._lock.acquire()
        self._close()

    def after_fork(self) -> None:
        """Lets operations in again."""
        self._lock.release()

    @contextlib.contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Lends the connection, to a report for example."""
        with self._lock:
            try:
                self._kept.forget()
                yield self._opened()[0]
            except BaseException as error:
                self._fail(error)

    @contextlib.contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Lends the connection in a transaction, in turn with other processes."""
        with self.reading() as connection, self._opened()[1], Transaction(connection):
            self._kept.forget()
            yield connection

    def _leave_parent(self, process_id: int) -> None:
        """Closes what the parent of this process has opened.

        A store that is in use sees to that itself, or has nobody who ever lets it go.
        """
        if self._lock.acquire(blocking=False):
            try:
                if self._process_id != process_id:
                    self._close()
                    self._process_id = process_id
            finally:
                self._lock.release()

    def _fail(self, error: BaseException) -> Never:
        """Raises an error on, and leaves nothing locked.

        Ctrl-C or an alarm can come between any two steps, such as the beginning of a
        transaction and what would end it. SQLite's own errors come where they can be
        dealt with.
        """
        if not isinstance(error, sqlite3.Error):
            self._close()
        is_ours = isinstance(error, sqlite3.Error | OSError)
        if is_ours and interrupt_in(error) is None:
            unavailable = StoreUnavailable(explain(self._path, error))
            unavailable.may_return = is_locked(error)
            raise unavailable from error
        raise error

    def _opened(self) -> tuple[sqlite3.Connection, Turnstile]:
        """Returns what this process has open; the caller holds the lock."""
        process_id = os.getpid()
        if self._process_id != process_id:
            # A server in C forked without telling Python. Forgetting is not enough:
            # while a connection of the parent is open, this process takes no locks.
            for store in _stores.alive():
                store._leave_parent(process_id)
        if self._connection is not None and file_id(self._path) != self._file_id:
            _log.warning("guardrails: %s was deleted or replaced.", self._path)
            self._close()
        if self._connection is None:
            self._connection = open_database(self._path)
            self._file_id = file_id(self._path)
        if self._turnstile is None:
            self._turnstile = Turnstile(self._path)
        return self._connection, self._turnstile


_stores: WeakList[SQLiteStore] = WeakList()
