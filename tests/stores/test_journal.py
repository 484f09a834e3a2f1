"""The journal: what a process has paid for is booked, whoever dies on the way."""

import contextlib
import enum
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import cast

import pytest

from guardrails.core.loops import LoopRule, ToolTrace
from guardrails.core.operations import (
    Operation,
    ReadAccount,
    Release,
    Reserved,
    Settle,
    Settled,
    Sweep,
    Verdict,
)
from guardrails.core.policy import Limits, OnStoreError
from guardrails.errors import StoreUnavailable
from guardrails.stores.backlog import Entry
from guardrails.stores.memory import MemoryStore
from guardrails.stores.resilient import ResilientStore
from guardrails.stores.resilient.journal import KEPT_MS, PAGE, PRUNED_EVERY, Journal
from guardrails.testing import FakeClock
from guardrails.testing.conformance import CENT, charging, reserve, settle
from tests.signals import raising
from tests.stores.flaky import RemoteFlakyStore

SHARED = "default/total/customer_id=acme"
STORE = "redis://ledger"
DAY_SECONDS = 86_400

GIVE_BACK = Release(hold_id="h", account="default/session/session_id=s", now_ms=7)

Open = Callable[[], Journal]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def open_journal(tmp_path: Path, clock: FakeClock) -> Iterator[Open]:
    opened: list[Journal] = []

    def build() -> Journal:
        journal = Journal(tmp_path / "journal", store=STORE, clock=clock)
        opened.append(journal)
        return journal

    yield build
    for journal in opened:
        journal.close()


@pytest.fixture
def journal(open_journal: Open) -> Journal:
    return open_journal()


def abandon(journal: Journal) -> Path:
    """Does to a journal what the death of its process does."""
    file = journal._file
    assert file is not None
    file.close()
    journal._file = None
    return file.path


def sending(sent: list[Entry]) -> Callable[[Entry], bool]:
    """Stands for a store that knew nothing of what it is sent."""

    def send(op: Entry) -> bool:
        sent.append(op)
        return True

    return send


NOTHING = MemoryStore().history
"""Of a store that has booked nothing."""


# --- the file ---------------------------------------------------------------


def test_gives_back_what_it_was_given(journal: Journal) -> None:
    """Whole, in order, and as equal values."""
    trace = ToolTrace(tool="t", arguments_digest="a", result_digest="r")
    to = charging(limits=Limits(cost_nano_usd=5 * CENT), loop=LoopRule())
    kept: list[Entry] = [
        settle("1", to, trace=trace),
        reserve("2", to),
        Release(hold_id="3", account="default/session/session_id=s", now_ms=7),
    ]
    for op in kept:
        journal.keep(op)

    assert list(journal.waiting(10)) == kept
    assert list(journal.waiting(2)) == kept[:2]
    assert len(journal) == 3


@pytest.mark.parametrize(
    "interrupt", [KeyboardInterrupt(), SystemExit(3), SystemExit("why"), SystemExit()]
)
def test_passes_on_what_a_signals_handler_raises_while_it_writes(
    journal: Journal, interrupt: BaseException
) -> None:
    """pydantic reads the value of an enum by Python's own code, which is broken off."""
    op = settle("1", charging())

    def interrupted(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == enum.__file__:
            sys.setprofile(before)
            raise interrupt

    before = sys.getprofile()
    sys.setprofile(interrupted)
    try:
        with pytest.raises(type(interrupt)) as passed:
            journal.keep(op)
    finally:
        sys.setprofile(before)
    journal.keep(op)

    assert passed.value.args in (interrupt.args, (None,))
    assert list(journal.waiting(10)) == [op]


def test_only_its_owner_can_read_it(journal: Journal) -> None:
    """Names of customers are in it."""
    journal.keep(settle("1", charging()))
    folder = journal.path.parent

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600}


def test_a_settlement_replaces_the_reservation(journal: Journal) -> None:
    to = charging()
    journal.keep(reserve("1", to))
    journal.keep(settle("1", to))
    journal.keep(settle("1", to))

    assert list(journal.waiting(10)) == [settle("1", to)]
    assert len(journal) == 1


def test_keeps_for_a_minute_what_was_acknowledged(
    journal: Journal, clock: FakeClock
) -> None:
    """A store that fails over may have lost it; a later answer says that it has not."""
    to = charging()
    journal.before(settle("1", to))
    journal.done(settle("1", to))
    clock.advance(seconds=KEPT_MS / 1000 + 1)
    at_first = list(journal.recent())
    journal.before(settle("2", to))
    journal.done(settle("2", to))

    assert (at_first, list(journal.recent())) == (
        [settle("1", to)],
        [settle("2", to)],
    )
    assert len(journal) == 0


def test_the_minute_begins_with_the_acknowledgement(
    journal: Journal, clock: FakeClock
) -> None:
    """What waited for an hour is as new to the store as anything."""
    journal.keep(settle("1", charging()))
    clock.advance(seconds=3_600)
    journal.done(settle("1", charging()))
    clock.advance(seconds=KEPT_MS / 1000 - 1)

    assert [op.hold_id for op in journal.recent()] == ["1"]


def test_deletes_what_is_no_longer_needed(journal: Journal, clock: FakeClock) -> None:
    """The file stays as large as a minute, and what waits."""
    to = charging()
    journal.keep(settle("waits", to))
    for number in range(3 * PRUNED_EVERY):
        journal.before(settle(f"{number}", to))
        journal.done(settle(f"{number}", to))
        clock.advance(seconds=1)
    with contextlib.closing(_opened(journal)) as database:
        rows = database.execute("SELECT count(*) FROM operations").fetchone()[0]

    assert rows <= PRUNED_EVERY + KEPT_MS // 1000 + 1
    assert [op.hold_id for op in journal.waiting(10)] == ["waits"]


def test_forgets_whom_it_charged_once_nothing_is_kept_of_them(
    open_journal: Open, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a program that serves ever new sessions would fill the disk in the end."""
    monkeypatch.setattr("guardrails.stores.resilient.journal_file.CHARGINGS_MAX", 4)
    journal = open_journal()
    of = [charging(session=f"{number}") for number in range(20)]
    for number, to in enumerate(of):
        journal.before(settle(f"{number}", to))
        journal.done(settle(f"{number}", to))
    clock.advance(seconds=120)
    journal.heard(clock.now_ms())
    again = [settle("again", of[2]), settle("and again", of[19])]
    journal.keep(again[0])  # Whom it was about to forget.
    journal.tidy()
    journal.keep(again[1])
    path = abandon(journal)
    with contextlib.closing(sqlite3.connect(path)) as database:
        [(count,)] = database.execute("SELECT count(*) FROM chargings").fetchall()
    sent: list[Entry] = []
    open_journal().adopt(sending(sent), NOTHING)

    assert count <= 6
    assert sent == again


def test_leaves_no_file_that_nobody_needs(open_journal: Open, clock: FakeClock) -> None:
    journal = open_journal()
    journal.before(settle("1", charging()))
    journal.done(settle("1", charging()))
    folder = journal.path.parent
    clock.advance(seconds=KEPT_MS / 1000 + 1)
    journal.heard(clock.now_ms())
    journal.close()

    assert list(folder.iterdir()) == []


def test_what_waits_outlives_its_file(journal: Journal) -> None:
    """As long as the process lives; a folder may be cleaned while it runs."""
    to = charging()
    journal.keep(settle("1", to))
    with contextlib.closing(_opened(journal)) as database:
        database.execute("DELETE FROM operations")

    assert journal.waiting(10) == [settle("1", to)]


def test_puts_aside_what_it_cannot_read(
    journal: Journal,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One damaged row costs one row."""
    monkeypatch.setattr("guardrails.stores.resilient.journal.REMEMBERED_MAX", 1)
    to = charging()
    for name in ("1", "2", "3"):
        journal.keep(settle(name, to))
    with contextlib.closing(_opened(journal)) as database:
        database.execute("UPDATE operations SET content = x'7b' WHERE hold_id = '2'")
    found = [op.hold_id for op in journal.waiting(10)]
    quarantine = Path(f"{journal.path}.quarantine")

    assert found == ["1", "3"]
    assert len(journal) == 2
    assert quarantine.read_text(encoding="utf-8").strip()
    assert "put aside" in caplog.text


def _opened(journal: Journal) -> sqlite3.Connection:
    """Opens its file as somebody else would, who writes at once."""
    return sqlite3.connect(journal.path, isolation_level=None)


# --- adoption ---------------------------------------------------------------


def test_the_next_process_sends_what_the_dead_one_left(open_journal: Open) -> None:
    """Acknowledged or not: sending again changes nothing."""
    dead, to = open_journal(), charging()
    dead.before(settle("acknowledged", to))
    dead.done(settle("acknowledged", to))
    dead.keep(settle("waits", to))
    path = abandon(dead)
    sent: list[Entry] = []
    alive = open_journal()

    assert alive.adopt(sending(sent), NOTHING) == 2
    assert sent == [settle("acknowledged", to), settle("waits", to)]
    assert not path.exists()
    assert alive.adopt(sending(sent), NOTHING) == 0
    # It may be lost again while it is new.
    assert list(alive.recent()) == sent


def test_says_which_file_cannot_be_read_and_goes_on_with_the_next(
    open_journal: Open, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = sorted((open_journal(), open_journal()), key=lambda one: one.path)
    second.keep(settle("2", charging()))
    broken = abandon(first)
    broken.write_bytes(b"no database" * 100)
    abandon(second)
    sent: list[Entry] = []
    open_journal().adopt(sending(sent), NOTHING)

    assert [op.hold_id for op in sent] == ["2"]
    assert broken.exists()
    assert [
        (record.levelname, str(broken) in record.getMessage())
        for record in caplog.records
    ] == [("ERROR", True)]


def test_nobody_adopts_from_the_living_or_for_another_store(
    open_journal: Open, tmp_path: Path, clock: FakeClock
) -> None:
    alive = open_journal()
    alive.keep(settle("1", charging()))
    abandoned = Journal(tmp_path / "journal", store="redis://other", clock=clock)
    abandoned.keep(settle("2", charging()))
    path = abandon(abandoned)
    sent: list[Entry] = []

    assert open_journal().adopt(sending(sent), NOTHING) == 0
    assert path.exists()


def test_an_adoption_that_breaks_off_goes_on_from_there(open_journal: Open) -> None:
    """Else a store that answers only for a while would never get to the end."""
    dead = open_journal()
    for number in range(3):
        dead.keep(settle(f"{number}", charging()))
    abandon(dead)
    sent: list[Entry] = []

    def send(op: Entry) -> bool:
        if len(sent) == 1:
            raise StoreUnavailable("store: away.")
        sent.append(op)
        return True

    with pytest.raises(StoreUnavailable):
        open_journal().adopt(send, NOTHING)
    adopted: list[Entry] = []
    open_journal().adopt(sending(adopted), NOTHING)

    assert [op.hold_id for op in adopted] == ["1", "2"]


def test_who_closes_while_it_adopts_leaves_the_rest_to_the_next(
    open_journal: Open,
) -> None:
    dead, closing = open_journal(), open_journal()
    for number in range(3):
        dead.keep(settle(f"{number}", charging()))
    path = abandon(dead)
    sent: list[Entry] = []

    def send(op: Entry) -> bool:
        sent.append(op)
        closing.close()
        return True

    closing.adopt(send, NOTHING)
    assert closing.is_closed
    assert path.exists()
    adopted: list[Entry] = []
    open_journal().adopt(sending(adopted), NOTHING)

    assert [op.hold_id for op in sent] == ["0"]
    # It did not hear that the first was acknowledged: sending it again is safe.
    assert sorted(op.hold_id for op in adopted) == ["0", "1", "2"]
    assert not path.exists()


def test_what_the_store_no_longer_knows_by_id_is_looked_up(
    open_journal: Open, clock: FakeClock
) -> None:
    """After a day an id alone does not say whether it was booked.

    What was held then, or given back, changes nothing any more.
    """
    dead = open_journal()
    for name in ("booked", "missing"):
        dead.keep(settle(name, charging()))
    dead.keep(reserve("long over", charging()))
    dead.keep(GIVE_BACK)
    abandon(dead)
    clock.advance(seconds=DAY_SECONDS + 1)
    store = MemoryStore()
    store.execute(settle("booked", charging()))
    sent: list[Entry] = []
    open_journal().adopt(sending(sent), store.history)

    assert [op.hold_id for op in sent] == ["missing"]


def test_what_was_acknowledged_is_not_booked_again_when_its_event_is_gone(
    open_journal: Open, clock: FakeClock
) -> None:
    """A process of each week, in a fleet that keeps the events of a day."""
    last_week, to = open_journal(), charging()
    last_week.before(settle("acknowledged", to))
    last_week.done(settle("acknowledged", to))
    last_week.keep(settle("waits", to))
    path = last_week.path
    last_week.close()
    clock.advance(seconds=7 * DAY_SECONDS)
    sent: list[Entry] = []

    assert open_journal().adopt(sending(sent), NOTHING) == 1
    assert sent == [settle("waits", to)]
    assert not path.exists()


def test_what_a_process_that_ended_was_told_may_have_been_lost_since(
    open_journal: Open,
) -> None:
    """Within a day the store knows by the id whether it has it."""
    ended = open_journal()
    ended.before(settle("acknowledged", charging()))
    ended.done(settle("acknowledged", charging()))
    ended.close()
    sent: list[Entry] = []
    open_journal().adopt(sending(sent), NOTHING)

    assert [op.hold_id for op in sent] == ["acknowledged"]


def test_a_process_with_few_calls_keeps_those_of_its_last_minute_only(
    open_journal: Open, clock: FakeClock
) -> None:
    """It may live for weeks, and be killed when their events are deleted long since."""
    dead = open_journal()
    for number in range(5):
        op = settle(f"{number}", charging())
        dead.before(op)
        dead.done(op)
        clock.advance(seconds=3_600)
    abandon(dead)
    sent: list[Entry] = []
    open_journal().adopt(sending(sent), NOTHING)

    assert [op.hold_id for op in sent] == ["4"]


@pytest.mark.parametrize("ends", [Journal.close, abandon])
def test_processes_that_end_within_a_minute_book_nothing_again(
    open_journal: Open, clock: FakeClock, ends: Callable[[Journal], object]
) -> None:
    """One every hour for two days: the store knows an id for a day and an hour.

    Each adopts what the last one has left, and is over before that is old.
    """
    store, to = MemoryStore(), charging()
    booked: list[int] = []

    def send(op: Entry) -> bool:
        reply = store.execute(cast("Operation[object]", op))
        return isinstance(reply, Settled) and reply.is_applied

    for hour in range(48):
        journal = open_journal()
        booked.append(journal.adopt(send, store.history))
        if hour == 0:
            op = settle("paid", to)
            journal.before(op)
            store.execute(op)
            journal.done(op)
        clock.advance(seconds=10)
        ends(journal)
        clock.advance(seconds=3_600)
        store.execute(Sweep(now_ms=clock.now_ms()))

    account = store.execute(ReadAccount(account="default/session/session_id=s"))
    assert account is not None
    assert account.posted_nano_usd == CENT
    assert sum(booked) == 0


def test_what_was_acknowledged_is_passed_on_for_a_minute_only(
    open_journal: Open, clock: FakeClock
) -> None:
    """Else each of many short processes would send what all before it have booked."""
    first = open_journal()
    first.before(settle("paid", charging()))
    first.done(settle("paid", charging()))
    first.close()
    for _ in range(3):
        sent: list[Entry] = []
        clock.advance(seconds=KEPT_MS / 1_000 * 0.7)
        journal = open_journal()
        journal.adopt(lambda op, sent=sent: sent.append(op) or False, NOTHING)
        journal.close()

    assert not sent


def test_a_killed_process_loses_nothing(tmp_path: Path, open_journal: Open) -> None:
    """kill -9 right after the write: no sync is needed for that."""
    program = f"""
        import os, signal
        from pathlib import Path
        from guardrails.system.clock import SystemClock
        from guardrails.stores.resilient.journal import Journal
        from guardrails.testing.conformance import charging, settle
        journal = Journal(
            Path({str(tmp_path / "journal")!r}), store={STORE!r}, clock=SystemClock()
        )
        for number in range(100):
            journal.before(settle(str(number), charging()))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60
    )
    sent: list[Entry] = []
    open_journal().adopt(sending(sent), NOTHING)

    assert [op.hold_id for op in sent] == [f"{number}" for number in range(100)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_has_a_journal_of_its_own(open_journal: Open, clock: FakeClock) -> None:
    """And the parent's stays the parent's, also when the child ends first."""
    real = RemoteFlakyStore()
    journal = open_journal()
    store = ResilientStore(
        real, on_error=OnStoreError.LOCAL, clock=clock, journal=journal
    )
    to = charging()
    real.is_away = True
    store.execute(settle("parent", to))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.execute(settle("child", to))
            mine = [op.hold_id for op in journal.waiting(10)]
            code = 0 if mine == ["child"] else 2
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sent: list[Entry] = []
    open_journal().adopt(sending(sent), NOTHING)

    assert status == 0
    assert [op.hold_id for op in sent] == ["child"]
    assert [op.hold_id for op in journal.waiting(10)] == ["parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_keeps_nobody_from_what_its_parent_was_adopting(
    open_journal: Open, clock: FakeClock
) -> None:
    """Servers fork as they start, when they adopt, and their children live long."""
    dead, journal = open_journal(), open_journal()
    dead.keep(settle("1", charging()))
    abandon(dead)
    store = ResilientStore(
        RemoteFlakyStore(), on_error=OnStoreError.LOCAL, clock=clock, journal=journal
    )
    is_there, (reads, writes) = os.pipe(), os.pipe()
    children: list[int] = []

    def send(_: Entry) -> bool:
        children.append(os.fork())
        if not children[0]:
            os.close(writes)
            os.write(is_there[1], b"1")
            os.read(reads, 1)  # Until its parent has no more use for it.
            os._exit(0)
        os.read(is_there[0], 1)
        raise StoreUnavailable("store: away.")

    sent: list[Entry] = []
    try:
        with pytest.raises(StoreUnavailable):
            journal.adopt(send, NOTHING)
        journal.adopt(sending(sent), NOTHING)
    finally:
        os.close(writes)
        os.waitpid(children[0], 0)
        for end in (reads, *is_there):
            os.close(end)
        store.close()

    assert [op.hold_id for op in sent] == ["1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_waits_for_whoever_tidies_the_file(
    open_journal: Open, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the child could inherit a lock of SQLite that nobody there releases."""
    begun, may_end, ended = threading.Event(), threading.Event(), list[Path]()

    def slow_tidy(path: Path, **_: object) -> None:
        begun.set()
        may_end.wait(10)
        ended.append(path)

    monkeypatch.setattr("guardrails.stores.resilient.journal.tidy", slow_tidy)
    journal = open_journal()
    store = ResilientStore(
        RemoteFlakyStore(), on_error=OnStoreError.LOCAL, clock=clock, journal=journal
    )
    store.execute(settle("1", charging()))
    tidying = threading.Thread(target=journal.tidy)
    tidying.start()
    begun.wait(10)
    threading.Timer(0.1, may_end.set).start()
    child = os.fork()
    if child == 0:
        os._exit(0 if ended else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tidying.join()

    assert status == 0


# --- with the store ---------------------------------------------------------


@pytest.fixture
def real() -> RemoteFlakyStore:
    return RemoteFlakyStore()


@pytest.fixture
def store(real: RemoteFlakyStore, clock: FakeClock, journal: Journal) -> ResilientStore:
    return ResilientStore(
        real, on_error=OnStoreError.LOCAL, clock=clock, journal=journal
    )


def test_what_the_store_lost_is_told_again(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock
) -> None:
    """Settlements that were acknowledged, and calls that are open."""
    to = charging()
    for name in ("1", "2", "open"):
        store.execute(reserve(name, to))
    for name in ("1", "2"):
        store.execute(settle(name, to))
    real.loses_everything()
    clock.advance(seconds=0.001)
    account = real.account(SHARED)

    assert (account.posted_nano_usd, account.held_nano_usd) == (2 * CENT, CENT)
    assert account.steps == 3


def test_a_release_that_the_store_lost_is_told_again(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock
) -> None:
    """Else the hold of a call that was never sent would count for ever."""
    store.execute(reserve("h", charging()))
    store.execute(GIVE_BACK)
    real.loses_everything()
    real.real.execute(reserve("h", charging()))  # It goes back to this.
    clock.advance(seconds=0.001)

    assert (real.account().steps, real.account().held_nano_usd) == (0, 0)


@pytest.mark.parametrize("limit", [CENT, 3 * CENT])
def test_a_call_that_is_under_way_when_the_store_is_back_is_held(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock, limit: int
) -> None:
    """Also where others have used the limit meanwhile: it was admitted."""
    to = charging(limits=Limits(cost_nano_usd=limit))
    real.is_away = True
    admitted = store.execute(reserve("here", to))
    real.is_away = False
    real.real.execute(reserve("there", to))
    clock.advance(seconds=1)
    account = real.account()

    assert admitted == Reserved(verdict=Verdict.ALLOW)
    assert (account.held_nano_usd, account.steps, account.stop) == (2 * CENT, 2, None)


def test_what_was_interrupted_is_booked_soon(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock
) -> None:
    """Whoever kills a thread may do so again while it makes up for that."""
    store.execute(reserve("h", charging()))
    real.meanwhile = raising(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        store.execute(settle("h", charging()))
    clock.advance(seconds=1)

    assert (real.account().posted_nano_usd, store.waiting) == (CENT, 0)


@pytest.mark.parametrize("end", [GIVE_BACK, settle("h", charging())])
def test_a_call_that_ends_while_its_hold_is_told_again_holds_nothing(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock, end: Entry
) -> None:
    """The store may hear of the end first, which it then knows nothing of."""
    store.execute(reserve("h", charging()))
    real.loses_everything()
    real.meanwhile = lambda: store.execute(end)
    clock.advance(seconds=0.001)
    account = real.account()

    assert (account.held_nano_usd, account.unconfirmed_nano_usd) == (0, 0)
    assert account.steps == len(real.events()) == isinstance(end, Settle)


def test_a_process_whose_calls_are_long_tells_again_what_it_booked_last(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock
) -> None:
    """It learns of the loss by its next call, which may be much later, and is booked
    before the rest is told."""
    to = charging()
    store.execute(settle("1", to))
    clock.advance(seconds=3_600)
    real.loses_everything()
    store.execute(settle("2", to))
    clock.advance(seconds=0.001)

    assert {event.event_id for event in real.events()} == {"1", "2"}


def test_a_process_that_closes_tells_again_all_that_was_lost(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock
) -> None:
    """No exit waits for the thread that is at it: there is more than a page."""
    for number in range(PAGE + 1):
        store.execute(settle(f"{number}", charging()))
    real.loses_everything()
    real.meanwhile = store.close
    clock.advance(seconds=0.001)

    assert len(real.events()) == PAGE + 1


def test_a_store_that_is_away_at_the_end_is_left_alone(
    store: ResilientStore,
    real: RemoteFlakyStore,
    open_journal: Open,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it did not take is for the next process, and nobody says otherwise."""
    clock.advance(seconds=0.001)  # It has looked for journals to adopt.
    real.is_away = True
    store.execute(settle("1", charging()))
    store.close()
    real.is_away = False
    clock.advance(seconds=5)
    sent: list[Entry] = []
    open_journal().adopt(sending(sent), NOTHING)

    assert "that the store did not take: 1; they are in" in caplog.text
    assert "everything is booked" not in caplog.text
    assert (store.is_degraded, store.waiting) == (False, 0)
    assert sent == [settle("1", charging())]


def test_a_process_that_closes_after_a_pause_looks_whether_something_was_lost(
    store: ResilientStore, real: RemoteFlakyStore, journal: Journal, clock: FakeClock
) -> None:
    """There may be no next process on its machine to tell it."""
    store.execute(settle("1", charging()))
    folder = journal.path.parent
    clock.advance(seconds=3_600)
    real.is_found_lost_by_asking = True
    store.close()

    assert [event.event_id for event in real.events()] == ["1"]
    assert len(list(folder.glob("*.sqlite3"))) == 1  # It may be lost again.


@pytest.mark.parametrize("is_closed_before", [False, True])
def test_a_process_that_closes_after_a_pause_without_the_store_says_nothing(
    store: ResilientStore,
    real: RemoteFlakyStore,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    is_closed_before: bool,
) -> None:
    """Nothing waits. One that was closed does not even ask, at the exit."""
    clock.advance(seconds=0.001)  # It has looked for journals to adopt.
    store.execute(settle("1", charging()))
    if is_closed_before:
        store.close()
    clock.advance(seconds=10 * KEPT_MS / 1000)
    real.is_away = True
    asked = real.asked
    store.close()

    assert caplog.text == ""
    assert real.asked == asked + (not is_closed_before)


def test_a_process_that_closes_after_a_pause_leaves_nothing_behind(
    store: ResilientStore, journal: Journal, clock: FakeClock
) -> None:
    store.execute(settle("1", charging()))
    folder = journal.path.parent
    clock.advance(seconds=3_600)
    store.close()

    assert list(folder.iterdir()) == []


def test_telling_again_what_was_not_lost_changes_nothing(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock
) -> None:
    to = charging()
    for name in ("1", "2", "open"):
        store.execute(reserve(name, to))
    store.execute(settle("1", to))
    before = real.account(SHARED)
    real.on_doubt()
    clock.advance(seconds=0.001)

    assert real.account(SHARED) == before
    assert len(real.events()) == 1


def test_telling_again_waits_for_a_store_that_is_away(
    store: ResilientStore, real: RemoteFlakyStore, clock: FakeClock
) -> None:
    store.execute(settle("1", charging()))
    real.loses_everything()
    real.is_away = True
    clock.advance(seconds=2)
    real.is_away = False
    clock.advance(seconds=1)

    assert real.account(SHARED).posted_nano_usd == CENT


@contextlib.contextmanager
def full_disk(journal: Journal) -> Iterator[None]:
    """Lets nothing be written, and everything be read."""
    file = journal._file
    assert file is not None
    file._database().execute("PRAGMA query_only = ON")
    yield
    file._database().execute("PRAGMA query_only = OFF")


@pytest.mark.parametrize("is_full_first", [False, True])
def test_a_call_given_back_holds_nothing_whichever_half_could_not_be_written(
    store: ResilientStore,
    real: RemoteFlakyStore,
    journal: Journal,
    clock: FakeClock,
    is_full_first: bool,
) -> None:
    real.is_away = True
    for operation in (reserve("h", charging()), GIVE_BACK):
        is_full = isinstance(operation, Release) is not is_full_first
        with full_disk(journal) if is_full else contextlib.nullcontext():
            store.execute(operation)
    real.is_away = False
    clock.advance(seconds=1)

    assert real.account(SHARED).held_nano_usd == 0
    assert store.waiting == 0


def test_a_disk_that_has_become_full_delays_no_booking(
    store: ResilientStore, real: RemoteFlakyStore, journal: Journal, clock: FakeClock
) -> None:
    """Rows that wait are booked in one go, although nothing can be noted of them."""
    real.is_away = True
    for number in range(3):
        store.execute(settle(f"{number}", charging()))
    with full_disk(journal):
        clock.advance(seconds=2)
        real.is_away = False
        clock.advance(seconds=1)

    assert real.account(SHARED).posted_nano_usd == 3 * CENT
    assert (store.waiting, store.is_degraded) == (0, False)


def test_a_journal_that_cannot_be_written_stops_no_call(
    store: ResilientStore, real: RemoteFlakyStore, journal: Journal, clock: FakeClock
) -> None:
    """The calls are booked all the same; the failure is contained."""
    path = abandon(journal)
    journal._folder = path  # A file: nothing can be made in it.
    store.execute(settle("1", charging()))

    assert real.account(SHARED).posted_nano_usd == CENT
    journal._folder = path.parent
