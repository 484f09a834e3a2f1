"""One operation in the SQLite store: loads its rows, applies it, writes them back."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, cast

from guardrails.core.accounts import Account, Hold, HoldState
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.ledger import SWEEP_MAX
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
from guardrails.core.stops import Stops, project_in, project_of
from guardrails.stores import rows
from guardrails.stores.sqlite import statements, stop_rows
from guardrails.stores.sqlite.database import Transaction
from guardrails.stores.sqlite.kept_rows import KeptRows, Rows
from guardrails.stores.sqlite.outbox_rows import (
    OutboxOperation,
    load_outbox,
    save_outbox,
)
from guardrails.stores.sqlite.trace_texts import traces_from, written_traces

__all__ = ["apply_operation"]

_ACCOUNTS = f"SELECT {', '.join(rows.ACCOUNT_COLUMNS)} FROM accounts"
_HOLDS = f"SELECT {', '.join(rows.HOLD_COLUMNS)} FROM holds"
_UNKNOWN = Attribution()
_APART = (OutboxOperation, ReadAccount, ReadAudit, ReadStops)
"""What changes none of the rows that calls read."""


def apply_operation(
    connection: sqlite3.Connection, operation: Operation[Any], kept: KeptRows
) -> Any:
    """Applies an operation, and returns its reply.

    Args:
        connection: The ledger.
        operation: What to do.
        kept: What is known of its rows.
    """
    match operation:
        case Reserve() | Settle():
            return _apply_call(connection, operation, kept, operation)
        case Turn(settle=settle, reserve=reserve):
            if settle.charging == reserve.charging:
                return _apply_call(connection, operation, kept, settle, reserve)
            settled = apply_operation(connection, settle, kept)
            reserved = apply_operation(connection, reserve, kept)
            return Turned(settled=settled, reserved=reserved)
        case _:
            with Transaction(connection):
                if not isinstance(operation, _APART):
                    kept.forget()
                loaded = _load(connection, operation)
                reply = cast("object", loaded.ledger.apply(operation))
                _save(connection, loaded, operation)
            return reply


def _apply_call(
    connection: sqlite3.Connection,
    operation: Operation[Any],
    kept: KeptRows,
    *ops: Settle | Reserve,
) -> object:
    """Books a call that has ended, reserves one that begins, or both, in this order."""
    with Transaction(connection):
        loaded = kept.take(connection)
        _load_call(connection, loaded, ops)
        reply = cast("object", loaded.ledger.apply(operation))
        _save(connection, loaded, operation)
        settled = reply.settled if isinstance(reply, Turned) else reply
        if isinstance(settled, Settled) and settled.is_applied:
            assert isinstance(ops[0], Settle)
            _book(connection, ops[0].event)
    loaded.are_committed([op.hold_id for op in ops])
    kept.keep(loaded)
    return reply


def _load(connection: sqlite3.Connection, operation: object) -> Rows:
    """Loads the rows that an operation names, if it is none of a call."""
    accounts: dict[str, Account] = {}
    holds: dict[str, Hold] = {}
    traces: dict[str, tuple[ToolTrace, ...]] = {}
    stops: Stops | None = None
    if isinstance(operation, OutboxOperation):
        return Rows({}, {}, {}, outbox=load_outbox(connection, operation))
    match operation:
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
    return Rows(accounts, holds, traces, stops)


def _load_call(
    connection: sqlite3.Connection, loaded: Rows, ops: Sequence[Settle | Reserve]
) -> None:
    """Loads what is not known of a call that has ended, and of one that begins."""
    charging, ledger = ops[0].charging, loaded.ledger
    hold_ids = [op.hold_id for op in ops if op.hold_id not in ledger.holds]
    if hold_ids:
        marks = ", ".join("?" * len(hold_ids))
        found = _holds(connection, f"hold_id IN ({marks})", hold_ids)
        ledger.holds.update(found)
    if isinstance(ops[0], Settle) and ops[0].hold_id not in ledger.holds:
        ledger.holds.update(_forgotten(connection, ops[0]))
    keys = [key for key in charging.accounts if key not in loaded.accounts]
    if keys:
        loaded.add(_accounts(connection, keys, charging.attribution))
    first = charging.accounts[0]
    is_unknown = charging.loop is not None and first not in loaded.traces
    if is_unknown and any(op.trace is not None for op in ops):
        loaded.traces |= _traces(connection, ledger.accounts, first)
    if isinstance(ops[-1], Reserve) and not loaded.has_no_stops:
        stops = stop_rows.load_matching(connection, charging.stop_keys)
        loaded.has_no_stops = stops is None
        ledger.stops = stops or Stops()


def _accounts(
    connection: sqlite3.Connection, keys: Sequence[str], attribution: Attribution
) -> dict[str, Account]:
    """Loads accounts.

    An attribution is written when its session opens and never changed, so
    operations on the hot path do not load it.
    """
    marks = ", ".join("?" * len(keys))
    found = connection.execute(f"{_ACCOUNTS} WHERE key IN ({marks})", keys)
    return {row[0]: rows.account_from(row, attribution) for row in found}


def _attribution(connection: sqlite3.Connection, key: str) -> Attribution:
    query = "SELECT attribution FROM sessions WHERE key = ?"
    found = connection.execute(query, (key,)).fetchone()
    return _UNKNOWN if found is None else rows.attribution_from(found[0])


def _holds(
    connection: sqlite3.Connection, condition: str, values: Sequence[object]
) -> dict[str, Hold]:
    found = connection.execute(f"{_HOLDS} WHERE {condition}", values)
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
    connection: sqlite3.Connection, accounts: Mapping[str, Account], key: str
) -> dict[str, tuple[ToolTrace, ...]]:
    account = accounts.get(key)
    if account is None or account.session is None:
        return {}
    query = "SELECT traces FROM traces WHERE key = ?"
    found = connection.execute(query, (key,)).fetchone()
    if found is None:
        return {}
    account.session.traces = traces_from(key, found[0])
    return {key: account.session.traces}


def _save(connection: sqlite3.Connection, loaded: Rows, operation: object) -> None:
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
            written = written_traces(row.key, row.session.traces, before)
            connection.execute(statements.SAVE_TRACES, (row.key, written.text))
            loaded.traces[row.key] = written
    for hold in ledger.changed_holds:
        connection.execute(statements.SAVE_HOLD, rows.hold_row(hold))
    for hold in ledger.removed_holds:
        connection.execute("DELETE FROM holds WHERE hold_id = ?", (hold.hold_id,))
    stop_rows.save_stops(connection, ledger.stops)
    save_outbox(connection, ledger.outbox, getattr(operation, "project_id", ""))


def _book(connection: sqlite3.Connection, event: Event) -> None:
    """Writes an event and its rollups."""
    connection.execute(statements.ADD_EVENT, rows.event_row(event))
    count, columns = rows.cell_columns(event)
    connection.execute(statements.add_cells(count), columns)
    if event.layers:
        columns = rows.layer_columns(event, event.layers)
        connection.execute(statements.add_layers(len(event.layers)), columns)
