"""A process is killed at any moment: nothing is lost and nothing is half done."""

import multiprocessing
import os
import random  # noqa: TID251 - seeded, so that every run kills alike
import signal
import sqlite3
import sys
from contextlib import closing
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

from guardrails.core.calls import CallKind
from guardrails.core.ledger import Ledger
from guardrails.core.loops import LoopRule, ToolTrace
from guardrails.core.operations import Operation, ReadAccount, Settle, Settled, Turn
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.stores.sqlite import SQLiteStore
from guardrails.testing.conformance import charging, reserve, settle
from tests.stores.scenarios import (
    CODE_BYTES,
    NOW_MS,
    SESSIONS,
    SETUP_BYTES,
    SHARED,
    Scenario,
)

OPERATIONS = 800
KILLS = 20
YEAR_MS = 365 * 86_400_000

State = tuple[object, ...]
Script = list[Operation[object]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_a_killed_process_leaves_what_it_acknowledged(tmp_path: Path) -> None:
    """After each kill the file is the ledger after k operations, or after k + 1.

    k is the number of acknowledged operations: the one that was under way is there
    wholly or not at all. Then the next process goes on, up to the same end.
    """
    dice = random.Random(1)
    script, states = _script(dice)
    file = tmp_path / "ledger.sqlite3"
    done = 0
    for kill in range(KILLS):
        # From outside after so many operations, or from inside at some statement.
        after, die_at = (
            (dice.randint(1, 40), 0) if kill % 2 else (0, dice.randint(9, 600))
        )
        acknowledged = _killed(file, script[done:], after=after, die_at=die_at)
        found, done = _state(file), done + acknowledged
        assert found in states[done : done + 2], f"kill {kill} after {done}"
        if found != states[done]:
            done += 1
    assert 0 < done < OPERATIONS, "Every kill came before the end"
    with closing(SQLiteStore(file)) as store:
        for op in script[done:]:
            store.execute(op)

    assert _state(file) == states[-1]


def test_wherever_a_process_dies_its_operation_is_there_or_not(tmp_path: Path) -> None:
    """Killed at every entry to and return from SQLite, from the first call on.

    Creating the file is part of it; a hold and its settling are not torn either, nor is
    a turn, which begins at the same ledger.
    """
    to = charging(session="0", loop=LoopRule())
    trace = ToolTrace(tool="t", arguments_digest="a", result_digest="r")
    begins = reserve("h", to, kind=CallKind.TOOL)
    ends = settle("h", to, kind=CallKind.TOOL, trace=trace)
    turn = Turn(settle=ends, reserve=reserve("next", to, kind=CallKind.TOOL))

    seen = _killed_from(1, tmp_path / "call", [begins, ends])
    assert set(seen) == {0, 1, 2}
    assert len(seen) > 50
    # Up to here a process does the same if its second operation is a turn.
    begun = seen.index(1) + 1

    seen = _killed_from(begun, tmp_path / "turn", [begins, turn])
    assert set(seen) == {1, 2}
    assert len(seen) > 10


def _killed_from(first: int, folder: Path, script: Script) -> list[int]:
    """Returns how many operations each file has; the last is of who was not killed."""
    folder.mkdir()
    ledger = Ledger()
    states = [_state_of(ledger, 0)]
    for events, op in enumerate(script):
        ledger.apply(op)
        states.append(_state_of(ledger, events))
    seen: list[int] = []
    for die_at in count(first):
        file = folder / f"{die_at}.sqlite3"
        acknowledged = _killed(file, script, after=0, die_at=die_at)
        seen.append(states.index(_state(file)))
        assert seen[-1] in (acknowledged, acknowledged + 1)
        if acknowledged == len(script):
            break
    return seen


def _script(dice: random.Random) -> tuple[Script, list[State]]:
    """Returns operations, and the states before each and after the last."""
    scenario = Scenario(dice.randbytes(SETUP_BYTES), is_honest=False)
    ledger, events = Ledger(), 0
    script: Script = []
    states = [_state_of(ledger, events)]
    while len(script) < OPERATIONS:
        op = scenario.operation(dice.randbytes(CODE_BYTES), ledger)
        reply = ledger.apply(op)
        if isinstance(op, Settle) and isinstance(reply, Settled) and reply.is_applied:
            scenario.settled.add(op.hold_id)
            events += 1
        script.append(op)
        states.append(_state_of(ledger, events))
    return script, states


def _state_of(ledger: Ledger, events: int) -> State:
    accounts = [ledger.apply(ReadAccount(account=key)) for key in (*SESSIONS, *SHARED)]
    holds = {(hold.hold_id, hold.state.value) for hold in ledger.holds.values()}
    return (accounts, holds, events)


def _state(file: Path) -> State:
    """Reads the whole file: accounts, holds, and the number of events."""
    span = {"since_ms": NOW_MS - HOUR_MS, "until_ms": NOW_MS + YEAR_MS}
    with closing(SQLiteStore(file)) as store:
        accounts = [
            store.execute(ReadAccount(account=key)) for key in (*SESSIONS, *SHARED)
        ]
        spend = store.history.spend(project_id="default", by="project_id", **span)
    with closing(sqlite3.connect(file)) as connection:
        holds = set(connection.execute("SELECT hold_id, state FROM holds"))
        (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert sum(one.steps for one in spend) == events
    return (accounts, holds, events)


# --- The process that is killed ---------------------------------------------


def _killed(file: Path, script: Script, *, after: int, die_at: int) -> int:
    """Lets a process work until it is killed; returns what it acknowledged."""
    read_end, write_end = os.pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_work, args=(file, script, write_end, die_at))
    process.start()
    os.close(write_end)
    with os.fdopen(read_end, "rb") as acknowledgements:
        acknowledged = len(acknowledgements.read(after)) if after else 0
        if after:
            process.kill()
        acknowledged += len(acknowledgements.read())
    process.join()
    is_killed = after or acknowledged < len(script)
    assert process.exitcode == (-signal.SIGKILL if is_killed else 0)
    process.close()
    return acknowledged


def _work(file: Path, script: Script, acknowledgements: int, die_at: int) -> None:
    store = SQLiteStore(file)
    if die_at:
        _die_at(die_at)
    for op in script:
        store.execute(op)
        os.write(acknowledgements, b".")


def _die_at(calls: int) -> None:
    """Kills this process at so many entries to and returns from SQLite."""
    left = calls

    def watch(frame: FrameType, event: str, called: object) -> None:
        nonlocal left
        if event in ("c_call", "c_return") and isinstance(
            getattr(called, "__self__", None), sqlite3.Connection
        ):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
