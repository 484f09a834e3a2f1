"""Guards a session of MCP: each tool call has a price, a name and a limit."""

import asyncio
import sys

from mcp import ClientSession, StdioServerParameters, stdio_client

from guardrails import BudgetExceeded, Guard

try:
    from mcp.server.mcpserver import MCPServer
except ImportError:  # SDK 1.x
    from mcp.server.fastmcp import FastMCP as MCPServer

guard = Guard(
    {"tools": {"geocoding-mcp/*": {"cost_per_call_usd": "0.005", "timeout_s": 30}}},
    store="memory://",
    max_cost_usd="0.015",
)

# Any server. This one is this very file, and inherits the session of this process.
server = StdioServerParameters(
    command=sys.executable, args=[__file__, "serve"], env=guard.child_env()
)


async def main() -> None:
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        guard.wrap(session, agent="support-agent", server="geocoding-mcp")
        async with guard.session("support-agent", customer_id="acme") as s:
            try:
                for number in range(1_000):  # An agent that is stuck.
                    address = {"address": f"{number} Main Street"}
                    result = await session.call_tool("geocode", address)
                    print(result.content[0].text)
            except BudgetExceeded as stop:
                print(f"{stop.agent}: ${stop.spent} of ${stop.allowed}")
    print(*{f"{event.server}/{event.tool} {event.status}" for event in s.events()})


def serve() -> None:
    app = MCPServer("geocoder", log_level="ERROR")

    @app.tool()
    def geocode(address: str) -> str:
        return f"no match for {address}"

    app.run()


if "serve" in sys.argv:
    serve()
else:
    asyncio.run(main())
