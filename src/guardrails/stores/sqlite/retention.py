"""Retention in SQLite: deletes what is old, and what belongs to one customer.

Agents go on meanwhile. So nothing is done in one long transaction, for which they
would have to wait: events are read in pages without a lock, and changed a page at a
time; sums are changed an hour at a time. Each step leaves totals as they were, and
what is broken off is completed by doing it again.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from guardrails.core.accounts import FORGOTTEN
from guardrails.core.alerting.outbox import KeptAlert
from guardrails.core.reporting.rollups import HOUR_MS, MIX, SUM_NAMES, Mix
from guardrails.core.retention import (
    IN_USE_MS,
    Forgotten,
    Pruned,
    is_about,
    nameless,
)
from guardrails.stores.alert_texts import kept_from
from guardrails.system.ids import new_id

__all__ = ["LedgerFile", "SQLiteRetention"]

PAGE = 1_000
"""Events changed in one transaction: about 20 ms."""

_SUMS = ", ".join(SUM_NAMES)
_TAKEN = ", ".join(f"{name} = {name} - ?" for name in SUM_NAMES)
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUM_NAMES)


_IS_IN_USE = "(last_active_at_ms > ? OR held_nano_usd > 0 OR held_tokens > 0)"
_IN_USE = (
    f"SELECT 1 FROM sessions JOIN accounts USING (key) WHERE {_IS_IN_USE} AND key = ?"
)


class LedgerFile(Protocol):
    """A file that lends its connection."""

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """Lends it as it is."""
        ...

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """Lends it in a transaction, in fair turns with other processes."""
        ...


class SQLiteRetention:
    """Deletes what a file holds.

    Args:
        file: The file.
    """

    def __init__(self, file: LedgerFile) -> None:
        self._writing = file.writing
        self._reading = file.reading

    def prune(
        self,
        *,
        project_id: str,
        events_before_ms: int | None,
        rollups_before_ms: int | None,
        is_dry_run: bool,
    ) -> Pruned:
        """Deletes events and sums of before an instant; `None` keeps all.

        Of sums, whole hours are deleted.
        """
        pruned = Pruned()
        if events_before_ms is not None:
            condition = ("time_ms < ?", (events_before_ms,))
            for keys in self._pages(project_id, *condition):
                pruned.events += len(keys)
                if not is_dry_run:
                    self._delete_events(project_id, keys)
        if rollups_before_ms is not None:
            first = rollups_before_ms // HOUR_MS
            for hour, count in self._hours(project_id, "hour < ?", (first,)):
                pruned.rollups += count
                if not is_dry_run:
                    with self._writing() as connection:
                        connection.execute(
                            "DELETE FROM rollups WHERE project_id = ? AND hour = ?",
                            (project_id, hour),
                        )
        return pruned

    def forget(
        self, *, project_id: str, customer_id: str, now_ms: int, is_dry_run: bool
    ) -> Forgotten:
        """Makes what was recorded of a customer anonymous; totals stay.

        Of its events the customer, user, session, run and tags go. Its sums, and
        those of its users and sessions, are added to what is not attributed. Its
        sessions are deleted unless they were active within a day, and so are alerts
        about it. What is still in force stays: shared budgets of the customer, and
        stops.
        """
        forgotten = Forgotten()
        with self._reading() as connection:
            # Else what was deleted stays readable in the file until it is reused.
            connection.execute("PRAGMA secure_delete = ON")
        for hour, _ in self._hours(project_id, "1", ()):
            forgotten.rollups += self._forget_sums(
                project_id, hour, customer_id, is_dry_run=is_dry_run
            )
        names = defaultdict[str, str](lambda: new_id("forgotten"))
        for keys in self._pages(project_id, "customer_id = ?", (customer_id,)):
            forgotten.events += len(keys)
            if not is_dry_run:
                self._forget_events(project_id, keys, names)
        sessions = self._sessions(project_id, customer_id, now_ms)
        over = {key for key, is_in_use in sessions if not is_in_use}
        forgotten.sessions = len(over)
        forgotten.sessions_in_use = len(sessions) - len(over)
        alerts = self._alerts(project_id, customer_id)
        forgotten.alerts = len(alerts)
        if not is_dry_run:
            kept = self._forget_sessions(over, now_ms)
            forgotten.sessions -= kept
            forgotten.sessions_in_use += kept
            self._forget_alerts(alerts)
            with self._reading() as connection:  # The log has the old pages too.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return forgotten

    # --- what there is ------------------------------------------------------

    def _pages(
        self, project_id: str, condition: str, values: Sequence[object]
    ) -> Iterator[list[tuple[str, str]]]:
        """Yields the sessions and ids of events, in pages that nobody waits for."""
        query = (
            "SELECT session_id, event_id FROM events WHERE project_id = ? AND "
            f"(session_id, event_id) > (?, ?) AND {condition} "
            "ORDER BY session_id, event_id LIMIT ?"
        )
        last = ("", "")
        while True:
            with self._reading() as connection:
                found: list[tuple[str, str]] = connection.execute(
                    query, (project_id, *last, *values, PAGE)
                ).fetchall()
            if not found:
                return
            last = found[-1]
            yield found

    def _hours(
        self, project_id: str, condition: str, values: Sequence[object]
    ) -> list[tuple[int, int]]:
        query = (
            "SELECT hour, count(*) FROM rollups WHERE project_id = ? AND "
            f"{condition} GROUP BY hour"
        )
        with self._reading() as connection:
            return connection.execute(query, (project_id, *values)).fetchall()

    def _sessions(
        self, project_id: str, customer_id: str, now_ms: int
    ) -> list[tuple[str, bool]]:
        """Returns the accounts of a customer's sessions, and whether they are in use.

        A session that holds money for a call that has not ended is in use.
        """
        query = (
            f"SELECT key, {_IS_IN_USE} FROM sessions JOIN accounts USING (key) "
            "WHERE project_id = ? AND json_extract(attribution, '$.customer_id') = ?"
        )
        with self._reading() as connection:
            found = connection.execute(
                query, (now_ms - IN_USE_MS, project_id, customer_id)
            ).fetchall()
        return [(key, bool(is_in_use)) for key, is_in_use in found]

    def _alerts(self, project_id: str, customer_id: str) -> list[KeptAlert]:
        """Returns what people were or are to be told of a customer."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT alert_id, content FROM alerts WHERE project = ?",
                (project_id,),
            )
            alerts = [kept_from(alert_id, text) for alert_id, text in found]
        return [kept for kept in alerts if is_about(kept.alert, customer_id)]

    # --- what is done -------------------------------------------------------

    def _delete_events(self, project_id: str, keys: Sequence[tuple[str, str]]) -> None:
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM events WHERE project_id = ? AND session_id = ? "
                "AND event_id = ?",
                [(project_id, *key) for key in keys],
            )

    def _forget_sums(
        self, project_id: str, hour: int, customer_id: str, *, is_dry_run: bool
    ) -> int:
        """Moves the sums of an hour, and returns how many mixes there were."""
        query = (
            f"SELECT name, {_SUMS} FROM rollups WHERE project_id = ? AND hour = ? "
            "AND dimension = ? AND json_extract(name, ?) = ?"
        )
        place = f"$[{Mix._fields.index('customer_id')}]"
        values = (project_id, hour, MIX, place, customer_id)
        if is_dry_run:
            with self._reading() as connection:
                return len(connection.execute(query, values).fetchall())
        with self._writing() as connection:
            found = connection.execute(query, values).fetchall()
            for text, *sums in found:
                mix = Mix.unpack(text)
                moves = [
                    (dimension, getattr(mix, dimension), "")
                    for dimension in ("customer_id", "user_id", "session_id")
                ]
                for dimension, name, to in (*moves, (MIX, text, nameless(mix).pack())):
                    if name is not None:
                        _move(connection, (project_id, hour, dimension), name, to, sums)
        return len(found)

    def _forget_events(
        self, project_id: str, keys: Sequence[tuple[str, str]], names: dict[str, str]
    ) -> None:
        with self._writing() as connection:
            connection.executemany(
                "UPDATE events SET session_id = ?, customer_id = NULL, user_id = NULL, "
                "agent_run_id = NULL, tags = NULL "
                "WHERE project_id = ? AND session_id = ? AND event_id = ?",
                [
                    (names[session_id], project_id, session_id, event_id)
                    for session_id, event_id in keys
                ],
            )

    def _forget_sessions(self, over: set[str], now_ms: int) -> int:
        """Deletes accounts, those of parts too, and the holds that ended on them.

        Returns how many have become active meanwhile, and stay.
        """
        holds = self._holds(over)
        kept = 0
        for key in sorted(over):
            with self._writing() as connection:
                if connection.execute(_IN_USE, (now_ms - IN_USE_MS, key)).fetchone():
                    kept += 1
                    continue
                _forget_holds(connection, key, holds[key])
                for table in ("traces", "sessions", "accounts"):
                    connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
                connection.execute(  # In keys 0 comes behind the slash.
                    "DELETE FROM accounts WHERE key > ? AND key < ?",
                    (f"{key}/", f"{key}0"),
                )
        return kept

    def _holds(self, over: set[str]) -> dict[str, list[str]]:
        """Returns the ids of all holds on accounts, by session."""
        with self._reading() as connection:
            found: list[tuple[str, str]] = connection.execute(
                "SELECT hold_id, accounts FROM holds"
            ).fetchall()
        holds: dict[str, list[str]] = defaultdict(list)
        for hold_id, accounts in found:
            for session in {_session_in(key) for key in accounts.split("\n")} & over:
                holds[session].append(hold_id)
        return holds

    def _forget_alerts(self, alerts: Sequence[KeptAlert]) -> None:
        for start in range(0, len(alerts), PAGE):
            page = alerts[start : start + PAGE]
            with self._writing() as connection:
                for table in ("alerts", "deliveries"):
                    connection.executemany(
                        f"DELETE FROM {table} WHERE alert_id = ?",
                        [(kept.alert.alert_id,) for kept in page],
                    )
                connection.executemany(
                    "DELETE FROM calm WHERE subject = ?",
                    [(kept.alert.subject,) for kept in page],
                )


def _forget_holds(
    connection: sqlite3.Connection, session: str, hold_ids: Sequence[str]
) -> None:
    """Deletes holds; of unconfirmed ones what they hold in shared budgets stays."""
    for hold_id in hold_ids:
        query = "SELECT state, accounts FROM holds WHERE hold_id = ?"
        for state, accounts in connection.execute(query, (hold_id,)).fetchall():
            keys: list[str] = accounts.split("\n")
            left = [FORGOTTEN if _session_in(key) == session else key for key in keys]
            if any(left) and state == "unconfirmed":
                connection.execute(
                    "UPDATE holds SET accounts = ? WHERE hold_id = ?",
                    ("\n".join(left), hold_id),
                )
            elif state != "open":
                connection.execute("DELETE FROM holds WHERE hold_id = ?", (hold_id,))


def _session_in(key: str) -> str:
    """Returns the account of the session that an account is of, or of a part of."""
    return "/".join(key.split("/")[:3])


def _move(
    connection: sqlite3.Connection,
    where: tuple[str, int, str],
    name: str,
    to: str,
    sums: Sequence[int],
) -> None:
    """Takes sums from one name and gives them to another, in one hour."""
    cell = "project_id = ? AND hour = ? AND dimension = ? AND name = ?"
    connection.execute(
        f"UPDATE rollups SET {_TAKEN} WHERE {cell}", (*sums, *where, name)
    )
    connection.execute(
        f"DELETE FROM rollups WHERE {cell} AND model_calls + tool_calls <= 0",
        (*where, name),
    )
    marks = ", ".join("?" * (4 + len(sums)))
    connection.execute(
        f"INSERT INTO rollups (project_id, hour, dimension, name, {_SUMS}) "
        f"VALUES ({marks}) ON CONFLICT DO UPDATE SET {_ADDED}",
        (*where, to, *sums),
    )
