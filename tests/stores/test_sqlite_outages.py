"""A SQLite file that is away for a while: what was paid meanwhile is booked."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from guardrails import Guard, StoreUnavailable
from guardrails.stores import journal_folder
from tests.servers.waiting import until

PAID = 3
"""Calls that are made while the file is away."""

PROGRAM = """
import os, sys
from pathlib import Path
from guardrails import Guard

file = Path(sys.argv[1])
guard = Guard(store=file, max_cost_usd="1")

@guard.tool(cost_usd="0.01")
def pay(number): pass

with guard.session("agent", session_id="s"):
    pay(0)
    file.rename(f"{file}-away")
    file.mkdir()  # Nobody can open it, whatever his rights are.
    for number in range(1, 4):
        pay(number)
    if sys.argv[2]:
        exec(sys.argv[2])
"""

ENDS = {
    "killed": ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
    "without its exit handlers": ("os._exit(0)", 0),
    "in order": ("", 0),
    "by an error": ("1 / 0", 1),
    "in a child": (
        """
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        else:
            pay(4)
        os.kill(os.getpid(), 9)
        """,
        -signal.SIGKILL,
    ),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the locks of POSIX")
@pytest.mark.parametrize(("end", "status"), ENDS.values(), ids=ENDS.keys())
def test_the_next_process_books_what_one_that_ended_could_not(
    tmp_path: Path, end: str, status: int
) -> None:
    """However it has ended; it is booked once, and leaves nothing behind."""
    file = tmp_path / "ledger.sqlite3"
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), dedent(end)],
        timeout=60,
        check=False,
    )
    file.rmdir()
    Path(f"{file}-away").rename(file)
    paid = 1 + PAID + ("pay(4)" in end)

    assert ended.returncode == status
    _booked_by_another(file, paid)
    # One that closes while it is at a journal leaves the rest to the next.
    until(lambda: not _booked_by_another(file, paid), "nothing is left behind")


def _booked_by_another(file: Path, paid: int) -> list[Path]:
    """Waits until a new guard has booked all; returns what journals there are then."""
    guard = Guard(store=file)
    try:
        until(lambda: _calls(guard) == paid, "all is booked")
    finally:
        guard.close()
    return _journals()


def test_what_a_file_took_later_is_kept_no_longer(tmp_path: Path) -> None:
    """A process that goes on for days must not have it booked again at its end."""
    file = tmp_path / "ledger.sqlite3"
    guard = Guard(store=file)
    pay = guard.tool(cost_usd="0.01")(_pay)
    pay(0)
    assert not _journals(), "no journal while the file can be written"
    with _away(file):
        pay(1)
        assert _journals()
    until(lambda: not guard.store.is_degraded, "the store is back")

    assert _calls(guard) == 2
    assert guard.store.waiting == 0
    guard.close()
    assert not _journals()


def test_a_guard_starts_while_another_process_holds_the_file(tmp_path: Path) -> None:
    """It is back by itself: nobody has to mend anything first."""
    file = tmp_path / "ledger.sqlite3"
    Guard(store=file).close()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="Another process held the file"):
            Guard(store=file, on_store_error="closed")
        guard = Guard(store=file)
        guard.tool(cost_usd="0.01")(_pay)(1)
        other.execute("ROLLBACK")
    until(lambda: not guard.store.is_degraded, "the file is free")

    assert _calls(guard) == 1
    guard.close()


def _pay(number: int) -> None:
    """Stands for what costs money."""


def _calls(guard: Guard) -> int:
    return sum(row.calls for row in guard.spend(by="tool"))


def _journals() -> list[Path]:
    return list(journal_folder().glob("*")) if journal_folder().exists() else []


@contextmanager
def _away(file: Path) -> Iterator[None]:
    file.rename(f"{file}-away")
    file.mkdir()
    yield
    file.rmdir()
    Path(f"{file}-away").rename(file)
