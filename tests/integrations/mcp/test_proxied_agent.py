"""An agent whose MCP server stands behind `guardrails wrap` without its knowing."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from guardrails import Guard
from guardrails_langchain.testing import ScriptedChatModel

LIMIT = 3

WRAP = ("-c", "from guardrails.cli import main; main()", "wrap", "--server", "geo")
SERVER = (sys.executable, "-m", "guardrails_mcp.demo_server")


async def test_the_model_reads_the_refusal_and_gives_its_answer(tmp_path: Path) -> None:
    """`get_tools` starts a process for every call: the limit holds over all of them."""
    client_module = pytest.importorskip(
        "langchain_mcp_adapters.client", reason="needs langchain-mcp-adapters (mcp 1.x)"
    )
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    connection = {
        "transport": "stdio",
        "command": sys.executable,
        "args": [*WRAP, "--", *SERVER],
        "cwd": str(tmp_path),
        "env": {
            **os.environ,
            "GUARDRAILS_STORE": url,
            "GUARDRAILS_SESSION_ID": "s-1",
            "GUARDRAILS_CUSTOMER_ID": "acme",
            "GUARDRAILS_MAX_STEPS": str(LIMIT),
        },
    }
    tools = await client_module.MultiServerMCPClient({"geo": connection}).get_tools()
    model = ScriptedChatModel(script=until_refused, model="costs-nothing")
    agent: Any = create_agent(model, tools)

    state = await agent.ainvoke({"messages": [("user", "where is it?")]})

    results = [m for m in state["messages"] if isinstance(m, ToolMessage)]
    assert [result.status for result in results] == ["success"] * LIMIT + ["error"]
    assert "guardrails refused it" in str(results[-1].content)
    assert state["messages"][-1].content == "I could not find it."
    guard = Guard({}, store=url)
    account = guard.account("s-1")
    assert account is not None
    assert (account.tool_calls, account.held_nano_usd) == (LIMIT, 0)
    [spend] = guard.store.history.spend(
        project_id="default",
        by="tool",
        since_ms=0,
        until_ms=guard.engine.clock.now_ms(),
    )
    assert (spend.name, spend.tool_calls) == ("geo/geocode", LIMIT)
    assert spend.latency_ms
    assert spend.bytes_out
    guard.close()


def until_refused(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
    if number > 10 or "guardrails refused it" in str(messages[-1].content):
        return AIMessage("I could not find it.")
    call = {"name": "geocode", "args": {"address": f"{number} Main Street"}}
    return AIMessage("", tool_calls=[{**call, "id": f"call-{number}"}])
