"""Event loops that somebody watches, as `langgraph dev` does with BlockBuster.

Every use of a file or a socket raises there. A hook has to ask the ledger before a call
is made, and LangChain awaits none whose error it lets through.
"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, BlockingError
from langchain.agents import create_agent

from guardrails import BudgetExceeded, Guard
from guardrails_langchain import GuardMiddleware
from tests.integrations.langchain.constructs import ASK
from tests.integrations.langchain.rig import Rig


@pytest.fixture
def guard(shared_url: str, tmp_path: Path, patient: None) -> Iterator[Guard]:
    """Made before the loop runs, like that of a module."""
    guard = Guard(store=shared_url, project_id=f"watched-{tmp_path.name}", max_steps=5)
    yield guard
    guard.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "guardrails.yaml"
    path.write_text("defaults: {session: {max_steps: 1}}\n", encoding="utf-8")
    return path


@pytest.fixture
def watched(guard: Guard, config: Path) -> Iterator[None]:
    watcher = BlockBuster()
    watcher.activate()
    yield
    watcher.deactivate()


def assert_host_is_watched() -> None:
    """Only what is ours may block: the watcher finds the host's mistakes as before."""
    one, other = socket.socketpair()
    with one, other, pytest.raises(BlockingError):
        one.send(b"x")


@pytest.mark.usefixtures("watched")
async def test_an_agent_is_stopped_where_blocking_calls_raise(guard: Guard) -> None:
    rig = Rig()
    agent = create_agent(
        rig.model(rig.calls_tool()),
        [rig.tool()],
        middleware=[GuardMiddleware(guard, session_id="s-1")],
    )
    with pytest.raises(BudgetExceeded):
        await agent.ainvoke(ASK)

    assert rig.record.runs == 5
    assert not guard.store.is_degraded
    assert guard.engine.failures == 0
    assert_host_is_watched()


@pytest.mark.usefixtures("watched")
async def test_code_is_guarded_where_blocking_calls_raise(guard: Guard) -> None:
    """Sync and async, and what is read of a session afterwards."""
    async with guard.session(session_id="s-1") as session:
        with guard.call(tool="search", cost_usd="0.01"):
            pass
        async with guard.call(tool="search", cost_usd="0.01"):
            pass
        assert (len(session.events()), session.steps) == (2, 2)
        assert [row.calls for row in guard.spend(by=["tool"])] == [2]

    assert not guard.store.is_degraded
    assert guard.engine.failures == 0
    assert_host_is_watched()


@pytest.mark.usefixtures("watched")
async def test_a_guard_can_be_made_where_blocking_calls_raise(
    shared_url: str, config: Path
) -> None:
    """LangGraph's server calls a function that makes a graph on its loop."""
    guard = Guard(config, store=shared_url, project_id="made")
    with guard.session(), guard.call(tool="search"):
        pass
    guard.reload()
    guard.close()

    assert guard.engine.failures == 0
    assert_host_is_watched()
