"""Parity: wrapped, a client does what it did: results, errors, order, everything.

Each case is played on a bare and on a wrapped session, against a server of its own, and
what comes back is compared. `test_the_table_is_complete` finds what has no case.
"""

import asyncio
import contextlib
import inspect
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
from mcp import ClientSession, types
from pydantic import AnyUrl, BaseModel

from guardrails import Guard
from tests.integrations.mcp.peers import (
    FIRST,
    Context,
    Seen,
    connected,
    second_only,
    server,
    tool_request,
)

Play = Callable[[Any, Seen], Awaitable[object]]
"""Does something with a session, and returns what there is to compare."""

URI: Any = AnyUrl("geo://city") if FIRST else "geo://city"
META: Any = {"acme.com/trace": "t-1"}
PAGE: Any = types.PaginatedRequestParams(cursor=None)
REF = types.PromptReference(type="ref/prompt", name="ask")

RAW: dict[str, Any] = {
    "result_type": types.CallToolResult,
    "request": tool_request("echo", {"q": "raw"}),
}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("call_tool", {"name": "echo", "arguments": {"q": "é"}, "meta": META}),
    ("call_tool", {"name": "echo", "arguments": None}),
    ("call_tool", {"name": "echo", "arguments": {"q": 7}}),
    ("call_tool", {"name": "fail"}),
    ("call_tool", {"name": "nobody", "arguments": {}}),
    ("call_tool", {"name": "numbers", "arguments": {"count": 3}}),
    ("call_tool", {"name": "think"}),
    ("call_tool", {"name": "elicit"}),
    ("call_tool", {"name": "roots"}),
    ("call_tool", {"name": "change"}),
    ("call_tool", {"label": "echo"}),
    ("send_request", RAW),
    ("send_request", {**RAW, "metadata": None}),
    ("send_request", {**RAW, "result_type": types.EmptyResult}),
    ("list_tools", {"params": PAGE}),
    ("list_tools", {}),
    ("list_prompts", {"params": PAGE}),
    ("list_resources", {"params": PAGE}),
    ("list_resource_templates", {"params": PAGE}),
    ("get_prompt", {"name": "ask", "arguments": {"topic": "maps"}}),
    ("get_prompt", {"name": "nobody", "arguments": None}),
    ("read_resource", {"uri": URI}),
    ("subscribe_resource", {"uri": URI}),
    ("unsubscribe_resource", {"uri": URI}),
    ("complete", {"ref": REF, "argument": {"name": "topic", "value": "m"}}),
    (
        "complete",
        {
            "ref": REF,
            "argument": {"name": "topic", "value": "m"},
            "context_arguments": {"a": "b"},
        },
    ),
    ("send_ping", {}),
    ("set_logging_level", {"level": "debug"}),
    ("send_roots_list_changed", {}),
    (
        "send_progress_notification",
        {"progress_token": "t", "progress": 1.0, "total": 2.0, "message": "half"},
    ),
    ("initialize", {}),
]

if FIRST:
    CASES += [
        (name, {"cursor": "next"})
        for name in (
            "list_tools",
            "list_prompts",
            "list_resources",
            "list_resource_templates",
        )
    ]
    NOTE: Any = types.ClientNotification(types.RootsListChangedNotification())
    CASES += [("send_notification", {"notification": NOTE, "related_request_id": 7})]
    CASES += [("get_server_capabilities", {}), ("add_response_router", {"router": 1})]
else:
    CASES += [
        (name, {**arguments, "meta": META})
        for name, arguments in [
            ("send_ping", {}),
            ("set_logging_level", {"level": "debug"}),
            ("subscribe_resource", {"uri": URI}),
            ("unsubscribe_resource", {"uri": URI}),
            ("send_progress_notification", {"progress_token": "t", "progress": 1.0}),
        ]
    ]
    ROUND = {
        "input_responses": None,
        "request_state": None,
        "meta": META,
        "allow_input_required": True,
    }
    CASES += [
        ("call_tool", {"name": "echo", **ROUND, "allow_claimed": True}),
        ("call_tool", {"name": "echo", "request_state": "made up"}),
        ("get_prompt", {"name": "ask", **ROUND}),
        ("read_resource", {"uri": URI, **ROUND}),
        ("send_notification", {"notification": types.RootsListChangedNotification()}),
        ("discover", {}),
        ("send_discover", {"version": "2026-07-28"}),
        (
            "validate_tool_result",
            {"name": "echo", "result": types.CallToolResult(content=[])},
        ),
        ("adopt", {"result": None}),
        ("dispatch_input_request", {"ctx": None, "request": types.ListRootsRequest()}),
    ]

TIMED: dict[str, Any] = {}


def seconds(number: float) -> Any:
    return timedelta(seconds=number) if FIRST else number


async def times_out(session: Any, seen: Seen) -> object:
    try:
        return await session.call_tool(
            "wait", {}, read_timeout_seconds=seconds(0.05), progress_callback=None
        )
    finally:
        await seen.let_go()


async def raw_times_out(session: Any, seen: Seen) -> object:
    request = tool_request("wait", {})
    try:
        return await session.send_request(
            request,
            types.CallToolResult,
            request_read_timeout_seconds=seconds(0.05),
        )
    finally:
        await seen.let_go()


async def is_cancelled(session: Any, seen: Seen) -> object:
    call = asyncio.create_task(session.call_tool("wait", {}))
    await seen.started.wait()
    call.cancel()
    try:
        return await call
    finally:
        for _ in range(10):
            await asyncio.sleep(0)
        told = seen.cancelled  # 2.x tells the server, 1.x does not.
        await seen.let_go()
        assert told == (0 if FIRST else 1)


async def is_cut_by_a_scope(session: Any, seen: Seen) -> object:
    with anyio.move_on_after(0.05) as scope:
        await session.call_tool("wait", {})
    await seen.let_go()
    return scope.cancelled_caught, asyncio.current_task().cancelling()  # pyright: ignore[reportOptionalMemberAccess]


async def reports_progress(session: Any, seen: Seen) -> object:
    heard: list[object] = []

    async def listen(*progress: object) -> None:
        heard.append(progress)

    result = await session.call_tool("steps", {}, None, listen)
    raw = await session.send_request(
        tool_request("steps", {}), types.CallToolResult, progress_callback=listen
    )
    for _ in range(10):
        await asyncio.sleep(0)
    return shown(result), shown(raw), sorted(map(repr, heard))


async def many_at_once(session: Any, seen: Seen) -> object:
    calls = [session.call_tool("echo", {"q": f"{n}"}) for n in range(20)]
    return [shown(result) for result in await asyncio.gather(*calls)]


async def attributes(session: Any, seen: Seen) -> object:
    public = [name for name in dir(session) if not name.startswith("_")]
    return public, [
        (name, shown(getattr(session, name)))
        for name in public
        if isinstance(inspect.getattr_static(type(session), name), property)
        and name != "experimental"
    ]


PLAYS: list[Play] = [
    times_out,
    raw_times_out,
    is_cancelled,
    is_cut_by_a_scope,
    reports_progress,
    many_at_once,
    attributes,
]

MOMENT = re.compile(r"0x[0-9a-f]+|\d+\.\d+ seconds|'id': \d+")


def shown(value: object) -> object:
    """What of a result is the same every time."""
    if isinstance(value, BaseModel):
        return type(value).__name__, value.model_dump(mode="json", by_alias=True)
    return MOMENT.sub("", repr(value))


async def outcome(play: Callable[[], Awaitable[object]]) -> object:
    try:
        return "returned", shown(await play())
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
        return "raised", type(error), MOMENT.sub("", str(error))


class Host:
    """The other side of a session: what a server may ask of it, and tells it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def sampling(self, context: Any, params: Any) -> Any:
        self.heard.append(f"sampling {params.messages[0].content.text}")
        answer = {
            "role": "assistant",
            "content": {"type": "text", "text": "Paris"},
            "model": "m",
        }
        return types.CreateMessageResult.model_validate(answer)

    async def elicitation(self, context: Any, params: Any) -> Any:
        self.heard.append(f"elicitation {params.message}")
        return types.ElicitResult(action="accept", content={"city": "Paris"})

    async def roots(self, context: Any) -> Any:
        self.heard.append("roots")
        root = {"uri": "file:///maps", "name": "maps"}
        return types.ListRootsResult.model_validate({"roots": [root]})

    async def logging(self, params: Any) -> None:
        self.heard.append(f"log {params.level} {params.data}")

    async def messages(self, message: Any) -> None:
        kind = type(getattr(message, "root", message)).__name__
        self.heard.append(f"message {kind}")

    @property
    def callbacks(self) -> dict[str, Any]:
        return {
            "sampling_callback": self.sampling,
            "elicitation_callback": self.elicitation,
            "list_roots_callback": self.roots,
            "logging_callback": self.logging,
            "message_handler": self.messages,
        }


def asking(seen: Seen) -> Any:
    """A server whose tools also ask for everything that a client may answer."""
    app = server(seen)

    class City(BaseModel):
        city: str

    @app.tool()
    async def elicit(ctx: Context) -> str:  # pyright: ignore[reportMissingTypeArgument]
        answer: Any = await ctx.elicit("Which city?", City)
        return f"{answer.action} {answer.data.city}"

    @app.tool()
    async def roots(ctx: Context) -> str:  # pyright: ignore[reportMissingTypeArgument]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked = ctx.session.list_roots()
        return str((await asked).roots[0].name)

    @app.tool()
    async def change(ctx: Context) -> str:  # pyright: ignore[reportMissingTypeArgument]
        await ctx.session.send_tool_list_changed()
        return "changed"

    return app


@contextlib.asynccontextmanager
async def prepared(how: str) -> AsyncIterator[tuple[Any, Seen, Host]]:
    """A session that is bare, or wrapped early or late, with its peers."""
    seen, host = Seen(), Host()
    guard = Guard({}, store="memory://")

    def wrap(session: ClientSession) -> None:
        if how != "bare":
            guard.wrap(session, server="geo-mcp", agent="support")

    async with connected(
        asking(seen), wrap, early=how == "early", **host.callbacks
    ) as session:
        yield session, seen, host
    assert guard.engine.failures == 0


async def play_of(how: str, method: str, arguments: dict[str, Any]) -> object:
    async def call(session: Any) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Half of 2.x's methods are deprecated.
            result = getattr(session, method)(**arguments)
            return await result if inspect.isawaitable(result) else result

    async with prepared(how) as (session, seen, host):
        end = await outcome(lambda: call(session))
        for _ in range(10):
            await asyncio.sleep(0)
        return end, seen.calls, host.heard


@pytest.mark.parametrize(
    ("method", "arguments"),
    CASES,
    ids=[f"{number}-{method}" for number, (method, _) in enumerate(CASES)],
)
async def test_a_method_behaves_the_same(
    method: str, arguments: dict[str, Any]
) -> None:
    bare = await play_of("bare", method, arguments)

    assert await play_of("late", method, arguments) == bare
    assert await play_of("early", method, arguments) == bare


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
async def test_a_course_of_events_is_the_same(play: Play) -> None:
    ends: list[object] = []
    for how in ("bare", "late", "early"):
        async with prepared(how) as (session, seen, host):
            end = await outcome(lambda s=session, n=seen: play(s, n))
            ends.append((end, seen.calls, host.heard))

    assert ends[1] == ends[0]
    assert ends[2] == ends[0]


def test_the_table_is_complete() -> None:
    """Every public method of a session has a case, and every keyword a value."""
    given = {
        ("call_tool", "read_timeout_seconds"),
        ("call_tool", "progress_callback"),
        ("send_request", "request_read_timeout_seconds"),
        ("send_request", "progress_callback"),
    }  # In the courses of events.
    given |= {(method, key) for method, arguments in CASES for key in arguments}
    methods = {method for method, _ in CASES}
    for name, member in inspect.getmembers(ClientSession, callable):
        if not name.startswith("_"):
            assert name in methods
            keys = list(inspect.signature(member).parameters)[1:]
            assert {(name, key) for key in keys} <= given


# --- clients of SDK 2.x and FastMCP -----------------------------------------

Cases = list[tuple[str, dict[str, Any]]]

COMPLETION = {"ref": REF, "argument": {"name": "topic", "value": "m"}}
ROUND = {"input_responses": None, "request_state": None, "meta": META}
LISTED = {"cursor": None, "cache_mode": "refresh"}
PROGRESS = {"progress_token": "t", "progress": 1.0, "total": 2.0, "message": "m"}
CALLS: Cases = [
    ("call_tool", {"name": "echo", "arguments": {"q": "é"}}),
    ("call_tool", {"name": "fail"}),
    ("call_tool", {"name": "nobody"}),
    ("call_tool", {"name": "numbers"}),
    ("call_tool", {"label": "numbers"}),
    ("list_tools", {}),
    ("get_prompt", {"name": "ask"}),
    ("read_resource", {"uri": "geo://city"}),
    ("complete", COMPLETION),
    ("complete", {**COMPLETION, "context_arguments": {"a": "b"}}),
    ("send_roots_list_changed", {}),
    ("set_logging_level", {"level": "info"}),
]


async def unheard(*_: object) -> None:
    """Hears of progress."""


CLIENT_CASES: Cases = [
    *CALLS,
    (
        "call_tool",
        {
            "name": "echo",
            "arguments": {"q": "all"},
            "read_timeout_seconds": 5.0,
            "progress_callback": unheard,
            **ROUND,
        },
    ),
    *[
        (f"list_{what}", {**LISTED, "meta": META})
        for what in ("tools", "prompts", "resources", "resource_templates")
    ],
    ("get_prompt", {"name": "ask", "arguments": {"topic": "maps"}, **ROUND}),
    ("read_resource", {"uri": "geo://city", "cache_mode": "refresh", **ROUND}),
    ("send_ping", {"meta": META}),
    ("send_progress_notification", PROGRESS),
    ("set_logging_level", {"level": "error", "meta": META}),
    ("subscribe_resource", {"uri": "geo://city", "meta": META}),
    ("unsubscribe_resource", {"uri": "geo://city", "meta": META}),
    (
        "listen",
        {
            "tools_list_changed": True,
            "prompts_list_changed": True,
            "resources_list_changed": True,
            "resource_subscriptions": ["geo://city"],
        },
    ),
]

FASTMCP_CASES: Cases = [
    *CALLS,
    (
        "call_tool",
        {
            "name": "echo",
            "arguments": {"q": "all"},
            "version": None,
            "timeout": 5,
            "progress_handler": unheard,
            "raise_on_error": False,
            "meta": META,
        },
    ),
    ("call_tool", {"name": "fail", "raise_on_error": False}),
    (
        "call_tool_mcp",
        {
            "name": "echo",
            "arguments": {"q": "raw"},
            "progress_handler": unheard,
            "timeout": 5,
            "meta": META,
        },
    ),
    ("call_tool_mcp", {"name": "fail", "arguments": {}}),
    ("complete_mcp", {**COMPLETION, "context_arguments": {"a": "b"}}),
    (
        "get_prompt",
        {"name": "ask", "arguments": {"topic": "m"}, "version": None, "meta": META},
    ),
    ("get_prompt_mcp", {"name": "ask", "arguments": {"topic": "m"}, "meta": META}),
    ("read_resource", {"uri": "geo://city", "version": None, "meta": META}),
    ("read_resource_mcp", {"uri": "geo://city", "meta": META}),
    ("list_tools", {"max_pages": 2, "cache_mode": "refresh"}),
    ("list_skills", {"max_pages": 2, "cache_mode": "refresh"}),
    *[
        (f"list_{what}", {"max_pages": 2})
        for what in ("prompts", "resources", "resource_templates")
    ],
    *[
        (f"list_{what}_mcp", LISTED)
        for what in ("tools", "prompts", "resources", "resource_templates", "skills")
    ],
    ("list_skill_resources", {}),
    ("get_skill", {"uri": "skill://none", "cache_mode": "refresh"}),
    ("get_skill_mcp", {"uri": "skill://none", "cache_mode": "refresh"}),
    ("read_skill", {"uri": "skill://none", "cache_mode": "refresh"}),
    ("ping", {}),
    ("progress", PROGRESS),
    ("cancel", {"request_id": 99, "reason": "late"}),
    ("initialize", {"timeout": 5}),
    ("is_connected", {}),
    ("generate_name", {"name": "c"}),
    ("new", {}),
    ("close", {}),
    ("set_elicitation_callback", {"elicitation_callback": unheard}),
    ("set_roots", {"roots": []}),
    (
        "set_sampling_callback",
        {"sampling_callback": unheard, "sampling_capabilities": None},
    ),
]

ATTRIBUTES = (
    "instructions",
    "protocol_version",
    "server_capabilities",
    "server_info",
    "initialize_result",
    "prior_discover",
)


def client_of(kind: str) -> Any:
    import fastmcp
    from mcp import Client

    app = server(Seen())
    return (
        fastmcp.Client(app, name="c") if kind == "fastmcp" else Client(app, mode=kind)
    )


async def client_ends(
    kind: str, method: str, arguments: dict[str, Any], *, is_wrapped: bool
) -> object:
    """Calls a method of a connected client; returns all that can be seen of that."""
    client = client_of(kind)
    if is_wrapped:
        Guard({}, store="memory://").wrap(client, server="geo-mcp")

    async def call() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = getattr(client, method)(**arguments)
            if inspect.isawaitable(result):
                result = await result
        # What is another each time is alike if its kind is.
        is_anew = method in ("generate_name", "listen", "new")
        return type(result).__name__ if is_anew else result

    async with client:
        seen = [shown(getattr(client, name, None)) for name in ATTRIBUTES]
        seen.append(type(client.session).__name__)
        return await outcome(call), seen


@second_only
@pytest.mark.parametrize(
    ("kind", "method", "arguments"),
    [
        (kind, method, arguments)
        for kind, cases in (
            ("auto", CLIENT_CASES),
            ("legacy", CLIENT_CASES),
            ("fastmcp", FASTMCP_CASES),
        )
        for method, arguments in cases
    ],
)
async def test_a_client_behaves_the_same(
    kind: str, method: str, arguments: dict[str, Any]
) -> None:
    bare = await client_ends(kind, method, arguments, is_wrapped=False)

    assert await client_ends(kind, method, arguments, is_wrapped=True) == bare


@second_only
@pytest.mark.parametrize(
    ("kind", "cases"), [("auto", CLIENT_CASES), ("fastmcp", FASTMCP_CASES)]
)
def test_the_table_of_a_client_is_complete(kind: str, cases: Cases) -> None:
    """Every public method has a case, and every keyword a value."""
    given = {(method, key) for method, arguments in cases for key in arguments}
    methods = {method for method, _ in cases}
    for name, member in inspect.getmembers(type(client_of(kind)), callable):
        if name.startswith("_") or isinstance(member, type):
            continue
        assert name in methods
        keys = set(inspect.signature(member).parameters) - {"self"}
        assert {(name, key) for key in keys} <= given


@second_only
async def test_a_client_that_is_not_connected_says_so_as_before() -> None:
    import fastmcp
    from mcp import Client

    for make in (Client, fastmcp.Client):
        clients: list[Any] = [make(server(Seen())), make(server(Seen()))]
        Guard({}, store="memory://").wrap(clients[0])
        ends = [
            await outcome(lambda c=client: c.call_tool("echo", {}))
            for client in clients
        ]
        assert ends[0] == ends[1]
        errors: list[str] = []
        for client in clients:
            with pytest.raises(RuntimeError) as raised:
                _ = client.session
            errors.append(str(raised.value))
        assert errors[0] == errors[1]
