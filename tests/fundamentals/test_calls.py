"""Calls: reserve the most a call may cost, make it, and book what it did cost."""

import asyncio
import signal
from decimal import Decimal

import pytest

from guardrails import BudgetExceeded, Guard, PriceStatus, TokenUsage
from tests.signals import TimeLimit, raising


def test_a_call_is_booked_with_what_it_consumed() -> None:
    """`settle` takes the tokens that the provider reports."""
    guard = Guard(store="memory://")

    with (
        guard.session("support-agent") as session,
        guard.call(
            model="gpt-4o", provider="openai", input_bytes=8_000, max_output_tokens=500
        ) as call,
    ):
        call.settle(TokenUsage(input_tokens=1_800, output_tokens=120))

    assert session.spent == Decimal("0.0057")


async def test_a_call_works_the_same_in_asyncio() -> None:
    """`async with` reserves and settles without blocking the event loop."""
    guard = Guard(store="memory://")

    async with guard.session("support-agent") as session:
        async with guard.call(
            model="gpt-4o", provider="openai", input_bytes=8_000, max_output_tokens=500
        ) as call:
            call.settle(TokenUsage(input_tokens=1_800, output_tokens=120))
        assert session.spent == Decimal("0.0057")


def test_a_call_holds_its_upper_bound_while_it_runs() -> None:
    """What a running call may cost is not there for others to spend."""
    guard = Guard(store="memory://", max_cost_usd="0.10")

    with guard.session("support-agent") as session:
        with guard.call(
            model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
        ):
            assert session.spent == 0
            assert session.remaining == Decimal("0.09")
        assert session.spent == Decimal("0.01")


def test_a_call_that_does_not_fit_is_not_made() -> None:
    """The exception comes before the body of the `with` block runs."""
    guard = Guard(store="memory://", max_cost_usd="0.01")
    made = False

    with (
        guard.session("support-agent"),
        pytest.raises(BudgetExceeded),
        guard.call(
            model="gpt-4o", provider="openai", input_tokens=4_001, max_output_tokens=0
        ),
    ):
        made = True

    assert not made


def test_a_call_that_reports_nothing_is_booked_at_its_bound() -> None:
    """Without `settle` the whole reservation counts, flagged as estimated."""
    guard = Guard(store="memory://")

    with (
        guard.session("support-agent") as session,
        guard.call(
            model="gpt-4o", provider="openai", input_tokens=2_000, max_output_tokens=500
        ),
    ):
        pass

    (event,) = session.events()
    assert event.charge.status is PriceStatus.ESTIMATED
    assert session.spent == Decimal("0.01")


def test_a_call_that_was_never_sent_is_given_back() -> None:
    """`release` undoes the reservation, and the call is no step."""
    guard = Guard(store="memory://", max_cost_usd="0.10")

    with guard.session("support-agent") as session:
        with guard.call(
            model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
        ) as call:
            call.release()
        assert session.remaining == Decimal("0.10")

    assert session.steps == 0


class ConnectTimeout(TimeoutError):
    """As the clients of HTTP name it: no request was sent."""


@pytest.mark.parametrize("error", [ConnectionError, ConnectTimeout])
def test_a_call_that_fails_is_booked_with_its_input(error: type[Exception]) -> None:
    """A provider may bill what it has read, so at least that is charged."""
    guard = Guard(store="memory://")

    with (
        guard.session("support-agent") as session,
        pytest.raises(error),
        guard.call(
            model="gpt-4o", provider="openai", input_tokens=2_000, max_output_tokens=500
        ),
    ):
        raise error

    (event,) = session.events()
    assert event.error_type == error.__name__
    assert session.spent == Decimal("0.005")


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError,
        ConnectionResetError,
        asyncio.CancelledError,
        KeyboardInterrupt,
        SystemExit,
    ],
)
def test_a_call_whose_answer_is_lost_is_booked_with_all_that_was_reserved(
    error: type[BaseException],
) -> None:
    """A provider goes on without its client, and bills the answer."""
    guard = Guard(store="memory://")

    with (
        guard.session("support-agent") as session,
        pytest.raises(error),
        guard.call(
            model="gpt-4o", provider="openai", input_tokens=2_000, max_output_tokens=500
        ),
    ):
        raise error

    assert session.spent == Decimal("0.01")


def test_a_call_that_a_time_limit_ends_is_booked_with_all_that_was_reserved() -> None:
    """As those of Celery, which are errors like any other, but for where they come."""
    guard = Guard(store="memory://")
    before = signal.signal(signal.SIGTERM, lambda *_: raising(TimeLimit)())
    try:
        with (
            guard.session("support-agent") as session,
            pytest.raises(TimeLimit),
            guard.call(
                model="gpt-4o",
                provider="openai",
                input_tokens=2_000,
                max_output_tokens=500,
            ),
        ):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert session.spent == Decimal("0.01")


def test_a_cost_that_the_provider_reports_beats_any_table() -> None:
    """A gateway that bills by itself knows best."""
    guard = Guard(store="memory://")

    with (
        guard.session("support-agent") as session,
        guard.call(model="gpt-4o", provider="openai", input_bytes=8_000) as call,
    ):
        call.settle(
            TokenUsage(input_tokens=1_800, output_tokens=120), cost_usd="0.0042"
        )

    (event,) = session.events()
    assert event.charge.status is PriceStatus.REPORTED
    assert session.spent == Decimal("0.0042")


def test_a_model_of_your_own_has_a_price_of_your_own() -> None:
    """`models` prices what no public table knows."""
    rates = {"input_per_1m_usd": "3.00", "output_per_1m_usd": "15.00"}
    guard = Guard({"models": {"my-finetune": rates}}, store="memory://")

    with (
        guard.session("support-agent") as session,
        guard.call(model="my-finetune", input_bytes=8_000) as call,
    ):
        call.settle(TokenUsage(input_tokens=1_000, output_tokens=100))

    assert session.spent == Decimal("0.0045")


def test_a_call_of_a_tool_has_the_price_that_you_give_it() -> None:
    """`guard.call` guards a tool in the same way."""
    guard = Guard(store="memory://")

    with (
        guard.session("support-agent") as session,
        guard.call(tool="geocode", server="maps", cost_usd="0.005"),
    ):
        pass

    (event,) = session.events()
    assert (event.server, event.tool) == ("maps", "geocode")
    assert session.spent == Decimal("0.005")
