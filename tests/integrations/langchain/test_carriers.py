"""What other middlewares call in hooks of their own is their agent's to pay."""

from collections.abc import Callable, Sequence
from typing import Any, NotRequired

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    HumanInTheLoopMiddleware,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from guardrails import BudgetExceeded
from guardrails_langchain import GuardMiddleware
from tests.integrations.langchain import modes
from tests.integrations.langchain.constructs import ASK
from tests.integrations.langchain.rig import Rig, says

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t-1"}}


class Asks(AgentMiddleware[AgentState[Any], Any, Any]):
    """Asks a model in each hook, as those that write summaries or choose tools do."""

    def __init__(self, model: Runnable[Any, Any]) -> None:
        super().__init__()
        self._model = model

    def _ask(self, *given: object) -> None:
        self._model.invoke("what now?")

    async def _aask(self, *given: object) -> None:
        await self._model.ainvoke("what now?")

    def before_agent(self, state: Any, runtime: Any) -> None:
        self._ask()

    def before_model(self, state: Any, runtime: Any) -> None:
        self._ask()

    def after_model(self, state: Any, runtime: Any) -> None:
        self._ask()

    def after_agent(self, state: Any, runtime: Any) -> None:
        self._ask()

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        self._ask()
        return handler(request)

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        self._ask()
        return handler(request)

    async def abefore_agent(self, state: Any, runtime: Any) -> None:
        await self._aask()

    async def abefore_model(self, state: Any, runtime: Any) -> None:
        await self._aask()

    async def aafter_model(self, state: Any, runtime: Any) -> None:
        await self._aask()

    async def aafter_agent(self, state: Any, runtime: Any) -> None:
        await self._aask()

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        await self._aask()
        return await handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        await self._aask()
        return await handler(request)


def answers_after(rig: Rig, calls: int) -> Any:
    """A script that calls a tool so many times, and then answers."""

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
        done = sum(message.type == "tool" for message in messages)
        going_on = rig.calls_tool()(number, messages)
        return going_on if done < calls else AIMessage("done")

    return script


def agent_of(rig: Rig, *others: Any, is_first: bool = True, **options: Any) -> Any:
    """An agent that asks in all hooks, and is guarded by its middleware alone."""
    guard = GuardMiddleware(rig.guard, agent="main", **options)
    asks = Asks(rig.model(says()))
    return create_agent(
        rig.model(answers_after(rig, 2)),
        [rig.tool()],
        middleware=[guard, asks, *others] if is_first else [asks, *others, guard],
        checkpointer=InMemorySaver(),
    )


def steps_of(rig: Rig, session_id: str = "t-1") -> int:
    """What was booked, with nothing left open beside it."""
    account = rig.guard.account(session_id)
    assert account is not None
    assert (account.held_nano_usd, account.held_tokens) == (0, 0)
    return account.steps


ALL = 18
"""Three turns and two tools, and what is asked around them: 2, 9 and 2 times."""


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("mode", ["invoke", "stream"])
def test_what_is_asked_in_a_hook_is_booked(mode: str, is_first: bool) -> None:
    rig = Rig(max_steps=50)
    modes.SYNC[mode](agent_of(rig, is_first=is_first), ASK, THREAD)
    assert steps_of(rig) == rig.record.runs == ALL


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("mode", ["ainvoke", "astream", "astream_events"])
async def test_what_is_asked_in_a_hook_is_booked_in_asyncio(
    mode: str, is_first: bool
) -> None:
    rig = Rig(max_steps=50)
    await modes.ASYNC[mode](agent_of(rig, is_first=is_first), ASK, THREAD)
    assert steps_of(rig) == rig.record.runs == ALL


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("steps", range(ALL))
def test_no_limit_is_passed(steps: int, is_first: bool) -> None:
    rig = Rig(max_steps=steps)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, is_first=is_first).invoke(ASK, THREAD)
    assert steps_of(rig) == rig.record.runs == steps
    assert not rig.record.started_after_stop()


def test_a_run_without_a_thread_is_one_session() -> None:
    rig = Rig(max_steps=50)
    agent = create_agent(
        rig.model(answers_after(rig, 2)),
        [rig.tool()],
        middleware=[GuardMiddleware(rig.guard), Asks(rig.model(says()))],
    )
    agent.invoke(ASK)
    (row,) = rig.guard.spend(by="session_id")
    assert row.calls == rig.record.runs == ALL


def test_a_thread_that_goes_on_is_guarded_where_it_begins_with_a_hook() -> None:
    """No hook of ours is run before it."""
    rig = Rig(max_steps=50)
    person = HumanInTheLoopMiddleware(interrupt_on={"search": True})
    agent = agent_of(rig, person)
    agent.invoke(ASK, THREAD)
    approved = Command(resume={"decisions": [{"type": "approve"}]})
    agent.invoke(approved, THREAD)
    assert rig.record.runs < ALL
    agent.invoke(approved, THREAD)
    assert steps_of(rig) == rig.record.runs == ALL


@pytest.mark.parametrize("entry", ["session", "wrap"])
def test_what_is_guarded_already_counts_once(entry: str) -> None:
    rig = Rig(max_steps=50)
    agent = agent_of(rig)
    if entry == "wrap":
        rig.guard.wrap(agent, agent="main").invoke(ASK, THREAD)
    else:
        with rig.guard.session("main"):
            agent.invoke(ASK, THREAD)
    assert steps_of(rig) == rig.record.runs == ALL


def test_a_session_of_another_guard_hides_nothing() -> None:
    rig, other = Rig(max_steps=50), Rig(max_steps=50)
    agent = agent_of(rig)
    with other.guard.session("main", session_id="s-1"):
        agent.invoke(ASK, THREAD)
    assert steps_of(rig) == steps_of(other, "s-1") == rig.record.runs == ALL


class OtherMiddleware(GuardMiddleware):
    """Another name: LangChain refuses two of one."""


def test_two_guards_of_one_agent_see_the_same() -> None:
    rig, other = Rig(max_steps=50), Rig(max_steps=50)
    agent = agent_of(rig, OtherMiddleware(other.guard, agent="main"))
    agent.invoke(ASK, THREAD)
    assert steps_of(rig) == steps_of(other) == rig.record.runs == ALL


class Notes(AgentState[Any]):
    """A state of a kind of middleware of its own."""

    notes: NotRequired[list[str]]


class NotingMiddleware(GuardMiddleware):
    """A guard that keeps something of its own in the state."""

    state_schema = Notes

    def after_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"notes": [*state.get("notes", ()), "asked"]}


def test_a_guard_may_have_a_state_of_its_own() -> None:
    rig = Rig(max_steps=50)
    asks = Asks(rig.model(says()))
    agent = create_agent(
        rig.model(answers_after(rig, 2)),
        [rig.tool()],
        middleware=[NotingMiddleware(rig.guard, agent="main"), asks],
        checkpointer=InMemorySaver(),
    )
    assert agent.invoke(ASK, THREAD)["notes"] == ["asked"] * 3
    assert steps_of(rig) == rig.record.runs == ALL


def test_the_name_of_the_guard_is_in_no_state_that_is_kept() -> None:
    rig = Rig()
    agent = agent_of(rig)
    assert set(agent.invoke(ASK, THREAD)) == {"messages"}
    assert set(agent.get_state(THREAD).values) == {"messages"}
    assert "guardrails" not in str(agent.get_input_jsonschema())
