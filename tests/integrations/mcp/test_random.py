"""Random hosts: whatever they call, cancel and close, each execution is booked once."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random  # noqa: TID251 - seeded, so that every run is alike
from typing import Any

import pytest

from guardrails import CallRefused, Guard, SessionStopped
from guardrails.core.calls import CallKind
from tests.integrations.mcp.peers import ProtocolError, Seen, connected, server

pytest.importorskip("fastmcp", minversion="4", reason="needs FastMCP 4 (mcp 2.x)")

import fastmcp
from fastmcp.exceptions import ToolError
from mcp import Client

WAYS = ("session", "sdk", "sdk-legacy", "fastmcp", "fastmcp-legacy")
TOOLS = ("echo", "same", "fail", "wait", "numbers", "steps", "nobody")
LIMITS: tuple[dict[str, Any], ...] = (
    {},
    {"max_steps": 3},
    {"max_tool_calls": 6},
    {"max_cost_usd": "0.04"},
)
CALLS_MAX = {"max_steps": 3, "max_tool_calls": 6, "max_cost_usd": 4}
SESSIONS = ("s-1", "s-2")
PRICE_NANO_USD = 10_000_000
STOPS = ("budget_exceeded", "loop_detected")
SEEDS = 150
ERRORS = (ProtocolError, ToolError, TimeoutError)
"""What a host may get of the SDK, whose calls were cut off or have failed."""


def guard_of(random: Random, limits: dict[str, Any]) -> Guard:
    config = {
        "mode": random.choice(("enforce", "enforce", "observe")),
        "tools": {"*": {"cost_per_call_usd": "0.01"}},
        "defaults": {"loop": {"action": random.choice(("warn", "block", "stop"))}},
    }
    return Guard(config, store="memory://", **limits)


@contextlib.asynccontextmanager
async def clients_of(guard: Guard, way: str, app: Any) -> AsyncIterator[list[Any]]:
    """Clients of one server that are guarded together, as hosts make them."""
    if way == "session":
        async with connected(app, lambda one: guard.wrap(one, server="geo")) as one:
            yield [one]
        return
    kind: Any = fastmcp.Client if way.startswith("fastmcp") else Client
    mode = "legacy" if way.endswith("legacy") else "auto"
    first = guard.wrap(kind(app, mode=mode), server="geo")
    clients = [first, first.new()] if kind is fastmcp.Client else [first]
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(one) for one in clients]


async def call(random: Random, client: Any) -> str:
    """Makes a call, and says how it ended; now and then it is cancelled."""
    tool = random.choice(TOOLS)
    arguments = {} if tool in ("numbers", "steps") else {"q": random.choice("ab")}
    task = asyncio.ensure_future(client.call_tool(tool, arguments))
    is_cut = tool == "wait" or random.random() < 0.3
    if is_cut:
        for _ in range(random.choice((0, 1, 2, 5, 13, 30))):
            await asyncio.sleep(0)
        task.cancel()
    try:
        await task
    except (SessionStopped, CallRefused):
        return "refused"
    except ERRORS:
        return "failed"
    except asyncio.CancelledError:
        assert is_cut
        return "cut"
    return "answered"


async def host(random: Random, guard: Guard, clients: list[Any]) -> Counter[str]:
    """Makes calls in a session, one after the other and several at the same time."""
    ends: Counter[str] = Counter()
    async with guard.session("support", session_id=random.choice(SESSIONS)):
        for _ in range(random.randint(1, 4)):
            count = random.choice((1, 1, 4))
            calls = [call(random, random.choice(clients)) for _ in range(count)]
            ends.update(await asyncio.gather(*calls))
    return ends


async def calls_after_stops(guard: Guard, clients: list[Any]) -> None:
    """Calls everything once more in each session that is over."""
    for session_id in SESSIONS:
        if guard.session(session_id=session_id).status in STOPS:
            async with guard.session("support", session_id=session_id):
                for client in clients:
                    with pytest.raises(SessionStopped):
                        await client.call_tool("echo", {"q": "z"})


def booked_in(guard: Guard, session_id: str, limits: dict[str, Any]) -> int:
    """Returns how many calls a session has booked, once its account adds up."""
    account = guard.account(session_id)
    events = guard.session(session_id=session_id).events()
    if account is None:
        assert not events
        return 0
    assert {event.kind for event in events} <= {CallKind.TOOL}
    assert account.steps == len(events)  # None is left on hold.
    assert account.held_nano_usd == 0
    assert account.posted_nano_usd == len(events) * PRICE_NANO_USD
    if limits and guard.engine.policy.mode == "enforce":
        assert account.steps <= CALLS_MAX[next(iter(limits))]
    return len(events)


@pytest.mark.parametrize("way", WAYS)
async def test_each_execution_is_booked_once_whatever_hosts_do(way: str) -> None:
    for seed in range(SEEDS // len(WAYS)):
        random, seen = Random(f"{way} {seed}"), Seen()
        limits = random.choice(LIMITS)
        guard = guard_of(random, limits)
        enforces = guard.engine.policy.mode == "enforce"

        async with asyncio.timeout(20), clients_of(guard, way, server(seen)) as clients:
            hosts = [host(random, guard, clients) for _ in range(random.randint(1, 4))]
            ends = sum(await asyncio.gather(*hosts), Counter[str]())
            await seen.let_go()
            if enforces:
                executed = len(seen.calls)
                await calls_after_stops(guard, clients)
                assert len(seen.calls) == executed, seed

        booked = sum(booked_in(guard, one, limits) for one in SESSIONS)
        assert guard.engine.failures == 0, seed
        assert not (ends["refused"] and not enforces), seed
        assert len(seen.calls) <= booked <= ends.total() - ends["refused"], seed
