"""Resumption: who reads on what was broken off makes no other call."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
from mcp import ClientSession, types
from mcp.server.streamable_http import EventStore
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.message import ClientMessageMetadata

from guardrails import BudgetExceeded, Guard
from tests.integrations.mcp.peers import (
    FIRST,
    Seen,
    events,
    own_session,
    server,
    session_of,
    text_of,
    tool_request,
)

try:
    from mcp.client.streamable_http import streamable_http_client as http_client
except ImportError:  # The oldest of 1.x.
    from mcp.client.streamable_http import streamablehttp_client as http_client

# The SDK 1.24 leaves streams of broken-off requests open.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning",
    "ignore:Unclosed <MemoryObject:ResourceWarning",
)

NAMES: dict[str, Any] = {"agent": "support", "server": "geo-mcp", "session_id": "s-1"}


class Events(EventStore):
    """What a server has sent, to be sent again."""

    def __init__(self) -> None:
        self._sent: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: Any, message: Any) -> Any:
        self._sent.append((stream_id, message))
        return str(len(self._sent))

    async def replay_events_after(self, last_event_id: Any, send_callback: Any) -> Any:
        from mcp.server.streamable_http import EventMessage

        last = int(last_event_id)
        stream_id = self._sent[last - 1][0]
        for at, (stream, message) in enumerate(self._sent[last:], last + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(at)))
        return stream_id


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serves over HTTP with its events kept, on a free port of this machine."""
    low = app._mcp_server if FIRST else app._lowlevel_server
    manager = StreamableHTTPSessionManager(low, event_store=Events())

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await manager.handle_request(scope, receive, send)

    config = uvicorn.Config(
        asgi, host="127.0.0.1", port=0, log_level="error", ws="none", lifespan="off"
    )
    web = uvicorn.Server(config)
    async with manager.run():
        serving = asyncio.create_task(web.serve())
        while not web.started:
            await asyncio.sleep(0.01)
        port = web.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            web.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[ClientSession]:
    async with http_client(url) as (read, write, *_):
        async with ClientSession(read, write) as session:
            await session.initialize()
            yield session


async def broken_off(session: Any, request: Any, after: str | None = None) -> str:
    """Sends a request, leaves it at its first event, and returns that event's token.

    Args:
        session: Where it is sent.
        request: What is sent.
        after: The token after which it reads on, if it does.
    """
    token: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def hear(heard: str) -> None:
        if not token.done():
            token.set_result(heard)

    metadata = ClientMessageMetadata(after, hear)
    call = asyncio.create_task(
        session.send_request(request, types.CallToolResult, metadata=metadata)
    )
    heard = await token
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    return heard


async def resumed(session: Any, request: Any, token: str) -> Any:
    """Reads on after a token."""
    metadata = ClientMessageMetadata(resumption_token=token)
    return await session.send_request(request, types.CallToolResult, None, metadata)


async def _resumes(guard: Guard, seen: Seen, *, reconnects: bool) -> Any:
    app, request = server(seen), tool_request("announce", {})
    async with served(app) as url, connected(url) as first:
        guard.wrap(first, **NAMES)
        token = await broken_off(first, request)
        again = connected(url) if reconnects else contextlib.nullcontext(first)
        seen.gate.set()
        for _ in range(2):  # What is heard now was not before.
            token = await broken_off(first, request, after=token)
        async with again as second:
            guard.wrap(second, **NAMES)
            return await resumed(second, request, token)


# In loops of their own: sse-starlette leaves a task behind in each.


@pytest.fixture(autouse=True)
def _nothing_left_for_others() -> Iterator[None]:
    yield
    gc.collect()  # What is collected in another test is said to be of that.


@pytest.mark.parametrize("reconnects", [False, True])
def test_a_call_that_is_resumed_counts_once(reconnects: bool) -> None:
    rule = {"geo-mcp/*": {"cost_per_call_usd": "0.01"}}
    seen, guard = Seen(), Guard({"tools": rule}, store="memory://", max_tool_calls=1)

    result = asyncio.run(_resumes(guard, seen, reconnects=reconnects))

    assert (text_of(result), seen.calls) == ("announced", ["announce"])
    [event] = events(guard)
    assert event.charge.cost_nano_usd == 10_000_000
    assert own_session(guard).steps == 1


def test_a_call_whose_answer_says_its_cost_counts_again_where_it_is_resumed() -> None:
    """It is booked when it breaks off, and nobody knows its cost by then."""
    rule = {"geo-mcp/*": {"cost_per_call_usd": "0.01", "cost_from_meta": "cost"}}
    seen, guard = Seen(), Guard({"tools": rule}, store="memory://", max_tool_calls=4)

    asyncio.run(_resumes(guard, seen, reconnects=False))

    assert seen.calls == ["announce"]
    assert [event.charge.cost_nano_usd for event in events(guard)] == [10_000_000] * 4


async def test_a_token_that_no_server_has_sent_is_no_way_to_a_free_call() -> None:
    """Where the transport knows no resumption, the request is sent like any other."""
    seen, guard = Seen(), Guard({}, store="memory://", max_tool_calls=2)

    async with session_of(guard, server(seen), **NAMES) as session:
        for _ in range(2):
            await resumed(session, tool_request("echo", {"q": "a"}), "1")
        with pytest.raises(BudgetExceeded):
            await resumed(session, tool_request("echo", {"q": "a"}), "1")

    assert seen.calls == ["echo"] * 2
