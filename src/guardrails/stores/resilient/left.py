"""What is left: journals of dead processes that no start with this store will book."""

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from guardrails.stores.diagnosis import Check, Status
from guardrails.stores.resilient.journal_file import JournalFile, name_of

__all__ = ["left_check"]


def left_check(folder: Path, *, store: str) -> Check | None:
    """Finds what waits in journals for another store; `None` if nothing does.

    Args:
        folder: Where the journals of all processes are.
        store: Names the store, as its journals do.
    """
    own, waiting, paths = name_of(store), 0, list[Path]()
    for path in sorted(folder.glob("*.sqlite3")):
        if not path.name.startswith(own) and (count := _waiting_in(path)):
            waiting += count
            paths.append(path)
    if not paths:
        return None
    return Check(
        name="left",
        status=Status.WARN,
        text=f"{waiting} operations wait in journals for another store than this, as "
        "before `store` was changed: a guard that is started with that one books them. "
        "What has it all may be deleted",
        commands=(shlex.join(["ls", "-l", *map(str, paths)]),),
    )


def _waiting_in(path: Path) -> int:
    """Returns how many operations of a dead process may not be booked."""
    try:
        if (file := JournalFile.adopted(path)) is None:
            return 0
        with closing(file):
            return file.count_waiting()
    except (OSError, sqlite3.Error):  # Who adopts it says so.
        return 0
