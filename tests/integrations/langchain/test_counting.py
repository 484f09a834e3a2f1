"""However a guard is attached, and however often: each call counts once."""

import asyncio
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

import guardrails_langchain
from guardrails import BudgetExceeded, ConfigurationError, Event, Guard
from guardrails.testing import FakeClock
from guardrails_langchain import GuardCallbackHandler, GuardMiddleware
from guardrails_langchain.reading import translate
from tests.integrations.langchain.constructs import ASK, CONSTRUCTS, NO_WAIT
from tests.integrations.langchain.modes import ASYNC, SYNC
from tests.integrations.langchain.rig import Rig, SlowChatModel, says

NAMES: dict[str, Any] = {"session_id": "s-1", "customer_id": "acme"}
NESTING = ["agent", "model_in_tool", "agent_in_tool", "parallel_tools", "deep_agent"]


def events_of(rig: Rig) -> list[Event]:
    history = rig.guard.store.history
    return list(history.events(project_id="default", session_id="s-1", limit=100))


def check(rig: Rig) -> None:
    """Steps, events and runs agree, and nothing was paid after the stop."""
    account = rig.guard.account("s-1")
    assert account is not None
    assert account.steps == rig.record.runs == len(events_of(rig))
    assert not rig.record.started_after_stop()
    assert account.held_nano_usd == 0
    assert {event.attribution.agent for event in events_of(rig)} >= {"main"}
    assert rig.guard.engine.failures == 0


# --- one way at a time, and all of them together ----------------------------

Attach = Callable[[Rig, Any], Any]


def wrapped(rig: Rig, target: Any) -> Any:
    return rig.guard.wrap(target, agent="main", **NAMES)


LANGGRAPH = tuple(int(part) for part in version("langgraph").split(".")[:2])


def called_back(rig: Rig, target: Any) -> Any:
    handler = GuardCallbackHandler(rig.guard, agent="main", **NAMES)
    return target.with_config(callbacks=[handler])


def twice(rig: Rig, target: Any) -> Any:
    return called_back(rig, wrapped(rig, called_back(rig, target)))


@contextmanager
def installed(rig: Rig) -> Iterator[None]:
    guardrails_langchain.install(rig.guard, agent="main", **NAMES)
    try:
        yield
    finally:
        guardrails_langchain.uninstall()


@pytest.mark.parametrize("attach", [wrapped, called_back, twice])
@pytest.mark.parametrize("construct", NESTING)
@pytest.mark.parametrize("mode", SYNC)
def test_counts_once_without_a_session(
    mode: str, construct: str, attach: Attach
) -> None:
    """A handler on the runnable sees all that is below, and counts it once."""
    rig = Rig(max_steps=5)
    built = CONSTRUCTS[construct](rig)
    target = attach(rig, built.runnable)
    if mode == "batch":
        results = SYNC[mode](target, built.value, {})
        assert all(isinstance(result, BudgetExceeded) for result in results)
    else:
        with pytest.raises(BudgetExceeded):
            SYNC[mode](target, built.value, {})
    check(rig)


@pytest.mark.parametrize("attach", [wrapped, called_back, twice])
@pytest.mark.parametrize("construct", NESTING)
@pytest.mark.parametrize("mode", ASYNC)
async def test_counts_once_without_a_session_in_asyncio(
    mode: str, construct: str, attach: Attach
) -> None:
    """A handler on the runnable sees all that is below, and counts it once."""
    if LANGGRAPH < (1, 2) and attach is called_back and mode == "astream_events":
        pytest.skip("langgraph 1.1 replaces a graph's own callbacks; wrap keeps them")
    rig = Rig(max_steps=5)
    built = CONSTRUCTS[construct](rig)
    target = attach(rig, built.runnable)
    if mode == "abatch":
        results = await ASYNC[mode](target, built.value, {})
        assert all(isinstance(result, BudgetExceeded) for result in results)
    else:
        with pytest.raises(BudgetExceeded):
            await ASYNC[mode](target, built.value, {})
    check(rig)


@pytest.mark.parametrize("construct", NESTING)
def test_counts_once_when_the_guard_is_installed(construct: str) -> None:
    """Nothing at all is passed to the agent."""
    rig = Rig(max_steps=5)
    built = CONSTRUCTS[construct](rig)
    with installed(rig), pytest.raises(BudgetExceeded):
        built.runnable.invoke(built.value)
    check(rig)


@pytest.mark.parametrize("construct", NESTING)
@pytest.mark.parametrize("mode", SYNC)
def test_counts_once_with_everything_at_once(mode: str, construct: str) -> None:
    """Session, wrap, two handlers in the config, and an installed guard."""
    rig = Rig(max_steps=5)
    built = CONSTRUCTS[construct](rig)
    target = twice(rig, built.runnable)
    config = {"callbacks": [GuardCallbackHandler(rig.guard, agent="main", **NAMES)]}
    with installed(rig), rig.guard.session("main", **NAMES):
        if mode == "batch":
            SYNC[mode](target, built.value, config)
        else:
            with pytest.raises(BudgetExceeded):
                SYNC[mode](target, built.value, config)
    check(rig)


# --- ids of runs that people choose -----------------------------------------


async def test_calls_at_once_under_one_run_id_are_each_guarded() -> None:
    """LangSmith's users choose `run_id`; one that is used twice is no way around."""
    rig = Rig(max_model_calls=3)
    model = rig.model(says(), kind=SlowChatModel)
    config: Any = {"run_id": uuid4()}
    async with rig.guard.session("main", **NAMES) as session:
        calls = [asyncio.create_task(model.ainvoke("x", config)) for _ in range(5)]
        await model.started()
        model.go_on()
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in results].count(AIMessage) == 3
    assert model.calls == session.steps == len(session.events()) == 3
    check(rig)


async def test_a_call_under_the_id_of_the_run_around_it_is_booked() -> None:
    """That run ends before it, and whose end is reported is not known."""
    rig = Rig(max_cost_usd="1", prices=None)
    model = rig.model(says(), kind=SlowChatModel)
    config: Any = {"run_id": uuid4()}
    calls: list[asyncio.Future[AIMessage]] = []

    async def begin(question: str) -> None:
        calls.append(asyncio.ensure_future(model.ainvoke(question, config)))
        await model.started()

    async with rig.guard.session("main", **NAMES) as session:
        await RunnableLambda(begin).ainvoke("x", config)
        model.go_on()
        await calls[0]

    (event,) = session.events()
    assert event.charge.cost_nano_usd == event.reserved_nano_usd
    check(rig)


@pytest.mark.parametrize("construct", ["plain_model", "agent", "model_in_tool"])
def test_the_id_of_a_run_may_be_a_text(construct: str) -> None:
    """As LangServe (0.3.3) passes it; LangChain takes both."""
    rig = Rig(max_steps=3)
    built = CONSTRUCTS[construct](rig)
    with pytest.raises(BudgetExceeded), rig.guard.session("main", **NAMES):
        for _ in range(5):
            built.runnable.invoke(built.value, {"run_id": str(uuid4())})

    assert rig.record.runs == 3
    check(rig)


@pytest.mark.parametrize("attach", [wrapped, twice])
async def test_a_call_that_is_tried_again_under_its_run_id_counts_again(
    attach: Attach,
) -> None:
    """The first one was cancelled, of which LangChain tells nobody."""
    rig = Rig(max_model_calls=3)
    model = rig.model(says(), kind=SlowChatModel)
    config: Any = {"run_id": uuid4()}
    async with rig.guard.session("main", **NAMES):
        for _ in range(3):
            call = asyncio.create_task(attach(rig, model).ainvoke("x", config))
            await model.started()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        with pytest.raises(BudgetExceeded):
            await attach(rig, model).ainvoke("x", config)

    check(rig)


# --- the middleware ---------------------------------------------------------


def guarded_agent(rig: Rig, *more: Any, tool: Any = None) -> Any:
    middleware = [GuardMiddleware(rig.guard, agent="main", **NAMES), *more]
    model = rig.model(rig.calls_tool())
    return create_agent(model, [tool or rig.tool()], middleware=middleware)


@pytest.mark.parametrize("max_steps", [3, 4])
@pytest.mark.parametrize("mode", ["invoke", "stream"])
def test_the_middleware_counts_once(mode: str, max_steps: int) -> None:
    """It stops at a model call and at a tool call."""
    rig = Rig(max_steps=max_steps)
    with pytest.raises(BudgetExceeded):
        SYNC[mode](guarded_agent(rig), ASK, {})
    assert rig.record.runs == max_steps
    check(rig)


@pytest.mark.parametrize("max_steps", [3, 4])
@pytest.mark.parametrize("mode", ["ainvoke", "astream", "astream_events"])
async def test_the_middleware_counts_once_in_asyncio(mode: str, max_steps: int) -> None:
    """It stops at a model call and at a tool call."""
    rig = Rig(max_steps=max_steps)
    with pytest.raises(BudgetExceeded):
        await ASYNC[mode](guarded_agent(rig), ASK, {})
    assert rig.record.runs == max_steps
    check(rig)


def test_the_middleware_sees_models_inside_tools() -> None:
    """Which no middleware sees by itself: the scope around the tool does."""
    rig = Rig(max_steps=5)
    model = rig.model(says())
    tool = rig.tool(work=lambda q: model.invoke(q).text)
    with pytest.raises(BudgetExceeded):
        guarded_agent(rig, tool=tool).invoke(ASK)
    assert rig.record.runs == 5
    check(rig)


def test_the_middleware_sees_every_retry() -> None:
    """A retry inside of it reaches the provider, and is paid for."""
    rig = Rig(max_steps=9)
    retry = ModelRetryMiddleware(on_failure="error", **NO_WAIT)
    broken = rig.model(lambda number, messages: KeyError("lost"))
    guard = GuardMiddleware(rig.guard, agent="main", **NAMES)
    with pytest.raises(KeyError):
        create_agent(broken, [], middleware=[guard, retry]).invoke(ASK)

    assert rig.provider_calls == 3
    check(rig)


def test_the_middleware_and_everything_else_count_once() -> None:
    """Five ways lead to each call."""
    rig = Rig(max_steps=5)
    config: Any = {"callbacks": [GuardCallbackHandler(rig.guard, agent="main")]}
    agent = twice(rig, guarded_agent(rig))
    with installed(rig), rig.guard.session("main", **NAMES):
        with pytest.raises(BudgetExceeded):
            agent.invoke(ASK, config)
    assert rig.record.runs == 5
    check(rig)


def test_the_middleware_of_another_agent_is_charged_to_both() -> None:
    """The agent inside a tool has a budget of its own, and the outer one pays too."""
    budgets = {"agents": {"inner": {"session": {"max_steps": 2}}}}
    rig = Rig(config=budgets)
    inner = create_agent(
        rig.model(rig.calls_tool("lookup")),
        [rig.tool("lookup")],
        middleware=[GuardMiddleware(rig.guard, agent="inner")],
    )
    tool = rig.tool(work=lambda q: inner.invoke(ASK)["messages"][-1].text)
    outer = create_agent(rig.model(rig.calls_tool()), [tool])
    with pytest.raises(BudgetExceeded) as caught:
        with rig.guard.session("main", **NAMES) as session:
            outer.invoke(ASK)

    assert (caught.value.agent, caught.value.steps) == ("inner", 2)
    assert session.steps == rig.record.runs == 4
    assert session.status == "completed"


def test_the_middleware_joins_the_session_of_its_agent() -> None:
    """It opens none of its own then, nor for an agent that it does not name."""
    rig = Rig(max_steps=9)
    named = GuardMiddleware(rig.guard, agent="main")
    unnamed = GuardMiddleware(rig.guard)
    model = rig.model(rig.calls_once())
    with rig.guard.session("main") as session:
        for guard in (named, unnamed):
            create_agent(model, [rig.tool()], middleware=[guard]).invoke(ASK)

    assert session.steps == len(session.events()) == rig.record.runs == 6


def test_the_middleware_rests_between_its_calls() -> None:
    """Its wall time is that of its calls: nobody tells it when a run ends."""
    clock = FakeClock()
    rig = Rig(max_wall_time_s=60, max_steps=3, clock=clock)
    rig.on_model_run = lambda runs: clock.advance(seconds=2)
    agent = guarded_agent(rig)
    with pytest.raises(BudgetExceeded, match="max_steps"):
        agent.invoke(ASK)
    clock.advance(seconds=3_600)
    rig.guard.raise_limit("s-1", max_steps=6)
    with pytest.raises(BudgetExceeded, match="max_steps"):
        agent.invoke(ASK)

    account = rig.guard.account("s-1")
    assert account is not None
    assert account.session is not None
    assert account.session.active_ms == 2_000 * rig.provider_calls == 8_000


def test_a_copy_of_what_carries_a_guard_counts_with_it() -> None:
    """Configurations and middlewares are copied, deeply, and locks cannot be."""
    rig = Rig(max_steps=5)
    handler = GuardCallbackHandler(rig.guard, agent="main", **NAMES)
    middleware = GuardMiddleware(rig.guard, agent="main", **NAMES)
    config = copy.deepcopy({"callbacks": [handler]})
    model = rig.model(rig.calls_tool())
    agent = create_agent(model, [rig.tool()], middleware=[copy.deepcopy(middleware)])
    for one in (config, {}):
        with pytest.raises(BudgetExceeded):
            agent.invoke(ASK, one)

    check(rig)
    assert copy.deepcopy(rig.guard) is rig.guard


@pytest.mark.parametrize("kind", [GuardMiddleware, GuardCallbackHandler])
@pytest.mark.parametrize("given", ["support-agent", None, {}, Guard])
def test_what_is_no_guard_is_refused_where_it_is_given(kind: Any, given: Any) -> None:
    """As a name or a configuration would be, which belong into the guard."""
    with pytest.raises(ConfigurationError) as error:
        kind(given, agent="main")

    assert str(error.value).startswith(f"{kind.__name__}: ")
    assert f"is no guard. Write {kind.__name__}(Guard(...))." in str(error.value)


# --- failures of our own ----------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours, where a call is read."""

    def fail(**given: object) -> None:
        raise KeyError("content that must not be logged")

    monkeypatch.setattr(translate, "model_call", fail)


@pytest.mark.usefixtures("broken")
def test_a_failure_of_ours_does_not_break_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is counted and logged; the text of the error stays out of the log."""
    rig = Rig(max_steps=5)
    model = rig.model(rig.calls_once())
    with rig.guard.session():
        state = create_agent(model, [rig.tool()]).invoke(ASK)

    assert state["messages"][-1].text == "done"
    assert rig.guard.engine.failures > 0
    assert "on_chat_model_start failed (KeyError)" in caplog.text
    assert "must not be logged" not in caplog.text
    assert "Error in GuardCallbackHandler" not in caplog.text


@pytest.mark.usefixtures("broken")
async def test_a_failure_of_ours_does_not_break_the_run_in_asyncio() -> None:
    """The stream comes to its end."""
    rig = Rig(max_steps=5)
    agent = create_agent(rig.model(rig.calls_once()), [rig.tool()])
    async with rig.guard.session():
        chunks = [chunk async for chunk in agent.astream(ASK)]

    assert len(chunks) == 3
    assert rig.guard.engine.failures > 0
