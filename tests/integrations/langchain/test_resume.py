"""After a stop a thread goes on where it was: only what was blocked runs again."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

from guardrails import Attribution, BudgetExceeded
from guardrails.core.accounts import Stop
from guardrails_langchain import GuardCallbackHandler, GuardMiddleware
from tests.integrations.langchain.rig import Rig, TellsNobody, tool_calls

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t-1"}}
ASK: dict[str, Any] = {"messages": [("user", "go on")]}


@pytest.fixture(params=["memory", "sqlite"])
def saver(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A checkpointer that keeps threads in this process, or in a database."""
    if request.param == "memory":
        yield InMemorySaver()
    else:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        yield SqliteSaver(connection)
        connection.close()


def two_rounds(rig: Rig, tools_per_round: int = 1) -> Any:
    """A model that calls tools in two rounds and then answers."""

    def script(number: int, messages: Any) -> AIMessage:
        kinds = [message.type for message in messages]
        rounds = kinds[::-1].index("human") // (1 + tools_per_round)
        if rounds == 2:
            return AIMessage("finished")
        calls = [("search", f"q{rounds}-{index}") for index in range(tools_per_round)]
        return tool_calls(*calls, turn=rounds)

    return rig.model(script)


def results(state: Any) -> list[str]:
    return [m.content for m in state["messages"] if m.type == "tool"]


# Steps: model, tool, model, tool, model.
@pytest.mark.parametrize(("max_steps", "blocked"), [(2, "model"), (3, "tools")])
def test_a_thread_goes_on_where_it_was_stopped(
    saver: Any, max_steps: int, blocked: str
) -> None:
    """Raise the limit, invoke with nothing: no step is made or billed twice."""
    rig = Rig(max_steps=max_steps)
    agent = create_agent(two_rounds(rig), [rig.tool()], checkpointer=saver)
    with pytest.raises(BudgetExceeded) as caught, rig.guard.session():
        agent.invoke(ASK, THREAD)
    waiting = agent.get_state(THREAD).next
    assert caught.value.session_id is not None
    rig.guard.raise_limit(caught.value.session_id, max_steps=10)
    with rig.guard.session(session_id=caught.value.session_id) as session:
        state = agent.invoke(None, THREAD)

    assert waiting == (blocked,)
    assert state["messages"][-1].content == "finished"
    assert results(state) == ["found q0-0", "found q1-0"]
    assert rig.provider_calls == 3
    assert session.steps == rig.record.runs == len(session.events()) == 5
    assert str(session.spent) == "0.04"
    assert session.status == "completed"


async def test_a_thread_goes_on_in_asyncio() -> None:
    """The same in asyncio: no step is made or billed twice."""
    rig = Rig(max_steps=3)
    saver = InMemorySaver()
    agent = create_agent(two_rounds(rig), [rig.tool()], checkpointer=saver)
    with pytest.raises(BudgetExceeded):
        async with rig.guard.session():
            await agent.ainvoke(ASK, THREAD)
    rig.guard.raise_limit("t-1", max_steps=10)
    async with rig.guard.session() as session:
        state = await agent.ainvoke(None, THREAD)

    assert results(state) == ["found q0-0", "found q1-0"]
    assert session.steps == rig.record.runs == len(session.events()) == 5


def test_the_session_of_a_thread_has_its_id() -> None:
    """So that the budget of a conversation holds over many invocations."""
    rig = Rig(max_steps=10)
    agent = create_agent(two_rounds(rig), [rig.tool()], checkpointer=InMemorySaver())
    with rig.guard.session("main") as first:
        agent.invoke(ASK, THREAD)
    with rig.guard.session("main") as second:
        agent.invoke(ASK, THREAD)

    assert first.session_id == second.session_id == "t-1"
    assert second.steps == rig.record.runs == 10


@pytest.mark.parametrize(
    ("thread", "other"), [(0, 1), ("x" * 300 + "a", "x" * 300 + "b")]
)
def test_the_middleware_keeps_one_session_per_thread(thread: Any, other: Any) -> None:
    """Whatever threads are called: numbers from 0 on, or long texts alike at first."""
    rig = Rig(max_steps=6)
    guard = GuardMiddleware(rig.guard, agent="main")
    saver = InMemorySaver()
    agent = create_agent(
        two_rounds(rig), [rig.tool()], middleware=[guard], checkpointer=saver
    )

    def ask(thread_id: Any) -> None:
        agent.invoke(ASK, {"configurable": {"thread_id": thread_id}})

    ask(thread)
    with pytest.raises(BudgetExceeded):
        ask(thread)
    ask(other)

    assert [s.calls for s in rig.guard.sessions(sort="steps")] == [6, 5]


Attach = Callable[[Rig, Any], Any]


def wrapped(rig: Rig, agent: Any) -> Any:
    return rig.guard.wrap(agent, agent="main")


def called_back(rig: Rig, agent: Any) -> Any:
    return agent.with_config(callbacks=[GuardCallbackHandler(rig.guard)])


@pytest.mark.parametrize("attach", [wrapped, called_back])
def test_a_thread_goes_on_without_a_session_around(attach: Attach) -> None:
    """Each invocation finds the session of its thread by itself."""
    rig = Rig(max_steps=3)
    plain = create_agent(two_rounds(rig), [rig.tool()], checkpointer=InMemorySaver())
    agent = attach(rig, plain)
    with pytest.raises(BudgetExceeded):
        agent.invoke(ASK, THREAD)
    with pytest.raises(BudgetExceeded):
        agent.invoke(None, THREAD)
    assert rig.record.runs == 3
    rig.guard.raise_limit("t-1", max_steps=10)
    state = agent.invoke(None, THREAD)

    assert results(state) == ["found q0-0", "found q1-0"]
    account = rig.guard.account("t-1")
    assert account is not None
    assert account.steps == rig.record.runs == 5


# Steps: model, then three tools at once.
def test_tools_that_finished_beside_a_stop_keep_their_results(saver: Any) -> None:
    """Two of three parallel tools run; after the raise only the third does."""
    rig = Rig(max_steps=3)
    model = two_rounds(rig, tools_per_round=3)
    agent = create_agent(model, [rig.tool()], checkpointer=saver)
    with pytest.raises(BudgetExceeded), rig.guard.session():
        agent.invoke(ASK, THREAD)
    before = rig.record.entries.count("tool")
    rig.guard.raise_limit("t-1", max_steps=4)
    with pytest.raises(BudgetExceeded), rig.guard.session() as session:
        agent.invoke(None, THREAD)

    assert (before, rig.record.entries.count("tool")) == (2, 3)
    assert sorted(results(agent.get_state(THREAD).values)) == [
        "found q0-0",
        "found q0-1",
        "found q0-2",
    ]
    assert session.steps == rig.record.runs == len(session.events()) == 4


async def test_tools_that_finished_beside_a_stop_keep_their_results_in_asyncio() -> (
    None
):
    """A tool that is still running when its neighbour is refused is not cut off."""
    refused = asyncio.Event()

    class Sink(TellsNobody):
        def stopped(self, stop: Stop, attribution: Attribution) -> None:
            refused.set()

    rig = Rig(max_steps=3, sinks=[Sink()])

    async def slowly(q: str) -> str:
        await refused.wait()
        return f"found {q}"

    model = two_rounds(rig, tools_per_round=3)
    agent = create_agent(model, [rig.tool(awork=slowly)], checkpointer=InMemorySaver())
    with pytest.raises(BudgetExceeded):
        async with rig.guard.session():
            await agent.ainvoke(ASK, THREAD)
    rig.guard.raise_limit("t-1", max_steps=4)
    with pytest.raises(BudgetExceeded):
        async with rig.guard.session() as session:
            await agent.ainvoke(None, THREAD)

    assert rig.record.entries.count("tool") == 3
    assert len(results((await agent.aget_state(THREAD)).values)) == 3
    assert session.steps == rig.record.runs == len(session.events()) == 4


def test_a_person_lifts_the_stop_of_a_loop() -> None:
    """The repetitions that led to it are forgotten, so that three more are seen."""
    rig = Rig(config={"defaults": {"loop": {"action": "stop"}}})
    rig.repeats = True
    model = rig.model(rig.calls_tool())
    agent = create_agent(model, [rig.tool()], checkpointer=InMemorySaver())
    with pytest.raises(Exception, match="repeated 3 times"), rig.guard.session():
        agent.invoke(ASK, THREAD)
    rig.guard.resume("t-1")
    with pytest.raises(Exception, match="repeated 3 times"), rig.guard.session():
        agent.invoke(None, THREAD)

    assert rig.record.entries.count("tool") == 6
