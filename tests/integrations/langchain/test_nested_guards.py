"""Sessions of two guards, one inside the other: neither hides the other."""

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from guardrails import BudgetExceeded, Guard
from guardrails_langchain import GuardMiddleware
from guardrails_langchain.testing import ScriptedChatModel

ASK = {"messages": [("user", "hi")]}


@pytest.mark.parametrize(("outer_steps", "inner_steps"), [(3, 100), (100, 3)])
def test_both_limits_hold(outer_steps: int, inner_steps: int) -> None:
    """Whichever guard is the stricter one stops the calls."""
    outer = Guard({}, store="memory://", max_steps=outer_steps)
    inner = Guard({}, store="memory://", max_steps=inner_steps)
    model = ScriptedChatModel(script=lambda number, messages: AIMessage(content="x"))
    with outer.session("outer") as around, inner.session("inner") as within:
        for _ in range(3):
            model.invoke("hi")
        with pytest.raises(BudgetExceeded):
            model.invoke("hi")

    assert model.calls == 3
    assert around.steps == 3
    assert within.steps == 3


def test_a_function_of_one_guard_is_counted_by_it_also_as_a_tool_of_the_other() -> None:
    """The call that LangChain opens for one guard is not the other's."""
    declaring = Guard({}, store="memory://")
    running = Guard({}, store="memory://")

    @tool
    @declaring.tool()
    def look(name: str) -> str:
        """Looks something up."""
        return name

    with running.session("runs") as session:
        look.invoke({"name": "x"})

    assert (declaring.current_session().steps, session.steps) == (1, 1)


def test_a_thread_is_one_session_of_its_guard_inside_a_session_of_another() -> None:
    """Else each run of it would begin with a whole budget."""
    guard = Guard({}, store="memory://", max_steps=3)
    model = ScriptedChatModel(script=lambda number, messages: AIMessage(content="x"))
    agent = create_agent(model, middleware=[GuardMiddleware(guard)])
    thread = {"configurable": {"thread_id": "t-1"}}
    with Guard({}, store="memory://").session("other"):
        for _ in range(3):
            agent.invoke(ASK, thread)
        with pytest.raises(BudgetExceeded):
            agent.invoke(ASK, thread)

    assert model.calls == 3
    assert [one.session_id for one in guard.sessions()] == ["t-1"]


def test_an_agent_is_in_its_guards_session_with_one_of_another_between() -> None:
    guard = Guard({}, store="memory://")
    model = ScriptedChatModel(script=lambda number, messages: AIMessage(content="x"))
    agent = create_agent(model, middleware=[GuardMiddleware(guard)])
    other = Guard({}, store="memory://")
    with guard.session("mine") as session, other.session("other"):
        agent.invoke(ASK)

    assert [one.session_id for one in guard.sessions()] == [session.session_id]
    assert session.steps == 1
