"""The programs that start MCP servers, and the files in which they keep which."""
