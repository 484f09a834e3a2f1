"""Waiting for a person: counted once, not timed, and no loop."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from guardrails.testing import FakeClock
from tests.integrations.langchain import modes
from tests.integrations.langchain.rig import Rig, tool_calls

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t-1"}}
ASK: dict[str, Any] = {"messages": [("user", "go on")]}
WAIT_SECONDS = 3_600
APPROVED = Command(resume={"decisions": [{"type": "approve"}]})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def rig(clock: FakeClock) -> Rig:
    """An hour of waiting would pass its limit; so would a second count."""
    config = {"defaults": {"loop": {"action": "stop", "repeats": 2}}}
    return Rig(config=config, max_wall_time_s=60, max_steps=3, clock=clock)


def answers_after_one_tool(rig: Rig, clock: FakeClock) -> Any:
    """A model that needs two seconds for each answer."""

    def script(number: int, messages: Any) -> AIMessage:
        clock.advance(seconds=2)
        if messages[-1].type == "tool":
            return AIMessage("finished")
        return tool_calls(("search", "q"), turn=0)

    return rig.model(script)


def asking_in_a_tool(rig: Rig, clock: FakeClock) -> Any:
    def work(q: str) -> str:
        return f"a person says {interrupt('may I?')}"

    model = answers_after_one_tool(rig, clock)
    return create_agent(model, [rig.tool(work=work)], checkpointer=InMemorySaver())


def asking_before_a_tool(rig: Rig, clock: FakeClock) -> Any:
    return create_agent(
        answers_after_one_tool(rig, clock),
        [rig.tool()],
        middleware=[HumanInTheLoopMiddleware(interrupt_on={"search": True})],
        checkpointer=InMemorySaver(),
    )


Build = Callable[[Rig, FakeClock], Any]
BUILDS = [asking_in_a_tool, asking_before_a_tool]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("mode", [modes.invoke, modes.stream])
@pytest.mark.parametrize("are_apart", [False, True], ids=["one session", "two"])
def test_waiting_for_a_person_costs_nothing(
    rig: Rig, clock: FakeClock, build: Build, mode: Any, are_apart: bool
) -> None:
    """The tool counts once, the hour not at all, and asking again is no loop."""
    agent = build(rig, clock)
    with rig.guard.session() as session:
        mode(agent, ASK, THREAD)
        if not are_apart:
            clock.advance(seconds=WAIT_SECONDS)
            mode(agent, APPROVED, THREAD)
    if are_apart:
        clock.advance(seconds=WAIT_SECONDS)
        with rig.guard.session() as session:
            mode(agent, APPROVED, THREAD)

    assert agent.get_state(THREAD).values["messages"][-1].content == "finished"
    assert session.session_id == "t-1"
    assert session.steps == len(session.events()) == 3
    assert rig.provider_calls == 2
    assert session.wall_time_s == pytest.approx(4)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("mode", [modes.ainvoke, modes.astream, modes.astream_events])
async def test_waiting_for_a_person_costs_nothing_in_asyncio(
    rig: Rig, clock: FakeClock, build: Build, mode: Callable[..., Awaitable[Any]]
) -> None:
    """The tool counts once, the hour not at all, and asking again is no loop."""
    agent = build(rig, clock)
    async with rig.guard.session() as session:
        await mode(agent, ASK, THREAD)
        clock.advance(seconds=WAIT_SECONDS)
        await mode(agent, APPROVED, THREAD)

    state = await agent.aget_state(THREAD)
    assert state.values["messages"][-1].content == "finished"
    assert session.steps == len(session.events()) == 3
    assert session.wall_time_s == pytest.approx(4)


def test_waiting_for_a_person_costs_nothing_without_a_session_around(
    rig: Rig, clock: FakeClock
) -> None:
    """The thread's session is closed at each end of the graph, and opened again."""
    agent = rig.guard.wrap(asking_in_a_tool(rig, clock), agent="main")
    agent.invoke(ASK, THREAD)
    clock.advance(seconds=WAIT_SECONDS)
    agent.invoke(APPROVED, THREAD)

    account = rig.guard.account("t-1")
    assert account is not None
    assert account.session is not None
    assert (account.steps, account.session.active_ms) == (3, 4_000)


def test_an_interrupt_gives_the_tools_price_back(rig: Rig, clock: FakeClock) -> None:
    """The tool has not done its work: it will run again from its first line."""
    agent = asking_in_a_tool(rig, clock)
    with rig.guard.session() as session:
        agent.invoke(ASK, THREAD)
        account = rig.guard.account("t-1")

    assert account is not None
    assert (account.tool_calls, account.held_nano_usd) == (0, 0)
    assert str(session.spent) == "0.01"
