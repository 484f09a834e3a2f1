"""Context: reads what a request to a FastMCP server says, by 2, 3 or 4 of it."""

from collections.abc import Mapping
from typing import Any, cast

from fastmcp.server.dependencies import get_http_headers
from fastmcp.server.middleware import MiddlewareContext

from guardrails_mcp.wire import hashed_name, is_modern

__all__ = [
    "connection_of",
    "header_of",
    "listed_name",
    "meta_of",
    "params_of",
    "server_of",
]


def _request_of(context: MiddlewareContext[Any]) -> Any:
    inside = context.fastmcp_context
    return None if inside is None else inside.request_context


def server_of(context: MiddlewareContext[Any]) -> object:
    """Returns the server that answers the request; `None` outside of any."""
    inside = context.fastmcp_context
    return None if inside is None else inside.fastmcp


def header_of(name: str) -> object:
    """Returns a header of the HTTP request, by its name in lower case."""
    try:
        headers = get_http_headers(include={name})
    except TypeError:  # FastMCP 2 cannot be asked for a single one.
        headers = get_http_headers(include_all=True)
    return headers.get(name)


def meta_of(context: MiddlewareContext[Any]) -> Mapping[str, object]:
    """Returns the `_meta` of the request, by its names on the wire."""
    meta: Any = getattr(_request_of(context), "meta", None)
    if hasattr(meta, "model_dump"):  # FastMCP 2 and 3, on SDK 1.x.
        meta = meta.model_dump(by_alias=True, exclude_none=True)
    return cast("Mapping[str, object]", meta) if isinstance(meta, Mapping) else {}


def params_of(context: MiddlewareContext[Any]) -> Mapping[str, object]:
    """Returns what says that a request goes on with an earlier round."""
    inside = context.fastmcp_context
    if inside is None:
        return {}
    # FastMCP 2 and 3 know no rounds.
    return {
        "requestState": getattr(inside, "request_state", None),
        "inputResponses": getattr(inside, "input_responses", None),
    }


async def listed_name(context: MiddlewareContext[Any]) -> str:
    """Returns the name that the server lists the tool under which a request calls.

    The tool of an app can be called by a hash, too, which is nobody's way around its
    price. The name is none of the app's where a namespace is before it.
    """
    name, server = context.message.name, cast("Any", server_of(context))
    hashed = hashed_name(name)
    if hashed is None:
        return name
    try:
        if await server.get_tool(name) is None:
            tool = await server.get_tool_by_hash(*hashed)
            return name if tool is None else tool.name
    except Exception:  # It has none such, as of FastMCP 2: it will say so itself.
        return name
    return name


def connection_of(context: MiddlewareContext[Any]) -> str | None:
    """Returns the id of a connection that lasts.

    Since 2026-07-28 there is none, and before that none to a server with
    `stateless_http`: every request has an id of its own, or whatever its header says,
    and a limit per id would never be reached.
    """
    request = _request_of(context)
    # SDK 1.x says none, and has connections only.
    version = getattr(request, "protocol_version", "")
    if request is None or not isinstance(version, str) or is_modern(version):
        return None
    if getattr(request.session, "client_params", None) is None:
        return None  # Nobody has introduced themselves on it: it began just now.
    assert context.fastmcp_context is not None
    return context.fastmcp_context.session_id
