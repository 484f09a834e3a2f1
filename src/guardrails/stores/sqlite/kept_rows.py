"""Kept rows: what is known of a file as long as nobody else writes to it.

Theory of operation
-------------------
SQLite keeps pages of the file in memory, and finds out at the beginning of each
transaction whether another connection has committed since. `PRAGMA data_version`
tells what it found: a number that changes with such commits, and with none of our
own. So in a transaction that keeps others from writing, the rows of earlier ones are
still those of the file if the number is the same.

The ledger changes rows where they are. So they are given out to a transaction, and
given back once it is committed: whatever else becomes of it, they are forgotten. Who
writes past the ledger, or with other rows, has them forgotten in its transaction: just
before, the handler of a signal, or what is garbage collected, may make a call, and
what that keeps is what the transaction changes.
"""

import sqlite3
from collections.abc import Iterable

from guardrails.core.accounts import Account, Hold, HoldState
from guardrails.core.alerting.outbox import Outbox
from guardrails.core.ledger import Ledger
from guardrails.core.stops import Stops
from guardrails.stores.sqlite.trace_texts import Traces

__all__ = ["KeptRows", "Rows"]

ROWS_MAX = 256
"""Accounts, and open holds, that are kept. With the traces, which `trace_texts` has as
well, they take 9 MB. Those of a call are read again in 40 us, so that all of them are
forgotten at once."""


class Rows:
    """Rows of the file, in the ledger that changes them, and what they were."""

    def __init__(
        self,
        accounts: dict[str, Account],
        holds: dict[str, Hold],
        traces: dict[str, Traces],
        stops: Stops | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.ledger: Ledger = Ledger({}, holds, stops, outbox)
        self.accounts: set[str] = set()
        """The accounts that are in the file."""
        self.sessions: set[str] = set()
        """Those of them whose sessions are."""
        self.traces: dict[str, Traces] = traces
        """What is there, of the sessions whose traces were read or written."""
        self.has_no_stops = False
        """Whether it is known that no order of a person is there."""
        self.version: int | None = None
        """What SQLite says of the file that has these rows."""
        self.add(accounts)

    def add(self, accounts: dict[str, Account]) -> None:
        """Adds accounts that were read from the file."""
        self.ledger.accounts.update(accounts)
        self.accounts.update(accounts)
        self.sessions |= {key for key, row in accounts.items() if row.session}

    def are_committed(self, hold_ids: Iterable[str]) -> None:
        """Notes that the file has them as the last operation has left them.

        Args:
            hold_ids: The holds that it named. Of those only open ones are kept: what
                is over is seldom asked for, or was never in the file.
        """
        ledger = self.ledger
        for row in ledger.changed_accounts:
            self.accounts.add(row.key)
            if row.session is not None:
                self.sessions.add(row.key)
        for hold_id in hold_ids:
            hold = ledger.holds.get(hold_id)
            if hold is not None and hold.state is not HoldState.OPEN:
                del ledger.holds[hold_id]
        if ledger.outbox.added:
            ledger.outbox = Outbox()


class KeptRows:
    """Keeps the rows of calls from one transaction to the next. Not thread safe."""

    def __init__(self) -> None:
        self._rows: Rows | None = None
        self._given_last: Rows | None = None

    def take(self, connection: sqlite3.Connection) -> Rows:
        """Gives out what is known, in a transaction that keeps others from writing."""
        rows, self._rows = self._rows, None
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        # A signal's handler may have used the store before the last were taken back.
        is_last = rows is self._given_last
        if rows is None or not is_last or rows.version != version:
            rows = Rows({}, {}, {})
            rows.version = version
        self._given_last = rows
        return rows

    def keep(self, rows: Rows) -> None:
        """Takes back what was given out, and is committed."""
        ledger = rows.ledger
        if len(ledger.accounts) <= ROWS_MAX and len(ledger.holds) <= ROWS_MAX:
            self._rows = rows

    def forget(self) -> None:
        """Forgets all: somebody may write to the file by this very connection."""
        self._rows = self._given_last = None
