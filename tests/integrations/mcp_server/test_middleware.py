"""The FastMCP middleware: each client has a budget of its own, and keeps to it."""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastmcp", minversion="4", reason="needs FastMCP 4 (mcp 2.x)")

import mcp_types as mt
import uvicorn
from fastmcp import Client, Context, FastMCP, FastMCPApp
from fastmcp.client.auth import BearerAuth
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.exceptions import ToolError
from fastmcp.server import create_proxy
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from fastmcp.server.extensions import ServerExtension
from fastmcp.server.middleware import MiddlewareContext
from fastmcp.server.providers.addressing import hashed_backend_name
from fastmcp.tools import ToolResult
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from guardrails import (
    BudgetExceeded,
    ConfigurationError,
    Event,
    Guard,
    SessionStopped,
)
from guardrails.core.calls import CallStatus
from guardrails_mcp.middleware import GuardMiddleware
from guardrails_mcp.refusals import REFUSAL_KEY


class Shop:
    """A server that counts what its tools have really done."""

    def __init__(self, guard: Guard, *, auth: Any = None, **options: Any) -> None:
        self.guard = guard
        self.served: list[str] = []
        self.mcp = FastMCP("shop", auth=auth)
        self.mcp.add_middleware(GuardMiddleware(guard, **options))

        @self.mcp.tool
        async def buy(item: str) -> str:
            self.served.append(item)
            await asyncio.sleep(0)
            return f"bought {item}"

        @self.mcp.tool
        async def fail() -> str:
            self.served.append("fail")
            raise ToolError("sold out")

        @self.mcp.tool
        async def think() -> str:
            with guard.call(tool="search", server="web", cost_usd="0.01"):
                return "thought"

        @self.mcp.tool
        async def plan() -> str:
            with guard.call(tool="search", server="web", cost_usd="0.01"):
                with guard.call(tool="search", server="web", cost_usd="0.02"):
                    pass
            with guard.session("planner", session_id="inside"):
                with guard.call(tool="search", server="web", cost_usd="0.01"):
                    return "planned"

        @self.mcp.tool
        async def order(ctx: Context, parts: int) -> str:
            for _ in range(parts):
                await ctx.fastmcp.call_tool("order", {"parts": 0})
            return "ordered"

        @self.mcp.tool
        async def ask(ctx: Context) -> Any:
            if ctx.input_responses is None:
                schema = {"type": "object", "properties": {"who": {"type": "string"}}}
                params = mt.ElicitRequestFormParams(
                    message="?", requested_schema=schema
                )
                return mt.InputRequiredResult(
                    input_requests={"who": mt.ElicitRequest(params=params)}
                )
            return "asked"

    def events(self, client: str = "everybody") -> Sequence[Event]:
        return self.guard.engine.store.history.events(
            project_id="default", session_id=f"shop:{client}", limit=100
        )

    def steps(self, client: str = "everybody") -> int:
        account = self.guard.account(f"shop:{client}")
        return account.steps if account else 0


def shop(*, auth: Any = None, options: Mapping[str, Any] = {}, **limits: Any) -> Shop:
    return Shop(Guard({}, store="memory://", **limits), auth=auth, **options)


@contextlib.asynccontextmanager
async def served(mcp: FastMCP, **options: Any) -> AsyncIterator[str]:
    """Serves over HTTP on a free port of this machine."""
    config = uvicorn.Config(
        mcp.http_app(**options), host="127.0.0.1", port=0, log_level="error", ws="none"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.should_exit = True
        await serving


async def fails(call: Any) -> bool:
    """Whether a call is refused, here or at the server."""
    try:
        return (await call).is_error
    except (SessionStopped, ToolError):
        return True


async def bought(client: Client[Any], times: int) -> int:
    """Buys at the same time, and returns how often it was served."""
    results = await asyncio.gather(
        *(
            client.call_tool("buy", {"item": str(n)}, raise_on_error=False)
            for n in range(times)
        )
    )
    return sum(not result.is_error for result in results)


# --- limits ------------------------------------------------------------------


async def test_exactly_the_limit_is_served_however_many_ask_at_once() -> None:
    place = shop(max_steps=5)
    async with Client(place.mcp) as one, Client(place.mcp) as two:
        admitted = sum(await asyncio.gather(bought(one, 8), bought(two, 8)))

    assert admitted == len(place.served) == place.steps() == 5


async def test_a_refusal_is_a_tool_result_and_the_connection_lives_on() -> None:
    place = shop(max_tool_calls=1)
    async with Client(place.mcp) as client:
        await client.call_tool("buy", {"item": "a"})
        refused = await client.call_tool("buy", {"item": "b"}, raise_on_error=False)
        tools = await client.list_tools()

    assert refused.is_error
    assert "guardrails refused it" in refused.content[0].text
    assert refused.meta[REFUSAL_KEY]["limit"] == "max_tool_calls"
    assert place.served == ["a"]
    assert tools


async def test_a_model_is_told_to_leave_alone_only_the_tool_that_is_used_up() -> None:
    place = Shop(Guard({"tools": {"shop/buy": {"max_calls": 1}}}, store="memory://"))
    async with Client(place.mcp) as client:
        await client.call_tool("buy", {"item": "a"})
        refused = await client.call_tool("buy", {"item": "b"}, raise_on_error=False)
        other = await client.call_tool("think", {})

    assert "Do not call this tool any more." in refused.content[0].text
    assert refused.meta[REFUSAL_KEY]["final"] is False
    assert not other.is_error


async def test_a_price_counts_and_what_was_served_is_attributed() -> None:
    guard = Guard(
        {"tools": {"shop/buy": {"cost_per_call_usd": "0.40"}}},
        store="memory://",
        max_cost_usd="1.00",
    )
    place = Shop(guard)
    async with Client(place.mcp) as client:
        assert await bought(client, 5) == 2

    event = place.events()[0]
    assert (event.server, event.tool, event.status) == ("shop", "buy", CallStatus.OK)
    assert event.charge.cost_nano_usd == 400_000_000
    assert event.bytes_in
    assert event.bytes_out
    assert event.latency_ms is not None


@pytest.mark.parametrize("server", [None, "shop", "bank"])
async def test_a_price_that_a_function_declares_counts(server: str | None) -> None:
    """The server names its tools after itself, and knows no price of them."""
    place, rung = shop(max_cost_usd="0.50"), list[str]()

    @place.mcp.tool
    @place.guard.tool(server=server, cost_usd="0.20")
    async def ring(bell: str) -> str:
        rung.append(bell)
        return "rung"

    @place.mcp.tool
    @place.guard.tool(server=server, cost_usd="0.20")
    def knock(door: str) -> str:
        return "knocked"

    async with Client(place.mcp) as client:
        await client.call_tool("ring", {"bell": "a"})
        await client.call_tool("knock", {"door": "b"})
        refused = await client.call_tool("ring", {"bell": "c"}, raise_on_error=False)

    assert (refused.is_error, rung) == (True, ["a"])
    booked = [(event.tool, event.charge.cost_nano_usd) for event in place.events()]
    assert booked == [("ring", 200_000_000), ("knock", 200_000_000)]
    assert place.steps() == 2


@pytest.mark.parametrize("namespace", [None, "crm"])
async def test_the_tool_of_an_app_costs_the_same_by_its_hash(
    namespace: str | None,
) -> None:
    """Its interface calls it so, and any client can."""
    name = "buy" if namespace is None else f"{namespace}_buy"
    rule = {"cost_per_call_usd": "0.40", "max_calls": 2}
    guard = Guard({"tools": {f"shop/{name}": rule}}, store="memory://")
    place, bought = FastMCP("shop"), list[str]()
    place.add_middleware(GuardMiddleware(guard))
    app = FastMCPApp("customers")

    @app.tool(model=True)
    async def buy(item: str) -> str:
        bought.append(item)
        return "bought"

    place.add_provider(app, namespace=namespace or "")
    async with Client(place) as client:
        for called in (name, hashed_backend_name("customers", "buy")) * 2:
            result = await client.call_tool(
                called, {"item": called}, raise_on_error=False
            )

    assert result.is_error
    assert len(bought) == 2
    [row] = guard.spend(by=["tool"])
    assert (row.names, row.calls, row.usd) == ((f"shop/{name}",), 2, Decimal("0.80"))


@pytest.mark.parametrize("is_far", [False, True])
async def test_a_cost_that_is_believed_counts(is_far: bool) -> None:
    """Also that of another's server, which a gateway guards."""
    guard = Guard(
        {"tools": {"shop/search": {"cost_from_meta": "cost_usd"}}},
        store="memory://",
        max_cost_usd="1.00",
        on_unpriced="allow",
    )
    far, counted = FastMCP("far"), list[str]()

    @far.tool
    async def search(word: str) -> ToolResult:
        counted.append(word)
        return ToolResult(content="found", meta={"cost_usd": "0.40"})

    mcp = create_proxy(far, name="shop") if is_far else far
    mcp.add_middleware(GuardMiddleware(guard, server="shop"))
    async with Client(mcp) as client:
        for word in "abcde":
            await client.call_tool("search", {"word": word}, raise_on_error=False)

    account = guard.account("shop:everybody")
    assert account is not None
    assert account.posted_nano_usd == len(counted) * 400_000_000
    assert len(counted) == 3  # What it costs is known afterwards.


async def test_a_tool_that_fails_is_booked_as_an_error() -> None:
    place = shop()
    async with Client(place.mcp) as client:
        with pytest.raises(ToolError, match="sold out"):
            await client.call_tool("fail")

    [event] = place.events()
    assert (event.status, event.error_type) == (CallStatus.ERROR, "ToolError")


async def test_what_a_tool_calls_is_charged_to_its_client() -> None:
    place = shop()
    async with Client(place.mcp) as client:
        await client.call_tool("think")

    assert {event.tool for event in place.events()} == {"think", "search"}


@pytest.mark.parametrize("is_masked", [False, True])
async def test_a_stop_inside_a_tool_is_a_refusal_too(is_masked: bool) -> None:
    """FastMCP would say that the tool has failed, or no more than that."""
    place = shop(max_steps=3)
    mcp = FastMCP("shop", mask_error_details=is_masked)
    mcp.add_middleware(GuardMiddleware(place.guard))

    @mcp.tool
    async def search(times: int) -> str:
        for _ in range(times):
            with place.guard.call(tool="fetch", server="web"):
                pass
        return "found"

    async with Client(mcp) as client:
        await client.call_tool("search", {"times": 0})
        ended = await client.call_tool("search", {"times": 5}, raise_on_error=False)

    assert ended.content[0].text.startswith("Stopped while it ran: guardrails")
    assert "Do not call any more tools" in ended.content[0].text
    refusal = ended.meta[REFUSAL_KEY]
    assert (ended.is_error, refusal["final"]) == (True, True)
    assert (refusal["error"], refusal["limit"]) == ("BudgetExceeded", "max_steps")
    booked = [(event.tool, event.error_type) for event in place.events()]
    assert booked == [
        ("search", None),
        ("fetch", None),
        ("search", "BudgetExceeded"),
    ]


async def test_a_stop_of_a_session_that_a_tool_opens_leaves_its_client_s_open() -> None:
    place = shop()

    @place.mcp.tool
    def search(query: str) -> str:
        with place.guard.session("searcher", session_id=query):
            place.guard.stop(query, reason="enough")
            with place.guard.call(tool="fetch", server="web"):
                return "found"

    async with Client(place.mcp) as client:
        ended = await client.call_tool("search", {"query": "a"}, raise_on_error=False)
        assert await bought(client, 1) == 1

    refusal = ended.meta[REFUSAL_KEY]
    assert (refusal["session_id"], refusal["final"]) == ("a", False)
    assert "Do not repeat this call" in ended.content[0].text


async def test_what_an_author_makes_of_a_stop_is_theirs() -> None:
    place = shop()

    @place.mcp.tool
    def search() -> str:
        with place.guard.session("searcher", session_id="a"):
            place.guard.stop("a", reason="enough")
            try:
                with place.guard.call(tool="fetch", server="web"):
                    return "found"
            except SessionStopped as stop:
                raise ToolError("come back tomorrow") from stop

    async with Client(place.mcp) as client:
        ended = await client.call_tool("search", raise_on_error=False)

    assert ended.content[0].text == "come back tomorrow"


async def test_an_agent_in_a_tool_works_within_the_client_s_budget() -> None:
    place = shop(max_steps=2)
    model = GenericFakeChatModel(messages=iter([AIMessage("a"), AIMessage("b")]))

    @place.mcp.tool
    async def consult() -> str:
        """Asks a model twice."""
        await place.guard.wrap(model, agent="expert").ainvoke("?")
        return str((await place.guard.wrap(model, agent="expert").ainvoke("?")).content)

    async with Client(place.mcp) as client:
        result = await client.call_tool("consult", raise_on_error=False)

    assert result.is_error
    assert [event.kind.value for event in place.events()] == ["model", "tool"]
    assert place.steps() == 2


@pytest.mark.parametrize("wraps", [False, True])
async def test_what_is_around_the_server_does_not_pay_for_its_clients(
    wraps: bool,
) -> None:
    """Nor does the session of a client in the same process: it pays for its calls."""
    place = shop()
    with place.guard.session("operator", session_id="around") as around:
        client = Client(place.mcp)
        async with place.guard.wrap(client) if wraps else client:
            await client.call_tool("think")
            await client.call_tool("plan")

    tools = [event.tool for event in place.events() if event.tool == "search"]
    assert tools == ["search"] * 3
    assert [event.tool for event in around.events()] == ["think", "plan"] * wraps
    assert place.steps() == 6  # The fourth search is in a session inside.
    [own] = place.guard.engine.store.history.events(
        project_id="default", session_id="inside", limit=100
    )
    assert (own.tool, own.attribution.customer_id) == ("search", "everybody")


@pytest.mark.parametrize("is_open", [False, True])
async def test_what_a_tool_asks_of_a_client_in_its_process_is_that_client_s(
    is_open: bool,
) -> None:
    """The SDK runs a client's callbacks in the context of the tool that asks."""
    place = shop()
    guard = place.guard

    async def answer(*_: Any) -> str:
        with guard.call(tool="recall", server="memory", cost_usd="0.01"):
            return "Paris"

    @place.mcp.tool
    async def consult(ctx: Context) -> str:
        """Asks the client's model."""
        question = mt.TextContent(type="text", text="Where?")
        asked = mt.SamplingMessage(role="user", content=question)
        with warnings.catch_warnings():  # Deprecated, and used all the same.
            warnings.simplefilter("ignore")
            await ctx.session.create_message(messages=[asked], max_tokens=5)
        return "answered"

    client = Client(place.mcp, mode="legacy", sampling_handler=answer)
    guard.wrap(client, agent="buyer", session_id="client")
    around = guard.session("buyer", session_id="client")
    with around if is_open else contextlib.nullcontext():
        async with client:
            await client.call_tool("consult")

    calls = guard.engine.store.history.events(
        project_id="default", session_id="client", limit=100
    )
    assert [event.kind.value for event in calls if event.tool != "recall"] == [
        "model",
        "tool",
    ]
    # Its server is in the same hands, so that call is no other customer's.
    assert {row.names for row in guard.spend(by=["customer_id"])} == {(None,)}


# --- once and only once ------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("is_open", [False, True])
async def test_a_call_counts_once_whose_client_and_server_have_one_guard(
    mode: str, is_open: bool
) -> None:
    """It is the client's; what the server allows its clients holds for it as well."""
    day = {"name": "day", "per": [], "every": "day", "max_cost_usd": "0.30"}
    prices = {"shop/buy": {"cost_per_call_usd": "0.10"}}
    guard = Guard({"tools": prices, "budgets": [day]}, store="memory://")
    place = Shop(guard)
    client = guard.wrap(Client(place.mcp, mode=mode), agent="buyer", session_id="c")
    around = guard.session("buyer", session_id="c")
    with around if is_open else contextlib.nullcontext():
        async with client:
            for item in "abc":
                await client.call_tool("buy", {"item": item})
            with pytest.raises(BudgetExceeded):
                await client.call_tool("buy", {"item": "d"})

    assert place.served == list("abc")
    [row] = guard.spend(by=["agent", "tool"])
    assert (row.names, row.calls) == (("buyer", "shop/buy"), 3)
    assert row.usd == Decimal("0.30")
    assert guard.session(session_id="c").steps == 3


class _Part(BaseModel):
    size: int = 1
    color: str | None = None


@pytest.mark.parametrize(
    "part",
    [("a", "b"), _Part(), {"of": _Part()}, {1: None}, Decimal("1.50"), b"a", {"a"}],
    ids=repr,
)
async def test_a_call_counts_once_whatever_its_arguments_are(part: object) -> None:
    """The SDK writes them as JSON, and the server is asked with that."""
    place = shop()

    @place.mcp.tool
    async def mend(part: Any) -> str:
        return "mended"

    client = place.guard.wrap(Client(place.mcp), agent="buyer", session_id="c")
    async with client:
        await client.call_tool("mend", {"part": part})

    [row] = place.guard.spend(by=["session_id"])
    assert (row.names, row.calls) == (("c",), 1)


async def test_a_server_s_session_ends_the_calls_of_a_client_beside_it() -> None:
    place = shop(max_tool_calls=3)
    client = Client(place.mcp)
    place.guard.wrap(client, agent="buyer")
    async with client:
        for number in range(3):  # Each within its own limit.
            with place.guard.session("buyer", session_id=f"c{number}"):
                await client.call_tool("buy", {"item": "a"})
        with place.guard.session("buyer", session_id="c3") as last:
            refused = await client.call_tool("buy", {"item": "b"}, raise_on_error=False)

    assert refused.meta[REFUSAL_KEY]["scope"] == "session shop:everybody"
    assert (place.steps(), last.steps, len(place.served)) == (3, 0, 3)
    assert last.status == "completed"  # It may go on elsewhere.


async def test_what_a_tool_calls_is_no_part_of_the_call_of_a_client_beside_it() -> None:
    place, calls = shop(), 3
    client = Client(place.mcp)
    place.guard.wrap(client, agent="buyer", session_id="c")
    async with client:
        await client.call_tool("order", {"parts": calls})
        await client.call_tool("order", {"parts": 0})

    # What it calls is like the second one, and each of them counts.
    assert place.steps() == 1 + calls + 1
    assert place.guard.session(session_id="c").steps == 2


async def test_a_call_in_rounds_counts_once_with_one_guard_on_both_sides() -> None:
    async def answer(*_: Any) -> Any:
        return {"who": "me"}

    place = shop()
    client = Client(place.mcp, elicitation_handler=answer)
    place.guard.wrap(client, agent="buyer", session_id="c")
    async with client:
        result = await client.call_tool("ask")

    assert result.content[0].text == "asked"
    assert place.guard.session(session_id="c").steps == place.steps() == 1
    assert [row.calls for row in place.guard.spend(by=["tool"])] == [1]


@pytest.mark.parametrize("server", ["shop", "bank"])
async def test_a_declared_price_counts_once_with_one_guard_on_both_sides(
    server: str,
) -> None:
    place, rung = shop(max_cost_usd="0.50"), list[str]()

    @place.mcp.tool
    @place.guard.tool(server=server, cost_usd="0.20")
    async def ring(bell: str) -> str:
        rung.append(bell)
        return "rung"

    client = Client(place.mcp)
    place.guard.wrap(client, agent="buyer", session_id="c")
    async with client:
        await client.call_tool("ring", {"bell": "a"})
        await client.call_tool("ring", {"bell": "b"})
        refused = await fails(client.call_tool("ring", {"bell": "c"}))

    assert (refused, rung) == (True, ["a", "b"])
    assert sum(row.usd for row in place.guard.spend(by=["tool"])) == Decimal("0.40")


async def test_two_names_of_a_server_are_two_calls_with_one_guard() -> None:
    """Each may have a price, and nobody can tell which is meant."""
    place = shop()
    client = place.guard.wrap(Client(place.mcp), server="bank", session_id="c")
    async with client:
        await client.call_tool("buy", {"item": "a"})

    assert {row.names[0] for row in place.guard.spend(by=["tool"])} == {
        "shop/buy",
        "bank/buy",
    }


async def test_the_call_of_a_mounted_tool_counts_once() -> None:
    place, counted = shop(), list[str]()
    child = FastMCP("child")
    child.add_middleware(GuardMiddleware(place.guard))

    @child.tool
    async def look() -> str:
        counted.append("look")
        return "seen"

    place.mcp.mount(child, namespace="kid")
    async with Client(place.mcp) as client:
        await client.call_tool("kid_look")
        await client.call_tool("kid_look")

    assert len(counted) == place.steps() == 2
    assert {event.tool for event in place.events()} == {"kid_look"}
    assert place.guard.account("child:everybody") is None


async def test_a_call_counts_once_at_a_server_with_two_middlewares() -> None:
    """As where a deployment adds to a server what its author has added before."""
    place = shop()
    place.mcp.add_middleware(GuardMiddleware(place.guard))

    @place.mcp.tool
    async def look() -> str:
        return "seen"

    @place.mcp.tool
    async def look_again() -> str:
        await place.mcp.call_tool("look")
        return "seen"

    async with Client(place.mcp) as client:
        await client.call_tool("look")
        assert place.steps() == 1
        await client.call_tool("look_again")

    assert place.steps() == 1 + 2


async def test_the_call_of_a_tool_that_is_mounted_twice_over_counts_once() -> None:
    place, inner, innermost = shop(), FastMCP("inner"), FastMCP("innermost")
    for server in (inner, innermost):
        server.add_middleware(GuardMiddleware(place.guard, server="shop"))

    @innermost.tool
    async def look() -> str:
        return "seen"

    @innermost.tool
    async def twice() -> str:
        await innermost.call_tool("look")
        await inner.call_tool("b_look")
        return "seen"

    inner.mount(innermost, namespace="b")
    place.mcp.mount(inner, namespace="a")
    async with Client(place.mcp) as client:
        await client.call_tool("a_b_look")
        assert place.steps() == 1
        await client.call_tool("a_b_twice")

    assert place.steps() == 1 + 3


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_tool_that_calls_another_server_s_tool_often_makes_calls(
    at_once: bool,
) -> None:
    """It may be named like it, and still only one of them is its own call."""
    place, counted = shop(max_tool_calls=5), list[int]()
    child = FastMCP("child")
    child.add_middleware(GuardMiddleware(place.guard, server="shop"))

    @child.tool
    async def search(number: int) -> str:
        counted.append(number)
        return "found"

    @place.mcp.tool
    async def batch_search(count: int) -> str:
        calls = [child.call_tool("search", {"number": n}) for n in range(count)]
        await (asyncio.gather(*calls) if at_once else in_order(calls))
        return "found"

    async def in_order(calls: Sequence[Any]) -> None:
        for call in calls:
            await call

    async with Client(place.mcp) as client:
        await client.call_tool("batch_search", {"count": 20})

    assert len(counted) == place.steps() == 5


async def test_a_tool_that_calls_tools_of_its_server_makes_calls() -> None:
    place = shop()
    async with Client(place.mcp) as client:
        await client.call_tool("order", {"parts": 2})

    assert [event.tool for event in place.events()] == ["order"] * 3


async def test_tasks_whose_results_nobody_knows_yet_are_not_alike() -> None:
    class Tasks(ServerExtension):
        identifier = "io.modelcontextprotocol/tasks"

        async def intercept_tool_call(
            self, params: Any, context: Any, call_next: Any
        ) -> Any:
            await call_next()
            now = "2026-01-01T00:00:00Z"
            task = {"taskId": "t", "status": "working", "createdAt": now}
            return mt.CreateTaskResult.model_validate(
                {"task": {**task, "lastUpdatedAt": now, "ttl": None}}
            )

    place = shop(max_steps=50)
    place.mcp.add_extension(Tasks())
    async with Client(place.mcp) as client:
        for _ in range(4):
            with contextlib.suppress(MCPError):  # This client has not asked for tasks.
                await client.call_tool("buy", {"item": "a"})

    assert place.served == ["a"] * 4


async def test_the_rounds_of_one_call_are_one_call() -> None:
    place = shop()

    async def answer(*_: object) -> dict[str, str]:
        assert not place.events()  # It is not over while somebody is asked.
        return {"who": "me"}

    async with Client(place.mcp, elicitation_handler=answer) as client:
        result = await client.call_tool("ask")

    assert result.content[0].text == "asked"
    [event] = place.events()
    assert (event.tool, event.status) == ("ask", CallStatus.OK)
    assert place.steps() == 1


async def test_a_client_goes_on_with_its_own_call_and_with_no_other() -> None:
    place = shop(options={"identity_meta": "who"})
    says = mt.ElicitResult(action="accept", content={"who": "me"})

    async with Client(place.mcp) as client:
        for responses in (None, {"who": says}):
            for who in ("one", "two"):
                await client.session.call_tool(
                    "ask",
                    meta={"who": who},
                    input_responses=responses,
                    allow_input_required=True,
                )

    for who in ("one", "two"):
        assert [event.tool for event in place.events(who)] == ["ask"]
        assert place.steps(who) == 1


# --- servers of others -------------------------------------------------------


async def test_a_remote_server_is_guarded_by_a_gateway_in_front_of_it() -> None:
    """The gateway speaks HTTP on both sides, and is FastMCP's own."""
    far, counted = FastMCP("far"), list[int]()

    @far.tool
    async def add(a: int, b: int) -> int:
        counted.append(a)
        return a + b

    guard = Guard({}, store="memory://", max_tool_calls=3)
    async with served(far) as url:
        gateway = create_proxy(url, name="gateway")
        gateway.add_middleware(GuardMiddleware(guard, server="far"))
        async with served(gateway) as front, Client(front) as client:
            results = await asyncio.gather(
                *(
                    client.call_tool("add", {"a": n, "b": 1}, raise_on_error=False)
                    for n in range(6)
                )
            )

    assert sum(not result.is_error for result in results) == len(counted) == 3


# --- who is who --------------------------------------------------------------


async def test_a_new_connection_per_request_is_no_new_client() -> None:
    """Since 2026-07-28 each request has a session id of its own."""
    place = shop(max_steps=2)
    served_calls = 0
    for _ in range(4):
        async with Client(place.mcp) as client:
            served_calls += await bought(client, 1)

    assert served_calls == len(place.served) == 2


async def test_a_connection_that_lasts_is_a_client() -> None:
    place = shop(max_steps=2)
    async with (
        Client(place.mcp, mode="legacy") as one,
        Client(place.mcp, mode="legacy") as two,
    ):
        assert [await bought(one, 3), await bought(two, 3)] == [2, 2]


async def test_a_server_without_connections_serves_nobody_beyond_the_limit() -> None:
    """Each request of an older client has an id of its own there, or one made up."""
    place = shop(max_steps=2)
    async with served(place.mcp, stateless_http=True, json_response=True) as url:
        for name in ("one", "two"):
            transport = StreamableHttpTransport(url, headers={"mcp-session-id": name})
            async with Client(transport, mode="legacy") as client:
                await bought(client, 3)

    assert len(place.served) == 2


async def test_a_verified_token_beats_what_a_client_says_of_itself() -> None:
    verifier = StaticTokenVerifier(
        tokens={
            name: {"client_id": name, "scopes": []} for name in ("acme", "umbrella")
        }
    )
    options = {"identity_header": "x-client", "trusts_baggage": True}
    place = shop(auth=verifier, options=options, max_steps=2)
    async with served(place.mcp) as url:
        for name in ("acme", "umbrella"):
            for disguise in range(2):
                transport = StreamableHttpTransport(
                    url, headers={"x-client": f"d{disguise}"}, auth=BearerAuth(name)
                )
                async with Client(transport) as client:
                    await bought(client, 2)

    assert [place.steps("acme"), place.steps("umbrella")] == [2, 2]
    assert len(place.served) == 4


async def test_a_header_that_a_gateway_sets_is_the_client() -> None:
    place = shop(options={"identity_header": "X-Client"}, max_steps=2)
    async with served(place.mcp) as url:
        for name in ("acme", "acme", "umbrella"):
            transport = StreamableHttpTransport(url, headers={"x-client": name})
            async with Client(transport) as client:
                await bought(client, 2)

    assert [place.steps("acme"), place.steps("umbrella")] == [2, 2]


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_baggage_is_believed_only_of_clients_that_are_ours(
    *, is_trusted: bool
) -> None:
    place = shop(options={"trusts_baggage": is_trusted}, max_steps=1)
    async with Client(place.mcp) as client:
        for name in ("acme", "umbrella"):
            await client.call_tool(
                "buy",
                {"item": name},
                meta={"baggage": f"guardrails.customer_id={name}"},
                raise_on_error=False,
            )

    assert place.served == (["acme", "umbrella"] if is_trusted else ["acme"])


async def test_a_key_of_meta_that_is_named_is_the_client() -> None:
    place = shop(options={"identity_meta": "acme.com/tenant"}, max_steps=1)
    async with Client(place.mcp) as client:
        for name in ("a", "b", "a"):
            await client.call_tool(
                "buy",
                {"item": name},
                meta={"acme.com/tenant": name},
                raise_on_error=False,
            )

    assert place.served == ["a", "b"]


# --- older FastMCP -----------------------------------------------------------


class OlderMeta(BaseModel, extra="allow"):
    """What SDK 1.x makes of `_meta`: a model, and not a mapping."""


def older_call(connection: str, **meta: str) -> MiddlewareContext[Any]:
    """A call as FastMCP 3 hands it on: it knows neither rounds nor versions.

    No environment can hold it beside the FastMCP that the other tests are about.
    """
    request = SimpleNamespace(
        meta=OlderMeta(**meta), session=SimpleNamespace(client_params=object())
    )
    inside: Any = SimpleNamespace(
        fastmcp=SimpleNamespace(name="shop"),
        request_context=request,
        session_id=connection,
    )
    message = mt.CallToolRequestParams(name="buy", arguments={"item": "tea"})
    return MiddlewareContext(message=message, fastmcp_context=inside)


@pytest.mark.parametrize("identity_meta", [None, "tenant"])
async def test_clients_of_an_older_fastmcp_have_budgets_of_their_own(
    identity_meta: str | None,
) -> None:
    guard = Guard({}, store="memory://", max_steps=1)
    middleware = GuardMiddleware(guard, identity_meta=identity_meta)

    async def sell(_: MiddlewareContext[Any]) -> ToolResult:
        return ToolResult(content="sold")

    calls = [
        older_call(name) if identity_meta is None else older_call("one", tenant=name)
        for name in ("a", "b", "a")
    ]
    results = [await middleware.on_call_tool(one, sell) for one in calls]

    assert [result.is_error for result in results] == [False, False, True]


# --- bad input ---------------------------------------------------------------


def test_what_is_no_guard_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"GuardMiddleware\(Guard"):
        GuardMiddleware("guard")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["server", "identity_header", "identity_meta"])
def test_an_empty_name_is_said_at_once(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        GuardMiddleware(Guard({}, store="memory://"), **{name: " "})
