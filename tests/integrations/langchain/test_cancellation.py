"""Calls that are cut off: booked with what they may cost, and nothing stays held."""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from guardrails import BudgetExceeded, PriceStatus, carried
from guardrails.core.accounts import Account
from guardrails.core.calls import CallStatus
from guardrails.sessions.guarded_call import GuardedCall
from guardrails_langchain import GuardCallbackHandler, GuardMiddleware
from guardrails_langchain.testing import ScriptedChatModel
from tests.integrations.langchain.constructs import ASK
from tests.integrations.langchain.modes import ainvoke, astream, astream_events
from tests.integrations.langchain.rig import Rig, SlowChatModel, says

PROJECT = Path(__file__).parents[3]

CALLS_MAX = 30
"""More than the limit pays for."""

TURNS_MAX = 100
"""Of an event loop, in which what was let go is booked."""

WAIT_SECONDS_MAX = 60
"""For a thread, on any machine."""

BILLED_NANO_USD = 1_000 * 2_500 + 50 * 10_000
"""What the provider reports for one call, and bills for each."""

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t-1"}}


@pytest.fixture
def rig() -> Rig:
    return Rig(prices=None, max_cost_usd="1")


def account_of(rig: Rig, session_id: str = "s-1") -> Account:
    account = rig.guard.account(session_id)
    assert account is not None
    return account


def assert_cut_off(
    rig: Rig, session_id: str = "s-1", *, has_begun: bool = False
) -> None:
    """The one model call was booked as an estimate, and nothing is held.

    Args:
        has_begun: The answer has; else all that was reserved may be billed.
    """
    account = account_of(rig, session_id)
    (event,) = rig.guard.store.history.events(
        project_id="default", session_id=session_id, limit=10
    )
    assert event.status is CallStatus.BROKEN_OFF
    assert event.charge.status is PriceStatus.ESTIMATED
    assert event.usage is not None
    assert event.usage.input_tokens >= 2  # The bytes of "hi".
    assert event.charge.cost_nano_usd
    assert event.reserved_nano_usd
    if has_begun:
        assert event.usage.output_tokens == len("hello")
        assert event.charge.cost_nano_usd < event.reserved_nano_usd
    else:
        assert event.charge.cost_nano_usd == event.reserved_nano_usd
    assert account.posted_nano_usd == event.charge.cost_nano_usd
    assert (account.held_nano_usd, account.held_tokens, account.steps) == (0, 0, 1)


def bare(model: SlowChatModel) -> Any:
    return model


def in_an_agent(model: SlowChatModel) -> Any:
    return create_agent(model, [])


def input_of(target: Any) -> Any:
    return "hi" if isinstance(target, SlowChatModel) else ASK


Run = Callable[..., Awaitable[Any]]
Task = asyncio.Future[Any]


@pytest.mark.parametrize(
    ("build", "run", "has_begun"),
    [
        (bare, ainvoke, False),
        (in_an_agent, ainvoke, False),
        (in_an_agent, astream, False),
        (bare, astream, True),
        (bare, astream_events, True),
        (in_an_agent, astream_events, True),
    ],
)
async def test_a_cancelled_task_books_what_it_may_cost(
    rig: Rig, build: Any, run: Run, has_begun: bool
) -> None:
    """A cancelled `ainvoke` reports neither an end nor an error to callbacks."""
    model = rig.model(says(), kind=SlowChatModel)
    target = build(model)
    async with rig.guard.session(session_id="s-1"):
        task = asyncio.ensure_future(run(target, input_of(target), {}))
        await model.started()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert_cut_off(rig, has_begun=has_begun)


@pytest.mark.parametrize("build", [bare, in_an_agent])
async def test_a_timeout_books_what_was_reserved(rig: Rig, build: Any) -> None:
    """What was sent before the time was up may be billed."""
    model = rig.model(says(), kind=SlowChatModel)
    target = build(model)
    loop = asyncio.get_running_loop()
    async with rig.guard.session(session_id="s-1"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                running = asyncio.ensure_future(target.ainvoke(input_of(target)))
                await model.started()
                limit.reschedule(loop.time())
                await running

    assert_cut_off(rig)


async def test_cancelling_again_and_again_is_no_way_past_a_limit() -> None:
    """The provider goes on without its client, and bills each answer."""
    rig = Rig(prices=None, max_cost_usd="0.05")
    model = rig.model(says(), kind=SlowChatModel)
    agent = rig.guard.wrap(in_an_agent(model), session_id="s-1")
    with pytest.raises(BudgetExceeded):
        while rig.provider_calls < CALLS_MAX:
            task = asyncio.ensure_future(agent.ainvoke(ASK))
            started = asyncio.ensure_future(model.started())
            await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
            started.cancel()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    assert 0 < rig.provider_calls * BILLED_NANO_USD <= 50_000_000


async def left_beside_a_failure(model: SlowChatModel, *, in_a_run: bool) -> Task:
    """Leaves a session by the error of one of two that `gather` runs.

    Returns:
        The task of the other one, which goes on.
    """

    async def fail() -> None:
        await model.started()
        raise RuntimeError("the other one")

    left: list[Task] = []

    async def both(question: str) -> None:
        left.append(asyncio.ensure_future(model.ainvoke(question)))
        await asyncio.gather(*left, fail())

    with pytest.raises(RuntimeError, match="the other one"):
        await (RunnableLambda(both).ainvoke("hi") if in_a_run else both("hi"))
    return left[0]


@pytest.mark.parametrize("in_a_run", [False, True])
async def test_a_call_that_outlives_its_session_is_booked_in_full(
    rig: Rig, in_a_run: bool
) -> None:
    """The provider bills what nobody waits for any more: the hold stays until then."""
    model = rig.model(says(), kind=SlowChatModel)
    async with rig.guard.session(session_id="s-1"):
        task = await left_beside_a_failure(model, in_a_run=in_a_run)
    assert account_of(rig).held_nano_usd > 0

    model.go_on()
    await task
    account = account_of(rig)
    (event,) = rig.guard.store.history.events(
        project_id="default", session_id="s-1", limit=10
    )
    assert (event.status, event.charge.status) == (CallStatus.OK, PriceStatus.PRICED)
    assert account.posted_nano_usd == BILLED_NANO_USD
    assert (account.held_nano_usd, account.held_tokens, account.steps) == (0, 0, 1)


@pytest.mark.parametrize("in_a_run", [False, True])
async def test_a_call_that_outlives_its_session_and_is_cancelled_is_booked(
    rig: Rig, in_a_run: bool
) -> None:
    """As `asyncio.run` cancels what is left; its task tells of its end."""
    model = rig.model(says(), kind=SlowChatModel)
    async with rig.guard.session(session_id="s-1"):
        task = await left_beside_a_failure(model, in_a_run=in_a_run)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_cut_off(rig)


@pytest.mark.parametrize("in_a_run", [False, True])
def test_a_call_of_a_thread_that_outlives_its_session_is_booked_in_full(
    rig: Rig, in_a_run: bool
) -> None:
    """As that of a task: it cannot be broken off, and its provider bills it."""
    started, goes_on = threading.Event(), threading.Event()

    def script(number: int, messages: object) -> AIMessage:
        started.set()
        assert goes_on.wait(WAIT_SECONDS_MAX)
        return AIMessage("hello")

    model = rig.model(script)
    with ThreadPoolExecutor() as pool:

        def leave(value: str) -> None:
            pool.submit(carried(model.invoke), value)
            assert started.wait(WAIT_SECONDS_MAX)

        with rig.guard.session(session_id="s-1"):
            RunnableLambda(leave).invoke("hi") if in_a_run else leave("hi")
        held_nano_usd = account_of(rig).held_nano_usd
        goes_on.set()

    assert held_nano_usd > 0
    account = account_of(rig)
    (event,) = rig.guard.store.history.events(
        project_id="default", session_id="s-1", limit=10
    )
    assert (event.status, event.charge.status) == (CallStatus.OK, PriceStatus.PRICED)
    assert account.posted_nano_usd == BILLED_NANO_USD
    assert (account.held_nano_usd, account.held_tokens, account.steps) == (0, 0, 1)


async def test_a_task_that_lives_on_keeps_no_call_that_it_has_made(rig: Rig) -> None:
    """As one that works for many, of which some do not wait to the end."""
    model = rig.model(says(), kind=SlowChatModel)
    asked: asyncio.Queue[RunnableConfig] = asyncio.Queue()

    async def work() -> None:
        while True:
            await model.ainvoke("hi", await asked.get())
            asked.task_done()

    async def ask(_: str, config: RunnableConfig) -> None:
        await asked.put(config)
        await asyncio.wait_for(model.started(), 60)
        raise TimeoutError

    working = asyncio.ensure_future(work())
    for _ in range(3):
        agent = rig.guard.wrap(RunnableLambda(ask), session_id="s-1")
        with pytest.raises(TimeoutError):
            await agent.ainvoke("hi")
        model.go_on()
        await asked.join()

    gc.collect()
    kept = [one for one in gc.get_objects() if isinstance(one, GuardedCall)]
    assert all(call.session.engine is not rig.guard.engine for call in kept)
    assert account_of(rig).held_nano_usd == 0
    assert account_of(rig).posted_nano_usd == 3 * BILLED_NANO_USD
    working.cancel()


async def test_a_cancelled_agent_without_a_session_around_is_booked(
    rig: Rig,
) -> None:
    """The end of its root run finds what was left open."""
    model = rig.model(says(), kind=SlowChatModel)
    agent = rig.guard.wrap(in_an_agent(model), session_id="s-1")
    task = asyncio.ensure_future(agent.ainvoke(ASK))
    await model.started()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert_cut_off(rig)


@pytest.mark.parametrize("attach", ["handler", "wrap"])
async def test_a_cancelled_call_without_a_session_around_is_booked(
    rig: Rig, attach: str
) -> None:
    """It is its own root run, and reports no end. Its task tells of it."""
    model = rig.model(says(), kind=SlowChatModel)
    handler = GuardCallbackHandler(rig.guard, session_id="s-1")
    target: Any = (
        rig.guard.wrap(model, session_id="s-1")
        if attach == "wrap"
        else model.with_config(callbacks=[handler])
    )
    task = asyncio.ensure_future(target.ainvoke("hi"))
    await model.started()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert_cut_off(rig)


@pytest.mark.parametrize("build", [bare, in_an_agent])
async def test_a_cancelled_call_that_begins_after_its_session_is_booked(
    rig: Rig, build: Any
) -> None:
    """As of a stream of events that was left by `break`, whose task goes on."""
    model = rig.model(says(), kind=SlowChatModel)
    target = build(model)
    async with rig.guard.session(session_id="s-1"):
        task = asyncio.ensure_future(target.ainvoke(input_of(target)))
    await model.started()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert_cut_off(rig)


async def test_a_cancelled_call_in_a_tool_that_outlives_its_session_is_booked(
    rig: Rig,
) -> None:
    """Its root run has been given up with the session, and ends nothing any more."""
    model = rig.model(says(), kind=SlowChatModel)
    left = asyncio.Event()

    async def work(q: str) -> str:
        working.set()
        await left.wait()
        return (await asyncio.create_task(model.ainvoke(q))).text

    working = asyncio.Event()
    agent = create_agent(rig.model(rig.calls_tool()), [rig.tool(awork=work)])
    async with rig.guard.session(session_id="s-1"):
        task = asyncio.ensure_future(agent.ainvoke(ASK))
        await working.wait()
    left.set()
    await model.started()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    account = account_of(rig)
    assert account.held_nano_usd == 0
    assert account.steps == rig.record.runs == 3


async def test_a_stream_that_tasks_take_turns_at_is_booked_as_reported(
    rig: Rig,
) -> None:
    """The task that began it ends long before, as where answers have a time limit."""
    model = rig.model(says())
    async with rig.guard.session(session_id="s-1") as session:
        chunks = model.astream("hi")
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await asyncio.ensure_future(anext(chunks))

    (event,) = session.events()
    assert (event.status, event.charge.status) == (CallStatus.OK, PriceStatus.PRICED)
    assert account_of(rig).posted_nano_usd == BILLED_NANO_USD


async def test_a_cancelled_call_is_booked_before_the_run_around_it_ends(
    rig: Rig,
) -> None:
    """A node that has timed out is tried again: what it held is no call in flight."""
    model = rig.model(says(), kind=SlowChatModel)
    held: list[int] = []

    async def work(question: str) -> None:
        task = asyncio.ensure_future(model.ainvoke(question))
        await model.started()
        held.append(account_of(rig).held_nano_usd)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        held.append(account_of(rig).held_nano_usd)

    async with rig.guard.session(session_id="s-1"):
        await RunnableLambda(work).ainvoke("hi")

    assert held[0] > held[1] == 0
    assert_cut_off(rig)


async def timed_out(model: SlowChatModel) -> TimeoutError:
    """Calls the model with a time limit, which is over once it was called."""

    async def expire(limit: asyncio.Timeout) -> None:
        await model.started()
        limit.reschedule(0)

    try:
        async with asyncio.timeout(None) as limit:
            expiring = asyncio.ensure_future(expire(limit))
            await model.ainvoke("hi")
    except TimeoutError as error:
        await expiring
        return error
    raise AssertionError("the time was over")


async def test_a_call_is_booked_whose_task_goes_on_without_it(rig: Rig) -> None:
    """As after a time limit inside a tool: what it held is no call in flight."""
    model = rig.model(says(), kind=SlowChatModel)
    held: list[int] = []

    async def work(_: object) -> None:
        rig.on_model_run = lambda runs: held.append(account_of(rig).held_nano_usd)
        await timed_out(model)
        for _ in range(TURNS_MAX):
            if not account_of(rig).held_nano_usd:
                break
            await asyncio.sleep(0)
        held.append(account_of(rig).held_nano_usd)

    async with rig.guard.session(session_id="s-1"):
        await RunnableLambda(work).ainvoke("hi")

    assert held[0] > held[1] == 0
    assert_cut_off(rig)


TRACED = """
import functools, langchain.agents, pytest, sys
from langchain_core.language_models import BaseChatModel

asked = BaseChatModel.agenerate

@functools.wraps(asked)
async def traced(self, *args, **kwargs):
    return await asked(self, *args, **kwargs)

class Traced:
    __wrapped__ = staticmethod(asked)

    def __get__(self, model, owner):
        return self if model is None else functools.partial(asked, model)

BaseChatModel.agenerate = {"function": traced, "object": Traced()}[sys.argv[1]]
late = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
sys.exit(pytest.main(["-p", "no:cacheprovider", "-W", late, *sys.argv[2:]]))
"""


@pytest.mark.parametrize("kind", ["function", "object"])
def test_a_call_is_booked_whose_task_goes_on_without_it_where_calls_are_traced(
    kind: str,
) -> None:
    """As by tracers that put functions of their own around LangChain's."""
    test = test_a_call_is_booked_whose_task_goes_on_without_it.__name__
    done = subprocess.run(
        [sys.executable, "-c", TRACED, kind, f"{__file__}::{test}"],
        check=False,
        capture_output=True,
        cwd=PROJECT,
        env={key: v for key, v in os.environ.items() if not key.startswith("PYTEST_")},
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_call_that_timed_out_is_booked_before_the_next_of_its_task(
    rig: Rig,
) -> None:
    """Also if its error is kept, as of the last of some attempts."""
    model = rig.model(says(), kind=SlowChatModel)
    errors: list[TimeoutError] = []

    async def work(_: object) -> None:
        errors.append(await timed_out(model))
        await rig.model(says()).ainvoke("hi")
        events = rig.guard.session(session_id="s-1").events()
        assert [event.status for event in events] == [
            CallStatus.BROKEN_OFF,
            CallStatus.OK,
        ]

    async with rig.guard.session(session_id="s-1"):
        await RunnableLambda(work).ainvoke("hi")

    assert errors
    account = account_of(rig)
    assert (account.held_nano_usd, account.steps) == (0, 2)


async def test_the_calls_of_one_batch_wait_for_one_another(rig: Rig) -> None:
    """One task starts them all, and none of them is over when the next starts."""
    model = rig.model(says())
    async with rig.guard.session(session_id="s-1") as session:
        await model.agenerate([[HumanMessage("hi")]] * 3)

    assert [event.status for event in session.events()] == [CallStatus.OK] * 3
    assert account_of(rig).posted_nano_usd == 3 * BILLED_NANO_USD


class _Asking(AsyncCallbackHandler):
    """Asks a model itself when it is told of a call, once."""

    run_inline = True

    def __init__(self, model: ScriptedChatModel) -> None:
        self._models = [model]

    async def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        if self._models:
            await self._models.pop().ainvoke("may I?")


async def test_a_call_goes_on_whose_handler_asks_a_model_before_it(rig: Rig) -> None:
    """As one that has prompts moderated."""
    callbacks = [GuardCallbackHandler(rig.guard), _Asking(rig.model(says()))]
    async with rig.guard.session(session_id="s-1") as session:
        await rig.model(says()).ainvoke("hi", RunnableConfig(callbacks=[*callbacks]))

    assert [event.status for event in session.events()] == [CallStatus.OK] * 2
    assert account_of(rig).posted_nano_usd == 2 * BILLED_NANO_USD


async def test_a_call_that_timed_out_in_a_task_that_fails_is_booked(rig: Rig) -> None:
    """The task is not cancelled itself, and ends by what the time limit raises."""
    model = rig.model(says(), kind=SlowChatModel)
    target: Any = rig.guard.wrap(model, session_id="s-1")

    limit = asyncio.timeout(None)

    async def work() -> None:
        async with limit:
            await target.ainvoke("hi")

    task = asyncio.ensure_future(work())
    await model.started()
    limit.reschedule(0)
    with pytest.raises(TimeoutError):
        await task

    assert_cut_off(rig)


@pytest.mark.parametrize(
    ("run", "has_begun"), [(ainvoke, False), (astream, False), (astream_events, True)]
)
async def test_a_cancelled_agent_with_the_middleware_is_booked(
    rig: Rig, run: Run, has_begun: bool
) -> None:
    """A middleware alone sees neither a session that is left nor a root run's end."""
    model = rig.model(says(), kind=SlowChatModel)
    guarded = GuardMiddleware(rig.guard, session_id="s-1")
    agent = create_agent(model, [], middleware=[guarded])
    task = asyncio.ensure_future(run(agent, ASK, {}))
    await model.started()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert_cut_off(rig, has_begun=has_begun)


async def test_a_cancelled_session_is_left_in_order(rig: Rig) -> None:
    """The task that holds the session open is the one that is cancelled."""
    model = rig.model(says(), kind=SlowChatModel)

    async def work() -> None:
        async with rig.guard.session(session_id="s-1"):
            await model.ainvoke("hi")

    task = asyncio.create_task(work())
    await model.started()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert_cut_off(rig)


async def test_a_thread_goes_on_after_a_timeout(rig: Rig) -> None:
    """What was cut off is asked again, and both calls are booked."""
    model = rig.model(says(), kind=SlowChatModel)
    agent = create_agent(model, [], checkpointer=InMemorySaver())
    async with rig.guard.session() as session:
        task = asyncio.create_task(agent.ainvoke(ASK, THREAD))
        await model.started()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        model.go_on()
        state = await agent.ainvoke(None, THREAD)

    assert state["messages"][-1].text == "hello there, dear reader"
    assert [event.status for event in session.events()] == [
        CallStatus.BROKEN_OFF,
        CallStatus.OK,
    ]
    assert rig.provider_calls == session.steps == 2
    assert account_of(rig, "t-1").held_nano_usd == 0


async def test_a_cancelled_tool_is_booked(rig: Rig) -> None:
    """Its price is spent, and its end is no result that could make a loop."""
    started, never = asyncio.Event(), asyncio.Event()

    async def hang(q: str) -> str:
        started.set()
        await never.wait()
        return q

    agent = create_agent(rig.model(rig.calls_tool()), [rig.tool(awork=hang)])
    async with rig.guard.session(session_id="s-1") as session:
        task = asyncio.create_task(agent.ainvoke(ASK))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    model, tool = session.events()
    assert (model.status, tool.status) == (CallStatus.OK, CallStatus.BROKEN_OFF)
    assert tool.charge.cost_nano_usd == 5_000_000
    assert account_of(rig).held_nano_usd == 0


async def test_an_agents_stream_that_is_closed_is_booked(rig: Rig) -> None:
    """After the model's turn: its call is settled as reported, and nothing runs on."""
    agent = create_agent(rig.model(rig.calls_tool()), [rig.tool()])
    async with rig.guard.session(session_id="s-1") as session:
        chunks = agent.astream(ASK)
        await anext(chunks)
        await chunks.aclose()

    assert session.steps == rig.record.runs == len(session.events())
    assert account_of(rig).held_nano_usd == 0


def test_an_agents_stream_that_is_left_by_break_is_booked(rig: Rig) -> None:
    """The same where nobody closes it: the generator ends with its last reference."""
    agent = create_agent(rig.model(rig.calls_tool()), [rig.tool()])
    with rig.guard.session(session_id="s-1") as session:
        for _ in agent.stream(ASK):
            break

    assert session.steps == rig.record.runs == len(session.events())
    assert account_of(rig).held_nano_usd == 0
