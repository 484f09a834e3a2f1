"""Rounds: a call that asks for input takes several requests, and counts once."""

import asyncio
import warnings
from decimal import Decimal
from typing import Any

import pytest

from guardrails import BudgetExceeded, Guard
from guardrails.core.calls import CallKind, CallStatus
from tests.integrations.mcp.peers import (
    FIRST,
    events,
    own_session,
    second_only,
)

pytestmark = second_only

NAMES: dict[str, Any] = {"agent": "support", "server": "geo-mcp", "session_id": "s-1"}
PRICE = {"tools": {"geo-mcp/*": {"cost_per_call_usd": "0.01"}}}

if not FIRST:
    import fastmcp
    from mcp import Client, types
    from mcp.server.lowlevel import Server
    from mcp.server.mcpserver import MCPServer


def serving(call: Any) -> Any:
    async def tools(ctx: Any, params: Any) -> Any:
        tool = types.Tool(name="ask", input_schema={"type": "object"})
        return types.ListToolsResult(tools=[tool])

    return Server("geo", on_call_tool=call, on_list_tools=tools)


def question(method: str = "elicit") -> Any:
    if method == "sample":
        hints = [types.ModelHint(name="gpt-4o")]
        return types.CreateMessageRequest(
            params=types.CreateMessageRequestParams(
                messages=[],
                max_tokens=100,
                model_preferences=types.ModelPreferences(hints=hints),
            )
        )
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return types.ElicitRequest(
        params=types.ElicitRequestFormParams(
            message="Which city?", requested_schema=schema
        )
    )


def asking_server(requests: list[str], rounds: int = 1, method: str = "elicit") -> Any:
    """A server whose tool asks that many times before it answers."""

    async def call(ctx: Any, params: Any) -> Any:
        requests.append(params.name)
        done = int((params.request_state or "0").partition(":")[0])
        if done < rounds:
            return types.InputRequiredResult(
                input_requests={"city": question(method)},
                request_state=f"{done + 1}:{params.arguments}",
            )
        return types.CallToolResult(content=[types.TextContent(text="found")])

    return serving(call)


def hosted(app: Any) -> Any:
    """The same server, of the kind that FastMCP's client knows."""
    host = MCPServer("geo")
    host._lowlevel_server = app
    return host


async def says_paris(context: Any, params: Any) -> Any:
    return types.ElicitResult(action="accept", content={"city": "Paris"})


async def thinks(context: Any, params: Any) -> Any:
    content = types.TextContent(text="Paris")
    return types.CreateMessageResult(role="assistant", content=content, model="gpt-4o")


def guarded(**limits: Any) -> Guard:
    return Guard(PRICE, store="memory://", **limits)


@pytest.mark.parametrize("kind", ["sdk", "fastmcp"])
async def test_a_call_in_three_rounds_is_one_step_and_one_event(kind: str) -> None:
    requests: list[str] = []
    app, guard = asking_server(requests, rounds=2), guarded(max_steps=2)
    if kind == "sdk":
        client: Any = Client(app, elicitation_callback=says_paris)
    else:
        client = fastmcp.Client(hosted(app))
        client._session_kwargs["elicitation_callback"] = says_paris

    async with guard.wrap(client, **NAMES):
        for q in "ab":
            await client.call_tool("ask", {"q": q})
        with pytest.raises(BudgetExceeded):
            await client.call_tool("ask", {"q": "c"})

    assert len(requests) == 6
    assert [event.status for event in events(guard)] == [CallStatus.OK] * 2
    assert own_session(guard).spent == Decimal("0.02")
    assert own_session(guard).steps == 2


async def test_a_server_that_asks_without_end_is_stopped() -> None:
    """As it works on: more rounds than the SDK makes by default are another call."""
    requests: list[str] = []
    app, guard = asking_server(requests, rounds=1_000), guarded(max_steps=2)
    client = Client(
        app, elicitation_callback=says_paris, input_required_max_rounds=2_000
    )

    async with guard.wrap(client, **NAMES):
        with pytest.raises(BudgetExceeded):
            await client.call_tool("ask", {"q": "a"})

    assert len(requests) == 2 * (1 + 10)
    assert own_session(guard).steps == 2


async def test_a_made_up_continuation_is_a_call_like_any_other() -> None:
    requests: list[str] = []
    guard = guarded(max_steps=1)

    async with guard.wrap(Client(asking_server(requests)), **NAMES) as client:
        await client.session.call_tool("ask", {}, request_state="9:made up")
        with pytest.raises(BudgetExceeded):
            await client.session.call_tool("ask", {}, request_state="9:made up")

    assert len(requests) == 1


async def test_a_round_is_continued_once() -> None:
    """Its state cannot be used again to get calls for nothing."""
    requests: list[str] = []
    guard = guarded(max_steps=2)

    async with guard.wrap(Client(asking_server(requests)), **NAMES) as client:
        send = client.session.call_tool
        asked: Any = await send("ask", {}, allow_input_required=True)
        for _ in range(2):
            await send("ask", {}, request_state=asked.request_state)
        with pytest.raises(BudgetExceeded):
            await send("ask", {}, request_state=asked.request_state)

    assert len(requests) == 3


async def test_calls_that_ask_for_the_same_at_once_count_once_each() -> None:
    """A server without states tells them apart by nothing."""
    guard = guarded(max_steps=3)

    async def call(ctx: Any, params: Any) -> Any:
        if params.input_responses is None:
            return types.InputRequiredResult(input_requests={"city": question()})
        return types.CallToolResult(content=[types.TextContent(text="found")])

    client = Client(serving(call), elicitation_callback=says_paris)
    async with guard.wrap(client, **NAMES):
        await asyncio.gather(*(client.call_tool("ask", {"q": q}) for q in "abc"))

    assert [event.status for event in events(guard)] == [CallStatus.OK] * 3


async def test_a_call_whose_next_round_never_comes_is_booked_at_the_end() -> None:
    guard = guarded()

    async with guard.wrap(Client(asking_server([])), **NAMES) as client:
        with pytest.raises(RuntimeError):  # It does not want to be asked.
            await client.session.call_tool("ask", {})
        assert events(guard) == []

    (event,) = events(guard)
    assert event.status is CallStatus.BROKEN_OFF
    assert own_session(guard).spent == Decimal("0.01")


async def test_a_call_that_waits_where_a_client_is_closed_is_booked() -> None:
    """`close` ends the connection before the client is left."""
    guard = guarded()
    client = guard.wrap(fastmcp.Client(hosted(asking_server([]))), **NAMES)

    async with client:
        await client.session.call_tool("ask", {}, allow_input_required=True)
        await client.close()

    (event,) = events(guard)
    assert event.status is CallStatus.BROKEN_OFF


async def test_what_waits_on_an_earlier_connection_is_booked_with_the_next() -> None:
    """Python has chosen how a client is left before it was wrapped."""
    guard, client = guarded(), fastmcp.Client(hosted(asking_server([])))

    async with client:
        guard.wrap(client, **NAMES)
        await client.session.call_tool("ask", {}, allow_input_required=True)
    async with client:
        await client.session.list_tools()

    (event,) = events(guard)
    assert event.status is CallStatus.BROKEN_OFF


async def test_a_round_that_is_continued_after_it_was_booked_counts_again() -> None:
    """On another connection, say: a booked hold must not carry a call for nothing."""
    guard = guarded(max_steps=2)
    client = guard.wrap(fastmcp.Client(hosted(asking_server([]))), **NAMES)

    async with client:
        asked: Any = await client.session.call_tool(
            "ask", {}, allow_input_required=True
        )
    async with client:
        send = client.session.call_tool
        await send("ask", {}, request_state=asked.request_state)
        with pytest.raises(BudgetExceeded):
            await send("ask", {"q": "b"})

    assert [event.status for event in events(guard)] == [
        CallStatus.BROKEN_OFF,
        CallStatus.OK,
    ]


async def test_an_agent_that_waits_for_a_person_between_rounds_counts_once() -> None:
    """LangGraph runs the tool again from its start once the person has answered."""
    from langchain.agents import create_agent
    from langchain_core._api import LangChainBetaWarning
    from langchain_core.messages import AIMessage
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import Command

    from guardrails_langchain.testing import ScriptedChatModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainBetaWarning)
        from langchain.mcp import MCPAdapter

    call = {"name": "ask", "args": {"q": "a"}, "id": "call-1"}
    model = ScriptedChatModel(
        script=lambda number, _: AIMessage("", tool_calls=[] if number else [call]),
        model="costs-nothing",
    )
    requests: list[str] = []
    guard = guarded(on_unpriced="allow", max_steps=3)
    client = guard.wrap(fastmcp.Client(hosted(asking_server(requests))), **NAMES)
    config: Any = {"configurable": {"thread_id": "t-1"}}

    async with MCPAdapter(client) as adapter:
        tools = await adapter.list_tools()
        agent: Any = create_agent(model, tools, checkpointer=InMemorySaver())
        answers = {"city": {"action": "accept", "content": {"city": "Paris"}}}
        for turn in (
            {"messages": [("user", "where?")]},
            Command(resume={"responses": answers}),
        ):
            async with guard.session("support", session_id="s-1"):
                state = await agent.ainvoke(turn, config)

    assert "__interrupt__" not in state
    assert len(requests) == 3
    (asked,) = [e for e in events(guard) if e.kind is CallKind.TOOL]
    assert (asked.server, asked.tool, asked.status) == ("geo-mcp", "ask", CallStatus.OK)
    assert own_session(guard).steps == 3


async def test_sampling_between_rounds_is_a_model_call() -> None:
    guard = guarded(max_cost_usd="1.00")
    client = Client(asking_server([], method="sample"), sampling_callback=thinks)

    async with guard.wrap(client, **NAMES):
        async with guard.session("router", customer_id="acme") as s:
            await client.call_tool("ask", {})

    assert [event.kind for event in s.events()] == [CallKind.MODEL, CallKind.TOOL]
    assert guard.account("s-1") is None
