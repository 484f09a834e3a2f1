"""The SQLite store: the embedded default, one file that all processes share.

Theory of operation
-------------------
Each operation is one immediate transaction: it loads the rows that the
operation names, runs the pure ledger on them, and writes back what changed. So
the semantics are those of `core/ledger.py`, and a process that dies leaves
either all of an operation or nothing. Write-ahead logging lets reports read
while agents write.

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

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Never, TypeVar, cast

from guardrails.core.accounts import Account, Hold, HoldState
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.ledger import SWEEP_MAX, Ledger
from guardrails.core.loops import ToolTrace
from guardrails.core.operations import (
    Close,
    Operation,
    RaiseLimits,
    ReadAccount,
    ReadAudit,
    ReadStops,
    Release,
    Reserve,
    Resume,
    ResumeScope,
    Settle,
    Settled,
    StopScope,
    StopSession,
    Sweep,
    Turn,
    Turned,
)
from guardrails.core.outbox import Outbox
from guardrails.core.stops import Stops, project_in, project_of
from guardrails.errors import StoreUnavailable
from guardrails.ids import new_key
from guardrails.stores import rows, statements, stop_rows
from guardrails.stores.database import (
    Transaction,
    Turnstile,
    explain,
    file_id,
    in_full,
    open_database,
)
from guardrails.stores.forks import close_at_fork
from guardrails.stores.history import SQLiteHistory
from guardrails.stores.outbox_rows import OutboxOperation, load_outbox, save_outbox
from guardrails.stores.retention import SQLiteRetention
from guardrails.stores.trace_texts import traces_from, traces_text

__all__ = ["SQLiteStore"]

R = TypeVar("R")

_log = logging.getLogger("guardrails")

_ACCOUNTS = ", ".join(rows.ACCOUNT_COLUMNS)
_UNKNOWN = Attribution()


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
        self._file_id: tuple[int, int] | None = None
        self._process_id = os.getpid()
        self._history = SQLiteHistory(self.reading)
        self.keeper: SQLiteRetention = SQLiteRetention(self)
        """Deletes what is in it."""
        close_at_fork(self)

    @property
    def path(self) -> Path:
        """The database file, as it was named."""
        return self._named

    @property
    def history(self) -> SQLiteHistory:
        """What was spent."""
        return self._history

    def execute(self, operation: Operation[R]) -> R:
        """Applies an operation in one transaction. Thread safe."""
        with self._lock:
            try:
                connection, turnstile = self._opened()
                with turnstile:
                    return cast("R", _execute(connection, operation))
            except BaseException as error:
                self._fail(error)

    async def aexecute(self, operation: Operation[R]) -> R:
        """Applies an operation in a thread, since it waits for the disk."""
        return await asyncio.to_thread(self.execute, operation)

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
        with self._lock:
            connection, self._connection = self._connection, None
            turnstile, self._turnstile = self._turnstile, None
            if connection is not None:
                connection.close()
            if turnstile is not None:
                turnstile.close()

    def before_fork(self) -> None:
        """Waits for the running operation, keeps others out, and closes."""
        self._lock.acquire()
        self.close()

    def after_fork(self) -> None:
        """Lets operations in again."""
        self._lock.release()

    @contextlib.contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Lends the connection, to a report for example."""
        with self._lock:
            try:
                yield self._opened()[0]
            except BaseException as error:
                self._fail(error)

    @contextlib.contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Lends the connection in a transaction, in turn with other processes."""
        with self.reading() as connection, self._opened()[1], Transaction(connection):
            yield connection

    def _fail(self, error: BaseException) -> Never:
        """Raises an error on, and leaves nothing locked.

        Ctrl-C or an alarm can come between any two steps, such as the beginning of a
        transaction and what would end it. SQLite's own errors come where they can be
        dealt with.
        """
        if not isinstance(error, sqlite3.Error):
            self.close()
        if isinstance(error, sqlite3.Error | OSError):
            raise StoreUnavailable(explain(self._path, error)) from error
        raise error

    def _opened(self) -> tuple[sqlite3.Connection, Turnstile]:
        """Returns what this process has open; the caller holds the lock."""
        process_id = os.getpid()
        if self._process_id != process_id:
            # A server in C forked without telling Python. Forgetting is not enough:
            # while the parent's connection is open, this process takes no locks.
            self.close()
            self._process_id = process_id
        if self._connection is not None and file_id(self._path) != self._file_id:
            _log.warning("guardrails: %s was deleted or replaced.", self._path)
            self.close()
        if self._connection is None:
            self._connection = open_database(self._path)
            self._file_id = file_id(self._path)
        if self._turnstile is None:
            self._turnstile = Turnstile(self._path)
        return self._connection, self._turnstile


# --- One operation ----------------------------------------------------------


def _execute(connection: sqlite3.Connection, operation: Operation[Any]) -> Any:
    if isinstance(operation, Turn):
        settled = _execute(connection, operation.settle)
        return Turned(settled=settled, reserved=_execute(connection, operation.reserve))
    with Transaction(connection):
        loaded = _load(connection, operation)
        reply = loaded.ledger.apply(operation)
        _save(connection, loaded, operation)
        if isinstance(reply, Settled) and reply.is_applied:
            assert isinstance(operation, Settle)
            _book(connection, operation.event)
    return reply


class _Loaded:
    """The rows that an operation names, and what they were."""

    def __init__(
        self,
        accounts: dict[str, Account],
        holds: dict[str, Hold],
        traces: dict[str, tuple[ToolTrace, ...]],
        stops: Stops | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.accounts = frozenset(accounts)
        self.sessions = {key for key, account in accounts.items() if account.session}
        self.traces = traces
        self.ledger = Ledger(accounts, holds, stops, outbox)


def _load(connection: sqlite3.Connection, operation: object) -> _Loaded:
    """Loads the rows that an operation names."""
    accounts: dict[str, Account] = {}
    holds: dict[str, Hold] = {}
    traces: dict[str, tuple[ToolTrace, ...]] = {}
    stops: Stops | None = None
    if isinstance(operation, OutboxOperation):
        return _Loaded({}, {}, {}, outbox=load_outbox(connection, operation))
    match operation:
        case Reserve() | Settle():
            charging = operation.charging
            holds = _holds(connection, "hold_id = ?", (operation.hold_id,))
            if not holds and isinstance(operation, Settle):
                holds = _forgotten(connection, operation)
            accounts = _accounts(connection, charging.accounts, charging.attribution)
            if operation.trace is not None and charging.loop is not None:
                traces = _traces(connection, accounts, charging.accounts[0])
            if isinstance(operation, Reserve):
                stops = stop_rows.load_matching(connection, charging.stop_keys)
        case Release():
            holds = _holds(connection, "hold_id = ?", (operation.hold_id,))
            accounts = _accounts(connection, _accounts_of(holds), _UNKNOWN)
        case Sweep():
            due = "expires_at_ms <= ? ORDER BY expires_at_ms, hold_id LIMIT ?"
            holds = _holds(connection, due, (operation.now_ms, SWEEP_MAX))
            accounts = _accounts(connection, _accounts_of(holds), _UNKNOWN)
        case Close() | StopSession() | RaiseLimits() | ReadAccount() | Resume():
            attribution = _attribution(connection, operation.account)
            accounts = _accounts(connection, (operation.account,), attribution)
            traces = _traces(connection, accounts, operation.account)
            if isinstance(operation, StopSession | Resume):
                stops = stop_rows.load_stops(connection, project_of(operation.account))
        case StopScope() | ResumeScope() | ReadStops():
            stops = stop_rows.load_stops(connection, project_in(operation.project_id))
        case ReadAudit():
            stops = stop_rows.load_audit(connection, project_in(operation.project_id))
        case _:
            raise TypeError(f"no such operation: {type(operation).__name__}")
    return _Loaded(accounts, holds, traces, stops)


def _accounts(
    connection: sqlite3.Connection, keys: Sequence[str], attribution: Attribution
) -> dict[str, Account]:
    """Loads accounts.

    An attribution is written when its session opens and never changed, so
    operations on the hot path do not load it.
    """
    marks = ", ".join("?" * len(keys))
    query = f"SELECT {_ACCOUNTS} FROM accounts WHERE key IN ({marks})"
    found = connection.execute(query, keys)
    return {row[0]: rows.account_from(row, attribution) for row in found}


def _attribution(connection: sqlite3.Connection, key: str) -> Attribution:
    query = "SELECT attribution FROM sessions WHERE key = ?"
    found = connection.execute(query, (key,)).fetchone()
    return _UNKNOWN if found is None else rows.attribution_from(found[0])


def _holds(
    connection: sqlite3.Connection, condition: str, values: tuple[object, ...]
) -> dict[str, Hold]:
    found = connection.execute(
        f"SELECT {', '.join(rows.HOLD_COLUMNS)} FROM holds WHERE {condition}", values
    )
    return {row[0]: rows.hold_from(row) for row in found}


def _forgotten(connection: sqlite3.Connection, op: Settle) -> dict[str, Hold]:
    """Returns the hold of a settlement that was booked and swept long ago.

    Its event outlives it, so a replay is recognised however late it comes.
    """
    who = op.charging.attribution
    query = (
        "SELECT 1 FROM events WHERE project_id = ? AND session_id = ? AND event_id = ?"
    )
    key = (who.project_id, who.session_id or "", op.event.event_id)
    if connection.execute(query, key).fetchone() is None:
        return {}
    hold = Hold(
        hold_id=op.hold_id,
        state=HoldState.SETTLED,
        kind=op.kind,
        accounts=op.charging.accounts,
        cost_nano_usd=op.cost_nano_usd,
        tokens=op.tokens,
        expires_at_ms=op.now_ms,
    )
    return {op.hold_id: hold}


def _accounts_of(holds: dict[str, Hold]) -> list[str]:
    return sorted({key for hold in holds.values() for key in hold.accounts})


def _traces(
    connection: sqlite3.Connection, accounts: dict[str, Account], key: str
) -> dict[str, tuple[ToolTrace, ...]]:
    account = accounts.get(key)
    if account is None or account.session is None:
        return {}
    query = "SELECT traces FROM traces WHERE key = ?"
    found = connection.execute(query, (key,)).fetchone()
    if found is None:
        return {}
    account.session.traces = traces_from(found[0])
    return {key: account.session.traces}


def _save(connection: sqlite3.Connection, loaded: _Loaded, operation: object) -> None:
    """Writes back what an operation changed."""
    ledger = loaded.ledger
    for row in ledger.changed_accounts:
        key, *columns = rows.account_row(row)
        if key in loaded.accounts:
            connection.execute(statements.CHANGE_ACCOUNT, (*columns, key))
        else:
            connection.execute(statements.ADD_ACCOUNT, (key, *columns))
        if row.session is None:
            continue
        if row.key not in loaded.sessions:
            connection.execute(statements.SAVE_SESSION, rows.session_row(row))
        before = loaded.traces.get(row.key, ())
        if row.session.traces != before:
            text = traces_text(row.session.traces, before)
            connection.execute(statements.SAVE_TRACES, (row.key, text))
    for hold in ledger.changed_holds:
        connection.execute(statements.SAVE_HOLD, rows.hold_row(hold))
    for hold in ledger.removed_holds:
        connection.execute("DELETE FROM holds WHERE hold_id = ?", (hold.hold_id,))
    stop_rows.save_stops(connection, ledger.stops)
    save_outbox(connection, ledger.outbox, getattr(operation, "project_id", ""))


def _book(connection: sqlite3.Connection, event: Event) -> None:
    """Writes an event and its rollups."""
    connection.execute(statements.ADD_EVENT, rows.event_row(event))
    columns = rows.rollup_columns(event)
    count = len(columns) // len(rows.ROLLUP_COLUMNS)
    connection.execute(statements.add_rollups(count), columns)
