"""Rows of the outbox, and how SQLite keeps them."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from guardrails.core.alerting.deliveries import (
    ClaimAlerts,
    DeliveryState,
    NoteAlerts,
    ReadAlerts,
    RetryAlerts,
    TellAlerts,
)
from guardrails.core.alerting.outbox import (
    CALM_FORGOTTEN_MS,
    CLAIM_MAX,
    KEPT_MS,
    OUTBOX_MAX,
    TIDIED_MAX,
    KeptAlert,
    Outbox,
    Place,
    Row,
)
from guardrails.stores.alert_texts import alert_text, kept_from

__all__ = ["OutboxOperation", "load_outbox", "save_outbox"]

OutboxOperation = ClaimAlerts | NoteAlerts | RetryAlerts | ReadAlerts | TellAlerts

PAGE = 500
"""Values of one statement: SQLite takes some more."""

_ROW = (
    "alert_id, place, due_ms, state, message_id, attempts, deliveries.at_ms, status, "
    "answer"
)
_ADD_ALERT = "INSERT INTO alerts VALUES (?, ?, ?, ?)"
_ADD_ROW = (
    "INSERT INTO deliveries VALUES (?, ?, ?, ?, 'waiting', NULL, 0, NULL, NULL, '')"
)
_CHANGE_ROW = (
    "UPDATE deliveries SET due_ms = ?, state = ?, message_id = ?, attempts = ?, "
    "at_ms = ?, status = ?, answer = ? WHERE alert_id = ? AND place = ?"
)
_OPEN = "state IN ('waiting', 'sending')"


def load_outbox(connection: sqlite3.Connection, op: OutboxOperation) -> Outbox:
    """Loads the rows that an operation names, and forgets what is over."""
    rows: dict[tuple[str, str], Row] = {}
    calm: dict[tuple[str, str, str], int] = {}
    match op:
        case ClaimAlerts():
            _tidy(connection, op)
            rows = _rows(
                connection,
                f"project = ? AND place = ? AND {_OPEN} ORDER BY due_ms, alert_id "
                "LIMIT ?",
                (op.project_id, op.place, CLAIM_MAX + 1),
            )
            query = "SELECT subject, until_ms FROM calm WHERE project = ? AND place = ?"
            key = (op.project_id, op.place)
            for subject, until_ms in connection.execute(query, key):
                calm[*key, subject] = until_ms
        case NoteAlerts():
            for start in range(0, len(op.alert_ids), PAGE):
                ids = op.alert_ids[start : start + PAGE]
                marks = ", ".join("?" * len(ids))
                condition = f"alert_id IN ({marks}) AND place = ?"
                rows |= _rows(connection, condition, (*ids, op.place))
        case RetryAlerts():
            condition = "project = ? AND alert_id = coalesce(?, alert_id)"
            rows = _rows(connection, condition, (op.project_id, op.alert_id))
        case ReadAlerts():
            rows = _rows(
                connection,
                "alert_id IN (SELECT alert_id FROM alerts WHERE project = ? "
                "ORDER BY at_ms DESC, alert_id DESC LIMIT ?)",
                (op.project_id, op.limit),
            )
        case TellAlerts():
            known = _alerts(connection, [alert.alert_id for alert in op.alerts])
            return Outbox(known, rows, _places(connection, op.project_id), calm)
    alerts = _alerts(connection, sorted({row.alert_id for row in rows.values()}))
    return Outbox(alerts, rows, _places(connection, op.project_id), calm)


def save_outbox(connection: sqlite3.Connection, outbox: Outbox, project: str) -> None:
    """Writes back what an operation changed.

    Args:
        connection: The ledger.
        outbox: The rows.
        project: The project of an operation on the outbox itself.
    """
    for kept in outbox.added:
        _add(connection, kept)
    for row in outbox.changed:
        connection.execute(
            _CHANGE_ROW,
            (
                row.due_ms,
                row.state.value,
                row.message_id,
                row.attempts,
                row.at_ms,
                row.status,
                row.text,
                row.alert_id,
                row.place,
            ),
        )
    for place in outbox.changed_places:
        connection.execute(
            "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                project,
                place.name,
                place.label,
                place.owner,
                place.until_ms,
                place.due_ms,
                place.failures,
                place.lost,
                place.rest_ms,
            ),
        )
    for key, until_ms in outbox.calmed.items():
        connection.execute(
            "INSERT OR REPLACE INTO calm VALUES (?, ?, ?, ?)", (*key, until_ms)
        )


def _add(connection: sqlite3.Connection, kept: KeptAlert) -> None:
    """Adds an alert that is not known; the oldest makes room for it."""
    alert = kept.alert
    query = "SELECT 1 FROM alerts WHERE alert_id = ?"
    if connection.execute(query, (alert.alert_id,)).fetchone() is not None:
        return
    project = alert.project_id
    query = (
        "SELECT alert_id FROM alerts WHERE project = ? ORDER BY at_ms, alert_id LIMIT 1"
    )
    full = f"{query} OFFSET {OUTBOX_MAX - 1}"
    if connection.execute(full, (project,)).fetchone() is not None:
        oldest = connection.execute(query, (project,)).fetchone()[0]
        _forget(connection, project, [oldest])
    text = alert_text(alert, kept.places)
    connection.execute(_ADD_ALERT, (alert.alert_id, project, alert.time_ms, text))
    for place in kept.places:
        connection.execute(_ADD_ROW, (alert.alert_id, place, project, alert.time_ms))


def _tidy(connection: sqlite3.Connection, op: ClaimAlerts) -> None:
    query = (
        "SELECT alert_id FROM alerts WHERE project = ? AND at_ms <= ? "
        "ORDER BY at_ms, alert_id LIMIT ?"
    )
    values = (op.project_id, op.now_ms - KEPT_MS, TIDIED_MAX)
    found = connection.execute(query, values).fetchall()
    _forget(connection, op.project_id, [alert_id for (alert_id,) in found])
    ended_ms = op.now_ms - CALM_FORGOTTEN_MS
    connection.execute("DELETE FROM calm WHERE until_ms <= ?", (ended_ms,))


def _forget(
    connection: sqlite3.Connection, project: str, alert_ids: Sequence[str]
) -> None:
    for alert_id in alert_ids:
        connection.execute(
            "UPDATE places SET lost = lost + 1 WHERE project = ? AND name IN "
            f"(SELECT place FROM deliveries WHERE alert_id = ? AND {_OPEN})",
            (project, alert_id),
        )
        connection.execute("DELETE FROM deliveries WHERE alert_id = ?", (alert_id,))
        connection.execute("DELETE FROM alerts WHERE alert_id = ?", (alert_id,))


def _rows(
    connection: sqlite3.Connection, condition: str, values: Sequence[object]
) -> dict[tuple[str, str], Row]:
    found = connection.execute(
        f"SELECT {_ROW} FROM deliveries WHERE {condition}", values
    )
    return {(row[0], row[1]): _row_from(row) for row in found}


def _row_from(row: Sequence[Any]) -> Row:
    alert_id, place, due_ms, state, message_id, attempts, at_ms, status, text = row
    return Row(
        alert_id=alert_id,
        place=place,
        due_ms=due_ms,
        state=DeliveryState(state),
        message_id=message_id,
        attempts=attempts,
        at_ms=at_ms,
        status=status,
        text=text,
    )


def _alerts(
    connection: sqlite3.Connection, alert_ids: Sequence[str]
) -> dict[str, KeptAlert]:
    found: dict[str, KeptAlert] = {}
    for start in range(0, len(alert_ids), PAGE):
        ids = alert_ids[start : start + PAGE]
        marks = ", ".join("?" * len(ids))
        query = f"SELECT alert_id, content FROM alerts WHERE alert_id IN ({marks})"
        for alert_id, text in connection.execute(query, ids):
            found[alert_id] = kept_from(alert_id, text)
    return found


def _places(
    connection: sqlite3.Connection, project: str
) -> dict[tuple[str, str], Place]:
    query = (
        "SELECT name, label, owner, until_ms, due_ms, failures, lost, rest_ms "
        "FROM places WHERE project = ?"
    )
    names = (
        *("name", "label", "owner", "until_ms", "due_ms", "failures", "lost"),
        "rest_ms",
    )
    found = [
        Place(**dict(zip(names, row, strict=True)))
        for row in connection.execute(query, (project,))
    ]
    return {(project, place.name): place for place in found}
