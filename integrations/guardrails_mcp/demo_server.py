"""A real MCP server for the demo: one tool, which never finds anything.

`python -m guardrails_mcp.demo_server` serves it over stdio.
"""

from typing import Any

__all__ = ["server"]


def server() -> Any:
    """Returns the server, of whichever MCP SDK is installed."""
    try:
        from mcp.server.mcpserver import MCPServer as Server
    except ImportError:  # mcp 1.x
        from mcp.server.fastmcp import FastMCP as Server
    served = Server("geocoding")

    @served.tool()
    def geocode(address: str) -> str:
        """Finds the coordinates of an address."""
        return f"no match for {address}"

    return served


if __name__ == "__main__":
    server().run("stdio")
