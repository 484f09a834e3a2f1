"""Forgetting a customer beside agents that go on: no limit and no call is lost."""

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

from guardrails.stores.retention import SQLiteRetention
from guardrails.stores.sqlite import SQLiteStore
from guardrails.testing.conformance import CENT, NOW_MS, charging, reserve, settle
from tests.stores.running import account

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
