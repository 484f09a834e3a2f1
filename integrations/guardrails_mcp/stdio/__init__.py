"""The stdio proxy: `guardrails wrap -- CMD`, in front of any MCP server.

    host ──stdin──▶ ┌───────┐ ──stdin──▶ server
                    │ relay │
    host ◀─stdout── └───────┘ ◀─stdout── server        stderr is the server's own

`lines` and `messages` read bytes, `relay` decides what happens to them, with `sampling`
for what the server asks of the host's model; none of them does I/O. They ask by way of
`meters`, and `metering` answers with the guard. `pumps` moves the bytes, `proxy` runs
one server from its start to its end, and `supervisor` sees that nothing is left behind,
whoever dies first: `processes` is what a system offers for that. `command` is the
command line, and `bridges` reach servers by their URL. Nothing here imports an MCP SDK,
and nothing that is slow to import is needed before the server has been started.
"""
