"""Peers: real servers and clients of whichever major of the SDK is installed.

A server counts in `Seen` what reaches it, and does what its tools' names say.
"""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

import anyio
import mcp
import pytest
from mcp import ClientSession, types

from guardrails import Event, Guard, Session

FIRST = version("mcp").startswith("1.")
"""Whether this environment has SDK 1.x."""

second_only = pytest.mark.skipif(FIRST, reason="needs mcp 2.x, and 1.x is installed")
first_only = pytest.mark.skipif(not FIRST, reason="needs mcp 1.x, and 2.x is installed")

if FIRST:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as ServerKind
    from mcp.shared.exceptions import McpError as ProtocolError
    from mcp.shared.memory import create_client_server_memory_streams
else:
    from mcp.client._memory import InMemoryTransport
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver import MCPServer as ServerKind
    from mcp.shared.exceptions import MCPError as ProtocolError

__all__ = [
    "FIRST",
    "Context",
    "ProtocolError",
    "Seen",
    "connected",
    "error_flag",
    "events",
    "fails",
    "first_only",
    "own_session",
    "paid_result",
    "second_only",
    "server",
    "session_of",
    "text_of",
    "tool_request",
]

SERVER_NAME = "geo"


class Seen:
    """What has reached a server."""

    async def let_go(self) -> None:
        """Lets every `wait` answer: SDK 1.x does not tell a server to stop."""
        self.gate.set()
        for _ in range(20):
            await asyncio.sleep(0)

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        """Lets `wait` answer."""
        self.started = asyncio.Event()
        """`wait` has been called."""


def paid_result(cost: object, text: str = "found") -> Any:
    """A result in whose `_meta` a server says what the call cost."""
    result = {
        "content": [{"type": "text", "text": text}],
        "_meta": {"acme.com/cost_usd": cost},
    }
    return types.CallToolResult.model_validate(result)


def server(seen: Seen, name: str = SERVER_NAME) -> Any:
    """A server with a tool for each thing that a tool can do."""
    app: Any = ServerKind(name)

    @app.tool()
    async def echo(q: str = "") -> str:
        seen.calls.append("echo")
        await asyncio.sleep(0)
        return f"found {q}"

    @app.tool()
    async def same(q: str = "") -> str:
        seen.calls.append("same")
        return "nothing"

    @app.tool()
    async def fail(q: str = "") -> str:
        seen.calls.append("fail")
        raise ValueError("no such place")

    @app.tool()
    async def wait(q: str = "") -> str:
        seen.calls.append("wait")
        seen.started.set()
        try:
            await seen.gate.wait()
        except asyncio.CancelledError:
            seen.cancelled += 1
            raise
        return "waited"

    @app.tool()
    async def announce(ctx: Context) -> str:  # pyright: ignore[reportMissingTypeArgument]
        seen.calls.append("announce")
        with warnings.catch_warnings():  # Deprecated in 2.x, and used all the same.
            warnings.simplefilter("ignore")
            await ctx.info("coming")
            await seen.gate.wait()
            for number in range(3):
                await ctx.info(f"coming {number}")
        return "announced"

    @app.tool()
    async def numbers(count: int = 2) -> dict[str, list[int]]:
        seen.calls.append("numbers")
        return {"numbers": list(range(count))}

    @app.tool()
    async def paid(cost: Any = None) -> types.CallToolResult:
        seen.calls.append("paid")
        return paid_result(cost)

    @app.tool()
    async def steps(ctx: Context) -> str:  # pyright: ignore[reportMissingTypeArgument]
        seen.calls.append("steps")
        for number in range(3):
            await ctx.report_progress(number, 3, f"step {number}")
        return "done"

    @app.tool()
    async def think(ctx: Context, hint: str = "gpt-4o") -> str:  # pyright: ignore[reportMissingTypeArgument]
        seen.calls.append("think")
        text = types.TextContent(type="text", text="What is the capital of France?")
        preferences = {"hints": [{"name": hint}]}
        with warnings.catch_warnings():  # Deprecated in 2.x, and used all the same.
            warnings.simplefilter("ignore")
            asking: Any = ctx.session.create_message(
                messages=[types.SamplingMessage(role="user", content=text)],
                max_tokens=100,
                model_preferences=types.ModelPreferences.model_validate(preferences),
            )
        return (await asking).content.text

    @app.resource("geo://city")
    def city() -> str:
        return "Paris"

    @app.prompt()
    def ask(topic: str = "") -> str:
        return f"Tell me about {topic}"

    return app


@contextlib.asynccontextmanager
async def _streams(app: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Runs a server in this process, and yields the client's streams."""
    if not FIRST:
        async with InMemoryTransport(app) as (read, write):
            yield read, write
        return
    low = app._mcp_server
    async with create_client_server_memory_streams() as (client, its):
        async with anyio.create_task_group() as group:
            options = low.create_initialization_options()
            group.start_soon(lambda: low.run(its[0], its[1], options))
            try:
                yield client
            finally:
                group.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def connected(
    app: Any,
    wrap: Callable[[ClientSession], object] = lambda session: session,
    *,
    early: bool = False,
    kind: type[ClientSession] = ClientSession,
    **options: Any,
) -> AsyncIterator[ClientSession]:
    """A session with a server, initialized; wrapped before that if `early`."""
    async with _streams(app) as (read, write):
        session = kind(read, write, **options)
        if early:
            wrap(session)
        async with session:
            await session.initialize()
            if not early:
                wrap(session)
            yield session


def session_of(
    guard: Guard, app: Any, **names: Any
) -> AbstractAsyncContextManager[Any]:
    """A session with a server, wrapped by a guard."""
    return connected(app, lambda session: guard.wrap(session, **names))


def tool_request(name: str, arguments: dict[str, Any]) -> Any:
    """A raw `tools/call` of the SDK."""
    params = types.CallToolRequestParams(name=name, arguments=arguments)
    request: Any = types.CallToolRequest(method="tools/call", params=params)
    return mcp.types.ClientRequest(request) if FIRST else request  # pyright: ignore[reportCallIssue]


def text_of(result: Any) -> str:
    return result.content[0].text


def error_flag(result: Any) -> bool:
    return result.isError if FIRST else result.is_error


def own_session(guard: Guard, session_id: str = "s-1") -> Session:
    """The ledger's view of a session."""
    return guard.session(session_id=session_id)


def events(guard: Guard, session_id: str = "s-1") -> list[Event]:
    return list(own_session(guard, session_id).events())


async def fails(call: Awaitable[Any]) -> bool:
    """Whether a call fails: 1.x makes a result of what 2.x passes on as an error."""
    try:
        return error_flag(await call)
    except ProtocolError:
        return True
