"""The SQLite store: the embedded default, one file that all processes of a host share.

An operation loads the rows that it names (`operations.py`), is applied to them by the
pure ledger, and what it has changed is written back (`statements.py`), all in one
transaction (`database.py`). `kept_rows.py` knows which rows need not be read again.
`store.py` puts that together; `history.py` reads what was spent, `retention.py` deletes
it, and `diagnosis.py` is what `guardrails doctor` asks.
"""

from guardrails.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
