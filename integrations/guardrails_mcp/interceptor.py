"""Interceptor: guards the tools of langchain-mcp-adapters, call by call.

`MultiServerMCPClient.get_tools` opens a new session, and a new server process, for
every call: there is no session that could be wrapped.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypedDict, Unpack

from guardrails import ConfigurationError, Guard
from guardrails.core.attribution import clean_name
from guardrails.errors import CallRefused, GuardrailsError, SessionStopped
from guardrails.guards import checked_guard
from guardrails_mcp import wire
from guardrails_mcp.calls import Wrapping
from guardrails_mcp.refusals import refusal_result
from guardrails_mcp.requests import Request

__all__ = ["Names", "tool_interceptor"]

_NO_SERVER = "unknown"
"""What langchain-mcp-adapters calls a server that its caller has not named."""

Handler = Callable[[Any], Awaitable[Any]]


class Names(TypedDict, total=False):
    """Whom calls are charged to, as for `guard.wrap`."""

    agent: str
    """Who acts; chooses the budget of a session of its own."""
    customer_id: str
    user_id: str
    feature: str
    prompt_version: str
    session_id: str
    """Joins an existing session where no other is open."""
    tags: Mapping[str, str]
    """Free pairs, at most 16."""


def tool_interceptor(
    guard: Guard,
    *,
    server: str | None = None,
    on_refusal: str = "raise",
    **names: Unpack[Names],
) -> Callable[[Any, Handler], Awaitable[Any]]:
    """Returns an interceptor for `MultiServerMCPClient(tool_interceptors=[...])`.

    A call that LangChain's handler has opened is taken over, and one on a wrapped
    session is left to that: each call counts once, as `server/tool`. Put it last, next
    to the call: what another interceptor repeats is then counted again.

    Args:
        guard: The guard.
        server: What the server is called, if not as in the client's connections.
        on_refusal: `raise` the stop, or answer with a `result` that tells the model.
            A session that is over is so either way.
        names: Whom calls are charged to where the session around them does not say.

    Raises:
        ConfigurationError: If a name is wrong, `on_refusal` is neither, or the guard
            is none.
    """
    if on_refusal not in ("raise", "result"):
        raise ConfigurationError(
            f"on_refusal: {on_refusal!r} is not one of raise, result."
        )
    guard = checked_guard(guard, called="tool_interceptor")
    wrapping = Wrapping.of(guard, {**names, "server": server})

    async def intercept(request: Any, handler: Handler) -> Any:
        asked = _asked(request)

        async def send() -> Any:
            asked.was_sent = True
            return await handler(request)

        try:
            return await wrapping.around(asked, send, offers=True)
        except (SessionStopped, CallRefused) as refusal:
            if on_refusal == "raise":
                raise
            return _refused(refusal)

    return intercept


def _asked(request: object) -> Request:
    """Returns what LangChain is about to call."""
    server = clean_name(wire.value_of(request, "server_name"))
    call_id = wire.value_of(wire.value_of(request, "runtime"), "tool_call_id")
    return Request(
        tool=wire.ToolRequest(
            tool=clean_name(wire.value_of(request, "name")) or wire.UNKNOWN_TOOL,
            arguments=wire.value_of(request, "args") or {},
            rounds={},
            call_id=call_id if isinstance(call_id, str) else None,
        ),
        server=None if server == _NO_SERVER else server,
    )


def _refused(refusal: GuardrailsError) -> object:
    # Imported late: langchain-mcp-adapters brings it.
    from mcp.types import CallToolResult

    return CallToolResult.model_validate(refusal_result(refusal))
