"""MCP sessions and servers: not part of this version."""
