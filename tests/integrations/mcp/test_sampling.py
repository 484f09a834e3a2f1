"""Sampling: a server that asks the client's model spends the client's budget."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from mcp import types

from guardrails import Guard
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.usage import PriceStatus
from guardrails_mcp import sampling_callback
from tests.integrations.mcp.peers import (
    Seen,
    connected,
    events,
    fails,
    own_session,
    server,
    text_of,
)

NAMES: dict[str, Any] = {"agent": "support", "server": "geo-mcp", "session_id": "s-1"}


class Model:
    """The client's model, as a sampling callback."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls = 0
        self._error = error

    async def __call__(self, context: Any, params: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        answer = {
            "role": "assistant",
            "content": {"type": "text", "text": "Paris"},
            "model": "gpt-4o-2024-11-20",
        }
        return types.CreateMessageResult.model_validate(answer)


def guarded(**limits: Any) -> Guard:
    return Guard({}, store="memory://", **limits)


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
async def test_a_sampling_request_counts_as_a_model_call(early: bool) -> None:
    model, guard = Model(), guarded(max_cost_usd="1.00")

    async with connected(
        server(Seen()),
        lambda s: guard.wrap(s, **NAMES),
        early=early,
        sampling_callback=model,
    ) as session:
        assert text_of(await session.call_tool("think", {})) == "Paris"

    asked, called = events(guard)
    assert (asked.kind, asked.model) == (CallKind.MODEL, "gpt-4o-2024-11-20")
    assert asked.usage is not None
    assert asked.usage.output_tokens == 100  # The request's bound.
    assert asked.usage.input_tokens >= len("What is the capital of France?")
    assert asked.charge.status is PriceStatus.ESTIMATED
    assert own_session(guard).spent > Decimal(0)
    assert called.kind is CallKind.TOOL
    assert model.calls == 1


async def test_a_sampling_request_is_refused_at_the_limit() -> None:
    model, guard = Model(), guarded(max_model_calls=1)

    async with connected(
        server(Seen()), lambda s: guard.wrap(s, **NAMES), sampling_callback=model
    ) as session:
        await session.call_tool("think", {"hint": "gpt-4o"})
        refused = await fails(session.call_tool("think", {"hint": "gpt-4o-mini"}))

    assert model.calls == 1
    assert refused
    assert [event.kind for event in events(guard)].count(CallKind.MODEL) == 1


async def test_a_model_of_unknown_price_is_refused_under_a_cost_limit() -> None:
    model, guard = Model(), guarded(max_cost_usd="1.00")

    async with connected(
        server(Seen()), lambda s: guard.wrap(s, **NAMES), sampling_callback=model
    ) as session:
        refused = await fails(session.call_tool("think", {"hint": "nobody-knows-this"}))

    assert refused
    assert model.calls == 0


async def test_a_callback_that_fails_is_booked() -> None:
    guard = guarded()

    async with connected(
        server(Seen()),
        lambda s: guard.wrap(s, **NAMES),
        sampling_callback=Model(RuntimeError("no model")),
    ) as session:
        assert await fails(session.call_tool("think", {}))

    asked = events(guard)[0]
    assert (asked.kind, asked.status) == (CallKind.MODEL, CallStatus.ERROR)


async def test_a_client_that_cannot_sample_says_so_as_before() -> None:
    """The SDK's own default declines: that is no model call, and no capability."""
    guard = guarded(max_steps=1)

    async with connected(
        server(Seen()), lambda s: guard.wrap(s, **NAMES), early=True
    ) as session:
        assert await fails(session.call_tool("think", {}))

    assert [event.kind for event in events(guard)] == [CallKind.TOOL]


async def test_it_is_charged_to_the_session_that_called_the_tool() -> None:
    """The connection may have been opened long before, outside of any session."""
    guard = guarded()

    async with connected(
        server(Seen()), lambda s: guard.wrap(s, **NAMES), sampling_callback=Model()
    ) as session:
        async with guard.session("router", customer_id="acme") as s:
            await session.call_tool("think", {})

    kinds = [event.kind for event in s.events()]
    assert kinds == [CallKind.MODEL, CallKind.TOOL]
    assert guard.account("s-1") is None


async def test_a_guarded_callback_counts_without_a_wrapped_session() -> None:
    model, guard = Model(), guarded(max_model_calls=1)
    callback = sampling_callback(guard, model)

    with guard.session(session_id="s-1"):
        async with connected(server(Seen()), sampling_callback=callback) as session:
            await session.call_tool("think", {})
            refused = await fails(session.call_tool("think", {}))

    assert refused
    assert model.calls == 1
    assert own_session(guard).steps == 1


async def test_a_guarded_callback_counts_once_in_a_wrapped_session() -> None:
    model, guard = Model(), guarded()
    callback = sampling_callback(guard, model)

    async with connected(
        server(Seen()), lambda s: guard.wrap(s, **NAMES), sampling_callback=callback
    ) as session:
        await session.call_tool("think", {})

    assert [event.kind for event in events(guard)].count(CallKind.MODEL) == 1
