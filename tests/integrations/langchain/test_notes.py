"""What a model is told of its budget: in a note, and if it asks."""

from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from guardrails import ConfigurationError, Guard
from guardrails_langchain import GuardMiddleware
from tests.integrations.langchain.constructs import ASK
from tests.integrations.langchain.rig import Rig, tool_calls

THREAD: Any = {"configurable": {"thread_id": "t-1"}}


def agent_of(rig: Rig, script: Any, **options: Any) -> Any:
    return create_agent(
        rig.model(script),
        [rig.tool()],
        middleware=[GuardMiddleware(rig.guard, agent="main", **options)],
        checkpointer=InMemorySaver(),
    )


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_model_near_its_limit_is_told_and_nobody_else(is_async: bool) -> None:
    """From 80 % of a limit on, in the request only."""
    rig = Rig(max_cost_usd="0.055", max_steps=100)
    seen: list[str | None] = []

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
        last = str(messages[-1].content)
        seen.append(last if last.startswith("Budget") else None)
        return AIMessage("done") if number == 3 else rig.calls_tool()(number, messages)

    agent = agent_of(rig, script, note_from=0.8)
    result = await agent.ainvoke(ASK, THREAD) if is_async else agent.invoke(ASK, THREAD)

    # A model's call costs a cent, a tool's half of one.
    assert seen == [
        None,
        None,
        None,
        "Budget: $0.01 of $0.055 (max_cost_usd) left. Finish before it is used up.",
    ]
    assert not any("Budget" in str(message.content) for message in result["messages"])


def test_a_model_can_ask_what_is_left() -> None:
    """Asking is a step like any other, and costs nothing."""
    rig = Rig(max_cost_usd="0.05", max_steps=10)

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
        if number == 0:
            return tool_calls(("get_budget", ""))
        return AIMessage(str(messages[-1].content))

    agent = agent_of(rig, script, budget_tool=True)
    answer = agent.invoke(ASK, THREAD)["messages"][-1].text

    assert answer == ("$0.035 of $0.05 (max_cost_usd) left, 8 of 10 (max_steps) left")


def test_without_being_asked_for_nothing_is_told() -> None:
    rig = Rig(max_cost_usd="0.01", max_steps=1)
    requests: list[Sequence[BaseMessage]] = []

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
        requests.append(messages)
        return AIMessage("done")

    agent_of(rig, script, note_from=None).invoke(ASK, THREAD)

    assert [len(messages) for messages in requests] == [1]


@pytest.mark.parametrize("share", [-0.1, 1.5, "80%", True, float("nan")])
def test_a_share_that_is_none_is_refused(share: Any) -> None:
    guard = Guard({}, store="memory://")
    with pytest.raises(ConfigurationError, match="note_from: this is no share"):
        GuardMiddleware(guard, note_from=share)
