"""Which session a run belongs to: tasks, threads, nesting, names and imports."""

import asyncio
import contextlib
import functools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import StructuredTool

import guardrails_langchain
from guardrails import (
    BudgetExceeded,
    CallRefused,
    ConfigurationError,
    Guard,
    carried,
)
from guardrails_langchain import GuardCallbackHandler, GuardMiddleware
from tests.integrations.langchain.constructs import ASK, CONSTRUCTS
from tests.integrations.langchain.rig import Rig, SlowChatModel, says

M = 1_000_000
"""Nano-USD of a tenth of a cent."""


@pytest.fixture
def installed() -> Iterator[Rig]:
    """A guard over the whole process, taken away again afterwards."""
    rig = Rig(max_steps=3)
    guardrails_langchain.install(rig.guard, agent="service")
    yield rig
    guardrails_langchain.uninstall()


# --- tasks and threads ------------------------------------------------------


async def test_tasks_belong_to_the_session_they_were_made_in() -> None:
    """Tasks and `to_thread` copy the context, and the session with it."""
    rig = Rig()
    model = rig.model(says())
    async with rig.guard.session() as session:
        await asyncio.create_task(model.ainvoke("hi"))
        await asyncio.gather(model.ainvoke("hi"), model.ainvoke("hi"))
        await asyncio.to_thread(model.invoke, "hi")

    assert session.steps == rig.provider_calls == 4


async def test_a_synchronous_call_in_a_running_loop_is_guarded() -> None:
    """Where an asynchronous handler could not stop anything."""
    rig = Rig(max_steps=1)
    model = rig.model(says())
    async with rig.guard.session():
        model.invoke("hi")
        with pytest.raises(BudgetExceeded):
            model.invoke("hi")

    assert rig.provider_calls == 1


def test_a_session_is_carried_into_bare_threads() -> None:
    """An executor copies no context, so that the call has to take it along."""
    rig = Rig(max_steps=2)
    model = rig.model(says())
    with rig.guard.session() as session, ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(carried(model.invoke), "hi") for _ in range(5)]
        errors = [call.exception() for call in calls]

    assert session.steps == rig.provider_calls == 2
    assert sum(isinstance(error, BudgetExceeded) for error in errors) == 3


def test_a_bare_thread_is_not_guarded_unless_the_guard_is_installed(
    installed: Rig,
) -> None:
    """A new thread has no context: only `install` reaches it."""
    model = installed.model(says())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(model.invoke, "hi").result()
        guardrails_langchain.uninstall()
        pool.submit(model.invoke, "hi").result()

    assert installed.record.entries.count("admitted model") == 1
    assert installed.provider_calls == 2


def test_an_installed_guard_gives_each_root_run_a_session(installed: Rig) -> None:
    """Two invocations are two sessions, each with the whole budget."""
    built = CONSTRUCTS["agent"](installed)
    for _ in range(2):
        with pytest.raises(BudgetExceeded) as caught:
            built.runnable.invoke(built.value)
        assert (caught.value.agent, caught.value.steps) == ("service", 3)

    assert installed.record.runs == 6


def test_an_installed_guard_keeps_one_session_per_thread_of_a_graph(
    installed: Rig,
) -> None:
    """Two invocations of one conversation share its budget."""
    built = CONSTRUCTS["agent"](installed)
    for _ in range(2):
        with pytest.raises(BudgetExceeded) as caught:
            built.runnable.invoke(ASK, {"configurable": {"thread_id": "t-7"}})
        assert caught.value.session_id == "t-7"

    assert installed.record.runs == 3


def test_an_open_session_wins_over_an_installed_guard(installed: Rig) -> None:
    """Whoever opens a session says whose calls these are."""
    other = Rig()
    model = other.model(says())
    with other.guard.session() as session:
        model.invoke("hi")

    assert session.steps == 1
    assert installed.record.entries == []


async def test_concurrent_sessions_stay_apart_in_tasks() -> None:
    """Four sessions of one guard: each has its own limit and its own record."""
    rig = Rig(max_steps=3)
    built = CONSTRUCTS["agent"](rig)

    async def work(number: int) -> None:
        async with rig.guard.session(session_id=f"s-{number}"):
            await built.runnable.ainvoke(built.value)

    results = await asyncio.gather(*map(work, range(4)), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["BudgetExceeded"] * 4
    assert [result.session_id for result in results if result] == [
        f"s-{number}" for number in range(4)
    ]
    assert rig.record.runs == 12


def test_concurrent_sessions_stay_apart_in_threads() -> None:
    """The same for four threads that start at once."""
    rig = Rig(max_steps=3)
    built = CONSTRUCTS["agent"](rig)
    together = threading.Barrier(4)

    def work(number: int) -> Any:
        together.wait()
        with rig.guard.session(session_id=f"s-{number}"):
            built.runnable.invoke(built.value)

    with ThreadPoolExecutor(4) as pool:
        errors = [pool.submit(work, number) for number in range(4)]
        stops = [error.exception() for error in errors]

    assert all(isinstance(stop, BudgetExceeded) for stop in stops)
    assert [stop.session_id for stop in stops if isinstance(stop, BudgetExceeded)] == [
        f"s-{number}" for number in range(4)
    ]
    assert rig.record.runs == 12


async def test_fifty_concurrent_calls_never_pass_the_limit() -> None:
    """A cent each against 20 cents: twenty calls, whoever comes first."""
    rig = Rig(max_cost_usd="0.20")
    model = rig.model(says(), kind=SlowChatModel)
    async with rig.guard.session() as session:
        calls = [asyncio.create_task(model.ainvoke("hi")) for _ in range(50)]
        refused, _ = await asyncio.wait(calls, return_when="FIRST_COMPLETED")
        model.go_on()
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert all(call.exception() for call in refused)  # While twenty were in flight.
    refusals = [r for r in results if isinstance(r, BudgetExceeded | CallRefused)]
    assert rig.provider_calls == session.steps == 20
    assert len(refusals) == 30
    assert session.spent == Decimal("0.20")


def test_fifty_concurrent_threads_never_pass_the_limit() -> None:
    """The same for fifty bare threads in one carried session."""
    rig = Rig(max_cost_usd="0.20")
    model = rig.model(says())
    with rig.guard.session() as session, ThreadPoolExecutor(50) as pool:
        call = carried(model.invoke)
        results = [pool.submit(call, "hi") for _ in range(50)]
        refusals = [result.exception() for result in results if result.exception()]

    assert rig.provider_calls == session.steps == 20
    assert len(refusals) == 30
    assert all(isinstance(r, BudgetExceeded | CallRefused) for r in refusals)


# --- nesting and names ------------------------------------------------------


def test_a_session_inside_a_tool_is_charged_to_both() -> None:
    """The inner one inherits the customer, and both budgets are used."""
    rig = Rig()
    model = rig.model(says())
    sessions: list[Any] = []

    def work(q: str) -> str:
        with rig.guard.session("helper") as inner:
            sessions.append(inner)
            return model.invoke(q).text

    agent = rig.model(rig.calls_once())
    with rig.guard.session("main", customer_id="acme") as outer:
        create_agent(agent, [rig.tool(work=work)]).invoke(ASK)

    (inner,) = sessions
    (event,) = inner.events()
    assert (inner.steps, outer.steps) == (1, 4)
    assert (str(inner.spent), str(outer.spent)) == ("0.01", "0.035")
    assert event.attribution.agent_path == ("main", "helper")
    assert event.attribution.customer_id == "acme"


def test_a_tool_of_two_guards_is_over_for_both_when_it_has_returned() -> None:
    """What came after it was charged to the session of the one that began it first."""
    rig, other = Rig(), Guard({}, store="memory://")
    with other.session("outer"), rig.guard.session("inner", customer_id="acme"):
        rig.tool().invoke({"q": "x"})

    with rig.guard.call(tool="later"), other.call(tool="later"):
        pass
    with rig.guard.session("next") as following:
        pass
    later = {row.names for row in rig.guard.spend(by=["agent", "customer_id", "tool"])}

    assert (None, None, "later") in later
    assert following.attribution.agent_path == ("next",)
    assert following.attribution.customer_id is None
    other.close()


def with_handler(rig: Rig, target: Any, **names: Any) -> Any:
    return target.with_config(callbacks=[GuardCallbackHandler(rig.guard, **names)])


def with_guard(rig: Rig, target: Any, **names: Any) -> Any:
    return rig.guard.wrap(target, **names)


@pytest.mark.parametrize("inner", [with_handler, with_guard])
@pytest.mark.parametrize("outer", [with_handler, with_guard])
def test_a_guarded_chain_inside_a_tool_is_charged_to_the_agents_session(
    outer: Any, inner: Any
) -> None:
    """Its own callbacks hide the agent's from LangChain; the budget holds for it."""
    rig = Rig(max_steps=3)
    chain = inner(rig, RunnableLambda(str) | rig.model(says()), agent="helper")

    def work(q: str) -> str:
        with contextlib.suppress(Exception):
            chain.invoke(q)
        return "no answer"

    agent = create_agent(rig.model(rig.calls_tool()), [rig.tool(work=work)])
    with pytest.raises(BudgetExceeded):
        outer(rig, agent, agent="main", session_id="s-1").invoke(ASK)

    account = rig.guard.account("s-1")
    assert account is not None
    assert account.steps == rig.record.runs == len(paths(rig)) == 3


@pytest.mark.parametrize("outer", [with_handler, with_guard])
def test_callbacks_of_somebody_else_hide_no_call(outer: Any) -> None:
    """A tracer that a tool passes on takes the place of what LangChain inherits."""
    rig = Rig(max_steps=3)
    model = rig.model(says())

    def work(q: str) -> str:
        return model.invoke(q, {"callbacks": [BaseCallbackHandler()]}).text

    agent = create_agent(rig.model(rig.calls_tool()), [rig.tool(work=work)])
    with pytest.raises(BudgetExceeded):
        outer(rig, agent, agent="main", session_id="s-1").invoke(ASK)

    account = rig.guard.account("s-1")
    assert account is not None
    assert account.steps == rig.record.runs == len(paths(rig)) == 3


def paths(rig: Rig) -> list[tuple[str, ...]]:
    events = rig.guard.store.history.events(
        project_id="default", session_id="s-1", limit=100
    )
    return [event.attribution.agent_path for event in events]


def test_events_name_the_path_of_nested_agents() -> None:
    """Costs can be told apart by who acted on whose behalf."""
    rig = Rig(max_steps=5)
    built = CONSTRUCTS["agent_in_tool"](rig)
    with pytest.raises(BudgetExceeded), rig.guard.session("main", session_id="s-1"):
        built.runnable.invoke(built.value)

    main, inner = ("main",), ("main", "inner")
    # The model, the inner agent's model, tool and model, then the tool around it.
    assert paths(rig) == [main, inner, inner, inner, main]


async def test_events_name_the_subagents_of_deepagents() -> None:
    """The `task` tool runs them: they act for the main agent."""
    rig = Rig(max_steps=5)
    built = CONSTRUCTS["deep_agent"](rig)
    with pytest.raises(BudgetExceeded):
        async with rig.guard.session("main", session_id="s-1"):
            await built.runnable.ainvoke(built.value)

    main, helper = ("main",), ("main", "helper")
    assert paths(rig) == [main, helper, helper, helper, main]


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_what_a_node_calls_is_charged_to_whom_its_run_works_for(
    is_wrapped: bool,
) -> None:
    """Though the session around knows no customer: only the run's metadata do."""
    rig = Rig()

    def node(_: object) -> str:
        with rig.guard.call(tool="look", cost_usd="0.01"):
            pass
        with rig.guard.session("helper"), rig.guard.call(tool="ask", cost_usd="0.02"):
            return rig.guard.child_env()["GUARDRAILS_CUSTOMER_ID"]

    chain = RunnableLambda(node)
    runnable = rig.guard.wrap(chain, agent="main") if is_wrapped else chain
    around = contextlib.nullcontext() if is_wrapped else rig.guard.session("main")
    with around:
        customer = runnable.invoke("hi", {"metadata": {"customer_id": "acme"}})

    found = [row.names for row in rig.guard.spend(by=["customer_id", "agent", "tool"])]
    assert sorted(found) == [("acme", "helper", "ask"), ("acme", "main", "look")]
    assert customer == "acme"


def test_a_thread_in_a_child_process_is_within_its_parents_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id names a session of its own, which is no way out of the budget around."""
    parent = Guard({}, store=f"sqlite:///{tmp_path / 'g.sqlite3'}", max_cost_usd="0.03")
    with parent.session("router") as outer:
        for name, value in parent.child_env().items():
            monkeypatch.setenv(name, value)
    child = Guard({"tools": {"look": {"cost_per_call_usd": "0.01"}}})
    look = StructuredTool.from_function(lambda: "", name="look", description="Looks.")

    for number in range(4):
        config = RunnableConfig(
            callbacks=[GuardCallbackHandler(child)],
            metadata={"thread_id": f"own-{number}"},
        )
        with pytest.raises(BudgetExceeded) if number == 3 else contextlib.nullcontext():
            look.invoke({}, config)

    assert outer.spent == Decimal("0.03")
    assert [event.tool for event in child.session(session_id="own-2").events()]
    parent.close()
    child.close()


def test_the_metadata_of_a_run_names_session_and_user() -> None:
    """Who comes from langfuse changes nothing."""
    rig = Rig()
    chain = rig.guard.wrap(RunnableLambda(rig.model(says()).invoke))
    metadata = {"langfuse_session_id": "s-1", "langfuse_user_id": "u-7"}
    chain.invoke("hi", {"metadata": metadata})

    (event,) = rig.guard.store.history.events(
        project_id="default", session_id="s-1", limit=10
    )
    assert (event.attribution.session_id, event.attribution.user_id) == ("s-1", "u-7")


def test_given_names_win_over_metadata() -> None:
    """Code knows better than what comes along with a request."""
    rig = Rig()
    chain = rig.guard.wrap(rig.model(says()), user_id="u-1", session_id="s-1")
    metadata = {"langfuse_session_id": "s-2", "user_id": "u-7", "customer_id": "acme"}
    chain.invoke("hi", {"metadata": metadata})

    (event,) = rig.guard.store.history.events(
        project_id="default", session_id="s-1", limit=10
    )
    assert (event.attribution.user_id, event.attribution.customer_id) == ("u-1", "acme")


@pytest.mark.parametrize("who", ["session", "middleware", "handler in a session"])
def test_metadata_name_nobody_else_than_code_does(who: str) -> None:
    """They may come with a request: they would be a way to another's budget."""
    rig, name = Rig(), {"customer_id": "acme"}
    names = name if who == "middleware" else {}
    guarded = GuardMiddleware(rig.guard, agent="service", **names)
    agent = create_agent(rig.model(says()), [], middleware=[guarded])
    config = {"metadata": {"customer_id": "globex", "feature": "triage"}}
    if who == "middleware":
        agent.invoke(ASK, config)
    elif who == "session":
        with rig.guard.session("service", **name):
            agent.invoke(ASK, config)
    else:
        with rig.guard.session("service"):
            rig.guard.wrap(rig.model(says()), **name).invoke("hi", config)

    (row,) = rig.guard.spend(by=["customer_id", "feature"])
    assert row.names == ("acme", "triage")


def test_what_a_tool_calls_is_charged_to_whom_the_metadata_names() -> None:
    """Else it would be charged to no customer, and no customer's budget stop it."""
    rig = Rig()

    @rig.guard.tool(server="web", cost_usd="0.01")
    def fetch() -> str:
        return "page"

    def search(q: str) -> str:
        """Searches."""
        with rig.guard.call(tool="find", server="web", cost_usd="0.01"):
            return fetch()

    guarded = GuardMiddleware(rig.guard, agent="service")
    model = rig.model(rig.calls_once())
    agent = create_agent(model, [search], middleware=[guarded])
    config = {"configurable": {"thread_id": "s-1"}, "metadata": {"customer_id": "acme"}}
    agent.invoke(ASK, config)
    spent = rig.guard.spend(by=["customer_id", "tool"], where={"tool": "web/*"})

    assert {row.names for row in spent} == {
        ("acme", "web/find"),
        ("acme", "web/fetch"),
    }


@pytest.mark.parametrize("is_async", [False, True])
async def test_tools_of_one_name_are_charged_each_by_its_own_price(
    *, is_async: bool
) -> None:
    """As of a program that makes its agents, and their tools, for each customer."""
    guard = Guard({}, store="memory://", max_cost_usd="1.00")

    def made(server: str, cost_usd: str) -> StructuredTool:
        @guard.tool(server=server, cost_usd=cost_usd)
        def look_up(q: str) -> str:
            """Looks something up."""
            return server

        @guard.tool(name="look_up", server=server, cost_usd=cost_usd)
        async def alook_up(q: str) -> str:
            return server

        return StructuredTool.from_function(look_up, coroutine=alook_up)

    dear, cheap = made("dear", "0.40"), made("cheap", "0.01")
    with guard.session() as session:
        answers = list[str]()
        for number, tool in enumerate((dear, cheap, dear)):
            query = {"q": f"{number}"}
            answers.append(
                await tool.ainvoke(query) if is_async else tool.invoke(query)
            )
        with pytest.raises(BudgetExceeded):
            await dear.ainvoke({"q": "3"}) if is_async else dear.invoke({"q": "3"})

    assert answers == ["dear", "cheap", "dear"]
    booked = [(event.server, event.charge.cost_nano_usd) for event in session.events()]
    assert booked == [("dear", 400 * M), ("cheap", 10 * M), ("dear", 400 * M)]
    assert (session.steps, session.remaining) == (3, Decimal("0.19"))


@pytest.mark.parametrize("has_session", [False, True])
def test_a_run_inside_a_tool_names_whom_it_works_for(*, has_session: bool) -> None:
    """The tool was called before anybody knew that."""
    rig = Rig()

    @rig.guard.tool(server="web", cost_usd="0.01")
    def fetch() -> str:
        return "page"

    chain = rig.guard.wrap(RunnableLambda(lambda _: fetch()), agent="helper")

    @rig.guard.tool(cost_usd="0.02")
    def research() -> str:
        return chain.invoke("hi", {"metadata": {"customer_id": "acme"}})

    around = rig.guard.session("main") if has_session else contextlib.nullcontext()
    with around:
        research()
    found = [row.names for row in rig.guard.spend(by=["customer_id", "agent", "tool"])]

    agent = "main" if has_session else "helper"
    assert ("acme", agent, "web/fetch") in found
    assert len(found) == 2


def test_names_in_metadata_are_data() -> None:
    """Control characters and lengths from outside must not break a run."""
    rig = Rig()
    chain = rig.guard.wrap(rig.model(says()))
    metadata = {"user_id": "u\n7" + "x" * 999, "thread_id": 7, "customer_id": None}
    chain.invoke("hi", {"metadata": metadata})

    assert rig.guard.engine.failures == 0
    assert rig.provider_calls == rig.record.entries.count("admitted model") == 1


# --- imports ----------------------------------------------------------------

LATE_IMPORT = """
from guardrails import BudgetExceeded, Guard
guard = Guard({}, store="memory://", max_steps=1)
with guard.session() as session:
    from guardrails_langchain.testing import ScriptedChatModel
    from langchain_core.messages import AIMessage
    model = ScriptedChatModel(script=lambda number, messages: AIMessage("hi"))
    model.invoke("hi")
    try:
        model.invoke("hi")
    except BudgetExceeded:
        print("stopped after", model.calls)
"""

OWN_MODEL = """
from guardrails import BudgetExceeded, Guard
guard = Guard({}, store="memory://", max_steps=1)
with guard.session() as session:
    from langchain_core.language_models import FakeListChatModel
    model = FakeListChatModel(responses=["hi"])
    model.invoke("hi")
    try:
        model.invoke("hi")
    except BudgetExceeded:
        print("stopped after", session.steps)
"""


@pytest.mark.parametrize("program", [LATE_IMPORT, OWN_MODEL], ids=["ours", "theirs"])
def test_langchain_is_guarded_when_it_is_imported_in_the_session(program: str) -> None:
    """No order of imports leaves the framework unguarded."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "stopped after 1\n", done.stderr


class Patched:
    """A method as wrapt patches it: another object each time it is looked at."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return functools.partial(self._method, instance)


async def test_a_run_is_one_session_where_all_middlewares_are_patched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As OpenLLMetry patches them: LangChain finds that each has hooks of its own."""
    for name in ("before_agent", "abefore_agent"):
        hook = Patched(getattr(AgentMiddleware, name))
        monkeypatch.setattr(AgentMiddleware, name, hook)
    rig = Rig(max_steps=3)
    agent = create_agent(
        rig.model(rig.calls_tool()),
        [rig.tool()],
        middleware=[GuardMiddleware(rig.guard)],
    )
    with pytest.raises(BudgetExceeded):
        await agent.ainvoke(ASK)

    assert rig.record.runs == 3


@pytest.mark.parametrize("bad", [{"custmer_id": "acme"}, {"customer_id": 7}])
def test_middleware_with_a_bad_name_is_refused_where_it_is_made(bad: Any) -> None:
    """At its first call it would be contained, and that call not guarded."""
    with pytest.raises((ConfigurationError, TypeError), match=next(iter(bad))):
        GuardMiddleware(Guard({}, store="memory://"), agent="a", **bad)
