"""A host whose log fails: no stop is lost for it, and no call let pass."""

import contextlib
import contextvars
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails import BudgetExceeded, Guard, SessionStopped
from guardrails.config.reloading import LOOK_EVERY_MS
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.testing import FakeClock
from tests.integrations.mcp.peers import Seen, server, session_of
from tests.stores.flaky import FlakyStore


class Failing(logging.Filter):
    """Wants of each record what those of its own program have."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise AttributeError("request_id")


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    logger, failing = logging.getLogger("guardrails"), Failing()
    logger.addFilter(failing)
    yield
    logger.removeFilter(failing)


def cent(guard: Guard) -> GuardedCall:
    return guard.call(tool="report", cost_usd="0.01")


def test_a_stop_is_raised_and_not_what_its_warning_raises(
    capsys: pytest.CaptureFixture[str],
) -> None:
    guard = Guard({}, store="memory://", max_cost_usd="0.05", soft_alert_usd="0.02")
    with guard.session("a", session_id="s") as session, pytest.raises(BudgetExceeded):
        while True:
            with cent(guard):
                pass
    assert session.steps == 5
    assert guard.engine.failures == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("guardrails: soft alert: a has used $0.02")
    assert said[1].startswith("guardrails: a stopped: budget_exceeded")


async def test_no_call_of_mcp_passes_a_limit() -> None:
    seen, guard = Seen(), Guard({}, store="memory://", max_steps=3)
    async with session_of(guard, server(seen), server="geo") as session:
        for number in range(9):
            with contextlib.suppress(SessionStopped):
                await session.call_tool("echo", {"q": f"{number}"})
    assert len(seen.calls) == 3


def test_a_store_that_is_away_is_dealt_with_by_the_policy() -> None:
    store = FlakyStore()
    guard = Guard({}, store=store, max_steps=3)
    with guard.session("a", session_id="s"):
        with cent(guard):
            store.is_away = True
        with cent(guard), cent(guard):
            pass
        with pytest.raises(BudgetExceeded), cent(guard):
            pytest.fail("this would be made past the limit")
    assert guard.engine.failures == 0


def test_a_wrong_configuration_is_not_taken_up(tmp_path: Path) -> None:
    path, clock = tmp_path / "guardrails.yaml", FakeClock()
    path.write_text("version: 1\ndefaults: {session: {max_steps: 2}}\n")
    guard = Guard(path, store="memory://", clock=clock)
    with guard.session():
        with cent(guard):
            path.write_text("version: 1\ndefaults: {sessions: {max_steps: 9}}\n")
        for _ in range(2):  # It is read once it has not changed between two looks.
            clock.advance(seconds=LOOK_EVERY_MS / 1000)
            with contextlib.suppress(BudgetExceeded), cent(guard):
                pass
        with pytest.raises(BudgetExceeded), cent(guard):
            pytest.fail("this would be made past the limit")


def test_a_session_that_is_left_elsewhere_is_over() -> None:
    guard = Guard({}, store="memory://")
    session = guard.session("a", session_id="s-1")
    contextvars.copy_context().run(session.__enter__)
    session.__exit__(None, None, None)
    assert session.status == "completed"
