"""`on_limit: finish`: work ends early enough for one answer without tools.

Models and tools cost what the rig says: a cent and half a cent. Of ten cents, two
are kept for the closing call.
"""

import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelRetryMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from guardrails import BudgetExceeded, CallRefused, SessionStopped
from guardrails_langchain import GuardMiddleware
from guardrails_langchain.agents.requests import CLOSING_TEXT
from guardrails_langchain.testing import ScriptedChatModel
from tests.integrations.langchain import modes
from tests.integrations.langchain.constructs import ASK, NO_WAIT
from tests.integrations.langchain.rig import CENT, Rig, Script
from tests.integrations.langchain.strict import defects_of

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t-1"}}
SYNC = [modes.invoke, modes.stream]
ASYNC = [modes.ainvoke, modes.astream, modes.astream_events]


def finishing(**limits: Any) -> Rig:
    limits = {"max_cost_usd": "0.10", "closing_reserve_usd": "0.02", **limits}
    return Rig(on_limit="finish", **limits)


def works_on(rig: Rig, times: int = 1) -> Script:
    """A script that calls tools for ever, unless it is told to answer."""
    calls = rig.calls_tool(times=times)

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage | Exception:
        assert not defects_of(messages)
        if messages[-1].content == CLOSING_TEXT:
            return AIMessage("this is what I have")
        return calls(number, messages)

    return script


def agent_of(rig: Rig, model: Any, *more: Any, **options: Any) -> Any:
    tools = options.pop("tools", None) or [rig.tool()]
    guard = GuardMiddleware(rig.guard, **{"agent": "main", **options})
    return create_agent(
        model, tools, middleware=[guard, *more], checkpointer=InMemorySaver()
    )


def check(rig: Rig, agent: Any, model: ScriptedChatModel, thread: Any = THREAD) -> Any:
    """The thread ends with an answer, marked; one call was made without tools."""
    messages = agent.get_state(thread).values["messages"]
    assert not defects_of(messages)
    assert messages[-1].content == "this is what I have"
    assert all(message.content != CLOSING_TEXT for message in messages)
    asked = [request.get("tool_choice") for request in model.requests]
    assert asked == [None] * (model.calls - 1) + ["none"]
    mark = messages[-1].response_metadata["guardrails"]
    assert mark["cut_short"] is True
    account = rig.guard.account("t-1")
    assert account is not None
    assert account.held_nano_usd == 0
    assert account.steps == rig.record.runs
    return mark


@pytest.mark.parametrize("mode", SYNC)
@pytest.mark.parametrize("times", [1, 3], ids=["one tool", "three at once"])
@pytest.mark.parametrize("is_around", [False, True], ids=["alone", "in a session"])
def test_it_ends_with_an_answer(mode: Any, times: int, is_around: bool) -> None:
    rig = finishing()
    model = rig.model(works_on(rig, times))
    agent = agent_of(rig, model)
    if is_around:
        with rig.guard.session("main"):
            mode(agent, ASK, THREAD)
    else:
        mode(agent, ASK, THREAD)

    mark = check(rig, agent, model)
    assert mark["limit"] == "max_cost_usd"
    assert mark["scope"] == "session"
    account = rig.guard.account("t-1")
    assert account is not None
    assert 8 * CENT < account.posted_nano_usd <= 9 * CENT
    assert rig.guard.session(session_id="t-1").status == "budget_exceeded"


@pytest.mark.parametrize("mode", ASYNC)
@pytest.mark.parametrize("times", [1, 3], ids=["one tool", "three at once"])
async def test_it_ends_with_an_answer_in_asyncio(
    mode: Callable[..., Awaitable[Any]], times: int
) -> None:
    rig = finishing()
    model = rig.model(works_on(rig, times))
    agent = agent_of(rig, model)
    await mode(agent, ASK, THREAD)

    check(rig, agent, model)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_steps": 5},
        {"max_steps": 6},
        {"max_model_calls": 3},
        {"max_tool_calls": 2},
        {"max_cost_usd": "0.045", "closing_reserve_usd": "0.01"},
        {"max_cost_usd": "0.0499", "closing_reserve_usd": "0.01"},
    ],
    ids=str,
)
def test_every_limit_leaves_room_for_the_answer(limits: Any) -> None:
    """And none is passed by it."""
    rig = finishing(**{"max_cost_usd": "10", "closing_reserve_usd": "1", **limits})
    model = rig.model(works_on(rig))
    agent = agent_of(rig, model)
    agent.invoke(ASK, THREAD)

    check(rig, agent, model)
    account = rig.guard.account("t-1")
    assert account is not None
    assert account.steps <= limits.get("max_steps", 99)
    assert account.model_calls <= limits.get("max_model_calls", 99)
    assert account.tool_calls <= limits.get("max_tool_calls", 99)
    limit = float(limits.get("max_cost_usd", 10))
    assert account.posted_nano_usd <= limit * 1_000_000_000


def test_the_answer_comes_when_time_is_over() -> None:
    """Time has no reserve: nobody can spend it beforehand."""
    from guardrails.testing import FakeClock

    clock = FakeClock()
    rig = finishing(max_wall_time_s=10, clock=clock)
    rig.on_model_run = lambda runs: clock.advance(seconds=6)
    model = rig.model(works_on(rig))
    agent = agent_of(rig, model)
    with rig.guard.session("main"):
        agent.invoke(ASK, THREAD)

    assert check(rig, agent, model)["limit"] == "max_wall_time_s"
    assert model.calls == 3


def test_a_limit_is_closed_once() -> None:
    """The next message raises until the limit is raised; then the thread goes on."""
    rig = finishing(closing_reserve_usd="0.04")  # For four answers, if it were many.
    model = rig.model(works_on(rig))
    agent = agent_of(rig, model)
    agent.invoke(ASK, THREAD)
    calls = model.calls
    with pytest.raises(BudgetExceeded):
        agent.invoke(ASK, THREAD)
    assert model.calls == calls

    rig.guard.raise_limit("t-1", max_cost_usd="0.20")
    agent.invoke(None, THREAD)
    messages = agent.get_state(THREAD).values["messages"]
    assert not defects_of(messages)
    assert messages[-1].response_metadata["guardrails"]["cut_short"]
    account = rig.guard.account("t-1")
    assert account is not None
    assert 15 * CENT < account.posted_nano_usd <= 20 * CENT


def test_without_room_for_an_answer_it_raises() -> None:
    """Half a cent is kept, and the call costs a cent."""
    rig = finishing(max_cost_usd="0.05", closing_reserve_usd="0.001")
    model = rig.model(works_on(rig))
    agent = agent_of(rig, model)
    with pytest.raises(BudgetExceeded) as caught:
        agent.invoke(ASK, THREAD)

    assert caught.value.limit == "max_cost_usd"
    assert str(caught.value.allowed) == "0.049"
    assert not rig.record.started_after_stop()


def test_a_model_that_calls_tools_all_the_same_is_cut_off() -> None:
    """Its calls are taken out, so that the thread stays valid."""
    rig = finishing()
    model = rig.model(rig.calls_tool())
    agent = agent_of(rig, model)
    agent.invoke(ASK, THREAD)

    messages = agent.get_state(THREAD).values["messages"]
    assert not defects_of(messages)
    assert not messages[-1].tool_calls
    assert messages[-1].content


def test_a_provider_that_is_not_known_is_offered_no_tools() -> None:
    rig = finishing()

    class Model(ScriptedChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return super().bind_tools(tools, offered=len(tools), **kwargs)

    model = rig.model(works_on(rig), kind=Model, provider="somebody")
    agent = agent_of(rig, model)
    agent.invoke(ASK, THREAD)

    offered = [request.get("offered") for request in model.requests]
    assert offered == [1] * (model.calls - 1) + [None]
    messages = agent.get_state(THREAD).values["messages"]
    assert messages[-1].response_metadata["guardrails"]["cut_short"]


def test_another_provider_is_told_in_its_own_words_to_call_no_tools() -> None:
    """Where a middleware inside has it answer instead."""
    rig = finishing()
    other = rig.model(works_on(rig), provider="anthropic")

    class Chooses(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(model=other))

    agent = agent_of(rig, rig.model(works_on(rig), provider="openai"), Chooses())
    agent.invoke(ASK, THREAD)

    choices = [request.get("tool_choice") for request in other.requests]
    assert choices[-1] == {"type": "none"}
    assert not any(choices[:-1])


def test_a_kill_is_no_limit() -> None:
    rig = finishing()
    rig.on_model_run = lambda runs: rig.guard.stop("t-1") if runs == 3 else None
    model = rig.model(works_on(rig))
    with pytest.raises(SessionStopped, match="killed"):
        agent_of(rig, model).invoke(ASK, THREAD)

    assert model.calls == 3


def test_observing_ends_nothing() -> None:
    rig = finishing(mode="observe")
    script = works_on(rig)
    model = rig.model(lambda n, m: AIMessage("done") if n == 15 else script(n, m))
    agent = agent_of(rig, model)
    agent.invoke(ASK, THREAD)

    assert agent.get_state(THREAD).values["messages"][-1].content == "done"
    assert [request.get("tool_choice") for request in model.requests] == [None] * 16


def test_retries_inside_swallow_nothing() -> None:
    rig = finishing()
    model = rig.model(works_on(rig))
    retries = (ModelRetryMiddleware(**NO_WAIT), ToolRetryMiddleware(**NO_WAIT))
    agent = agent_of(rig, model, *retries)
    agent.invoke(ASK, THREAD)

    check(rig, agent, model)


def test_an_agent_inside_finishes_by_itself() -> None:
    """Its own budget ends it; the agent around goes on with what it answered."""
    rig = Rig(
        on_limit="finish",
        closing_reserve_usd="0.02",
        config={
            "agents": {
                "inner": {"session": {"max_cost_usd": 0.05}},
                "main": {"session": {"max_cost_usd": 1}},
            }
        },
    )
    inner = create_agent(
        rig.model(works_on(rig)),
        [rig.tool()],
        middleware=[GuardMiddleware(rig.guard, agent="inner")],
    )

    @tool
    def ask(q: str) -> str:
        """Asks the agent inside."""
        return inner.invoke(ASK)["messages"][-1].content

    outer = rig.model(rig.calls_once("ask"))
    agent = agent_of(rig, outer, tools=[ask])
    messages = agent.invoke(ASK, THREAD)["messages"]

    assert [m.content for m in messages if m.type == "tool"] == ["this is what I have"]
    assert messages[-1].content == "done"
    assert "guardrails" not in messages[-1].response_metadata
    assert rig.guard.session(session_id="t-1").status == "active"


@pytest.mark.parametrize("is_around", [False, True], ids=["alone", "in a session"])
def test_an_agent_inside_that_only_raises_is_answered_for(is_around: bool) -> None:
    """It spends what the agent around has; that one ends with an answer."""
    rig = finishing()
    inner = create_agent(rig.model(rig.calls_tool()), [rig.tool()])

    @tool
    def ask(q: str) -> str:
        """Asks the agent inside."""
        return inner.invoke(ASK)["messages"][-1].content

    model = rig.model(works_on_ask(rig))
    agent = agent_of(rig, model, tools=[ask])
    if is_around:
        with rig.guard.session("main"):
            agent.invoke(ASK, THREAD)
    else:
        agent.invoke(ASK, THREAD)

    messages = agent.get_state(THREAD).values["messages"]
    assert not defects_of(messages)
    assert messages[-1].content == "this is what I have"
    assert [m.status for m in messages if m.type == "tool"] == ["error"]
    assert model.calls == 2


def works_on_ask(rig: Rig) -> Script:
    calls = rig.calls_tool("ask")

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage | Exception:
        if messages[-1].content == CLOSING_TEXT:
            return AIMessage("this is what I have")
        return calls(number, messages)

    return script


def test_many_on_one_budget_never_pass_it() -> None:
    """Each ends with an answer or is refused; what they cost together fits."""
    shared = {"name": "all", "per": [], "every": "total", "max_cost_usd": 0.68}
    rig = finishing(config={"budgets": [shared]})
    ends: list[object] = []

    def work(number: int) -> None:
        agent = agent_of(rig, rig.model(works_on(rig)))
        thread = {"configurable": {"thread_id": f"t-{number}"}}
        try:
            messages = agent.invoke(ASK, thread)["messages"]
        except (BudgetExceeded, CallRefused) as end:
            ends.append(end)
        else:
            assert not defects_of(messages)
            ends.append(messages[-1].response_metadata["guardrails"]["cut_short"])

    run_all([threading.Thread(target=work, args=(number,)) for number in range(8)])

    sessions = [rig.guard.session(session_id=f"t-{n}") for n in range(8)]
    spent = [float(session.spent) for session in sessions]
    assert len(ends) == 8
    assert max(spent) <= 0.10
    assert 0.6 < round(sum(spent), 6) <= 0.68
    assert any(end is True for end in ends)


def test_many_in_one_session_never_pass_its_limit() -> None:
    """The same session in many threads: one of them makes the closing call."""
    rig = finishing()
    closed: list[int] = []

    def work(number: int) -> None:
        model = rig.model(works_on(rig))
        agent = agent_of(rig, model, session_id="t-1")
        with contextlib.suppress(BudgetExceeded, CallRefused):
            agent.invoke(ASK, {"configurable": {"thread_id": f"thread-{number}"}})
        closed.extend(
            n for r in model.requests if r.get("tool_choice") for n in [number]
        )

    run_all([threading.Thread(target=work, args=(number,)) for number in range(8)])

    account = rig.guard.account("t-1")
    assert account is not None
    assert account.held_nano_usd == 0
    assert account.posted_nano_usd <= 10 * CENT
    assert len(closed) == 1


def run_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
