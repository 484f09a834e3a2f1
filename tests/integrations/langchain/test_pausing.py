"""`on_limit: pause`: a person is asked, who raises the limit or lets it end."""

import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from guardrails import BudgetExceeded, SessionStopped
from guardrails.ports import History
from guardrails.stores.memory import MemoryStore
from guardrails.testing import FakeClock
from guardrails_langchain import GuardMiddleware
from tests.integrations.langchain import modes
from tests.integrations.langchain.constructs import ASK
from tests.integrations.langchain.rig import CENT, Rig, Script
from tests.integrations.langchain.strict import defects_of

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t-1"}}
SYNC = [modes.invoke, modes.stream]
ASYNC = [modes.ainvoke, modes.astream, modes.astream_events]


def pausing(**options: Any) -> Rig:
    options = {"max_cost_usd": "0.05", **options}
    return Rig(on_limit="pause", **options)


def works_until(rig: Rig, answers: int, times: int = 1) -> Script:
    """A script that calls tools until so many have really answered."""
    calls = rig.calls_tool(times=times)

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage | Exception:
        assert not defects_of(messages)
        found = [m for m in messages if m.type == "tool" and "found" in m.content]
        return AIMessage("done") if len(found) >= answers else calls(number, messages)

    return script


def agent_of(rig: Rig, model: Any, **options: Any) -> Any:
    tools = options.pop("tools", None) or [rig.tool()]
    options = {"checkpointer": InMemorySaver(), **options}
    middleware = [GuardMiddleware(rig.guard, agent="main")]
    return create_agent(model, tools, middleware=middleware, **options)


def question_of(agent: Any, thread: Any = THREAD) -> dict[str, Any]:
    (interrupt,) = agent.get_state(thread).interrupts
    return interrupt.value


def account_of(rig: Rig) -> Any:
    account = rig.guard.account("t-1")
    assert account is not None
    assert account.held_nano_usd == 0
    return account


@pytest.mark.parametrize("mode", SYNC)
@pytest.mark.parametrize("times", [1, 3], ids=["one tool", "three at once"])
@pytest.mark.parametrize("is_around", [False, True], ids=["alone", "in a session"])
def test_a_person_raises_the_limit(mode: Any, times: int, is_around: bool) -> None:
    """One question, however many tools were refused, and one answer."""
    rig = pausing()
    model = rig.model(works_until(rig, 7, times))
    agent = agent_of(rig, model)
    answer = Command(resume={"max_cost_usd": "0.50", "by": "ann"})
    if is_around:
        with rig.guard.session("main"):
            mode(agent, ASK, THREAD)
    else:
        mode(agent, ASK, THREAD)
    question = question_of(agent)
    assert account_of(rig).posted_nano_usd <= 5 * CENT
    if is_around:
        with rig.guard.session("main"):
            mode(agent, answer, THREAD)
    else:
        mode(agent, answer, THREAD)

    assert question["limit"] == "max_cost_usd"
    assert question["reason"] == "budget_exceeded"
    assert question["allowed"] == "0.05"
    assert question["session_id"] == "t-1"
    assert {cost["name"] for cost in question["top_costs"]} == {"gpt-4o", "search"}
    messages = agent.get_state(THREAD).values["messages"]
    assert not defects_of(messages)
    assert messages[-1].content == "done"
    account = account_of(rig)
    assert account.steps == rig.record.runs
    assert account.posted_nano_usd == model.calls * CENT + rig.record.entries.count(
        "tool"
    ) * (CENT // 2)
    assert [entry.by for entry in rig.guard.audit()] == ["ann"]


@pytest.mark.parametrize("mode", ASYNC)
async def test_what_a_question_shows_is_not_read_on_the_event_loop(
    mode: Callable[..., Awaitable[Any]],
) -> None:
    """A fleet has many events, and other agents go on meanwhile."""
    store = ReadStore()
    rig = pausing(store=store)
    agent = agent_of(rig, rig.model(works_until(rig, 7)))

    await mode(agent, ASK, THREAD)

    assert question_of(agent)["top_costs"]
    assert store.readers
    assert threading.current_thread() not in store.readers


class ReadStore(MemoryStore):
    """A store that notes which threads read its history."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[threading.Thread] = []

    @property
    def history(self) -> History:
        self.readers.append(threading.current_thread())
        return super().history


@pytest.mark.parametrize("mode", ASYNC)
async def test_a_person_raises_the_limit_in_asyncio(
    mode: Callable[..., Awaitable[Any]],
) -> None:
    rig = pausing()
    agent = agent_of(rig, rig.model(works_until(rig, 7, 2)))
    await mode(agent, ASK, THREAD)
    await mode(agent, Command(resume={"max_cost_usd": "0.50"}), THREAD)

    messages = agent.get_state(THREAD).values["messages"]
    assert not defects_of(messages)
    assert messages[-1].content == "done"
    assert account_of(rig).steps == rig.record.runs


@pytest.mark.parametrize("answer", [False, {"stop": True}])
def test_a_person_lets_it_end(answer: Any) -> None:
    """As if it had raised at once; the thread can still go on later."""
    rig = pausing()
    model = rig.model(works_until(rig, 7))
    agent = agent_of(rig, model)
    agent.invoke(ASK, THREAD)
    calls = rig.record.runs
    with pytest.raises(BudgetExceeded) as caught:
        agent.invoke(Command(resume=answer), THREAD)

    assert caught.value.limit == "max_cost_usd"
    assert rig.record.runs == calls
    rig.guard.raise_limit("t-1", max_cost_usd="0.50")
    messages = agent.invoke(None, THREAD)["messages"]
    assert messages[-1].content == "done"
    assert not defects_of(messages)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("yes", "this is no answer"),
        ({"max_cost_usd": "much"}, "max_cost_usd: 'much'"),
        ({"max_cots_usd": "1"}, "'max_cots_usd' is no limit"),
    ],
)
def test_an_answer_that_is_no_use_is_asked_again(answer: Any, problem: str) -> None:
    rig = pausing()
    agent = agent_of(rig, rig.model(works_until(rig, 7)))
    agent.invoke(ASK, THREAD)
    agent.invoke(Command(resume=answer), THREAD)
    assert problem in question_of(agent)["problem"]
    agent.invoke(Command(resume={"max_cost_usd": "0.50"}), THREAD)

    assert agent.get_state(THREAD).values["messages"][-1].content == "done"


def test_too_little_more_is_asked_again() -> None:
    """Each raise goes as far as it goes; nothing is called twice for a question."""
    rig = pausing()
    model = rig.model(works_until(rig, 7))
    agent = agent_of(rig, model)
    agent.invoke(ASK, THREAD)
    for cents in (5.5, 7, 9, 11):
        usd = f"{cents / 100:.3f}"
        agent.invoke(Command(resume={"max_cost_usd": usd}), THREAD)
        assert question_of(agent)["allowed"].rstrip("0") == usd.rstrip("0")
        assert account_of(rig).posted_nano_usd <= cents * CENT
    agent.invoke(Command(resume={"max_cost_usd": "1"}), THREAD)

    messages = agent.get_state(THREAD).values["messages"]
    assert messages[-1].content == "done"
    assert not defects_of(messages)
    assert account_of(rig).steps == rig.record.runs


def test_what_is_raised_elsewhere_only_needs_a_nod() -> None:
    rig = pausing()
    agent = agent_of(rig, rig.model(works_until(rig, 7)))
    agent.invoke(ASK, THREAD)
    rig.guard.raise_limit("t-1", max_cost_usd="0.50")
    agent.invoke(Command(resume=True), THREAD)

    assert agent.get_state(THREAD).values["messages"][-1].content == "done"


def test_a_shared_budget_is_raised_elsewhere() -> None:
    """The question says so, when somebody tries."""
    shared = {"name": "all", "per": [], "every": "total", "max_cost_usd": 0.05}
    rig = pausing(max_cost_usd="1", config={"budgets": [shared]})
    agent = agent_of(rig, rig.model(works_until(rig, 7)))
    agent.invoke(ASK, THREAD)
    assert question_of(agent)["scope"] == "project"
    agent.invoke(Command(resume={"max_cost_usd": "9"}), THREAD)

    assert "is shared" in question_of(agent)["problem"]


def test_waiting_for_the_answer_takes_no_time() -> None:
    clock = FakeClock()
    rig = pausing(max_wall_time_s=60, clock=clock)
    rig.on_model_run = lambda runs: clock.advance(seconds=2)
    agent = agent_of(rig, rig.model(works_until(rig, 5)))
    with rig.guard.session("main"):
        agent.invoke(ASK, THREAD)
    clock.advance(seconds=86_400)
    with rig.guard.session("main") as session:
        agent.invoke(Command(resume={"max_cost_usd": "0.50"}), THREAD)

    assert agent.get_state(THREAD).values["messages"][-1].content == "done"
    assert session.wall_time_s == pytest.approx(2 * rig.provider_calls)


def test_without_a_checkpointer_it_raises(caplog: pytest.LogCaptureFixture) -> None:
    """And says so when the agent starts, not first at its limit."""
    rig = pausing()
    seen: list[str] = []
    rig.on_model_run = lambda runs: seen.append(caplog.text)
    agent = agent_of(rig, rig.model(works_until(rig, 7)), checkpointer=None)
    with caplog.at_level(logging.WARNING), pytest.raises(BudgetExceeded):
        agent.invoke(ASK)

    assert "this agent has no checkpointer" in seen[0]


def test_a_kill_asks_nobody() -> None:
    rig = pausing()
    rig.on_model_run = lambda runs: rig.guard.stop("t-1") if runs == 2 else None
    with pytest.raises(SessionStopped, match="killed"):
        agent_of(rig, rig.model(works_until(rig, 7))).invoke(ASK, THREAD)


def test_observing_asks_nobody() -> None:
    rig = pausing(mode="observe")
    agent = agent_of(rig, rig.model(works_until(rig, 7)))
    messages = agent.invoke(ASK, THREAD)["messages"]

    assert messages[-1].content == "done"


def test_an_agent_inside_asks_as_well() -> None:
    """In a tool of another; what that had done is not done again."""
    rig = Rig(
        on_limit="pause",
        config={"agents": {"inner": {"session": {"max_cost_usd": 0.025}}}},
    )
    inner = create_agent(
        rig.model(works_until(rig, 3)),
        [rig.tool()],
        middleware=[GuardMiddleware(rig.guard, agent="inner", session_id="s-inner")],
    )

    @tool
    def ask(q: str) -> str:
        """Asks the agent inside."""
        return "found: " + inner.invoke(ASK)["messages"][-1].content

    outer = rig.model(rig.calls_once("ask"))
    agent = agent_of(rig, outer, tools=[ask])
    agent.invoke(ASK, THREAD)
    assert question_of(agent)["session_id"] == "s-inner"
    agent.invoke(Command(resume={"max_cost_usd": "0.50"}), THREAD)

    messages = agent.get_state(THREAD).values["messages"]
    assert messages[-1].content == "done"
    assert not defects_of(messages)
    assert outer.calls == 2
    assert rig.record.entries.count("tool") == 3
