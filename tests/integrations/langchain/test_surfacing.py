"""A stop reaches the code around the agent, once, and whoever caught it keeps it."""

import contextlib
import gc
import logging
import pickle
import warnings
from importlib.metadata import version
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphBubbleUp

from guardrails import BudgetExceeded, LoopDetected, SessionStopped
from tests.integrations.langchain.constructs import ASK, CONSTRUCTS
from tests.integrations.langchain.rig import Rig, says

IS_OLD = tuple(map(int, version("langchain").split(".")[:3])) < (1, 3, 18)


def swallowing(rig: Rig) -> Any:
    """Work that eats every error of its model, and of the chain around that."""
    model = rig.model(says())
    inner = RunnableLambda(model.invoke)

    def work(value: str) -> str:
        with contextlib.suppress(Exception):
            inner.invoke(value)
        return "fine"

    return RunnableLambda(work)


def test_a_stop_that_the_agent_ate_is_raised_by_the_agent() -> None:
    """Also without a session around, where nobody else would raise it."""
    rig = Rig(max_steps=0)
    with pytest.raises(BudgetExceeded):
        rig.guard.wrap(swallowing(rig), agent="a").invoke("hi")


@pytest.mark.parametrize("output", ["text", 7, None, {"a": 1}, ["__interrupt__"]])
def test_a_stop_is_raised_whatever_the_agent_returns(output: object) -> None:
    """What a run returns says nothing about what it ate."""
    rig = Rig(max_steps=0)
    model = rig.model(says())

    def work(value: str) -> object:
        with contextlib.suppress(Exception):
            model.invoke(value)
        return output

    with rig.guard.session(), pytest.raises(BudgetExceeded):
        RunnableLambda(work).invoke("hi")
    assert rig.guard.engine.failures == 0


def test_leaving_the_session_raises_what_was_masked_by_another_error() -> None:
    """The error that masked the stop is its cause."""
    rig = Rig(max_steps=0)
    model = rig.model(says())

    def work(value: str) -> None:
        try:
            model.invoke(value)
        except Exception as error:
            raise KeyError("masked") from error

    with pytest.raises(BudgetExceeded) as caught, rig.guard.session():
        RunnableLambda(work).invoke("hi")
    assert isinstance(caught.value.__cause__, KeyError)


def test_leaving_the_session_raises_what_was_masked_and_then_caught() -> None:
    """The user saw a KeyError only, so the stop is still news."""
    rig = Rig(max_steps=0)
    model = rig.model(says())

    def work(value: str) -> None:
        try:
            model.invoke(value)
        except Exception as error:
            raise KeyError("masked") from error

    with pytest.raises(BudgetExceeded), rig.guard.session(), pytest.raises(KeyError):
        RunnableLambda(work).invoke("hi")


def test_a_stop_that_the_agent_ate_ends_the_chains_that_follow() -> None:
    """The run that ate it goes no further than to the next thing it starts."""
    rig, ran = Rig(max_steps=0), []
    model, then = rig.model(says()), RunnableLambda(ran.append)

    def work(value: str) -> None:
        with contextlib.suppress(BudgetExceeded):
            model.invoke(value)
        then.invoke(value)

    with rig.guard.session(), pytest.raises(BudgetExceeded):
        RunnableLambda(work).invoke("hi")
    assert ran == []


def eats_its_models_stop(rig: Rig) -> Any:
    model = rig.model(says())

    def work(q: str) -> str:
        with contextlib.suppress(Exception):
            return model.invoke(q).text
        return "no answer"

    tool = rig.tool(work=work)
    tool.return_direct = True
    return tool


def test_a_stop_that_the_last_tool_ate_is_raised_by_the_agent() -> None:
    """No model call follows that the ledger could refuse."""
    rig = Rig(max_steps=2)
    tool = eats_its_models_stop(rig)
    agent = rig.guard.wrap(create_agent(rig.model(rig.calls_tool()), [tool]))
    with pytest.raises(BudgetExceeded):
        agent.invoke(ASK)


def test_leaving_the_session_raises_what_a_bare_tool_ate() -> None:
    """The end of a tool is no place to raise: it has done its work."""
    rig = Rig(max_steps=1)
    tool = eats_its_models_stop(rig)
    with pytest.raises(BudgetExceeded), rig.guard.session():
        assert tool.invoke({"q": "hi"}) == "no answer"


def left_by_break(parts: Any) -> None:
    for _ in parts:
        break


def closed(parts: Any) -> None:
    next(parts)
    parts.close()


@pytest.mark.parametrize("read", [left_by_break, closed])
def test_leaving_the_session_raises_what_a_stream_ate_that_was_left(read: Any) -> None:
    """Python would swallow what is raised while it collects the stream."""
    rig = Rig(max_steps=0)
    with pytest.raises(BudgetExceeded), rig.guard.session():
        read(swallowing(rig).stream("hi"))


@pytest.mark.parametrize("read", [left_by_break, closed])
def test_a_run_raises_what_a_stream_inside_ate_that_was_left(read: Any) -> None:
    """Also without a session around."""
    rig = Rig(max_steps=0)
    eats = swallowing(rig)
    chain = RunnableLambda(lambda q: read(eats.stream(q)))
    with pytest.raises(BudgetExceeded):
        rig.guard.wrap(chain, agent="a").invoke("hi")


def test_a_stop_that_a_stream_ate_is_raised_where_it_is_closed() -> None:
    """Without a session around, nobody else would raise it."""
    rig = Rig(max_steps=0)
    with pytest.raises(BudgetExceeded):
        closed(rig.guard.wrap(swallowing(rig), agent="a").stream("hi"))


def test_a_stop_that_was_caught_in_the_session_is_not_raised_again() -> None:
    """It was the caller's to handle; the session remembers it in its status."""
    rig = Rig(max_steps=1)
    built = CONSTRUCTS["agent"](rig)
    with rig.guard.session() as session, pytest.raises(BudgetExceeded):
        built.runnable.invoke(built.value)
    assert session.status == "budget_exceeded"


def test_a_stop_of_a_bare_model_that_was_caught_is_not_raised_again() -> None:
    """There is no run around the model that could have eaten it."""
    rig = Rig(max_steps=0)
    with rig.guard.session(), pytest.raises(BudgetExceeded):
        rig.model(says()).invoke("hi")


def test_a_stop_on_its_way_out_is_raised_once() -> None:
    """The session adds nothing to what passes through it."""
    rig = Rig(max_steps=0)
    with pytest.raises(BudgetExceeded) as caught, rig.guard.session():
        CONSTRUCTS["agent"](rig).runnable.invoke(ASK)
    assert caught.value.__cause__ is None


async def test_leaving_an_asynchronous_session_raises_what_was_masked() -> None:
    """`async with` ends like `with`."""
    rig = Rig(max_steps=0)
    model = rig.model(says())

    async def work(value: str) -> None:
        try:
            await model.ainvoke(value)
        except Exception as error:
            raise KeyError("masked") from error

    with pytest.raises(BudgetExceeded):
        async with rig.guard.session():
            await RunnableLambda(work).ainvoke("hi")


def test_a_stop_passes_langgraph_as_control_flow_and_pickles_as_our_own() -> None:
    """What travels is both kinds; what another process gets is the public one."""
    rig = Rig(max_steps=3)
    with pytest.raises(BudgetExceeded) as caught, rig.guard.session("main"):
        CONSTRUCTS["agent"](rig).runnable.invoke(ASK)

    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(caught.value, GraphBubbleUp)
    assert type(copy) is BudgetExceeded
    assert str(copy) == str(caught.value)
    assert (copy.limit, copy.steps, copy.agent) == ("max_steps", 3, "main")
    assert copy.top_costs == caught.value.top_costs


def test_a_loop_and_a_kill_travel_as_their_own_kinds() -> None:
    """Users tell them apart by class; they are no budgets."""
    rig = Rig(config={"defaults": {"loop": {"action": "stop"}}})
    rig.repeats = True
    with pytest.raises(LoopDetected) as caught, rig.guard.session():
        CONSTRUCTS["agent"](rig).runnable.invoke(ASK)
    assert type(pickle.loads(pickle.dumps(caught.value))) is LoopDetected

    rig.guard.stop("s-2", reason="too late at night")
    with pytest.raises(SessionStopped) as killed, rig.guard.session(session_id="s-2"):
        CONSTRUCTS["agent"](rig).runnable.invoke(ASK)
    assert killed.value.reason == "killed"
    assert not isinstance(killed.value, BudgetExceeded)


def test_langchain_does_not_log_a_stop_as_an_error_of_a_callback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is no error: what there is to say, the guard's own log says."""
    rig = Rig(max_steps=3)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BudgetExceeded), rig.guard.session():
        CONSTRUCTS["agent"](rig).runnable.invoke(ASK)
    assert "callback" not in caplog.text


def test_other_handlers_errors_are_still_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only our own stops are left out of LangChain's log."""

    class Broken(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            raise KeyError("a bug of somebody else")

    with Rig().guard.session():
        RunnableLambda(str).invoke(1, {"callbacks": [Broken()]})
    assert "Error in Broken.on_chain_start callback" in caplog.text


@pytest.mark.parametrize("batch", [1, 3])
async def test_a_stop_leaves_no_coroutine_of_other_handlers_behind(batch: int) -> None:
    """LangChain makes those first; Python warns about each that nobody awaits."""
    rig = Rig(max_steps=0)
    messages = [[HumanMessage("hi")]] * batch
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with rig.guard.session():
            with pytest.raises(BudgetExceeded):
                await rig.model(says()).agenerate(
                    messages, callbacks=[AsyncCallbackHandler()]
                )
        gc.collect()
    assert caught == []


class Starts(BaseCallbackHandler):
    """Counts what LangChain was about to call; it is told before the guard is."""

    def __init__(self) -> None:
        self.count = 0

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.count += 1

    def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        self.count += 1


@pytest.mark.skipif(IS_OLD, reason="langchain before 1.3.18 retries control flow too")
@pytest.mark.parametrize("max_steps", [3, 4])
@pytest.mark.parametrize(
    "construct",
    [
        "tool_retry",
        "tool_error",
        "model_retry",
        "model_retry_error",
        "model_fallback",
        "tool_node_errors",
        "node_retry_policy",
    ],
)
def test_a_stop_is_not_tried_again(construct: str, max_steps: int) -> None:
    """Retries would only wait: what LangGraph takes for control flow passes them."""
    rig, starts = Rig(max_steps=max_steps), Starts()
    built = CONSTRUCTS[construct](rig)
    with pytest.raises(BudgetExceeded), rig.guard.session():
        built.runnable.invoke(built.value, {"callbacks": [starts]})
    assert starts.count == rig.record.runs + 1


def test_a_run_stays_stopped_where_the_budget_has_room_for_a_smaller_call() -> None:
    """A shared budget stops no session, so the run itself remembers its stop."""
    budget = {"per": ["customer_id"], "every": "month", "max_cost_usd": "0.008"}
    rig = Rig(config={"budgets": [{"name": "customer", **budget}]})
    model, tool = rig.model(says()), rig.tool()

    def work(value: str) -> str:
        with contextlib.suppress(BudgetExceeded):
            model.invoke(value)  # A cent.
        return tool.invoke({"q": value})  # Half a cent.

    with rig.guard.session(customer_id="acme") as session:
        with pytest.raises(BudgetExceeded) as caught:
            RunnableLambda(work).invoke("hi")
        rig.tool().invoke({"q": "what comes after the run"})

    assert caught.value.scope == "customer_id=acme"
    assert rig.record.entries == ["stop", "admitted tool", "tool"]
    assert session.status == "completed"


# --- a session inside a tool ------------------------------------------------


def nested(rig: Rig, *, catches: bool) -> Any:
    """An agent whose tool runs another agent in a session of its own."""
    helper = create_agent(rig.model(rig.calls_tool("lookup")), [rig.tool("lookup")])

    def work(q: str) -> str:
        errors = (SessionStopped,) if catches else ()
        try:
            with rig.guard.session("helper"):
                helper.invoke(ASK)
        except errors:
            return "the helper ran out of budget"
        return "done"

    async def awork(q: str) -> str:
        errors = (SessionStopped,) if catches else ()
        try:
            async with rig.guard.session("helper"):
                await helper.ainvoke(ASK)
        except errors:
            return "the helper ran out of budget"
        return "done"

    def main(number: int, messages: Any) -> AIMessage:
        asks = rig.calls_tool()
        return AIMessage("finished") if number else asks(number, messages)

    return create_agent(rig.model(main), [rig.tool(work=work, awork=awork)])


def nesting(*, main: int, helper: int) -> Rig:
    """Limits of the steps of an agent and of the one that its tool runs."""
    budgets = {
        "main": {"session": {"max_steps": main}},
        "helper": {"session": {"max_steps": helper}},
    }
    return Rig(config={"agents": budgets})


def test_the_stop_of_a_nested_session_can_be_handled_in_the_tool() -> None:
    """It is over with the nested session: the outer one has budget, and goes on."""
    rig = nesting(main=50, helper=3)
    with rig.guard.session("main") as session:
        result = nested(rig, catches=True).invoke(ASK)

    assert result["messages"][-1].content == "finished"
    assert result["messages"][-2].content == "the helper ran out of budget"
    assert session.status == "completed"
    assert session.steps == rig.record.runs == 6


async def test_the_stop_of_a_nested_session_can_be_handled_in_asyncio() -> None:
    """The outer session has budget, and goes on."""
    rig = nesting(main=50, helper=3)
    async with rig.guard.session("main") as session:
        result = await nested(rig, catches=True).ainvoke(ASK)

    assert result["messages"][-1].content == "finished"
    assert session.steps == rig.record.runs == 6


def test_the_stop_of_a_nested_session_reaches_the_outside_if_nobody_handles_it() -> (
    None
):
    """It ends the run like any error of a tool, but not the outer session."""
    rig = nesting(main=50, helper=3)
    with pytest.raises(BudgetExceeded) as caught, rig.guard.session("main") as session:
        nested(rig, catches=False).invoke(ASK)

    assert caught.value.agent == "helper"
    assert session.status == "completed"  # The outer budget is not used up.


def test_the_outer_limit_ends_a_nested_session_too() -> None:
    """Both are charged; handling the stop in the tool does not lift the outer one."""
    rig = nesting(main=4, helper=50)
    with pytest.raises(BudgetExceeded), rig.guard.session("main") as session:
        nested(rig, catches=True).invoke(ASK)

    assert session.status == "budget_exceeded"
    assert session.steps == rig.record.runs == 4
    assert not rig.record.started_after_stop()


@pytest.mark.parametrize("construct", ["agent", "tool_retry"])
def test_a_failure_of_ours_hides_no_stop(
    construct: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails while a call is being refused is contained; the stop is not."""

    def fail(run_id: object) -> None:
        raise RuntimeError

    rig = Rig(max_steps=3)
    built = CONSTRUCTS[construct](rig)
    monkeypatch.setattr("guardrails_langchain.callbacks.handler.withdraw", fail)
    with pytest.raises(BudgetExceeded), rig.guard.session("main"):
        built.runnable.invoke(built.value)

    assert rig.guard.engine.failures >= 1
    assert rig.record.runs == 3
