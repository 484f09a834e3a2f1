"""The history of a SQLite file: sums and events. Only reads."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from guardrails.core.accounts import Account
from guardrails.core.events import Event
from guardrails.core.rollups import HOUR_MS, ROLLUP_DIMENSIONS, SUM_NAMES, Spend
from guardrails.stores import rows

__all__ = ["SQLiteHistory"]

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

    def spend(
        self, *, project_id: str, by: str, since_ms: int, until_ms: int
    ) -> Sequence[Spend]:
        """Sums whole hours per name, most expensive first."""
        assert by in ROLLUP_DIMENSIONS, by
        sums = ", ".join(f"sum({name})" for name in SUM_NAMES)
        # Naming the hours one by one makes each a seek; a range would read the
        # cells of all dimensions in it.
        query = (
            f"SELECT name, {sums} FROM rollups WHERE project_id = ? AND dimension = ? "
            "AND hour IN (WITH RECURSIVE hours(hour) AS (VALUES (?) UNION ALL "
            "SELECT hour + 1 FROM hours WHERE hour < ?) SELECT hour FROM hours) "
            "GROUP BY name ORDER BY sum(model_nano_usd + tool_nano_usd) DESC, "
            "sum(model_calls + tool_calls) DESC, name"
        )
        span = (since_ms // HOUR_MS, max(since_ms, until_ms) // HOUR_MS)
        with self._reading() as connection:
            found = connection.execute(query, (project_id, by, *span)).fetchall()
        return [rows.spend_from(row) for row in found]

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
