"""Loops of real agents: refused in words that the model reads, then stopped.

What an agent repeats is in the store, so another process that goes on with its thread
goes on with its loop, too.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import ToolException
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from guardrails import LoopDetected
from guardrails_langchain import GuardMiddleware
from tests.integrations.langchain.rig import Rig, Script, tool_calls

ASK: Any = {"messages": [HumanMessage("Where is it?")]}
THREAD: Any = {"configurable": {"thread_id": "t-1"}}
BLOCK = {"defaults": {"loop": {"action": "block", "refusals": 2}}}

Build = Callable[[Rig, Script], Any]


def in_a_session(rig: Rig, script: Script) -> Any:
    return create_agent(rig.model(script), [rig.tool()])


def with_middleware(rig: Rig, script: Script) -> Any:
    middleware = GuardMiddleware(rig.guard, agent="a")
    return create_agent(rig.model(script), [rig.tool()], middleware=[middleware])


def by_hand(rig: Rig, script: Script) -> Any:
    """A graph of one's own, with LangGraph's tool node as it comes."""
    model = rig.model(script)

    def call_model(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_node("tools", ToolNode([rig.tool()]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


surfaces = pytest.mark.parametrize("build", [in_a_session, with_middleware, by_hand])


def heeds(rig: Rig, *calls: tuple[str, str]) -> Script:
    """Makes these calls in turn, until it reads that one was not run."""

    def script(number: int, messages: Iterable[BaseMessage]) -> AIMessage:
        last = [*messages][-1]
        if last.type == "tool" and str(last.content).startswith("Not run"):
            return AIMessage("I give up.")
        return tool_calls(calls[number % len(calls)], turn=number)

    rig.repeats = True
    return script


def repeats(rig: Rig) -> Script:
    rig.repeats = True
    return rig.calls_tool()


@surfaces
def test_a_model_that_reads_the_refusal_can_go_on(build: Build) -> None:
    """The call is answered like every other, and the session goes on."""
    rig = Rig(config=BLOCK)
    agent = build(rig, heeds(rig, ("search", "again")))
    with rig.guard.session("a", session_id="s") as session:
        messages = agent.invoke(ASK)["messages"]

    *_, asked, refused, answer = messages
    assert rig.record.entries.count("tool") == 3
    assert refused.tool_call_id == asked.tool_calls[0]["id"]
    assert refused.status == "error"
    assert refused.content == (
        "Not run: search was called 3 times with the same arguments and result, for "
        "$0.015. Do not repeat it; go on with what you have."
    )
    assert answer.content == "I give up."
    assert session.status == "completed"


@surfaces
def test_a_model_that_goes_on_all_the_same_is_stopped(build: Build) -> None:
    """Two refusals, as configured; the third time ends the session."""
    rig = Rig(config=BLOCK)
    agent = build(rig, repeats(rig))
    with (
        pytest.raises(LoopDetected, match="search repeated 3 times") as caught,
        rig.guard.session("a", session_id="s") as session,
    ):
        agent.invoke(ASK)

    assert rig.record.entries.count("tool") == 3
    assert rig.record.entries.count("model") == 3 + 3
    assert session.status == "loop_detected"
    assert (caught.value.kind, caught.value.tool) == ("identical", "search")
    assert (caught.value.count, str(caught.value.cost)) == (3, "0.015")


@surfaces
async def test_a_model_is_refused_and_stopped_in_asyncio(build: Build) -> None:
    """The same."""
    rig = Rig(config=BLOCK)
    agent = build(rig, repeats(rig))
    with pytest.raises(LoopDetected):
        async with rig.guard.session("a", session_id="s"):
            await agent.ainvoke(ASK)

    assert rig.record.entries.count("tool") == 3
    assert rig.record.entries.count("model") == 3 + 3


def test_a_round_of_calls_is_refused_by_name() -> None:
    """It says what is in the round, and how often it was made."""
    rig = Rig(config=BLOCK)
    script = heeds(rig, ("search", "x"), ("look", "y"))
    agent = create_agent(rig.model(script), [rig.tool(), rig.tool("look")])
    with rig.guard.session("a"):
        messages = agent.invoke(ASK)["messages"]

    assert rig.record.entries.count("tool") == 4
    assert messages[-2].content == (
        "Not run: search > look were called 2 times in this order, with the same "
        "arguments and results, for $0.02. Do not repeat them; go on with what you "
        "have."
    )


def test_a_tool_that_fails_in_the_same_way_is_refused() -> None:
    """Whatever it is asked, and although it turns its errors into messages."""
    rig = Rig(config=BLOCK)

    def fails(q: str) -> str:
        raise ToolException("no access")

    tool = rig.tool(work=fails)
    tool.handle_tool_error = True
    script = heeds(rig, *[("search", f"q{number}") for number in range(9)])
    agent = create_agent(rig.model(script), [tool])
    with rig.guard.session("a"):
        messages = agent.invoke(ASK)["messages"]

    assert rig.record.entries.count("tool") == 5
    assert messages[-2].content.startswith(
        "Not run: search failed 5 times in a row with the same error"
    )


# --- Other processes --------------------------------------------------------


def turn(folder: Path, calls: list[str]) -> str:
    """Lets an agent make these calls on its thread; returns how that ends."""
    rig = Rig(
        store=folder / "ledger.sqlite3",  # pyright: ignore[reportArgumentType]
        config={"defaults": {"loop": {"action": "stop"}}},
    )
    rig.repeats = True

    def script(number: int, messages: Iterable[BaseMessage]) -> AIMessage:
        if number == len(calls):
            return AIMessage("done")
        # As a provider's ids, they are other ones in each process.
        return tool_calls(("search", calls[number]), turn=os.getpid() * 100 + number)

    with SqliteSaver.from_conn_string(str(folder / "threads.sqlite3")) as saver:
        agent = create_agent(rig.model(script), [rig.tool()], checkpointer=saver)
        try:
            with rig.guard.session():
                agent.invoke(ASK, THREAD)
        except LoopDetected as loop:
            return f"{loop.kind} at {loop.count}"
        finally:
            rig.guard.close()
    return "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("turns", "ends"),
    [
        (["aa", "a"], ["done", "identical at 3"]),
        (["ab", "a", "b"], ["done", "done", "cycle at 4"]),
        (["aa", "b", "a"], ["done", "done", "done"]),
    ],
)
def test_a_thread_that_goes_on_in_another_process_goes_on_with_its_loop(
    tmp_path: Path, turns: list[str], ends: list[str]
) -> None:
    """A process for every turn of the conversation."""
    found: list[str] = []
    for calls in turns:
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(pool.submit(turn, tmp_path, [*calls]).result())

    assert found == ends
