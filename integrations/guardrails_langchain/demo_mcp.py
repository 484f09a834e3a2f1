"""The demo's MCP scene: a server behind `guardrails wrap`, an agent without a guard.

The agent's program knows nothing of guardrails. What limits it stands in front of the
server's command, so it would limit a client in any other language just the same.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool

from guardrails_langchain.testing import ScriptedChatModel

__all__ = ["Played", "play"]

TOOL_TURNS_MAX = 100
"""What ends the agent if nothing else does."""

_COMMAND = "from guardrails.cli import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What the scene has come to."""

    requested: int
    """Tool calls that the model asked for."""
    served: int
    """Tool calls that the server has answered."""
    told: str
    """What the model was told instead of a result."""
    answer: str
    """The agent's last word."""


def play(
    *, store: str, project_id: str, session_id: str, limit: str, price: str
) -> Played:
    """Runs the agent until it gives its answer.

    Args:
        store: The path of the ledger.
        project_id: The project that is charged.
        session_id: The session that is charged.
        limit: What the session may cost, in USD.
        price: What a call of the tool costs, in USD.
    """
    config = Path(store).with_name("guardrails.yaml")
    config.write_text(
        f"defaults: {{session: {{max_cost_usd: {limit}}}}}\n"
        f"tools: {{geocoding-mcp/geocode: {{cost_per_call_usd: {price}}}}}\n",
        encoding="utf-8",
    )
    environ = {
        **os.environ,
        "GUARDRAILS_STORE": store,
        "GUARDRAILS_PROJECT_ID": project_id,
        "GUARDRAILS_SESSION_ID": session_id,
        "GUARDRAILS_AGENT": "support-agent",
    }
    server = (sys.executable, "-m", "guardrails_mcp.demo_server")
    wrap = ("wrap", "--config", str(config), "--server", "geocoding-mcp", "--", *server)
    # The proxy's log is not part of the show.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        return asyncio.run(_play(["-c", _COMMAND, *wrap], environ, nowhere))


async def _play(
    arguments: Sequence[str], environ: dict[str, str], errors: TextIO
) -> Played:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    parameters = StdioServerParameters(
        command=sys.executable, args=list(arguments), env=environ
    )
    async with (
        stdio_client(parameters, errlog=errors) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        model = ScriptedChatModel(script=_script)
        agent = create_agent(model, [_tool(session)])
        question = HumanMessage("Where is Main Street, Springfield?")
        state: dict[str, Any] = await agent.ainvoke({"messages": [question]})
    return _played(state["messages"])


def _tool(session: Any) -> BaseTool:
    @tool
    async def geocode(address: str) -> str:
        """Finds the coordinates of an address."""
        result = await session.call_tool("geocode", {"address": address})
        return "".join(part.text for part in result.content)

    return geocode


def _script(turn: int, messages: Sequence[BaseMessage]) -> AIMessage:
    """Tries the next house until it is told that there is no use in it."""
    is_refused = "guardrails refused it" in str(messages[-1].content)
    if is_refused or turn >= TOOL_TURNS_MAX:
        return AIMessage(f"I tried {turn - 1} addresses and found none.")
    address = {"address": f"{12 + turn} Main Street, Springfield"}
    call = {"name": "geocode", "args": address, "id": f"call-{turn}"}
    return AIMessage(content="", tool_calls=[call])


def _played(messages: Sequence[BaseMessage]) -> Played:
    results = [str(m.content) for m in messages if isinstance(m, ToolMessage)]
    served = [result for result in results if result.startswith("no match")]
    return Played(
        requested=len(results),
        served=len(served),
        told=next((text for text in results if text not in served), ""),
        answer=str(messages[-1].content),
    )
