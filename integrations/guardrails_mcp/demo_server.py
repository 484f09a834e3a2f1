"""A real MCP server for the demo: one tool, which never finds anything.

`python -m guardrails_mcp.demo_server` serves it over stdio.
"""

from importlib import import_module
from typing import Any

__all__ = ["server"]


def server() -> Any:
    """Returns the server, of whichever MCP SDK is installed."""
    try:
        kind: Any = import_module("mcp.server.mcpserver").MCPServer
    except ImportError:  # mcp 1.x
        kind = import_module("mcp.server.fastmcp").FastMCP
    served = kind("geocoding")

    def geocode(address: str) -> str:
        """Finds the coordinates of an address."""
        return f"no match for {address}"

    served.tool()(geocode)
    return served


if __name__ == "__main__":
    server().run("stdio")
