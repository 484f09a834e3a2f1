"""Deadlines: a call that hangs in asyncio is broken off, booked, and the run ends."""

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage

from guardrails import BudgetExceeded, ConfigurationError, Guard
from guardrails_langchain import GuardMiddleware
from tests.integrations.langchain.constructs import ASK
from tests.integrations.langchain.rig import CENT, Rig, SlowChatModel, says


def agent_of(rig: Rig, model: Any, *tools: Any, **options: Any) -> Any:
    guard = GuardMiddleware(rig.guard, agent="main", session_id="s-1", **options)
    return create_agent(model, list(tools), middleware=[guard])


async def test_a_model_that_hangs_ends_with_the_wall_time() -> None:
    """It may have answered, so it is charged; the session is stopped for good."""
    rig = Rig(max_wall_time_s=0.2)
    model = rig.model(says(), kind=SlowChatModel)
    agent = agent_of(rig, model)

    with pytest.raises(BudgetExceeded) as stopped:
        await agent.ainvoke(ASK)

    assert stopped.value.limit == "max_wall_time_s"
    account = rig.guard.account("s-1")
    assert account is not None
    assert (account.posted_nano_usd, account.held_nano_usd) == (CENT, 0)
    assert account.stop is not None
    assert account.steps == 1


async def test_a_tool_that_hangs_ends_with_the_wall_time() -> None:
    rig = Rig(max_wall_time_s=0.3)

    async def hang(q: str) -> str:
        await asyncio.Event().wait()
        return q

    agent = agent_of(rig, rig.model(rig.calls_once()), rig.tool(awork=hang))
    with pytest.raises(BudgetExceeded) as stopped:
        await agent.ainvoke(ASK)

    assert stopped.value.limit == "max_wall_time_s"
    assert rig.record.entries.count("model") == 1


async def test_a_call_has_its_own_deadline() -> None:
    """The session goes on: what to do about a slow call is the program's choice."""
    rig = Rig(prices=None, max_wall_time_s=60)
    model = rig.model(says(), kind=SlowChatModel)
    agent = agent_of(rig, model, call_timeout_s=0.05)

    with pytest.raises(TimeoutError):
        await agent.ainvoke(ASK)

    account = rig.guard.account("s-1")
    assert account is not None
    assert account.stop is None
    (event,) = rig.guard.store.history.events(
        project_id="default", session_id="s-1", limit=10
    )
    assert account.posted_nano_usd == event.reserved_nano_usd  # It may be billed.
    assert account.held_nano_usd == 0
    model.go_on()
    assert (await agent.ainvoke(ASK))["messages"][-1].text


async def test_an_error_of_the_call_is_its_own() -> None:
    """A `TimeoutError` that a model raises is not that of a deadline."""
    rig = Rig(max_wall_time_s=60)
    agent = agent_of(rig, rig.model(lambda number, messages: TimeoutError("slow")))

    with pytest.raises(TimeoutError, match="slow"):
        await agent.ainvoke(ASK)

    account = rig.guard.account("s-1")
    assert account is not None
    assert account.stop is None


async def test_calls_in_time_notice_nothing() -> None:
    rig = Rig(max_wall_time_s=60)
    agent = agent_of(
        rig,
        rig.model(lambda number, messages: AIMessage("done")),
        call_timeout_s=60,
    )

    assert (await agent.ainvoke(ASK))["messages"][-1].text == "done"


@pytest.mark.parametrize("seconds", [0, -1, True, "5", float("inf")])
def test_a_time_that_is_none_is_refused(seconds: Any) -> None:
    guard = Guard({}, store="memory://")
    with pytest.raises(ConfigurationError, match="call_timeout_s: this is no time"):
        GuardMiddleware(guard, call_timeout_s=seconds)
