"""Faults of ours, or of what a guard was given, that must not reach the agent.

They are contained, counted and logged. No call that was made is lost: where its
price cannot be found, what was held is booked, and says that it is an estimate.
"""

import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from guardrails import (
    BudgetExceeded,
    Charge,
    Guard,
    GuardedCall,
    PriceStatus,
    TokenUsage,
    UnpricedModelError,
)
from guardrails.core.calls import ToolCall
from guardrails.core.usage import UNPRICED
from guardrails.stores.memory import MemoryStore
from guardrails.testing import FakeClock
from guardrails_langchain import GuardCallbackHandler
from guardrails_langchain.testing import ScriptedChatModel


def ask_model(guard: Guard) -> GuardedCall:
    return guard.call(
        model="gpt-4o", provider="openai", input_tokens=2_000, max_output_tokens=500
    )


USAGE = TokenUsage(input_tokens=1_000)

# --- sinks ------------------------------------------------------------------


class BrokenSink:
    """Raises whatever it is told."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no route to the webhook")


class Recorder:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self.told.append(name)


def test_a_sink_that_raises_changes_nothing_for_the_agent() -> None:
    after = Recorder()
    guard = Guard(
        {},
        store="memory://",
        max_cost_usd="0.02",
        soft_alert_usd="0.01",
        sinks=[BrokenSink(), after],
    )

    with guard.session() as session:
        for _ in range(2):
            with ask_model(guard):
                pass
        with pytest.raises(BudgetExceeded), ask_model(guard):
            pytest.fail("the limit still holds")

    assert session.spent == Decimal("0.02")
    assert after.told == ["settled", "crossed", "settled", "stopped"]
    assert guard.engine.failures == 4


def test_a_sink_is_told_of_what_a_settlement_ends() -> None:
    sink = Recorder()
    loops = {"defaults": {"loop": {"action": "stop"}}}
    guard = Guard(loops, store="memory://", max_cost_usd="0.02", sinks=[sink])
    with guard.session(), guard.call(tool="t", cost_usd="0.01") as call:
        call.settle(cost_usd="0.03")
    told, sink.told = sink.told, []
    with guard.session():
        for _ in range(3):
            with guard.call(tool="t", arguments={"a": 1}) as call:
                call.settle(result="the same")

    assert told == ["settled", "stopped"]
    assert sink.told == ["settled"] * 3 + ["looped", "stopped"]


def test_failures_are_logged_ever_more_rarely_and_without_their_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Guard({}, store="memory://", sinks=[BrokenSink()])

    with guard.session():
        for _ in range(100):
            with guard.call(tool="t"):
                pass

    errors = [it for it in caplog.records if it.levelno == logging.ERROR]
    assert guard.engine.failures == 100
    assert 1 <= len(errors) <= 10
    assert "RuntimeError" in caplog.text
    assert "no route" not in caplog.text, "an error's text may hold content"


# --- price books ------------------------------------------------------------


class Book:
    """A price book whose answers are given by kind of question."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers

    def _answer(self, question: str) -> Any:
        answer = self._answers.get(question, UNPRICED)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def price(self, **call: object) -> Charge:
        return self._answer("price")

    def bound(self, **call: object) -> Charge:
        return self._answer("bound")

    def worst_case(self, **call: object) -> Charge:
        return self._answer("worst_case")


def cents(count: int) -> Charge:
    return Charge(cost_nano_usd=count * 10_000_000, status=PriceStatus.PRICED)


def silly(cost: object) -> Charge:
    """A charge that a book of somebody else might return."""
    charge = cents(0)
    object.__setattr__(charge, "cost_nano_usd", cost)
    return charge


NO_ANSWERS: dict[str, object] = {
    "raises": KeyError("gpt-4o"),
    "nothing": None,
    "a float": silly(0.01),
    "a negative cost": silly(-1),
    "not a number": silly(float("nan")),
    "more than a ledger can hold": silly(2**60),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_a_book_that_fails_at_settling_books_what_was_held(answer: object) -> None:
    book = Book(bound=cents(3), price=answer)
    guard = Guard({}, store="memory://", max_cost_usd="1.00", prices=book)

    with guard.session() as session, ask_model(guard) as call:
        call.settle(USAGE)

    (event,) = session.events()
    assert event.usage == USAGE
    assert event.charge.status is PriceStatus.ESTIMATED
    assert session.spent == Decimal("0.03")
    assert session.remaining == Decimal("0.97")
    assert guard.engine.failures


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_a_book_that_fails_before_a_call_knows_no_price(answer: object) -> None:
    guard = Guard({}, store="memory://", max_cost_usd="1.00", prices=Book(bound=answer))

    with guard.session() as session, pytest.raises(UnpricedModelError):
        ask_model(guard).__enter__()

    assert session.steps == 0
    assert guard.engine.failures == 1


def test_a_book_that_fails_before_a_call_does_not_stop_it_without_a_cost_limit() -> (
    None
):
    book = Book(bound=KeyError(), price=cents(2))
    guard = Guard({}, store="memory://", max_steps=5, prices=book)

    with guard.session() as session, ask_model(guard) as call:
        call.settle(USAGE)

    assert session.spent == Decimal("0.02")


def test_a_book_that_knows_no_worst_case_is_no_way_past_a_limit() -> None:
    guard = Guard(
        {},
        store="memory://",
        max_cost_usd="1.00",
        on_unpriced="worst_case",
        prices=Book(worst_case=KeyError()),
    )

    with guard.session() as session, pytest.raises(UnpricedModelError):
        ask_model(guard).__enter__()

    assert session.steps == 0


def test_a_book_that_always_fails_books_an_unknown_cost_as_unknown() -> None:
    book = Book(bound=KeyError(), price=KeyError())
    guard = Guard({}, store="memory://", prices=book)

    with guard.session() as session, ask_model(guard) as call:
        call.settle(USAGE)

    (event,) = session.events()
    assert event.charge.cost_nano_usd is None
    assert event.usage == USAGE


# --- mode off ---------------------------------------------------------------


class Untouchable:
    """A store, or a price book, that nobody may ask."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


def test_a_guard_that_is_off_does_nothing() -> None:
    guard = Guard(
        {},
        store=Untouchable(),
        prices=Untouchable(),
        sinks=[Untouchable()],
        mode="off",
        max_steps=0,
        max_cost_usd=0,
    )

    @guard.tool(cost_usd="1.00")
    def echo(it: object) -> object:
        return it

    with guard.session("a", session_id="s") as session:
        with ask_model(guard) as call:
            call.settle(USAGE)
        with guard.call(tool="t", arguments={"a": 1}) as call:
            call.release()
        assert [echo(1) for _ in range(20)] == [1] * 20

    assert (session.spent, session.steps, session.remaining) == (0, 0, 0)
    assert session.status == "completed"
    assert not session.events()
    assert not guard.engine.failures


async def test_a_guard_that_is_off_does_nothing_in_asyncio() -> None:
    guard = Guard({}, store=Untouchable(), mode="off", max_steps=0)

    async with guard.session("a", session_id="s"), ask_model(guard) as call:
        call.settle(USAGE)

    assert not guard.engine.failures


def test_a_guard_that_is_off_does_nothing_in_langchain() -> None:
    guard = Guard({}, store=Untouchable(), mode="off", max_steps=0)
    model = ScriptedChatModel(script=lambda number, messages: AIMessage("hello"))

    with guard.session("a"):
        assert model.invoke("hi").content == "hello"
    handler = GuardCallbackHandler(guard)
    assert model.invoke("hi", {"callbacks": [handler]}).content == "hello"

    assert not guard.engine.failures


def test_a_guard_that_is_off_creates_no_file(tmp_path: Path) -> None:
    guard = Guard({}, store=tmp_path / "ledger.sqlite3", mode="off", max_steps=0)

    with guard.session("a", session_id="s") as session, ask_model(guard):
        assert session.spent == 0
    guard.close()

    assert not list(tmp_path.iterdir())


# --- calls that never end -----------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_process_that_died_has_held_counts_as_unconfirmed(
    is_async: bool,
) -> None:
    """Ten minutes later, by the next call that anybody settles, of any kind."""
    clock, store = FakeClock(), MemoryStore()
    lost = Guard({}, store=store, clock=clock)
    lost.session(session_id="lost").begin(ToolCall(tool="t", cost_nano_usd=7))
    clock.advance(seconds=600)

    call = Guard({}, store=store, clock=clock).call(tool="t")
    if is_async:
        async with call:
            pass
    else:
        with call:
            pass

    account = lost.account("lost")
    assert account is not None
    assert (account.held_nano_usd, account.unconfirmed_nano_usd) == (0, 7)
