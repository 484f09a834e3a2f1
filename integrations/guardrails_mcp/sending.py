"""Sending: what happens to the requests of a session that is wrapped."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

from guardrails.charges import ToolOrigin
from guardrails_mcp import resumption, wire
from guardrails_mcp.calls import Wrapping
from guardrails_mcp.requests import Request

__all__ = ["SERVER", "WRAPPINGS", "closed", "sent", "wrappings_of"]

WRAPPINGS = "_guardrails_wrappings"
"""The attribute of a wrapped object that holds who guards it, first one innermost."""

SERVER = "_guardrails_server"
"""The attribute of a session that holds how its server calls itself."""


def wrappings_of(target: object) -> tuple[Wrapping, ...]:
    """Returns who guards an object, first one innermost."""
    return getattr(target, "__dict__", {}).get(WRAPPINGS, ())


async def sent(
    session: object,
    request: object,
    send: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> object:
    """Sends a request of a session; that of a tool call goes through all its guards."""
    method = wire.method_of(request)
    if method != wire.CALL:
        result = await send(*args, **kwargs)
        _learn(session, method, result)
        if method in wire.FETCHES:
            await _fetched(session, request, result)
        return result
    asked = Request(
        tool=wire.tool_request(request),
        server=server_of(session),
        connection=session,
        resumes=resumption.token_of(args, kwargs),
    )
    args, kwargs = _with_deadline(session, asked, args, kwargs)
    args, kwargs = resumption.heard(args, kwargs, asked.hear)

    async def write() -> object:
        asked.was_sent = not wire.is_closed(session)
        try:
            return await send(*args, **kwargs)
        except Exception as error:
            if _is_first_major(session) and wire.is_closed(session, error):
                asked.was_sent = False
            raise

    through: Callable[[], Any] = write
    for wrapping in wrappings_of(session):
        through = functools.partial(wrapping.around, asked, through)
    return await through()


def _with_deadline(
    session: object, asked: Request, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Adds a deadline where neither the call nor the session has one."""
    name = "request_read_timeout_seconds"
    given = args[0] if args else kwargs.get(name)
    own = wire.value_of(session, "_session_read_timeout_seconds")
    if given is not None or own is not None:
        return args, kwargs
    deadlines = [
        wrapping.deadline_ms(asked.tool.tool, asked.server)
        for wrapping in wrappings_of(session)
    ]
    seconds = min((ms / 1000 for ms in deadlines if ms is not None), default=None)
    if seconds is None:
        return args, kwargs
    deadline = timedelta(seconds=seconds) if _is_first_major(session) else seconds
    if args:
        return (deadline, *args[1:]), kwargs
    return args, {**kwargs, name: deadline}


def _is_first_major(session: object) -> bool:
    """Whether a session is of SDK 1.x, whose timeouts are `timedelta`."""
    return not hasattr(type(session), "dispatch_input_request")


def _learn(session: object, method: object, result: object) -> None:
    """Remembers how a server calls itself and which tools it offers."""
    try:
        if method == wire.INITIALIZE:
            vars(session)[SERVER] = wire.server_name(result)
        elif method == wire.LIST:
            _offer(session, wire.tool_names(result))
    except Exception as error:
        for wrapping in wrappings_of(session):
            wrapping.engine.contain(error, "reading what an MCP server offers")


async def _fetched(session: object, request: object, result: object) -> None:
    """Lets those know who wait for a task what its server says of it."""
    for wrapping in wrappings_of(session):
        try:
            await wrapping.fetched(wire.task_asked(request), result)
        except Exception as error:
            wrapping.engine.contain(error, "reading what a task of MCP has cost")


def _offer(session: object, tools: Iterable[str]) -> None:
    """Lets frameworks price the tools of a server, which they call by bare names."""
    own = server_of(session)
    for wrapping in wrappings_of(session):
        server = wrapping.server or own
        if server is None:
            continue
        for tool in tools:
            origin = ToolOrigin(tool=tool, server=server)
            for name in (tool, f"{server}_{tool}"):
                wrapping.engine.charges.offer(name, origin)


def server_of(session: object) -> str | None:
    """Returns how the server calls itself; `None` if it has not said so here."""
    known = vars(session).get(SERVER)
    if known is not None:
        return known
    return wire.server_name(wire.value_of(session, "server_info"))


async def closed(target: object, connections: Collection[object]) -> None:
    """Tells who guards an object that these connections of it are over."""
    for wrapping in wrappings_of(target):
        try:
            await wrapping.close(connections)
        except Exception as error:
            wrapping.engine.contain(error, "closing a client of MCP")
