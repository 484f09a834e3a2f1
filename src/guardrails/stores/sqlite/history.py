"""The history of a SQLite file: sums and events. Only reads."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from guardrails.core.accounts import Account
from guardrails.core.events import Event
from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.core.reporting.groups import Every, SpendQuery, grouped, in_order
from guardrails.core.reporting.rollups import (
    LAYER,
    MIX,
    SUM_NAMES,
    Mix,
    Spend,
    by_layer,
)
from guardrails.ports import FOREVER_MS
from guardrails.stores import rows
from guardrails.stores.sqlite.flat_rows import FLAT_COLUMNS, flat_events_of
from guardrails.system.threads import may_block

__all__ = ["SQLiteHistory"]

PAGE = 2_000
"""Events read at once: about 2 MB."""

_ACCOUNTS = ", ".join(rows.ACCOUNT_COLUMNS)


class SQLiteHistory:
    """Reads sums and events.

    Args:
        reading: Lends a connection to the file.
    """

    def __init__(
        self, reading: Callable[[], AbstractContextManager[sqlite3.Connection]]
    ) -> None:
        self._reading = reading

    @may_block
    def spend(
        self,
        *,
        project_id: str,
        by: str | Sequence[str],
        since_ms: int,
        until_ms: int,
        where: Mapping[str, Sequence[str]] | None = None,
        every: Every | None = None,
    ) -> Sequence[Spend]:
        """Sums whole hours, as the port says."""
        query = SpendQuery.of(
            project_id=project_id,
            by=by,
            since_ms=since_ms,
            until_ms=until_ms,
            where=where,
            every=every,
        )
        with self._reading() as connection:
            if query.dimension == LAYER:
                return _by_layers(connection, query)
            if query.dimension is not None:
                return _by(connection, query)
            cells = _cells(connection, query, MIX, _STARTS[query.every], _names(query))
        return grouped(query, cells, lambda text: query.names_of(_mix(query, text)))

    @may_block
    def session_accounts(
        self, *, project_id: str, session_ids: Sequence[str]
    ) -> Sequence[Account]:
        """Returns the accounts of sessions that are known."""
        query = (
            f"SELECT {_ACCOUNTS}, attribution FROM sessions JOIN accounts "
            "USING (key) WHERE project_id = ? AND session_id = ?"
        )
        with self._reading() as connection:
            found = [
                connection.execute(query, (project_id, session_id)).fetchone()
                for session_id in session_ids
            ]
        return [
            rows.account_from(row[:-1], rows.attribution_from(row[-1]))
            for row in found
            if row is not None
        ]

    @may_block
    def events(
        self, *, project_id: str, session_id: str, limit: int
    ) -> Sequence[Event]:
        """Returns the last events of a session, oldest first."""
        query = (
            f"SELECT {', '.join(rows.EVENT_COLUMNS)} FROM events WHERE project_id = ? "
            "AND session_id = ? ORDER BY time_ms DESC, event_id DESC LIMIT ?"
        )
        with self._reading() as connection:
            found = connection.execute(
                query, (project_id, session_id, limit)
            ).fetchall()
        return [rows.event_from(row) for row in reversed(found)]

    def timeline(
        self, *, project_id: str, since_ms: int, until_ms: int
    ) -> Iterator[Event]:
        """Yields the events of a project in a span, oldest first."""
        query = (
            f"SELECT {', '.join(rows.EVENT_COLUMNS)} FROM events WHERE project_id = ? "
            "AND time_ms BETWEEN ? AND ? ORDER BY time_ms, event_id"
        )
        with self._reading() as connection:
            found = connection.execute(query, (project_id, since_ms, until_ms))
            for row in found:
                yield rows.event_from(row)

    def event_pages(
        self,
        *,
        project_id: str,
        since_ms: int = 0,
        until_ms: int = FOREVER_MS,
        session_id: str | None = None,
    ) -> Iterator[Sequence[FlatEvent]]:
        """Yields events as flat rows, oldest first, page by page."""
        of_session = "" if session_id is None else "AND session_id = ? "
        query = (
            f"SELECT {', '.join(FLAT_COLUMNS)} FROM events WHERE project_id = ? "
            f"{of_session}AND time_ms BETWEEN ? AND ? ORDER BY time_ms, event_id"
        )
        named = (project_id,) if session_id is None else (project_id, session_id)
        with self._reading() as connection:
            found = connection.execute(query, (*named, since_ms, until_ms))
            while page := found.fetchmany(PAGE):
                yield flat_events_of(page)


_STARTS = {
    None: "0",
    "hour": "hour",
    "day": "hour / 24 * 24",
    "month": "strftime('%s', hour * 3600, 'unixepoch', 'start of month') / 3600",
}
"""The hour with which the step of a series begins."""


def _by_layers(connection: sqlite3.Connection, query: SpendQuery) -> list[Spend]:
    """Reads the cells of layers, and derives what is in none."""
    # In one transaction: what is booked meanwhile is in both, or in neither.
    connection.execute("BEGIN")
    try:
        models = _by(connection, replace(query, by=("model",)))
        layers = _by(connection, query)
    finally:
        connection.execute("ROLLBACK")
    return in_order(by_layer(layers, models))


def _by(connection: sqlite3.Connection, query: SpendQuery) -> list[Spend]:
    """Reads the cells of one dimension."""
    assert query.dimension is not None
    cells = _cells(connection, query, query.dimension, _STARTS[query.every], "name")
    return grouped(query, cells, lambda name: (name or None,))


def _cells(
    connection: sqlite3.Connection,
    query: SpendQuery,
    dimension: str,
    start: str,
    name: str,
) -> list[tuple[int, str, list[int]]]:
    """Adds up cells that differ in what the query does not ask for."""
    sums = ", ".join(f"sum({name})" for name in SUM_NAMES)
    # Naming the hours one by one makes each a seek; a range would read the
    # cells of all dimensions in it.
    sql = (
        f"SELECT {start} AS start, {name} AS names, {sums} FROM rollups "
        "WHERE project_id = ? AND dimension = ? AND hour IN "
        "(WITH RECURSIVE hours(hour) AS (VALUES (?) UNION ALL "
        "SELECT hour + 1 FROM hours WHERE hour < ?) SELECT hour FROM hours) "
        "GROUP BY start, names"
    )
    span = (query.hours[0], query.hours[-1])
    found = connection.execute(sql, (query.project_id, dimension, *span))
    return [(start, name, sums) for start, name, *sums in found]


def _names(query: SpendQuery) -> str:
    """Writes an array of those names of a mix that the query asks for."""
    paths = [f"'$[{Mix._fields.index(field)}]'" for field in query.fields]
    # Of a single path SQLite returns no array, so the first is asked for again.
    return f"json_extract(name, {', '.join([*paths, *paths[:1]])})" if paths else "'[]'"


def _mix(query: SpendQuery, text: str) -> Mix:
    """Reads such an array; what was not asked for is not known."""
    return Mix(**dict(zip(query.fields, json.loads(text), strict=False)))
