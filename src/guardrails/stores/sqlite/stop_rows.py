"""Rows of the stops of people and of their audit, and how SQLite keeps them."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from guardrails.core.policy import Limits
from guardrails.core.stops import (
    AUDIT_MAX,
    AuditAction,
    AuditEntry,
    StopOrder,
    Stops,
    StopTarget,
    project_of,
)

__all__ = ["load_audit", "load_matching", "load_stops", "save_stops"]

_ORDERS = "SELECT key, at_ms, until_ms, ordered_by, note FROM stops"
_ADD_ORDER = (
    "INSERT OR REPLACE INTO stops (key, at_ms, until_ms, ordered_by, note) "
    "VALUES (?, ?, ?, ?, ?)"
)
_AUDIT = (
    "at_ms, action, key, ordered_by, note, until_ms, policy, raised_before, "
    "raised_after"
)
_ADD_AUDIT = (
    f"INSERT INTO audit (project, {_AUDIT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TRIM_AUDIT = (
    "DELETE FROM audit WHERE project = ? AND number <= (SELECT number FROM audit "
    "WHERE project = ? ORDER BY number DESC LIMIT 1 OFFSET ?)"
)


def load_matching(connection: sqlite3.Connection, keys: Sequence[str]) -> Stops | None:
    """Loads the orders that a call falls under; `None` if nothing is stopped."""
    # Nearly always nothing is, and this asks for less than half of the time.
    if connection.execute("SELECT 1 FROM stops LIMIT 1").fetchone() is None:
        return None
    marks = ", ".join("?" * len(keys))
    return _stops(connection.execute(f"{_ORDERS} WHERE key IN ({marks})", keys))


def load_stops(connection: sqlite3.Connection, project: str) -> Stops:
    """Loads all orders of a project."""
    # The character after the slash that ends the project's name.
    span = (f"{project}/", f"{project}0")
    return _stops(connection.execute(f"{_ORDERS} WHERE key >= ? AND key < ?", span))


def load_audit(connection: sqlite3.Connection, project: str) -> Stops:
    """Loads the audit of a project."""
    query = f"SELECT {_AUDIT} FROM audit WHERE project = ? ORDER BY number"
    found = connection.execute(query, (project,))
    return Stops(audit={project: [_entry_from(row) for row in found]})


def save_stops(connection: sqlite3.Connection, stops: Stops) -> None:
    """Writes back what an operation changed."""
    for key in stops.removed:
        connection.execute("DELETE FROM stops WHERE key = ?", (key,))
    for key in stops.changed:
        order = stops.orders[key]
        row = (key, order.at_ms, order.until_ms, order.by, order.note)
        connection.execute(_ADD_ORDER, row)
    for entry in stops.noted:
        project = project_of(entry.key)
        connection.execute(_ADD_AUDIT, (project, *_entry_row(entry)))
        connection.execute(_TRIM_AUDIT, (project, project, AUDIT_MAX))


def _stops(found: sqlite3.Cursor) -> Stops:
    orders: dict[str, StopOrder] = {}
    for key, at_ms, until_ms, by, note in found:
        target = StopTarget.of_key(key)
        assert target is not None
        orders[key] = StopOrder(
            target=target, at_ms=at_ms, until_ms=until_ms, by=by, note=note
        )
    return Stops(orders)


def _entry_row(entry: AuditEntry) -> tuple[object, ...]:
    limits = (entry.policy, entry.raised_before, entry.raised_after)
    return (
        entry.at_ms,
        entry.action.value,
        entry.key,
        entry.by,
        entry.note,
        entry.until_ms,
        *[None if one is None else json.dumps(asdict(one)) for one in limits],
    )


def _entry_from(row: Sequence[Any]) -> AuditEntry:
    at_ms, action, key, by, note, until_ms, *limits = row
    policy, before, after = [
        None if text is None else Limits(**json.loads(text)) for text in limits
    ]
    return AuditEntry(
        at_ms=at_ms,
        action=AuditAction(action),
        key=key,
        by=by,
        note=note,
        until_ms=until_ms,
        policy=policy,
        raised_before=before,
        raised_after=after,
    )
