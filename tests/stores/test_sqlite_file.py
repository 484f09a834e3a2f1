"""The SQLite file: who may read it, what is no ledger, and what a fault leaves."""

import errno
import multiprocessing
import os
import pwd
import resource
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Never

import pytest
from hypothesis import given, settings

from guardrails import BudgetExceeded, Guard
from guardrails.core.accounts import Account
from guardrails.core.events import Event
from guardrails.core.ledger import SETTLED_RETENTION_MS
from guardrails.core.operations import ReadAccount, Reserved, Settled, Sweep, Verdict
from guardrails.errors import ConfigurationError, StoreUnavailable
from guardrails.stores.sqlite import SQLiteStore
from guardrails.stores.sqlite.database import APPLICATION_ID, explain
from guardrails.testing.conformance import NOW_MS, charging, reserve, settle
from tests.stores.spending import event_lists, settle_of

SESSION = "default/session/session_id=s"
TO = charging()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def store(file: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(file)) as store:
        yield store


def fill(file: Path, *, calls: int = 30) -> None:
    """Makes a ledger with some calls in it, and closes it."""
    with closing(SQLiteStore(file)) as store:
        for number in range(calls):
            store.execute(reserve(f"{number}", TO))
            store.execute(settle(f"{number}", TO))


def session(store: SQLiteStore) -> Account:
    account = store.execute(ReadAccount(account=SESSION))
    assert account is not None
    return account


# --- Who may read it --------------------------------------------------------


def test_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """The file, what SQLite puts beside it, and a new directory, whatever the umask."""
    folder = tmp_path / "new"
    umask = os.umask(0)
    try:
        with closing(SQLiteStore(folder / "ledger.sqlite3")) as store:
            store.execute(reserve("h", TO))
            modes = {
                path.name.removeprefix("ledger.sqlite3"): stat.S_IMODE(
                    path.stat().st_mode
                )
                for path in folder.iterdir()
            }
    finally:
        os.umask(umask)

    assert modes == {"": 0o600, "-wal": 0o600, "-shm": 0o600, "-lock": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


# --- What is no ledger ------------------------------------------------------


def garbage(file: Path) -> None:
    file.write_bytes(b"not a database at all\n" * 500)


def truncated(file: Path) -> None:
    fill(file)
    file.write_bytes(file.read_bytes()[:5_000])


def cut_in_the_header(file: Path) -> None:
    fill(file)
    file.write_bytes(file.read_bytes()[:60])


def scribbled_over(file: Path) -> None:
    fill(file)
    data = bytearray(file.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    file.write_bytes(data)


def another_program(file: Path) -> None:
    other_database(file, "CREATE TABLE notes (text)")


def another_program_with_our_version(file: Path) -> None:
    other_database(file, "CREATE TABLE notes (text); PRAGMA user_version = 1")


def another_program_with_a_high_version(file: Path) -> None:
    other_database(file, "CREATE TABLE notes (text); PRAGMA user_version = 99")


def newer(file: Path) -> None:
    fill(file)
    other_database(file, "PRAGMA user_version = 99")


def other_database(file: Path, script: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)


DAMAGED = "It was left as it is: move it away"
FOREIGN = "belongs to another program. Point `store` elsewhere"


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (garbage, DAMAGED),
        (truncated, DAMAGED),
        (cut_in_the_header, DAMAGED),
        (scribbled_over, DAMAGED),
        (another_program, FOREIGN),
        (another_program_with_our_version, FOREIGN),
        (another_program_with_a_high_version, FOREIGN),
        (newer, "has schema 99, this version of guardrails knows up to"),
    ],
)
def test_leaves_what_is_no_ledger_as_it_is(
    file: Path, make: Callable[[Path], None], fix: str
) -> None:
    """Every call says which file it is and how to mend it; no byte is changed."""
    make(file)
    before = file.read_bytes()
    with closing(SQLiteStore(file)) as store:
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as caught:
                store.execute(reserve("h", TO))

    assert file.read_bytes() == before
    assert repr(str(file)) in str(caught.value)
    assert fix in str(caught.value)


def below_a_file(folder: Path) -> Path:
    (folder / "a file").write_text("")
    return folder / "a file" / "ledger.sqlite3"


def a_directory(folder: Path) -> Path:
    (folder / "ledger.sqlite3").mkdir()
    return folder / "ledger.sqlite3"


def below_a_dangling_link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nowhere")
    return folder / "link" / "ledger.sqlite3"


def where_nobody_may_write(folder: Path) -> Path:
    # Not even root creates a file here.
    return Path("/proc/self/ledger.sqlite3")


@pytest.mark.parametrize(
    "place", [below_a_file, a_directory, below_a_dangling_link, where_nobody_may_write]
)
def test_names_a_path_that_cannot_be_created(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    """A path that leads nowhere is the operator's to mend, not a traceback."""
    file = place(tmp_path)
    with closing(SQLiteStore(file)) as store, pytest.raises(StoreUnavailable) as caught:
        store.execute(ReadAccount(account=SESSION))

    assert repr(str(file)) in str(caught.value)
    assert "Check that the path exists" in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_names_a_file_that_may_not_be_written(file: Path) -> None:
    """A read-only file is not a budget that is used up."""
    fill(file)
    file.chmod(0o400)
    with closing(SQLiteStore(file)) as store, pytest.raises(StoreUnavailable) as caught:
        store.execute(reserve("h", TO))

    assert "writable for this user" in str(caught.value)


# --- What a fault leaves ----------------------------------------------------


def test_a_full_disk_loses_nothing_and_is_got_over(file: Path) -> None:
    """What was written stays, the failing call is not there, and space mends it."""
    fill(file, calls=2)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    # A limit on file sizes holds for root too; it cannot be lifted in a thread.
    process = context.Process(target=_run_out_of_space, args=(file, theirs))
    process.start()
    theirs.close()
    message, calls, repeated, after = ours.recv()
    process.join()
    ours.close()

    assert process.exitcode == 0
    assert repr(str(file)) in message
    assert "free some space" in message
    assert calls > 2
    assert repeated is True
    assert after == calls + 1
    with closing(SQLiteStore(file)) as store:
        assert session(store).steps == after


def _run_out_of_space(file: Path, answers: Connection) -> None:
    with closing(SQLiteStore(file)) as store:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        used = file.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (used + 100_000, hard))
        calls = 2
        try:
            while True:
                store.execute(settle(f"more/{calls}", TO))
                calls += 1
        except StoreUnavailable as error:
            message = str(error)
        assert session(store).steps == calls
        try:
            store.execute(settle(f"more/{calls}", TO))
        except StoreUnavailable:
            repeated = session(store).steps == calls
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        reply = store.execute(settle(f"more/{calls}", TO))
        assert isinstance(reply, Settled)
        assert reply.is_applied
        answers.send((message, calls, repeated, session(store).steps))


def test_a_file_that_is_away_for_a_while_fails_only_meanwhile(
    tmp_path: Path, store: SQLiteStore
) -> None:
    """A store that could not be opened is opened by a later call."""
    store.path.mkdir()
    with pytest.raises(StoreUnavailable):
        store.execute(reserve("h", TO))
    store.path.rmdir()
    reply = store.execute(reserve("h", TO))

    assert isinstance(reply, Reserved)
    assert reply.verdict is Verdict.ALLOW


@pytest.mark.parametrize("endings", [("", "-wal", "-shm", "-lock"), ("",)])
def test_a_deleted_file_is_left_for_the_one_that_has_its_name(
    store: SQLiteStore, endings: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """All processes go on with one ledger, and not each with one of its own."""
    store.execute(reserve("before", TO))
    for ending in endings:
        Path(f"{store.path}{ending}").unlink()
    with closing(SQLiteStore(store.path)) as other:
        other.execute(reserve("there", TO))
        store.execute(reserve("here", TO))
        store.execute(reserve("here, too", TO))

        assert session(other).steps == 3
    assert session(store).steps == 3
    assert caplog.text.count("was deleted or replaced") == 1


def test_names_a_process_that_has_too_many_files_open(file: Path) -> None:
    with closing(SQLiteStore(file)) as store:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            with pytest.raises(StoreUnavailable, match="allow more of it with ulimit"):
                store.execute(reserve("h", TO))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        store.execute(reserve("h", TO))


def test_a_process_that_goes_elsewhere_keeps_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service does that becomes a daemon. Its children find the same ledger."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    guard = Guard({}, store="sqlite:///ledger.sqlite3", max_steps=1)
    with closing(guard), closing(SQLiteStore("ledger.sqlite3")) as store:
        with guard.session(session_id="s") as session, guard.call(tool="geocode"):
            os.chdir(elsewhere)
        env = guard.child_env()
        with session, pytest.raises(BudgetExceeded), guard.call(tool="geocode"):
            pytest.fail("there was one step to make")

        used = store.execute(ReadAccount(account=SESSION))
        assert used is not None
        assert used.steps == 1
        assert env["GUARDRAILS_STORE"] == f"sqlite:///{tmp_path}/ledger.sqlite3"
        assert not list(elsewhere.iterdir())


def test_a_guard_is_built_in_a_directory_that_has_been_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with closing(Guard({}, store=tmp_path / "ledger.sqlite3", max_steps=1)) as guard:
        with guard.session() as session, guard.call(tool="geocode"):
            pass
        assert session.steps == 1
    with pytest.raises(StoreUnavailable, match=r"'ledger.sqlite3'"):
        Guard({}, store="sqlite:///ledger.sqlite3", on_store_error="closed")


def test_a_user_without_a_home_names_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some containers run as a user who is in no list, and has no `HOME`."""

    def unknown(user_id: int) -> Never:
        raise KeyError(user_id)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("HOME", raising=False)

    with pytest.raises(ConfigurationError, match="Set HOME or XDG_DATA_HOME"):
        Guard({})
    with closing(Guard({}, store=file, max_steps=1)) as guard:
        with guard.session() as session, guard.call(tool="geocode"):
            pass
        assert session.steps == 1


def test_a_read_only_file_system_is_told_from_a_wrong_path() -> None:
    error = OSError(errno.EROFS, os.strerror(errno.EROFS))

    assert "writable for this user" in explain(Path("ledger.sqlite3"), error)


def test_a_file_that_was_restored_is_what_counts(store: SQLiteStore) -> None:
    """A backup that is moved into its place is read from the next call on."""
    store.execute(reserve("kept", TO))
    backup = store.path.with_name("backup.sqlite3")
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))
    store.execute(reserve("lost", TO))
    Path(f"{store.path}-wal").unlink()  # It belongs to the file before.
    backup.rename(store.path)

    assert session(store).steps == 1
    store.execute(reserve("lost", TO))
    assert session(store).steps == 2


def test_a_closed_store_may_be_used_again(store: SQLiteStore) -> None:
    """Closing gives up the file, not the totals."""
    store.execute(reserve("h", TO))
    store.close()
    store.close()

    assert session(store).steps == 1


def test_a_settlement_repeated_after_its_hold_was_forgotten_counts_once(
    store: SQLiteStore,
) -> None:
    """Its event outlives the hold, so a journal may be replayed however late."""
    store.execute(reserve("h", TO))
    store.execute(settle("h", TO))
    swept = store.execute(Sweep(now_ms=NOW_MS + SETTLED_RETENTION_MS))
    reply = store.execute(settle("h", TO))

    assert swept.forgotten == 1
    assert reply == Settled(is_applied=False)
    assert session(store).steps == 1


def test_a_ledger_of_the_first_schema_is_taken_over(tmp_path: Path) -> None:
    """What it has summed up stays, and what it did not know then is nothing."""
    path = tmp_path / "old.sqlite3"
    first = files("guardrails.stores.sqlite") / "migrations" / "0001_ledger.sql"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(first.read_text(encoding="utf-8"))
        cell = ("p", 0, "agent", "a", 5, 6, 1, 2, *[0] * 5)
        marks = ", ".join("?" * len(cell))
        connection.execute(f"INSERT INTO rollups VALUES ({marks})", cell)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()

    store = SQLiteStore(path)
    [spend] = store.history.spend(project_id="p", by="agent", since_ms=0, until_ms=1)
    store.close()

    assert (spend.name, spend.total_nano_usd, spend.steps) == ("a", 11, 3)
    assert (spend.latency_ms, spend.bytes_in, spend.bytes_out) == (0, 0, 0)


OF_ONE_DIMENSION = "WHERE dimension <> 'mix'"

MIGRATIONS = sorted(
    (Path(str(files("guardrails.stores.sqlite"))) / "migrations").glob("*.sql")
)


@settings(max_examples=15, deadline=None)
@given(events=event_lists())
def test_a_ledger_without_mixes_gets_them_from_its_events(events: list[Event]) -> None:
    """Then all its cells are as if they had been written today."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        with closing(SQLiteStore(path)) as store:
            store.secret()
            for event in events:
                store.execute(settle_of(event))
        today = cells(path)
        earlier = Path(folder) / "earlier.sqlite3"
        with closing(sqlite3.connect(earlier)) as connection:
            for script in MIGRATIONS[:3]:
                connection.executescript(script.read_text("utf-8"))
            connection.execute("ATTACH ? AS today", (str(path),))
            for table, which in (("events", ""), ("rollups", OF_ONE_DIMENSION)):
                found = connection.execute(f"PRAGMA table_info({table})")
                columns = ", ".join(name for _, name, *_ in found)
                connection.execute(
                    f"INSERT INTO {table} ({columns}) "
                    f"SELECT {columns} FROM today.{table} {which}"
                )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("PRAGMA user_version = 3")
            connection.commit()
        with closing(SQLiteStore(earlier)) as store:
            store.secret()

        assert cells(earlier) == today


def cells(path: Path) -> set[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        # Layers were not known before.
        query = "SELECT * FROM rollups WHERE dimension <> 'layer'"
        return set(connection.execute(query))


def test_keeps_one_secret_for_all_who_open_the_file(file: Path) -> None:
    """Two processes of one agent fingerprint alike."""
    with closing(SQLiteStore(file)) as one, closing(SQLiteStore(file)) as other:
        assert one.secret() == other.secret()
