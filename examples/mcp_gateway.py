"""A gateway in front of a remote MCP server: its tools, with a budget per client.

FastMCP's proxy speaks HTTP on both sides; the middleware is the same that guards a
server of your own. Needs FastMCP: pip install "fastmcp>=4".
"""

import asyncio

from fastmcp import Client, FastMCP
from fastmcp.server import create_proxy

from guardrails import Guard
from guardrails_mcp.middleware import GuardMiddleware

remote = FastMCP("weather")  # Stands for "https://weather.example.org/mcp".


@remote.tool
def forecast(city: str) -> str:
    """Tells the weather."""
    return f"sunny in {city}"


gateway = create_proxy(remote, name="weather-gateway")
guard = Guard(store="memory://", max_tool_calls=2)
gateway.add_middleware(GuardMiddleware(guard, server="weather"))


async def main() -> None:
    """Asks three times; `gateway.run(transport="http")` would serve it."""
    async with Client(gateway) as client:
        for city in ("Paris", "Rome", "Oslo"):
            answer = await client.call_tool(
                "forecast", {"city": city}, raise_on_error=False
            )
            text = answer.content[0].text
            print(text.partition(".")[0])


asyncio.run(main())
