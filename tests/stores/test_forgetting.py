"""Forgetting a customer beside agents that go on: no limit and no call is lost."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from guardrails.core.operations import Conflict, ReadAccount, Settled, Sweep
from guardrails.ports import KeptStore, Store
from guardrails.stores import open_store
from guardrails.stores.sqlite import SQLiteStore
from guardrails.stores.sqlite.retention import SQLiteRetention
from guardrails.testing.conformance import CENT, NOW_MS, charging, reserve, settle
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.stores.running import SESSION, SHARED, account

pytestmark = pytest.mark.usefixtures("patient")

DAY_MS = 86_400_000
LATER_MS = NOW_MS + 2 * DAY_MS


class Busy:
    """A ledger's file that an agent uses before each transaction of somebody else.

    Args:
        file: The file.
        act: What the agent does.
    """

    def __init__(self, file: SQLiteStore, act: Callable[[], object]) -> None:
        self.reading = file.reading
        self._file = file
        self._act = act

    @contextmanager
    def writing(self) -> Generator:
        self._act()
        with self._file.writing() as connection:
            yield connection


def test_a_session_that_becomes_active_meanwhile_stays(tmp_path: Path) -> None:
    """It is looked at again where it is deleted, so no budget starts anew."""
    path = tmp_path / "l.sqlite3"
    with closing(SQLiteStore(path)) as agents, closing(SQLiteStore(path)) as store:
        agents.execute(settle("early", charging()))

        def act() -> None:
            """Makes a call after the sessions were looked for."""
            pages = agents.history.event_pages(project_id="default")
            if not any(event.customer_id for page in pages for event in page):
                agents.execute(reserve("late", charging(), now_ms=LATER_MS))

        busy = SQLiteRetention(Busy(store, act))
        done = busy.forget(
            project_id="default", customer_id="acme", now_ms=LATER_MS, is_dry_run=False
        )

        assert (done.sessions, done.sessions_in_use) == (0, 1)
        row = account(agents)
        assert (row.posted_nano_usd, row.held_nano_usd, row.steps) == (CENT, CENT, 2)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with Server(next(iter(BINARIES.values()))) as server:
        yield server


@pytest.fixture(params=["sqlite", "server"])
def store(
    request: pytest.FixtureRequest, redis_server: Server, tmp_path: Path
) -> Iterator[Store]:
    redis_server.ask("FLUSHALL")
    url = f"sqlite:///{tmp_path}/l.sqlite3"
    if request.param == "server":
        url = redis_server.unix_url
    with closing(open_store(url)) as store:
        yield store


def forget_after_a_call_was_lost(store: Store) -> None:
    """Of two days ago, for 7 nano-USD at most."""
    store.execute(reserve("lost", charging(), cost=7))
    store.execute(Sweep(now_ms=NOW_MS + DAY_MS))
    assert isinstance(store, KeptStore)
    done = store.keeper.forget(
        project_id="default", customer_id="acme", now_ms=LATER_MS, is_dry_run=False
    )
    assert done.sessions == 1
    assert store.execute(ReadAccount(account=SESSION)) is None


@pytest.mark.parametrize("is_taken_up", [False, True])
def test_a_late_settlement_is_booked_after_its_session_was_forgotten(
    store: Store, *, is_taken_up: bool
) -> None:
    """And takes nothing from a session of that id that has begun since."""
    forget_after_a_call_was_lost(store)
    if is_taken_up:
        store.execute(settle("new", charging(), cost=2, now_ms=LATER_MS))

    late = store.execute(settle("lost", charging(), cost=5, now_ms=LATER_MS))
    again = store.execute(settle("lost", charging(), cost=5, now_ms=LATER_MS))

    assert late == Settled(is_late=True)
    assert again == Settled(is_applied=False)
    for key, steps in ((SESSION, 1 + is_taken_up), (SHARED, 1 + is_taken_up)):
        row = account(store, key)
        assert (row.posted_nano_usd, row.unconfirmed_nano_usd, row.steps) == (
            5 + 2 * is_taken_up,
            0,
            steps,
        ), key


def test_a_settlement_of_other_accounts_stays_a_conflict(store: Store) -> None:
    """Only the sessions that were forgotten may be missing from a hold."""
    forget_after_a_call_was_lost(store)
    other = charging()
    elsewhere = replace(other.lines[1], account="default/total/customer_id=b")
    op = settle("lost", replace(other, lines=(other.lines[0], elsewhere)))

    assert store.execute(op) == Conflict(hold_id="lost")
    assert account(store, SHARED).unconfirmed_nano_usd == 7
