"""Agents inside others and tools have limits of their own, in real graphs."""

from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from guardrails import BudgetExceeded
from guardrails_langchain import GuardMiddleware
from tests.integrations.langchain.constructs import ASK, CONSTRUCTS
from tests.integrations.langchain.rig import Rig
from tests.integrations.langchain.strict import defects_of


@pytest.mark.parametrize(
    ("construct", "agent"), [("agent_in_tool", "inner"), ("deep_agent", "helper")]
)
async def test_an_agent_inside_another_has_its_own_limit(
    construct: str, agent: str
) -> None:
    """However it is nested; and its limit ends the run, like any other."""
    config = {"agents": {agent: {"session": {"max_model_calls": 1}}}}
    rig = Rig(config=config)
    built = CONSTRUCTS[construct](rig)
    with pytest.raises(BudgetExceeded) as stopped:
        async with rig.guard.session("main"):
            await built.runnable.ainvoke(built.value)

    assert stopped.value.scope == f"session,agent={agent}"
    assert rig.record.entries.count("model") == 2  # One of each agent.
    assert not rig.record.started_after_stop()


@pytest.mark.parametrize("on_limit", ["raise", "finish", "pause"])
def test_a_tool_at_its_limit(on_limit: str) -> None:
    """It ends an agent that raises; others are told, and go on without it."""
    config = {"tools": {"search": {"max_calls": 2}}}
    rig = Rig(config=config, on_limit=on_limit, max_steps=20)
    calls = rig.calls_tool()

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage | Exception:
        assert not defects_of(messages)
        last = messages[-1]
        if isinstance(last, ToolMessage) and last.status == "error":
            return AIMessage(f"because: {last.content}")
        return calls(number, messages)

    agent = create_agent(
        rig.model(script),
        [rig.tool()],
        middleware=[GuardMiddleware(rig.guard, agent="main")],
        checkpointer=InMemorySaver(),
    )
    thread: Any = {"configurable": {"thread_id": "t-1"}}
    if on_limit == "raise":
        with pytest.raises(BudgetExceeded) as stopped:
            agent.invoke(ASK, thread)
        assert stopped.value.part == ("t-1", "tool", "search")
        rig.guard.raise_limit("t-1", tool="search", max_tool_calls=3)
        with pytest.raises(BudgetExceeded, match="3 of 3"):
            agent.invoke(None, thread)
        assert rig.record.entries.count("tool") == 3
    else:
        answer = agent.invoke(ASK, thread)["messages"][-1].text
        assert answer == (
            "because: Not done: search was called as often as it may be. Do without it."
        )
        assert rig.record.entries.count("tool") == 2


def test_a_person_can_raise_the_limit_of_an_agent_inside() -> None:
    """The answer to a pause is about the limit that was in the way."""
    config = {"agents": {"inner": {"session": {"max_model_calls": 1}}}}
    rig = Rig(config=config)
    built = CONSTRUCTS["agent_in_tool"](rig)
    with rig.guard.session("main", session_id="t-1"):
        with pytest.raises(BudgetExceeded) as stopped:
            built.runnable.invoke(built.value)
    assert stopped.value.part == ("t-1", "agent", "inner")
    assert "guard.raise_limit('t-1', agent='inner', max_model_calls=...)" in str(
        stopped.value
    )
