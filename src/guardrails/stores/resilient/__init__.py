"""The resilient store: what happens while the real store cannot be reached.

`store.py` asks the real store, and decides with `outage.py` and `tallies.py` when it
does not answer. What it was not told is kept in a backlog: in memory, or on disk for a
store that other machines keep (`journal.py`, `journal_file.py`, `journal_rows.py`).
"""

from guardrails.stores.resilient.store import ResilientStore

__all__ = ["ResilientStore"]
