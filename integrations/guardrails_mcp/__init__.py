"""guardrails for MCP: sessions and clients of the SDK 1.x and 2.x, and of FastMCP.

`guard.wrap(session)` guards every tool call that is made on a session, a client or a
group of sessions. Importing this package imports no SDK: it works with whichever is
there.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from guardrails import Guard
    from guardrails_mcp.interceptor import tool_interceptor
    from guardrails_mcp.middleware import GuardMiddleware
    from guardrails_mcp.sampling import sampling_callback

__all__ = [
    "GuardMiddleware",
    "running",
    "sampling_callback",
    "self_test",
    "tool_interceptor",
    "unwrap_object",
    "wrap_object",
]

_MODULES = {
    "GuardMiddleware": "guardrails_mcp.middleware",
    "sampling_callback": "guardrails_mcp.sampling",
    "tool_interceptor": "guardrails_mcp.interceptor",
}


def wrap_object(guard: object, target: object, options: object) -> object:
    """Returns the client or session itself, guarded; `None` for other objects."""
    # Imported late: whoever only proxies a server wraps nothing.
    from guardrails_mcp.wrapping import wrapped

    return wrapped(cast("Guard", guard), target, cast("Mapping[str, Any]", options))


def unwrap_object(guard: object, target: object) -> object:
    """Returns the client or session without the guard; `None` if it had none."""
    from guardrails_mcp.wrapping import unwrapped

    return unwrapped(cast("Guard", guard), target)


def running(engine: object) -> None:
    """Returns nothing: neither a process nor a connection of MCP is a run."""
    return


def self_test() -> Mapping[str, bool]:
    """Returns whether a limit stops a tool call of MCP; see `selftest`."""
    # Imported late: only `guardrails doctor` asks, and it imports the SDK.
    from guardrails_mcp import selftest

    return selftest.self_test()


def __getattr__(name: str) -> object:
    # Imported late: a server's middleware needs FastMCP, and `guardrails wrap` starts
    # as fast as it can.
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
