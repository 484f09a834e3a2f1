"""The statements by which the SQLite store writes its rows."""

from collections.abc import Sequence
from functools import lru_cache

from guardrails.stores import rows

__all__ = [
    "ADD_ACCOUNT",
    "ADD_EVENT",
    "CHANGE_ACCOUNT",
    "SAVE_HOLD",
    "SAVE_SESSION",
    "SAVE_TRACES",
    "add_rollups",
]


def _upsert(
    table: str,
    columns: Sequence[str],
    *,
    keys: int,
    add: bool = False,
    count: int = 1,
) -> str:
    """Writes an upsert of `count` rows; `add` sums instead of replacing."""
    marks = ", ".join([f"({', '.join('?' * len(columns))})"] * count)
    changes = ", ".join(
        f"{name} = {f'{name} + ' if add else ''}excluded.{name}"
        for name in columns[keys:]
    )
    conflict = ", ".join(columns[:keys])
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks} "
        f"ON CONFLICT ({conflict}) DO UPDATE SET {changes}"
    )


ADD_ACCOUNT = _upsert("accounts", rows.ACCOUNT_COLUMNS, keys=1)
# An update of a known row costs half of an upsert.
CHANGE_ACCOUNT = (
    f"UPDATE accounts SET {' = ?, '.join(rows.ACCOUNT_COLUMNS[1:])} = ? WHERE key = ?"
)
SAVE_SESSION = _upsert("sessions", rows.SESSION_COLUMNS, keys=1)
SAVE_HOLD = _upsert("holds", rows.HOLD_COLUMNS, keys=1)
SAVE_TRACES = _upsert("traces", ("key", "traces"), keys=1)
ADD_EVENT = (
    f"INSERT INTO events ({', '.join(rows.EVENT_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(rows.EVENT_COLUMNS))})"
)


@lru_cache(maxsize=16)  # An event has at most 11 layers.
def add_rollups(count: int) -> str:
    """Returns what adds up an event in so many rows of sums."""
    return _upsert("rollups", rows.ROLLUP_COLUMNS, keys=4, add=True, count=count)
