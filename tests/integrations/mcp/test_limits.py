"""Limits: what a wrapped session may reach a server with, however it is called."""

import asyncio
import contextlib
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import ClientSession, types

from guardrails import BudgetExceeded, CallRefused, Guard, LoopDetected, SessionStopped
from guardrails.core.calls import CallStatus
from guardrails.core.usage import PriceStatus
from guardrails_mcp import wire
from tests.integrations.mcp.peers import (
    FIRST,
    ProtocolError,
    Seen,
    connected,
    events,
    own_session,
    paid_result,
    second_only,
    server,
    session_of,
    text_of,
    tool_request,
)

PROJECT = Path(__file__).parents[3]

PRICE = {"tools": {"geo-mcp/*": {"cost_per_call_usd": "0.01"}}}

NAMES: dict[str, Any] = {"agent": "support", "server": "geo-mcp", "session_id": "s-1"}


def guarded(config: dict[str, object] | None = None, **limits: Any) -> Guard:
    return Guard({**PRICE, **(config or {})}, store="memory://", **limits)


@pytest.mark.parametrize("limit", [{"max_steps": 5}, {"max_cost_usd": "0.05"}], ids=str)
async def test_concurrent_calls_reach_the_server_up_to_the_limit(limit: Any) -> None:
    seen, guard = Seen(), guarded(**limit)

    async with session_of(guard, server(seen), **NAMES) as session:
        calls = [session.call_tool("echo", {"q": str(n)}) for n in range(40)]
        results = await asyncio.gather(*calls, return_exceptions=True)

    refused = [r for r in results if isinstance(r, SessionStopped | CallRefused)]
    assert len(seen.calls) == 5
    assert len(refused) == 35
    assert own_session(guard).steps == 5


async def test_a_refused_call_raises_before_anything_is_sent() -> None:
    seen, guard = Seen(), guarded(max_steps=1)

    async with session_of(guard, server(seen), **NAMES) as session:
        assert text_of(await session.call_tool("echo", {"q": "a"})) == "found a"
        with pytest.raises(BudgetExceeded, match="max_steps") as stop:
            await session.call_tool("echo", {"q": "b"})
        with pytest.raises(SessionStopped):  # The stop is sticky.
            await session.call_tool("same", {})

    assert (stop.value.agent, stop.value.session_id) == ("support", "s-1")
    assert seen.calls == ["echo"]


async def test_an_event_says_what_was_called_and_how_it_went() -> None:
    guard = guarded()
    wrap = {**NAMES, "customer_id": "acme", "user_id": "u-7", "tags": {"env": "prod"}}

    async with session_of(guard, server(Seen()), **wrap) as session:
        await session.call_tool("echo", {"q": "Berlin"})

    (event,) = events(guard)
    who = event.attribution
    assert (event.server, event.tool) == ("geo-mcp", "echo")
    assert (who.agent, who.customer_id, who.user_id) == ("support", "acme", "u-7")
    assert who.tags == (("env", "prod"),)
    assert event.status is CallStatus.OK
    assert event.charge.cost_nano_usd == 10_000_000
    assert event.latency_ms is not None
    assert event.bytes_in is not None
    assert event.bytes_out is not None
    assert 5 < event.bytes_in < event.bytes_out < 500


async def test_a_raw_request_is_guarded_like_a_call() -> None:
    seen, guard = Seen(), guarded(max_steps=2)

    async with session_of(guard, server(seen), **NAMES) as session:
        send: Any = session.send_request
        for q in "ab":
            await send(tool_request("echo", {"q": q}), types.CallToolResult)
        with pytest.raises(BudgetExceeded):
            await send(
                request=tool_request("echo", {"q": "c"}),
                result_type=types.CallToolResult,
            )

    assert len(seen.calls) == 2


async def test_a_tool_has_one_limit_by_all_its_names() -> None:
    """FastMCP's apps can be called by a hash as well."""
    seen = Seen()
    guard = guarded({"tools": {"geo-mcp/echo": {"max_calls": 1}}})

    async with session_of(guard, server(seen), **NAMES) as session:
        await session.call_tool("echo", {"q": "a"})
        with pytest.raises(BudgetExceeded):
            await session.call_tool("__ddfcc2122d58_echo", {"q": "b"})

    assert seen.calls == ["echo"]


async def test_a_tool_that_is_really_called_like_a_hash_keeps_its_limit() -> None:
    """Also where its server turns out to have none such."""
    name = "ddfcc2122d58_echo"
    tools = {f"geo-mcp/{name}": {"max_calls": 1}, "geo-mcp/echo": {"max_calls": 9}}
    guard = guarded({"tools": tools})

    async with session_of(guard, server(Seen()), **NAMES) as session:
        with contextlib.suppress(ProtocolError):
            await session.call_tool(name, {"q": "a"})
        with pytest.raises(BudgetExceeded) as stop:
            await session.call_tool(name, {"q": "b"})

    assert stop.value.scope == f"session,tool=geo-mcp/{name}"
    assert [event.tool for event in events(guard)] == [name]


async def test_a_raw_request_may_carry_its_parameters_as_a_dict() -> None:
    """Custom kinds of requests do; and one that says nothing must pass, too."""
    seen, guard = Seen(), guarded(max_steps=3)

    class Raw(types.Request[Any, Any]):
        method: str = "tools/call"
        params: Any = None

    async with session_of(guard, server(seen), **NAMES) as session:
        send: Any = session.send_request
        request = Raw(params={"name": "echo", "arguments": {"q": "a"}})
        await send(request, types.CallToolResult)
        for params in ({"arguments": {}}, {"name": 7}):
            with pytest.raises(ProtocolError):
                await send(Raw(params=params), types.CallToolResult)
        with pytest.raises(BudgetExceeded):
            await send(Raw(params={"name": "echo"}), types.CallToolResult)

    assert seen.calls == ["echo"]
    assert [event.tool for event in events(guard)] == ["echo", "unknown", "unknown"]
    assert guard.engine.failures == 0


async def test_a_reference_held_from_before_is_guarded_too() -> None:
    seen, guard = Seen(), guarded(max_steps=1)

    async with connected(server(seen)) as session:
        holder = {"session": session}
        assert guard.wrap(session, **NAMES) is session
        await holder["session"].call_tool("echo", {"q": "a"})
        with pytest.raises(BudgetExceeded):
            await holder["session"].call_tool("echo", {"q": "b"})
        assert isinstance(session, ClientSession)

    assert seen.calls == ["echo"]


async def test_only_tool_calls_are_guarded() -> None:
    guard = guarded(max_steps=0)

    async with session_of(guard, server(Seen()), **NAMES) as session:
        await session.list_tools()
        await session.list_prompts()
        with contextlib.suppress(ProtocolError):
            await session.send_ping()  # pyright: ignore[reportDeprecated]: in 2.x

    assert guard.account("s-1") is None


class Tasks(ClientSession):
    """A session with a server that answers each call with a task of its own."""

    async def send_request(self, request: Any, result_type: Any, **kwargs: Any) -> Any:
        if wire.method_of(request) == "tasks/result":
            return paid_result("0.25")
        if wire.method_of(request) != wire.CALL:
            return await super().send_request(request, result_type, **kwargs)
        now = "2026-01-01T00:00:00Z"
        task = {"taskId": "t", "status": "working", "createdAt": now}
        return types.CreateTaskResult.model_validate(
            {"task": {**task, "lastUpdatedAt": now, "ttl": None}}
        )


async def test_tasks_whose_results_nobody_knows_yet_are_not_alike() -> None:
    seen, guard = Seen(), guarded(max_steps=50)

    async with connected(server(seen), kind=Tasks) as session:
        guard.wrap(session, **NAMES)
        for _ in range(4):
            request = tool_request("render", {"scene": 1})
            await session.send_request(request, types.CreateTaskResult)

    assert own_session(guard).steps == 4


def fetch(task_id: str) -> Any:
    """A raw request for the result of a task."""
    request: Any = types.GetTaskPayloadRequest.model_validate(
        {"method": "tasks/result", "params": {"taskId": task_id}}
    )
    return types.ClientRequest(request) if FIRST else request  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("is_fetched", [False, True])
async def test_a_task_costs_what_its_result_says(is_fetched: bool) -> None:
    rule = {"cost_per_call_usd": "0.01", "cost_from_meta": "acme.com/cost_usd"}
    guard = guarded({"tools": {"geo-mcp/*": rule}})

    def wrap(session: ClientSession) -> object:
        return guard.wrap(session, **NAMES)

    async with connected(server(Seen()), wrap, early=True, kind=Tasks) as session:
        request = tool_request("render", {"scene": 1})
        await session.send_request(request, types.CreateTaskResult)
        assert not events(guard)
        if is_fetched:
            for task_id in ("t", "t", "other"):
                await session.send_request(fetch(task_id), types.CallToolResult)
            assert len(events(guard)) == 1

    (event,) = events(guard)
    assert event.charge.cost_nano_usd == (250_000_000 if is_fetched else 10_000_000)
    assert own_session(guard).steps == 1


async def test_a_loop_on_one_tool_is_stopped() -> None:
    seen, guard = Seen(), guarded(max_steps=50)

    async with session_of(guard, server(seen), **NAMES) as session:
        with pytest.raises(LoopDetected) as stop:
            for _ in range(10):
                await session.call_tool("same", {"q": "again"})

    assert stop.value.tool == "geo-mcp/same"
    assert len(seen.calls) == 3


async def test_a_tool_that_fails_is_booked_as_failed() -> None:
    guard = guarded()

    async with session_of(guard, server(Seen()), **NAMES) as session:
        await session.call_tool("fail", {"q": "a"})

    (event,) = events(guard)
    assert (event.status, event.error_type) == (CallStatus.ERROR, "tool_error")
    assert own_session(guard).spent == Decimal("0.01")


async def test_a_call_that_times_out_keeps_its_charge() -> None:
    """The server may have done the work: nobody can tell."""
    seen, guard = Seen(), guarded()

    async with session_of(guard, server(seen), **NAMES) as session:
        with pytest.raises(ProtocolError):
            await session.call_tool("wait", {}, seconds(0.05))
        await seen.let_go()

    (event,) = events(guard)
    assert event.status is CallStatus.BROKEN_OFF
    assert event.charge.status is PriceStatus.ESTIMATED
    assert own_session(guard).spent == Decimal("0.01")


async def test_a_cancelled_call_keeps_its_charge() -> None:
    seen, guard = Seen(), guarded()

    async with session_of(guard, server(seen), **NAMES) as session:
        call = asyncio.create_task(session.call_tool("wait", {}))
        await seen.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with anyio.move_on_after(0.05) as scope:  # Cancels again and again.
            await session.call_tool("wait", {})
        assert scope.cancelled_caught
        await seen.let_go()

    assert [event.status for event in events(guard)] == [CallStatus.BROKEN_OFF] * 2
    assert own_session(guard).spent == Decimal("0.02")


async def test_a_result_that_the_client_refuses_is_paid_all_the_same() -> None:
    """`call_tool` checks structured content after the call has been made."""
    guard = guarded()

    async with session_of(guard, server(Seen()), **NAMES) as session:
        await session.list_tools()
        session._tool_output_schemas["numbers"] = {"required": ["letters"]}
        with pytest.raises(RuntimeError, match="structured content"):
            await session.call_tool("numbers", {})

    (event,) = events(guard)
    assert event.status is CallStatus.OK
    assert own_session(guard).spent == Decimal("0.01")


async def test_a_call_that_was_never_written_costs_nothing() -> None:
    seen, guard = Seen(), guarded()

    async with session_of(guard, server(seen), **NAMES) as session:
        await session.call_tool("echo", {"q": "a"})
    with pytest.raises((ProtocolError, anyio.ClosedResourceError)):
        await session.call_tool("echo", {"q": "b"})

    assert len(events(guard)) == 1
    assert own_session(guard).spent == Decimal("0.01")
    account = guard.account("s-1")
    assert account is not None
    assert account.held_nano_usd == 0


@pytest.mark.parametrize("policy", ["closed", "open"])
async def test_while_the_store_is_away_its_policy_decides(policy: str) -> None:
    from guardrails.errors import StoreUnavailable
    from guardrails.stores.memory import MemoryStore

    class Away(MemoryStore):
        def execute(self, operation: Any) -> Any:
            raise StoreUnavailable("away")

        async def aexecute(self, operation: Any) -> Any:
            raise StoreUnavailable("away")

    seen = Seen()
    guard = Guard(PRICE, store=Away(), max_steps=5, on_store_error=policy)

    async with session_of(guard, server(seen), **NAMES) as session:
        if policy == "closed":
            with pytest.raises(CallRefused):
                await session.call_tool("echo", {"q": "a"})
        else:
            assert text_of(await session.call_tool("echo", {"q": "a"})) == "found a"
    guard.close()

    assert len(seen.calls) == (policy == "open")


async def test_what_fails_in_the_guard_does_not_fail_the_call() -> None:
    seen, guard = Seen(), guarded(max_steps=5)

    def broken(call: object) -> object:
        raise RuntimeError("a bug of ours")

    guard.engine.charges.tool_charge = broken  # pyright: ignore[reportAttributeAccessIssue]
    async with session_of(guard, server(seen), **NAMES) as session:
        assert text_of(await session.call_tool("echo", {"q": "a"})) == "found a"

    assert guard.engine.failures == 1


async def test_a_guard_that_is_off_does_nothing() -> None:
    seen, guard = Seen(), guarded(mode="off", max_steps=0)

    async with session_of(guard, server(seen), **NAMES) as session:
        await session.call_tool("echo", {"q": "a"})

    assert seen.calls == ["echo"]


# --- whose budget -----------------------------------------------------------


async def test_inside_a_session_the_call_is_charged_to_that() -> None:
    guard = guarded(max_steps=2)
    wrap = {**NAMES, "customer_id": "acme", "feature": "maps"}

    async with session_of(guard, server(Seen()), **wrap) as session:
        async with guard.session("router", feature="triage", session_id="outer") as s:
            await session.call_tool("echo", {"q": "a"})

    (event,) = s.events()
    who = event.attribution
    assert (who.agent, who.feature, who.customer_id) == ("router", "triage", "acme")
    assert guard.account("s-1") is None


async def test_two_sessions_and_another_process_share_one_budget(
    tmp_path: Path,
) -> None:
    store, seen = tmp_path / "ledger.sqlite3", Seen()
    one, other = [Guard({}, store=store, max_steps=10) for _ in range(2)]
    script = Path(__file__).with_name("spender.py")

    async with session_of(one, server(seen), **NAMES) as first:
        async with session_of(other, server(seen), **NAMES) as second:
            env = {
                "GUARDRAILS_STORE": str(store),
                "GUARDRAILS_MAX_STEPS": "10",
                "PYTHONPATH": str(PROJECT),
            }
            command = [sys.executable, "-W", "ignore", str(script), "12"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
            calls = [
                session.call_tool("echo", {"q": f"{n}"})
                for n in range(12)
                for session in (first, second)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            out, _ = process.communicate()

    here = sum(not isinstance(result, BaseException) for result in results)
    assert here == len(seen.calls)
    assert here + int(out) == 10
    one.close()
    other.close()


# --- deadlines --------------------------------------------------------------


async def test_a_call_without_a_timeout_has_a_deadline() -> None:
    rule = {"tools": {"geo-mcp/wait": {"timeout_s": 0.05}}}
    seen, guard = Seen(), guarded(rule)

    async with session_of(guard, server(seen), **NAMES) as session:
        with pytest.raises(ProtocolError) as bare:
            await session.call_tool("wait", {}, seconds(0.01))
        with pytest.raises(ProtocolError) as ours:
            await session.call_tool("wait", {})
        with pytest.raises(ProtocolError):
            request = tool_request("wait", {})
            await session.send_request(request, types.CallToolResult, None)
        await seen.let_go()

    assert code_of(ours.value) == code_of(bare.value)
    assert [event.status for event in events(guard)] == [CallStatus.BROKEN_OFF] * 3


async def test_whoever_gives_a_timeout_keeps_it() -> None:
    rule = {"tools": {"geo-mcp/wait": {"timeout_s": 0.01}}}
    seen, guard = Seen(), guarded(rule)
    app = server(seen)

    async def answers_late(session: Any, *timeout: Any) -> None:
        seen.gate.clear()
        call = asyncio.create_task(session.call_tool("wait", {}, *timeout))
        await asyncio.sleep(0.05)
        seen.gate.set()
        assert text_of(await call) == "waited"

    async with session_of(guard, app, **NAMES) as session:
        await answers_late(session, seconds(5))
    async with connected(
        app, lambda s: guard.wrap(s, **NAMES), read_timeout_seconds=seconds(5)
    ) as session:
        await answers_late(session)


@second_only
async def test_a_guard_that_only_observes_sets_no_deadline() -> None:
    rule = {"mode": "observe", "tools": {"geo-mcp/wait": {"timeout_s": 0.01}}}
    seen, guard = Seen(), guarded(rule)

    async with session_of(guard, server(seen), **NAMES) as session:
        call = asyncio.create_task(session.call_tool("wait", {}))
        await asyncio.sleep(0.05)
        seen.gate.set()
        assert text_of(await call) == "waited"


# --- costs that a server reports ---------------------------------------------


@pytest.mark.parametrize("cost", ["0.0025", 0.0025, "0.00250000000001"])
async def test_a_reported_cost_is_booked_where_the_operator_believes_it(
    cost: object,
) -> None:
    rule = {"cost_per_call_usd": "0.01", "cost_from_meta": "acme.com/cost_usd"}
    guard = guarded({"tools": {"geo-mcp/*": rule}})

    async with session_of(guard, server(Seen()), **NAMES) as session:
        await session.call_tool("paid", {"cost": cost})

    (event,) = events(guard)
    assert event.charge.cost_nano_usd == 2_500_000
    assert event.charge.status is PriceStatus.REPORTED


async def test_a_reported_cost_is_ignored_without_the_operator_s_word() -> None:
    guard = guarded()

    async with session_of(guard, server(Seen()), **NAMES) as session:
        await session.call_tool("paid", {"cost": "0.50"})

    (event,) = events(guard)
    assert event.charge.cost_nano_usd == 10_000_000
    assert guard.engine.failures == 0


@pytest.mark.parametrize(
    "cost",
    ["-1", -0.5, "NaN", "Infinity", "1e12", 100_000, True, "free", [1], "9" * 99],
)
async def test_a_cost_that_is_none_is_ignored_and_counted(cost: object) -> None:
    rule = {"cost_per_call_usd": "0.01", "cost_from_meta": "acme.com/cost_usd"}
    guard = guarded({"tools": {"geo-mcp/*": rule}})

    async with session_of(guard, server(Seen()), **NAMES) as session:
        await session.call_tool("paid", {"cost": cost})

    (event,) = events(guard)
    assert event.charge.cost_nano_usd == 10_000_000
    assert guard.engine.failures == 1


def seconds(number: float) -> Any:
    """A timeout as the installed major wants it."""
    from datetime import timedelta

    return timedelta(seconds=number) if FIRST else number


def code_of(error: Any) -> int:
    return error.error.code if FIRST else error.code
