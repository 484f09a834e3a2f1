"""Self-test: whether a limit stops a tool call that the installed SDK makes here."""

import asyncio
import contextlib
import logging
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import anyio
from mcp import ClientSession, types
from mcp.shared.message import SessionMessage

from guardrails import BudgetExceeded, Guard
from guardrails.core.policy import SESSION_BUDGET, Limits, Policy
from guardrails.stores.memory import MemoryStore

__all__ = ["self_test"]

_POLICY = Policy(session=replace(SESSION_BUDGET, limits=Limits(steps=1)))
"""The second call of a session is one too many."""

_ANSWERS: Mapping[str, Mapping[str, object]] = {
    "tools/call": {"content": []},
    "tools/list": {"tools": []},
}
"""All that the fake server says. The SDK lists the tools after a first call."""


def self_test() -> Mapping[str, bool]:
    """Calls a tool of a fake server past a limit, through the SDK's own session.

    Keeps its ledger in memory, and logs nothing.

    Returns:
        Whether the limit stopped `call_tool` before the server saw the call.
    """
    with _quiet():
        guard = Guard(policy=_POLICY, store=MemoryStore())
        try:
            return {"call_tool": asyncio.run(_stops_call_tool(guard))}
        finally:
            guard.close()


async def _stops_call_tool(guard: Guard) -> bool:
    to_server, at_server = anyio.create_memory_object_stream[Any](8)
    to_client, at_client = anyio.create_memory_object_stream[Any](8)
    methods: list[str] = []
    async with to_server, at_server, to_client, at_client:
        server = asyncio.create_task(_serve(at_server, to_client, methods))
        async with ClientSession(at_client, to_server) as session:
            guard.wrap(session, agent="doctor", session_id="doctor-call-tool")
            await session.call_tool("first")
            stopped = False
            try:
                await session.call_tool("second")
            except BudgetExceeded:
                stopped = True
        server.cancel()
        await asyncio.wait([server])
    return stopped and methods.count("tools/call") == 1


async def _serve(requests: Any, answers: Any, methods: list[str]) -> None:
    """Answers every request, and notes what it was."""
    wrap: Any = types.JSONRPCMessage if isinstance(types.JSONRPCMessage, type) else None
    async for request in requests:
        message = getattr(request.message, "root", request.message)
        methods.append(message.method)
        answer = types.JSONRPCResponse(
            jsonrpc="2.0", id=message.id, result=dict(_ANSWERS[message.method])
        )
        await answers.send(SessionMessage(wrap(answer) if wrap else answer))


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keeps what is provoked here out of the log: the stop, and the SDK's surprise."""
    loggers = [logging.getLogger(name) for name in ("guardrails", "client")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
