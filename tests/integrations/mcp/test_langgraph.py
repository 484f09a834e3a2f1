"""LangGraph: an agent whose tools are an MCP server's, by each way to get them."""

import contextlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage

from guardrails import BudgetExceeded, ConfigurationError, Guard, SessionStopped
from guardrails.cli import main
from guardrails.core.calls import CallKind, CallStatus
from guardrails_langchain.testing import ScriptedChatModel
from guardrails_mcp import tool_interceptor
from tests.integrations.mcp.peers import (
    Seen,
    connected,
    events,
    first_only,
    own_session,
    second_only,
    server,
    session_of,
)

PROJECT = Path(__file__).parents[3]

CONFIG: dict[str, Any] = {
    "tools": {"geo-mcp/*": {"cost_per_call_usd": "0.01"}},
    "defaults": {"on_unpriced": "allow"},
}

STEPS = 7
"""Model, tool, model, tool, …: the fourth model call is the last step."""


def runaway(tool: str) -> ScriptedChatModel:
    """A model that calls a tool for ever, with other arguments each time."""

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
        if number > 30:  # A guard that lets everything pass must fail, not hang.
            return AIMessage("enough")
        call = {"name": tool, "args": {"q": f"q{number}"}, "id": f"call-{number}"}
        return AIMessage("", tool_calls=[call])

    return ScriptedChatModel(script=script, model="costs-nothing")


def guarded(store: str = "memory://", **limits: Any) -> Guard:
    return Guard(CONFIG, store=store, **({"max_steps": STEPS} | limits))


async def run(guard: Guard, model: ScriptedChatModel, tools: list[Any]) -> None:
    """Runs an agent into its limit."""
    agent: Any = create_agent(model, tools)
    with pytest.raises(BudgetExceeded):
        async with guard.session("support", session_id="s-1"):
            await agent.ainvoke({"messages": [("user", "find")]})


def assert_counted_once(guard: Guard, seen: Seen, server: str = "geo-mcp") -> None:
    """Each call is in the ledger once, under the server's own names."""
    calls = [event for event in events(guard) if event.kind is CallKind.TOOL]
    assert len(seen.calls) == len(calls) == STEPS // 2
    assert {(event.server, event.tool) for event in calls} == {(server, "echo")}
    assert {event.charge.cost_nano_usd for event in calls} == {10_000_000}
    assert {event.status for event in calls} == {CallStatus.OK}
    assert own_session(guard).steps == STEPS
    account = guard.account("s-1")
    assert account is not None
    assert account.held_nano_usd == 0


# --- langchain-mcp-adapters, on SDK 1.x --------------------------------------


@first_only
@pytest.mark.parametrize("prefix", ["", "geo-mcp", "geo"])
async def test_tools_of_a_wrapped_session_count_once(prefix: str) -> None:
    """Also where the adapter puts its own name of the server before the tool's."""
    from langchain_mcp_adapters.tools import load_mcp_tools

    seen, guard = Seen(), guarded()

    async with session_of(guard, server(seen), server="geo-mcp") as session:
        names = {"server_name": prefix, "tool_name_prefix": True} if prefix else {}
        tools = await load_mcp_tools(session, **names)
        model = runaway(f"{prefix}_echo" if prefix else "echo")
        await run(guard, model, tools)

    assert model.calls == STEPS // 2 + 1
    assert_counted_once(guard, seen)


@first_only
async def test_the_price_of_the_server_s_tool_reaches_the_budget() -> None:
    """The handler reserves by the server's price, before the session sees the call."""
    from langchain_mcp_adapters.tools import load_mcp_tools

    seen, guard = Seen(), guarded(max_cost_usd="0.035", max_steps=100)

    async with session_of(guard, server(seen), server="geo-mcp") as session:
        await run(guard, runaway("echo"), await load_mcp_tools(session))

    assert len(seen.calls) == 3


def test_what_is_no_guard_is_refused_where_an_interceptor_is_built() -> None:
    no_guard: Any = "support-agent"
    with pytest.raises(ConfigurationError, match=r"tool_interceptor\(Guard"):
        tool_interceptor(no_guard)


@first_only
@pytest.mark.parametrize("on_refusal", ["raise", "result"])
async def test_tools_with_an_interceptor_count_once(on_refusal: str) -> None:
    """`get_tools` opens a session for each call: there is nothing to wrap."""
    from langchain_mcp_adapters.client import MultiServerMCPClient

    guard = guarded()
    script = Path(__file__).with_name("stdio_server.py")
    client = MultiServerMCPClient(
        {
            "geo-mcp": {
                "transport": "stdio",
                "command": sys.executable,
                "args": ["-W", "ignore", str(script)],
                "env": {"PYTHONPATH": str(PROJECT)},
            }
        },
        tool_interceptors=[tool_interceptor(guard, on_refusal=on_refusal)],
    )
    tools = [tool for tool in await client.get_tools() if tool.name == "echo"]

    await run(guard, runaway("echo"), tools)

    seen = Seen()
    seen.calls = ["echo"] * 3  # Other processes: the ledger has to know.
    assert_counted_once(guard, seen)


@first_only
async def test_an_interceptor_leaves_the_call_to_a_wrapped_session() -> None:
    from langchain_mcp_adapters.tools import load_mcp_tools

    seen, guard = Seen(), guarded()

    async with session_of(guard, server(seen), server="geo-mcp") as session:
        tools = await load_mcp_tools(
            session, tool_interceptors=[tool_interceptor(guard)], server_name="geo-mcp"
        )
        await run(guard, runaway("echo"), tools)

    assert_counted_once(guard, seen)


@first_only
async def test_outside_of_langchain_s_sessions_an_interceptor_guards_alone() -> None:
    from langchain_mcp_adapters.tools import load_mcp_tools

    seen, guard = Seen(), guarded(max_steps=1)
    refusing = tool_interceptor(
        guard, server="geo-mcp", session_id="s-1", on_refusal="result"
    )

    async with connected(server(seen)) as session:
        tools = await load_mcp_tools(session, tool_interceptors=[refusing])
        echo = next(tool for tool in tools if tool.name == "echo")
        await echo.ainvoke({"q": "a"})
        call = {"name": "echo", "args": {"q": "b"}, "id": "1", "type": "tool_call"}
        message: Any = await echo.ainvoke(call)

    assert message.status == "error"
    assert "guardrails refused" in str(message.content)
    assert seen.calls == ["echo"]


# --- langchain.mcp, on SDK 2.x ------------------------------------------------


@second_only
async def test_tools_of_langchain_s_own_adapter_count_once() -> None:
    import fastmcp
    from langchain_core._api import LangChainBetaWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainBetaWarning)
        from langchain.mcp import MCPAdapter

    seen, guard = Seen(), guarded()
    client = guard.wrap(fastmcp.Client(server(seen)), server="geo-mcp")

    async with MCPAdapter(client) as adapter:
        tools = [t for t in await adapter.list_tools() if t.name == "echo"]
        model = runaway("echo")
        await run(guard, model, tools)

    assert model.calls == STEPS // 2 + 1
    assert_counted_once(guard, seen)


# --- by hand, on both ---------------------------------------------------------


def tool_of(session: Any, name: str = "echo") -> Any:
    """A LangChain tool that calls one of a session."""
    from langchain_core.tools import StructuredTool

    async def call(q: str) -> str:
        return str(await session.call_tool("echo", {"q": q}))

    return StructuredTool.from_function(
        coroutine=call, name=name, description="Looks something up."
    )


async def test_the_report_shows_each_call_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, store = Seen(), str(tmp_path / "ledger.sqlite3")
    guard = guarded(store)
    async with session_of(guard, server(seen), server="geo-mcp") as session:
        await run(guard, runaway("echo"), [tool_of(session)])
    guard.close()

    arguments = ["costs", "--by", "tool", "--json", "--store", store]
    monkeypatch.setattr(sys, "argv", ["guardrails", *arguments])
    with contextlib.suppress(SystemExit):
        main()
    rows = json.loads(capsys.readouterr().out)["rows"]

    (row,) = [row for row in rows if row["tool"]]
    assert (row["tool"], row["tool_calls"]) == ("geo-mcp/echo", STEPS // 2)
    assert row["cost_usd"] == "0.03"
    assert row["latency_ms"] >= 0
    assert row["bytes_out"] > row["bytes_in"] > 0


async def test_a_tool_that_only_uses_another_counts_beside_it() -> None:
    """Its name ends like the other's, but it is another tool with other arguments."""
    seen, guard = Seen(), guarded(max_steps=100)

    async with session_of(guard, server(seen), server="geo-mcp") as session:
        tool = tool_of(session, "deep_echo")

        async def call(topic: str) -> str:
            return str(await session.call_tool("echo", {"q": topic}))

        tool.coroutine = call
        tool.args_schema = {
            "type": "object",
            "properties": {"topic": {"type": "string"}},
        }
        async with guard.session("support", session_id="s-1"):
            await tool.ainvoke({"topic": "maps"})

    assert [event.tool for event in events(guard)] == ["echo", "deep_echo"]


async def test_another_server_s_tool_of_the_same_name_has_its_own_price() -> None:
    """The handler takes it for the other's; the session knows better."""
    seen, guard = Seen(), guarded(max_steps=100)

    async with session_of(guard, server(seen), server="geo-mcp") as session:
        async with session_of(guard, server(Seen()), server="other") as other:
            await session.list_tools()
            await other.list_tools()
            tool = tool_of(session)
            async with guard.session("support", session_id="s-1") as s:
                await tool.ainvoke({"q": "a"})

    (event,) = s.events()
    assert (event.server, event.tool) == ("geo-mcp", "echo")
    assert event.charge.cost_nano_usd == 10_000_000
    assert s.steps == 1


async def test_a_stop_inside_a_tool_ends_the_run() -> None:
    """A run whose tools are dear, and whose handler knows no price of them."""
    seen, guard = Seen(), guarded(max_cost_usd="0.025", max_steps=100)

    async with connected(server(seen)) as session:
        guard.wrap(session, server="geo-mcp")
        model = runaway("echo")
        agent: Any = create_agent(model, [tool_of(session)])
        with pytest.raises(SessionStopped):
            async with guard.session("support", session_id="s-1"):
                await agent.ainvoke({"messages": [("user", "find")]})

    assert len(seen.calls) == 2


async def test_two_guards_that_both_wrap_the_session_count_each_call_once() -> None:
    """Each has a handler that opens the call, and takes over its own."""
    guards = [guarded(max_steps=100) for _ in range(2)]

    async with connected(server(Seen())) as session:
        for guard in guards:
            guard.wrap(session, server="geo-mcp")
        tool = tool_of(session)
        async with guards[0].session("a", session_id="s-1"):
            async with guards[1].session("b", session_id="s-1"):
                await tool.ainvoke({"q": "a"})

    for guard in guards:
        (event,) = events(guard)
        assert (event.server, event.tool) == ("geo-mcp", "echo")
        assert own_session(guard).steps == 1
